//! Placeholder of the data plane in the kernel: what the CLI and the API need of it.

use std::path::Path;

/// What was taken off.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Detached {
    /// The interfaces that the program was taken off.
    pub interfaces: Vec<String>,
    /// How many pinned maps, programs and links were removed.
    pub pins: usize,
}

/// Takes the program off every interface and removes every pin; nothing to do is no error.
///
/// # Errors
/// What the kernel refused.
pub fn detach(pin_path: &Path) -> anyhow::Result<Detached> {
    anyhow::bail!("{}: this build has no data plane yet", pin_path.display())
}
