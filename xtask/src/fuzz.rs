//! `cargo xtask fuzz`: random packets through the real program and through the same pipeline on the host.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{progress, root, setup, workspace};

/// The test that is the fuzzer.
const TEST: &str = "random_frames_meet_the_same_fate_in_the_program_and_on_the_host";

/// How many packets, and which.
#[derive(Args, Debug)]
pub struct Options {
    /// Number of packets.
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
    /// Seed of the random numbers: the same seed, the same packets.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Fuzzes, by an optimised build.
pub fn run(options: &Options) -> Result<ExitCode> {
    setup::run()?;
    let mut command = workspace::cargo();
    command
        .args(["test", "--release", "-p", "lb-userspace"])
        .args(["--test", "conformance", "--", "--exact", "--nocapture"])
        .arg(format!("fuzz::{TEST}"))
        .env("WEIR_FUZZ_PACKETS", options.packets.to_string())
        .env("WEIR_FUZZ_SEED", options.seed.to_string());
    root::run_binaries_as_root("the fuzzer", &mut command)?;
    println!("==> fuzz: {} packets", options.packets);
    fuzz(&mut command)
}

fn fuzz(command: &mut Command) -> Result<ExitCode> {
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
