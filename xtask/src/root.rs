//! Root, for the parts that need it: namespaces, XDP, bpffs.
//!
//! Building is done as whoever started xtask, so that no build artefact becomes root's.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{find_program, xtask_binary};

/// Environment that cargo and rustup need and that sudo would drop.
const KEPT: [&str; 6] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "WEIR_BIN",
];

/// Tells whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails with a remedy unless this process is root.
pub fn require(what: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "{what} needs root (network namespaces, XDP, bpffs): run it as root, for example by `cargo xtask test`, which uses sudo"
    )
}

/// Replaces this process by this same binary, run as root through sudo with `arguments`. Returns only on failure.
pub fn again_as_root(what: &str, arguments: &[OsString]) -> Result<std::convert::Infallible> {
    let sudo = sudo(what)?;
    println!("==> {what} needs root: going on through sudo");
    let mut command = Command::new(sudo);
    command.args(["-E", "env"]).args(kept_environment());
    // Not the running binary's own path: cargo may have replaced that file meanwhile.
    command.arg(xtask_binary()?).args(arguments);
    Err(command.exec()).context("start sudo")
}

/// Makes cargo start every binary it runs through sudo, while cargo itself stays with the user.
pub fn run_binaries_as_root(what: &str, command: &mut Command) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let sudo = sudo(what)?;
    println!("==> {what} need root: cargo stays with you, the binaries it starts go through sudo");
    let status = Command::new(&sudo)
        .arg("-v")
        .status()
        .context("start sudo")?;
    if !status.success() {
        bail!("sudo refused: run `{what}` as root");
    }
    let triple = format!("{}_UNKNOWN_LINUX_GNU", env::consts::ARCH).to_uppercase();
    command.env(
        format!("CARGO_TARGET_{triple}_RUNNER"),
        format!("{} -E", sudo.display()),
    );
    Ok(())
}

/// Finds sudo, or says who has to do what.
fn sudo(what: &str) -> Result<std::path::PathBuf> {
    find_program("sudo").with_context(|| {
        format!("{what} needs root and there is no sudo here: run the same command as root")
    })
}

/// Returns `NAME=value` words for what must survive sudo.
fn kept_environment() -> Vec<OsString> {
    KEPT.iter()
        .filter_map(|name| {
            let mut word = OsString::from(format!("{name}="));
            word.push(env::var_os(name)?);
            Some(word)
        })
        .collect()
}
