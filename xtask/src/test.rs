//! `cargo xtask test`: unit tests, packet tests through the real program, end-to-end tests in namespaces.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    progress::{self, run_visibly, step},
    root, setup, workspace,
};

/// Which tests to run.
#[derive(Args, Debug)]
pub struct Options {
    /// Only tests that need no root: those inside the libraries and binaries.
    #[arg(long, conflicts_with = "e2e")]
    unit: bool,
    /// Only the end-to-end tests in network namespaces.
    #[arg(long)]
    e2e: bool,
    /// What to hand to the test runner, for example a part of a test's name.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

/// The packages with tests for this machine; lb-ebpf is built for BPF only.
const ALL: [&str; 3] = ["--workspace", "--exclude", "lb-ebpf"];

/// Runs the tests; the runner's own summary comes last.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    // The end-to-end tests start weir as a process, so no test target makes cargo build it. All packages at
    // once, as in the test run: another selection has other features, and would be compiled again.
    step("build weir and its XDP program", || {
        run_visibly(workspace::cargo().arg("build").args(ALL))
    })?;

    let nextest = has_nextest();
    if nextest && !options.unit && !options.e2e && options.filter.is_empty() {
        // nextest leaves the examples in the documentation out.
        step("run the examples of the documentation", || {
            run_visibly(
                workspace::cargo()
                    .args(["test", "--quiet", "--doc"])
                    .args(ALL),
            )
        })?;
    }
    let mut command = workspace::cargo();
    command.args(if nextest {
        ["nextest", "run"].as_slice()
    } else {
        ["test", "--no-fail-fast"].as_slice()
    });
    if nextest {
        command.arg("--no-fail-fast");
    }
    match (options.unit, options.e2e) {
        (true, _) => command.args(ALL).args(["--lib", "--bins"]),
        (_, true) if nextest => command
            .args(ALL)
            .args(["-E", "package(xtask) & kind(test)"]),
        (_, true) => command.args(["-p", "xtask", "--test", "*"]),
        _ => command.args(ALL),
    };
    command
        .args(&options.filter)
        .env("WEIR_BIN", beside_xtask()?);
    if !options.unit {
        root::run_binaries_as_root("the packet and end-to-end tests", &mut command)?;
    }
    run_tests(&mut command)
}

fn run_tests(command: &mut Command) -> Result<ExitCode> {
    let shown = progress::show(command);
    println!("==> run the tests\n    $ {shown}");
    let status = command
        .stdin(std::process::Stdio::null())
        .status()
        .with_context(|| format!("start `{shown}`"))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the weir binary that was just built.
fn beside_xtask() -> Result<std::path::PathBuf> {
    let xtask = workspace::xtask_binary()?;
    Ok(xtask.with_file_name("weir"))
}

fn has_nextest() -> bool {
    workspace::find_program("cargo-nextest").is_some()
        || std::env::var_os("CARGO_HOME")
            .map(std::path::PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
            .is_some_and(|home| home.join("bin/cargo-nextest").is_file())
}
