//! The components of the pinned toolchain.
//!
//! rustup installs what rust-toolchain.toml names on its own, except where `RUSTUP_AUTO_INSTALL=0` is set:
//! there a component is missing without a word.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::Need;
use crate::{progress::run_visibly, workspace};

/// A component, what it is for, and a file of the sysroot that is there when it is installed.
const COMPONENTS: [(&str, &str, &str); 3] = [
    (
        "rust-src",
        "core is compiled from it for the BPF target",
        "lib/rustlib/src/rust/library/core/src/lib.rs",
    ),
    (
        "rustfmt",
        "the formatting is checked with it",
        "bin/rustfmt",
    ),
    (
        "clippy",
        "the lints are checked with it",
        "bin/cargo-clippy",
    ),
];

/// Returns the components that the toolchain of this workspace lacks.
pub(super) fn missing() -> Result<Vec<Need>> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let sysroot = Path::new(&sysroot);
    let toolchain = sysroot
        .file_name()
        .context("rustc has no sysroot")?
        .to_string_lossy()
        .into_owned();
    let lacking = COMPONENTS
        .into_iter()
        .filter(|(_, _, file)| !sysroot.join(file).exists());
    Ok(lacking
        .map(|(component, why, _)| need(component, why, &toolchain))
        .collect())
}

fn need(component: &'static str, why: &'static str, toolchain: &str) -> Need {
    let arguments = ["component", "add", "--toolchain", toolchain, component].map(str::to_owned);
    Need {
        name: format!("the Rust component {component}"),
        why,
        by_hand: format!("rustup {}", arguments.join(" ")),
        install: Box::new(move || run_visibly(Command::new("rustup").args(arguments))),
    }
}

/// Runs the workspace's rustc and returns what it printed.
fn rustc(arguments: &[&str]) -> Result<String> {
    let output = Command::new("rustc")
        .args(arguments)
        .current_dir(workspace::root())
        .output()
        .context("start rustc: install Rust by rustup, and its folder into PATH")?;
    if !output.status.success() {
        bail!(
            "rustc does not run here: {}; run `rustup toolchain install` in this folder",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
