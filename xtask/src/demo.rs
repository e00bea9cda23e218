//! Todo.
use anyhow::Result;
/// Options.
#[derive(clap::Args, Debug)]
pub struct Options {}
/// Runs.
pub fn run(_: &Options) -> Result<std::process::ExitCode> {
    anyhow::bail!("not yet")
}
