//! What a restart begins with: the VIPs that were last served, so that neither a restart without an API server nor the time
//! until everything is listed takes any of them away.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::served::Served;
use crate::state::{read_file, replace_file};

/// The only layout so far.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    served: Vec<Served>,
}

/// The file beside the state file.
#[derive(Clone, Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// The one beside a state file.
    pub(crate) fn beside(state_file: &Path) -> Self {
        Self(state_file.with_extension("kubernetes.json"))
    }

    /// What was served; nothing where there is no file.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub(crate) fn load(&self) -> anyhow::Result<Vec<Served>> {
        let path = self.0.display();
        let text = match read_file(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        let document: Document =
            serde_json::from_str(&text).with_context(|| format!("understand {path}"))?;
        anyhow::ensure!(document.version == VERSION, "{path} is of another layout");
        Ok(document.served)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It is the old one where it could not be written.
    pub(super) fn save(&self, served: &[Served]) -> anyhow::Result<()> {
        let document = Document {
            version: VERSION,
            served: served.to_vec(),
        };
        let text = serde_json::to_vec(&document)?;
        replace_file(&self.0, &text).with_context(|| format!("write {}", self.0.display()))
    }

    /// Removes the file.
    pub(crate) fn forget(&self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "what Kubernetes wanted is not forgotten");
        }
    }
}
