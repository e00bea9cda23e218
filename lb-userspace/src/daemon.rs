//! Placeholder of the daemon: what `weir run` calls.

use std::path::Path;

use crate::config::Config;

/// Runs the daemon until a signal or a command ends it.
///
/// # Errors
/// What kept it from starting, or ended it.
#[expect(
    clippy::unused_async,
    reason = "a placeholder: the daemon that replaces it awaits"
)]
pub async fn run(config: Config, config_path: &Path) -> anyhow::Result<()> {
    anyhow::bail!(
        "{}: node {}: this build has no daemon yet",
        config_path.display(),
        config.node.name
    )
}
