//! What packing needs beyond building and testing; installed when it is first needed, since some of it takes minutes.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::TARGET;
use crate::{
    progress::{run_visibly, step},
    root, workspace,
};

/// Where cargo's tools of this workspace are.
pub(super) fn folder() -> PathBuf {
    workspace::tools().join("bin")
}

/// `PATH` with them first.
pub(super) fn path() -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let paths = [folder()].into_iter().chain(env::split_paths(&rest));
    env::join_paths(paths).context("PATH")
}

/// A tool of a pinned version, installed into the workspace's own folder if need be.
pub(super) fn cargo_tool(name: &str, version: &str) -> Result<PathBuf> {
    let binary = folder().join(name);
    // Some tell their version only as cargo's subcommand; cargo's own list tells it of all.
    let listed = workspace::cargo()
        .args(["install", "--list", "--root"])
        .arg(workspace::tools())
        .output()
        .context("start cargo")?;
    let wanted = format!("{name} v{version}:");
    let listed = String::from_utf8_lossy(&listed.stdout);
    if binary.is_file() && listed.lines().any(|line| line == wanted) {
        return Ok(binary);
    }
    step(
        &format!("install {name} {version}, which takes minutes"),
        || {
            let mut cargo = workspace::cargo();
            cargo
                .args(["install", "--locked", "--force", "--root"])
                .arg(workspace::tools())
                .arg(format!("{name}@{version}"));
            run_visibly(&mut cargo)
        },
    )?;
    Ok(binary)
}

/// What links static binaries.
pub(super) fn musl() -> Result<()> {
    debian("musl-gcc", "musl-tools")?;
    run_visibly(
        Command::new("rustup")
            .args(["target", "add", TARGET])
            .current_dir(workspace::root()),
    )
    .with_context(|| format!("by hand: `rustup target add {TARGET}`"))
}

/// A program of a Debian package, installed if need be.
pub(super) fn debian(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = workspace::find_program(program) {
        return Ok(found);
    }
    if !root::is_root() {
        bail!("{program} is missing: `sudo apt-get install {package}`");
    }
    step(&format!("install the Debian package {package}"), || {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-y", "--no-install-recommends", "install", package]);
        run_visibly(apt.env("DEBIAN_FRONTEND", "noninteractive"))
    })
    .with_context(|| format!("by hand: `sudo apt-get install {package}`"))?;
    workspace::find_program(program).with_context(|| format!("{package} brought no {program}"))
}
