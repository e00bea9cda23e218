//! `cargo xtask tables`: sets up, then measures lookup tables into benches/results, as docs/tables.md shows.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{progress, setup, workspace};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Arguments for the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Measures. Needs no root.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    let mut command = workspace::cargo();
    command
        .args(["run", "--release", "-p", "weir-benches"])
        .args(["--bin", "weir-tables", "--"])
        .args(&options.arguments);
    println!("==> measure lookup tables, by an optimised build");
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
