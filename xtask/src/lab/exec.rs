//! Commands that build the lab, behind a gate that a signal shuts.
//!
//! Whoever cleans up after a signal shuts the gate for good, so that nothing is made any more behind its back.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    sync::{PoisonError, RwLock},
};

use anyhow::{Context as _, Result, bail};

use crate::{progress::show, workspace::find_program};

static GATE: RwLock<()> = RwLock::new(());

/// Does a short piece of work that makes something in a lab.
pub(super) fn gated<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _open = GATE.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Waits for the gated work that is under way, then does `work` while no other can begin.
pub(super) fn shut<T>(work: impl FnOnce() -> T) -> T {
    let _shut = GATE.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Returns a command for a program, also where `PATH` leaves the system folders out.
pub(super) fn command<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(find_program(program).unwrap_or_else(|| program.into()));
    command.args(arguments);
    command
}

/// Runs a short command through the gate and returns what it printed; an unsuccessful end is an error.
pub(super) fn run(command: &mut Command) -> Result<String> {
    gated(|| run_ungated(command))
}

/// Runs a short command without the gate, as cleaning up must.
pub(super) fn run_ungated(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
