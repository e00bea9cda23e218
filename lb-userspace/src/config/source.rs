//! A configuration file's text: places in it, and the list of what is wrong with it.

use super::error::{Errors, Finding};

/// The text of a file, and what has been found in it so far.
pub(super) struct Report<'s> {
    file: &'s str,
    text: &'s str,
    /// Byte offset of each line's beginning.
    lines: Vec<usize>,
    findings: Vec<(usize, Finding)>,
}

impl<'s> Report<'s> {
    /// Starts on a file's text without any finding.
    pub(super) fn new(file: &'s str, text: &'s str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self {
            file,
            text,
            lines: std::iter::once(0).chain(after_newlines).collect(),
            findings: Vec::new(),
        }
    }

    /// Notes what is wrong at a byte offset.
    pub(super) fn add(
        &mut self,
        offset: usize,
        key: impl Into<String>,
        found: impl Into<String>,
        wanted: impl Into<String>,
        help: impl Into<String>,
    ) {
        let (line, column) = self.place(offset);
        let finding = Finding {
            file: self.file.to_owned(),
            line,
            column,
            key: key.into(),
            found: found.into(),
            wanted: wanted.into(),
            help: help.into(),
        };
        self.findings.push((offset, finding));
    }

    /// Notes what is wrong in another file, which a key at a byte offset names.
    pub(super) fn add_finding(&mut self, offset: usize, finding: Finding) {
        self.findings.push((offset, finding));
    }

    /// Line and column, from 1, of a byte offset.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = self
            .text
            .get(start..offset)
            .map_or(0, |line| line.chars().count())
            + 1;
        (line, column)
    }

    /// The value, if nothing is wrong; else every finding, in the file's order.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Errors> {
        match value {
            Some(value) if self.findings.is_empty() => Ok(value),
            _ => {
                self.findings.sort_by_key(|(offset, _)| *offset);
                let findings = self.findings.into_iter().map(|(_, finding)| finding);
                Err(Errors::Invalid(findings.collect()))
            }
        }
    }

    /// The key path at a byte offset of text that is not TOML, as well as its lines tell.
    pub(super) fn guess_key(&self, offset: usize) -> String {
        let mut end = self.text.get(offset..).and_then(|rest| rest.find('\n'));
        end = end.map(|length| offset + length);
        let lines = self.text.get(..end.unwrap_or(self.text.len()));
        let lines = lines.unwrap_or_default();

        let mut section = String::new();
        let (mut vip, mut backend) = (None, None);
        for line in lines.lines().map(str::trim) {
            if line.starts_with("[[vip.backend") {
                backend = Some(backend.map_or(0, |index: usize| index + 1));
                section = format!(
                    "vip[{}].backend[{}]",
                    vip.unwrap_or(0),
                    backend.unwrap_or(0)
                );
            } else if line.starts_with("[[vip") {
                vip = Some(vip.map_or(0, |index: usize| index + 1));
                backend = None;
                section = format!("vip[{}]", vip.unwrap_or(0));
            } else if let Some(header) = line.strip_prefix('[') {
                let name: String = header.chars().take_while(|c| is_key(*c)).collect();
                section = match name.strip_prefix("vip.") {
                    Some(rest) => format!("vip[{}].{rest}", vip.unwrap_or(0)),
                    None => name,
                };
            }
        }
        let key: Option<&str> = lines.lines().last().and_then(|line| {
            let (key, _) = line.split_once('=')?;
            let key = key.trim();
            (!key.is_empty() && key.chars().all(is_key)).then_some(key)
        });
        match (section.as_str(), key) {
            ("", None) => "file".to_owned(),
            ("", Some(key)) => key.to_owned(),
            (section, None) => section.to_owned(),
            (section, Some(key)) => format!("{section}.{key}"),
        }
    }
}

/// Whether a bare key may hold a character; a dot joins several.
pub(super) fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_columns_from_one_in_characters() {
        let report = Report::new("f", "a\nüb = 1\n");
        assert_eq!(report.place(0), (1, 1));
        assert_eq!(report.place(2), (2, 1));
        assert_eq!(report.place(4), (2, 2));
        assert_eq!(report.place(99), (3, 1));
    }

    #[test]
    fn guesses_the_key_of_a_line_that_is_not_toml() {
        let text = "[[vip]]\n[[vip]]\n[[vip.backend]]\n[[vip.backend]]\nweight = ?\n";
        let report = Report::new("f", text);
        let at = text.find('?').unwrap();
        assert_eq!(report.guess_key(at), "vip[1].backend[1].weight");
        assert_eq!(Report::new("f", "= 1").guess_key(0), "file");
        assert_eq!(
            Report::new("f", "[node]\nseed = x").guess_key(14),
            "node.seed"
        );
    }
}
