//! Programs that come from the distribution, installed by apt-get and only when the program itself is missing.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::Need;
use crate::{progress::run_visibly, root, workspace::find_program};

/// A program, the Debian package that brings it, and what it is for.
const PROGRAMS: [(&str, &str, &str); 5] = [
    ("cc", "gcc libc6-dev", "Rust links with it"),
    (
        "ip",
        "iproute2",
        "the demo and the tests build their hosts with it",
    ),
    (
        "ethtool",
        "ethtool",
        "a veth leaves checksums open until it is told not to",
    ),
    (
        "nsenter",
        "util-linux",
        "programs are started inside the hosts with it",
    ),
    ("mount", "mount", "each lab mounts its own bpffs"),
];

/// Returns the packages whose programs are missing.
pub(super) fn missing() -> Vec<Need> {
    let lacking = PROGRAMS
        .into_iter()
        .filter(|(program, _, _)| find_program(program).is_none());
    lacking
        .map(|(_, packages, why)| need(packages, why))
        .collect()
}

fn need(packages: &'static str, why: &'static str) -> Need {
    Need {
        name: format!("the Debian package {packages}"),
        why,
        by_hand: format!("sudo apt-get install {packages}"),
        install: Box::new(move || install(packages)),
    }
}

fn install(packages: &str) -> Result<()> {
    let apt = find_program("apt-get")
        .context("there is no apt-get here: take the package of your distribution")?;
    let apt_get = || -> Result<Command> {
        let mut command = if root::is_root() {
            Command::new(&apt)
        } else {
            let mut sudo = Command::new(
                find_program("sudo").context("this needs root, and there is no sudo here")?,
            );
            sudo.arg(&apt);
            sudo
        };
        command.env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    };
    // The lists of a fresh machine are empty; where they are there, this is quick.
    run_visibly(apt_get()?.args(["-q", "update"]))?;
    run_visibly(
        apt_get()?
            .args(["-q", "-y", "--no-install-recommends", "install"])
            .args(packages.split_whitespace()),
    )
}
