//! Files of prefixes: one a line, `#` begins a comment. Taken as a whole or not at all.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use lb_common::access::MAX_LISTED;

use super::{Errors, Finding, Prefix, prefix::NotAPrefix};

/// [`Finding::key`] of what is wrong in such a file.
pub(super) const KEY: &str = "prefix";

/// So many findings of a file are told.
const MOST_FINDINGS: usize = 20;

/// A file of as many prefixes as there can be, each with a comment, is half of it.
const LARGEST: u64 = 256 * 1024 * 1024;

/// What a file held when it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contents {
    /// The file.
    pub path: PathBuf,
    /// Its prefixes, in the file's order.
    pub prefixes: Arc<[Prefix]>,
    /// How the file was; `None` where it was not read.
    pub stamp: Option<Stamp>,
}

impl Contents {
    /// A file that is not read.
    pub(super) fn unread(path: PathBuf) -> Self {
        Self {
            path,
            prefixes: Arc::default(),
            stamp: None,
        }
    }
}

/// What tells that a file has changed, without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Looks at a file.
    ///
    /// # Errors
    /// It is not there, or this user may not see it.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What a list is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    Allow,
    Deny,
}

impl Use {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The files that one configuration names: each is read once, however many VIPs share it.
#[derive(Default)]
pub(super) struct Files(BTreeMap<PathBuf, Option<Arc<Contents>>>);

impl Files {
    /// Reads a file, or gives what it was. What is wrong with one is told once.
    pub(super) fn read(&mut self, path: &Path) -> Result<Arc<Contents>, Errors> {
        match self.0.get(path) {
            Some(Some(contents)) => Ok(Arc::clone(contents)),
            Some(None) => Err(Errors::Invalid(Vec::new())),
            None => {
                let contents = read(path).map(Arc::new);
                let known = contents.as_ref().ok().map(Arc::clone);
                self.0.insert(path.to_owned(), known);
                contents
            }
        }
    }
}

/// Reads a file of prefixes.
///
/// # Errors
/// It cannot be read, or some lines are no prefixes: the first of them.
pub fn read(path: &Path) -> Result<Contents, Errors> {
    let refuse = |source| Errors::Read {
        path: path.to_owned(),
        source,
    };
    let (text, stamp) = read_text(path).map_err(refuse)?;
    let mut prefixes = Vec::new();
    let mut findings = Vec::new();
    let mut unshown = 0usize;
    for (index, line) in text.lines().enumerate() {
        let written = line.split('#').next().unwrap_or_default();
        let word = written.trim();
        if word.is_empty() {
            continue;
        }
        match word.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(_) if findings.len() >= MOST_FINDINGS => unshown += 1,
            Err(wrong) => {
                let column = written.chars().take_while(|c| c.is_whitespace()).count() + 1;
                findings.push(finding(path, (index + 1, column), word, &wrong));
            }
        }
    }
    if let Some(last) = findings.last_mut().filter(|_| unshown > 0) {
        last.help = format!("{}; {unshown} lines more are wrong", last.help);
    }
    if prefixes.len() > MAX_LISTED {
        findings.push(Finding {
            file: path.display().to_string(),
            line: 1,
            column: 1,
            key: KEY.to_owned(),
            found: format!("{} prefixes", prefixes.len()),
            wanted: format!("at most {MAX_LISTED} in all lists together"),
            help: "join neighbouring prefixes to shorter ones".to_owned(),
        });
    }
    if findings.is_empty() {
        Ok(Contents {
            path: path.to_owned(),
            prefixes: prefixes.into(),
            stamp: Some(stamp),
        })
    } else {
        Err(Errors::Invalid(findings))
    }
}

fn finding(path: &Path, (line, column): (usize, usize), word: &str, wrong: &NotAPrefix) -> Finding {
    const LONGEST: usize = 60;
    let shown: String = word.chars().take(LONGEST).collect();
    Finding {
        file: path.display().to_string(),
        line,
        column,
        key: KEY.to_owned(),
        found: format!("{shown:?}, {wrong}"),
        wanted: "an address or a prefix, one a line".to_owned(),
        help: wrong.help(),
    }
}

/// The text of a file that did not change while it was read.
fn read_text(path: &Path) -> io::Result<(String, Stamp)> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if before.len() > LARGEST {
        return Err(io::Error::other("larger than 256 MiB"));
    }
    let mut text = String::with_capacity(usize::try_from(before.len()).unwrap_or_default());
    (&mut file).take(LARGEST).read_to_string(&mut text)?;
    let stamp = Stamp::new(&before);
    if Stamp::new(&file.metadata()?) != stamp {
        return Err(io::Error::other(
            "it is being written; write beside it and rename",
        ));
    }
    Ok((text, stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_nothing_but_mistakes_is_told_in_short() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "x\n".repeat(100)).unwrap();
        let Err(Errors::Invalid(findings)) = read(&path) else {
            panic!("taken");
        };
        assert_eq!(findings.len(), MOST_FINDINGS);
        let last = findings.last().unwrap();
        assert_eq!(last.line, MOST_FINDINGS);
        assert!(last.help.ends_with("; 80 lines more are wrong"), "{last}");
    }

    #[test]
    fn a_shared_file_is_read_once_and_blamed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "10.0.0.0/8\n").unwrap();
        let mut files = Files::default();
        let first = files.read(&path).unwrap();
        std::fs::write(&path, "nobody\n").unwrap();
        assert!(Arc::ptr_eq(&first, &files.read(&path).unwrap()));
        assert_ne!(first.stamp, Stamp::of(&path).ok());

        let mut files = Files::default();
        let told = |files: &mut Files| files.read(&path).unwrap_err().findings().len();
        assert_eq!((told(&mut files), told(&mut files)), (1, 0));
    }
}
