//! Where the running configuration is from.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::api::ConfigStatus;

/// The file that the daemon was started with, and the one whose text is in force.
pub(super) struct Origin {
    status: ConfigStatus,
}

impl Origin {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            status: ConfigStatus {
                file: file.to_owned(),
                applied: file.to_owned(),
                by: "start".to_owned(),
                time: now(),
                refused: None,
            },
        }
    }

    /// Another text is in force.
    pub(super) fn applied(&mut self, file: PathBuf, by: &str) {
        self.status.refused = None;
        by.clone_into(&mut self.status.by);
        self.status.applied = file;
        self.status.time = now();
    }

    /// A reload was refused; what was in force still is.
    pub(super) fn refused(&mut self, error: &str) {
        self.status.refused = Some(error.to_owned());
    }

    pub(super) fn status(&self) -> ConfigStatus {
        self.status.clone()
    }

    /// What an operator should know.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let ConfigStatus {
            file,
            applied,
            refused,
            ..
        } = &self.status;
        let refused = refused.as_ref().map(|error| {
            let file = file.display();
            format!(
                "the last reload of {file} was refused, and the configuration from before it is in force: {error}"
            )
        });
        let differs = (file != applied).then(|| {
            format!(
                "the configuration in force is from {}: a restart or SIGHUP goes back to {}",
                applied.display(),
                file.display()
            )
        });
        refused.into_iter().chain(differs)
    }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
