//! Reads tables and values of a TOML tree, and says exactly what is wrong where.
//!
//! serde's own errors stop at the first one and know no key path; this walks the spanned tree instead, so
//! that one run reports everything.

use std::path::PathBuf;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::Keys,
    source::{Report, is_key},
};

/// One table of the file.
pub(super) struct Section<'t> {
    path: String,
    offset: usize,
    table: &'t DeTable<'t>,
}

/// One key of a table, and its value.
pub(super) struct Field<'t> {
    /// Path of the key.
    pub(super) path: String,
    /// The key alone.
    pub(super) key: String,
    /// Byte offset of the value.
    pub(super) offset: usize,
    value: &'t DeValue<'t>,
}

impl<'t> Section<'t> {
    /// A table at a byte offset; reports the keys that it should not have.
    pub(super) fn new(
        path: String,
        offset: usize,
        table: &'t DeTable<'t>,
        keys: &Keys,
        report: &mut Report<'_>,
    ) -> Self {
        let section = Self {
            path,
            offset,
            table,
        };
        for key in section.table.keys() {
            let name = key.get_ref().as_ref();
            let at = key.span().start;
            if keys.later.contains(&name) {
                let found = format!("`{name}`, which is not in this version of weir");
                let help = format!("take `{name}` out");
                report.add(at, section.path_of(name), found, keys.list(), help);
            } else if !keys.known.contains(&name) {
                let help = match keys.nearest(name) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => "take it out, or move it to the section that it belongs to".to_owned(),
                };
                // A quoted key can hold anything, also what a terminal obeys.
                let is_bare = name.chars().all(is_key);
                let shown = if is_bare {
                    name.to_owned()
                } else {
                    format!("{name:?}")
                };
                report.add(
                    at,
                    section.path_of(&shown),
                    "an unknown key",
                    keys.list(),
                    help,
                );
            }
        }
        section
    }

    /// Where the section begins, in bytes.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    /// Path of one of its keys.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// A key, if the section has it.
    pub(super) fn field(&self, key: &str) -> Option<Field<'t>> {
        let value: &'t Spanned<DeValue<'t>> = self.table.get(key)?;
        Some(Field {
            path: self.path_of(key),
            key: key.to_owned(),
            offset: value.span().start,
            value: value.get_ref(),
        })
    }

    /// A key that the section must have.
    pub(super) fn required(
        &self,
        key: &str,
        wanted: &str,
        help: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'t>> {
        let field = self.field(key);
        if field.is_none() {
            report.add(self.offset, self.path_of(key), "nothing", wanted, help);
        }
        field
    }
}

impl<'t> Field<'t> {
    /// Reports the value as not what is wanted.
    pub(super) fn refuse(&self, wanted: &str, help: &str, report: &mut Report<'_>) {
        report.add(self.offset, &self.path, describe(self.value), wanted, help);
    }

    /// Reports the value without showing it.
    pub(super) fn refuse_unshown(&self, wanted: &str, help: &str, report: &mut Report<'_>) {
        let found = match self.value.as_str() {
            Some("") => "an empty string".to_owned(),
            _ => kind(self.value).to_owned(),
        };
        report.add(self.offset, &self.path, found, wanted, help);
    }

    /// The value, if it is a string.
    pub(super) fn text(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    /// A string that `parse` takes.
    pub(super) fn parse<T>(
        &self,
        wanted: &str,
        help: &str,
        report: &mut Report<'_>,
        parse: impl FnOnce(&'t str) -> Option<T>,
    ) -> Option<T> {
        let value = self.text().and_then(parse);
        if value.is_none() {
            self.refuse(wanted, help, report);
        }
        value
    }

    /// An integer from 0 to 65,535.
    pub(super) fn u16(&self, wanted: &str, help: &str, report: &mut Report<'_>) -> Option<u16> {
        self.number(wanted, help, report)
    }

    /// A number of some width.
    pub(super) fn number<N: TryFrom<i128>>(
        &self,
        wanted: &str,
        help: &str,
        report: &mut Report<'_>,
    ) -> Option<N> {
        let value = self.value.as_integer().and_then(|integer| {
            let value = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            N::try_from(value).ok()
        });
        if value.is_none() {
            self.refuse(wanted, help, report);
        }
        value
    }

    /// `true` or `false`.
    pub(super) fn bool(&self, help: &str, report: &mut Report<'_>) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.refuse("`true` or `false`", help, report);
        }
        value
    }

    /// One of a few words; `later` are those of later versions.
    pub(super) fn word<T: Copy>(
        &self,
        words: &[(&str, T)],
        later: &[&str],
        report: &mut Report<'_>,
    ) -> Option<T> {
        let text = self.text();
        let known = words.iter().find(|(word, _)| text == Some(*word));
        if let Some((_, value)) = known {
            return Some(*value);
        }
        let wanted = super::keys::one_of(words.iter().map(|(word, _)| format!("\"{word}\"")));
        let first = words.first().map_or("", |(word, _)| word);
        let mut help = format!("write `{} = \"{first}\"`", self.key);
        if text.is_some_and(|text| later.contains(&text)) {
            help = format!(
                "{} is not in this version of weir: {help}",
                describe(self.value)
            );
        }
        self.refuse(&wanted, &help, report);
        None
    }

    /// An absolute path.
    pub(super) fn path(&self, help: &str, report: &mut Report<'_>) -> Option<PathBuf> {
        self.parse("an absolute path", help, report, |text| {
            let path = PathBuf::from(text);
            path.is_absolute().then_some(path)
        })
    }

    /// Whether the value is a list.
    pub(super) const fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// The items of a list.
    pub(super) fn items(
        &self,
        wanted: &str,
        help: &str,
        report: &mut Report<'_>,
    ) -> Option<Vec<Self>> {
        let Some(array) = self.value.as_array() else {
            self.refuse(wanted, help, report);
            return None;
        };
        let items = array.iter().enumerate().map(|(index, item)| Self {
            path: format!("{}[{index}]", self.path),
            key: self.key.clone(),
            offset: item.span().start,
            value: item.get_ref(),
        });
        Some(items.collect())
    }

    /// A table.
    pub(super) fn section(
        &self,
        wanted: &str,
        help: &str,
        keys: &Keys,
        report: &mut Report<'_>,
    ) -> Option<Section<'t>> {
        let Some(table) = self.value.as_table() else {
            self.refuse_unshown(wanted, help, report);
            return None;
        };
        let path = self.path.clone();
        Some(Section::new(path, self.offset, table, keys, report))
    }
}

/// What a value is, without the value.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A scalar as written, shortened; of anything larger only what it is.
fn describe(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 60;
    match value {
        DeValue::String(text) if text.chars().count() > LONGEST => {
            let start: String = text.chars().take(LONGEST).collect();
            format!(
                "{:?} and {} characters more",
                start,
                text.chars().count() - LONGEST
            )
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => kind(value).to_owned(),
    }
}
