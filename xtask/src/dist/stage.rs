//! Lays out what is packed: the binary, and what it writes of itself.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::output;
use crate::workspace;

/// Fills a folder; returns the binary's version.
pub(super) fn lay_out(binary: &Path, stage: &Path) -> Result<String> {
    fs::create_dir_all(stage.join("completions"))?;
    let weir = stage.join("weir");
    fs::copy(binary, &weir).with_context(|| format!("copy {}", binary.display()))?;
    fs::set_permissions(&weir, fs::Permissions::from_mode(0o755))?;
    require_static(&weir)?;

    output(Command::new(&weir).arg("man").arg(stage.join("man")))?;
    for (shell, file) in [
        ("bash", "weir.bash"),
        ("zsh", "_weir"),
        ("fish", "weir.fish"),
    ] {
        let script = output(Command::new(&weir).args(["completions", shell]))?;
        fs::write(stage.join("completions").join(file), script + "\n")?;
    }
    let root = workspace::root();
    for (from, to) in [
        ("deploy/weir.example.toml", "weir.example.toml"),
        ("deploy/systemd/weir.service", "systemd/weir.service"),
        (
            "deploy/systemd/weir-watchdog.service",
            "systemd/weir-watchdog.service",
        ),
        ("README.md", "README.md"),
        ("LICENSE-APACHE", "LICENSE-APACHE"),
        ("LICENSE-MIT", "LICENSE-MIT"),
    ] {
        let to = stage.join(to);
        fs::create_dir_all(to.parent().context("a file at the root")?)?;
        fs::copy(root.join(from), &to).with_context(|| format!("copy {from}"))?;
    }
    let said = output(Command::new(&weir).arg("--version"))?;
    println!("{said}");
    let version = said
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("weir "));
    Ok(version.context("weir tells no version")?.to_owned())
}

/// A binary that wants a loader runs on no root without a libc.
fn require_static(binary: &Path) -> Result<()> {
    let headers = output(
        Command::new("readelf")
            .args(["--program-headers", "--wide"])
            .arg(binary),
    )?;
    if headers.contains("INTERP") {
        bail!(
            "{} is not static: it names a program interpreter",
            binary.display()
        );
    }
    Ok(())
}
