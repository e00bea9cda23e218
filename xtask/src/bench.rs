//! `cargo xtask bench`: sets up, then runs the measurements of `benches/` as root.

mod before;
mod live;
mod serving;

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
    /// Instead: send live frames for so many seconds a case, and hold the kernel's statistics against the driver.
    #[arg(long, value_name = "SECONDS", conflicts_with = "before", num_args = 0..=1, default_missing_value = "5")]
    live: Option<u64>,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
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
    if let Some(seconds) = options.live {
        if !options.built {
            live::build()?;
        }
        if !root::is_root() {
            let words = ["bench", "--built", "--live", &seconds.to_string()].map(OsString::from);
            root::again_as_root("the measurements", &words)?;
        }
        return live::run(seconds).map(|()| ExitCode::SUCCESS);
    }
    let mut command = match &options.before {
        None => {
            let mut command = workspace::cargo();
            command.args(["run", "--release", "-p", "weir-benches", "--"]);
            // A part of the cases is no set of figures to keep.
            if !options.has("--only") && !options.has("--save") && !options.has("--steady") {
                command.arg("--save").arg(workspace::root().join(RESULTS));
            }
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

/// Where results and plots are kept.
const RESULTS: &str = "benches/results";

impl Options {
    /// Whether the measuring program is given this option.
    fn has(&self, option: &str) -> bool {
        self.arguments
            .iter()
            .any(|given| given.split('=').next() == Some(option))
    }

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
