//! What is wrong with a configuration file: every finding, with its place and its remedy.

use std::{fmt, io, path::PathBuf};

/// One thing that is wrong, where it is and what mends it.
///
/// No finding ever holds a secret's value.
#[derive(Clone, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
pub struct Finding {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the key, as in `vip[0].backend[2].weight`.
    pub key: String,
    /// What the file has there.
    pub found: String,
    /// What weir takes there.
    pub wanted: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            key,
            found,
            wanted,
            help,
        } = self;
        write!(
            f,
            "error: {file}:{line}:{column}: {key}: found {found}, wanted {wanted}\n  help: {help}"
        )
    }
}

/// Why there is no [`Config`](super::Config).
#[derive(Debug, thiserror::Error)]
pub enum Errors {
    /// The file cannot be read.
    #[error(
        "error: {}: cannot be read: {source}\n  help: give the path of a configuration file that this user may read",
        path.display()
    )]
    Read {
        /// The file as the user named it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file can be read, but not used: every finding, in the file's order, at least one.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Finding>),
}

impl Errors {
    /// The findings, in the file's order; none if the file could not be read.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid(findings) => findings,
        }
    }
}

struct Lines<'a>(&'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{finding}")?;
        }
        Ok(())
    }
}
