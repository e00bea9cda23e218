//! What could not be carried over: each line by its number and its text, with the reason and the remedy.

use std::{fmt, rc::Rc};

/// What a remark means for the configuration that came out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The line, or a part of it, is not in the configuration.
    Left,
    /// It is there as what comes nearest.
    Changed,
    /// Only the operator knows what must be written there.
    Missing,
}

/// One line that is not, or not quite, what it was.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Remark {
    /// What it means.
    pub kind: Kind,
    /// The file, as the user named it or as another file includes it.
    pub file: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The line, without the space around it.
    pub text: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            file,
            line,
            text,
            why,
            help,
        } = self;
        let kind = match kind {
            Kind::Left => "not carried over",
            Kind::Changed => "changed",
            Kind::Missing => "to be filled in",
        };
        match line {
            0 => write!(f, "{kind}: {file}: {why}\n  help: {help}"),
            line => write!(f, "{kind}: {file}:{line}: `{text}`: {why}\n  help: {help}"),
        }
    }
}

/// Where something stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) file: Rc<str>,
    /// From 1.
    pub(super) number: usize,
    /// Without the space around it.
    pub(super) text: Rc<str>,
}

/// Remarks, as they are found.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Remark>);

impl Report {
    /// A line that is not in the configuration.
    pub(super) fn left(&mut self, at: &Line, why: impl Into<String>, help: impl Into<String>) {
        self.add(Kind::Left, at, why.into(), help.into());
    }

    /// A line that has become what comes nearest.
    pub(super) fn changed(&mut self, at: &Line, why: impl Into<String>, help: impl Into<String>) {
        self.add(Kind::Changed, at, why.into(), help.into());
    }

    /// What the operator must write.
    pub(super) fn missing(&mut self, file: &str, why: impl Into<String>, help: impl Into<String>) {
        self.0.push(Remark {
            kind: Kind::Missing,
            file: file.to_owned(),
            line: 0,
            text: String::new(),
            why: why.into(),
            help: help.into(),
        });
    }

    fn add(&mut self, kind: Kind, at: &Line, why: String, help: String) {
        let remark = Remark {
            kind,
            file: at.file.to_string(),
            line: at.number,
            text: at.text.to_string(),
            why,
            help,
        };
        // A line that stands for several VIPs has the same to be said of each.
        if !self.0.contains(&remark) {
            self.0.push(remark);
        }
    }

    /// All of them: files in the order in which they were met, lines in theirs, what is to be filled in last.
    pub(super) fn finish(self) -> Vec<Remark> {
        let mut files: Vec<String> = Vec::new();
        for remark in &self.0 {
            if !files.contains(&remark.file) {
                files.push(remark.file.clone());
            }
        }
        let place = |remark: &Remark| {
            let file = files.iter().position(|file| *file == remark.file);
            (remark.kind == Kind::Missing, file, remark.line)
        };
        let mut remarks = self.0;
        remarks.sort_by_key(place);
        remarks
    }
}
