//! `cargo xtask bench`: sets up, then runs the measurements of `benches/` as root.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{progress, root, setup, workspace};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Arguments for the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Measures.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    let mut command = workspace::cargo();
    command
        .args(["run", "--release", "-p", "weir-benches", "--"])
        .args(&options.arguments);
    root::run_binaries_as_root("the measurements", &mut command)?;
    println!("==> measure, by an optimised build");
    measure(&mut command)
}

fn measure(command: &mut Command) -> Result<ExitCode> {
    let shown = progress::show(command);
    let status = command
        .status()
        .with_context(|| format!("start `{shown}`"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
