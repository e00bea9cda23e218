//! `cargo xtask bench`: sets up, then runs the measurements of `benches/` as root.

mod before;

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{progress, root, setup, workspace};

/// What to measure.
#[derive(Args, Debug)]
pub struct Options {
    /// Measure the hot path of this commit's weir beside that of the working tree, in one run.
    #[arg(long, value_name = "COMMIT")]
    before: Option<String>,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true, requires = "before")]
    built: bool,
    /// Arguments for the measuring program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Measures.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
    }
    let mut command = match &options.before {
        None => {
            let mut command = workspace::cargo();
            command.args(["run", "--release", "-p", "weir-benches", "--"]);
            root::run_binaries_as_root("the measurements", &mut command)?;
            command
        }
        Some(commit) => {
            let binaries = before::Binaries::of(commit)?;
            if !options.built {
                binaries.build()?;
            }
            if !root::is_root() {
                root::again_as_root("the measurements", &options.words(commit))?;
            }
            let daemons = before::Daemons::start(&binaries)?;
            println!("==> measure, by optimised builds");
            return measure(&mut daemons.command(&options.arguments)?);
        }
    };
    println!("==> measure, by an optimised build");
    measure(command.args(&options.arguments))
}

impl Options {
    /// Returns these options as words, for the run as root.
    fn words(&self, commit: &str) -> Vec<OsString> {
        let words = ["bench", "--built", "--before", commit].map(str::to_owned);
        words
            .into_iter()
            .chain(self.arguments.iter().cloned())
            .map(OsString::from)
            .collect()
    }
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
