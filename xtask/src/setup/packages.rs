//! Programs that come from the distribution, installed by apt-get and only when the program itself is missing.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::Need;
use crate::{progress::run_visibly, root, workspace::find_program};

/// A program, the Debian package that brings it, and what it is for.
const PROGRAMS: [(&str, &str, &str); 14] = [
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
    ("tmux", "tmux", "the tests look at `weir top` on its screen"),
    (
        "redis-server",
        "redis-server",
        "the tests of fleet limits run their own, on sockets of their own",
    ),
    (
        "promtool",
        "prometheus",
        "it judges the metrics, and the tests run a Prometheus of their own",
    ),
    (
        "kubectl",
        "kubernetes-client",
        "the tests build the Kubernetes overlays with it",
    ),
    (
        "python3",
        "python3 python3-venv",
        "what judges the Kubernetes manifests is written in it",
    ),
    (
        "bird",
        "bird2",
        "the tests of fleets run their own BGP speakers",
    ),
    (
        "keepalived",
        "keepalived",
        "the tests have it decide which of two nodes announces a VIP",
    ),
    (
        "systemd-analyze",
        "systemd",
        "it judges the units; systemd itself is not run",
    ),
    ("tshark", "tshark", "the tests read captures with it"),
];

/// Packages that bring a service, and its name: they are wanted for their programs alone.
const SERVICES: [(&str, &str); 4] = [
    ("redis-server", "redis-server"),
    ("prometheus", "prometheus"),
    ("bird2", "bird"),
    ("keepalived", "keepalived"),
];

/// The service that a package brings.
fn service_of(packages: &str) -> Option<&'static str> {
    let found = SERVICES.iter().find(|(package, _)| *package == packages);
    found.map(|(_, service)| *service)
}

/// Where Debian's packages ask whether their services may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

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
    let mut by_hand = format!("sudo apt-get install {packages}");
    if let Some(service) = service_of(packages) {
        by_hand.push_str(" && sudo systemctl disable --now ");
        by_hand.push_str(service);
    }
    Need {
        name: format!("the Debian package {packages}"),
        why,
        by_hand,
        install: Box::new(move || install(packages)),
    }
}

/// Installs Debian packages.
pub(super) fn install(packages: &str) -> Result<()> {
    let apt = find_program("apt-get")
        .context("there is no apt-get here: take the package of your distribution")?;
    let apt_get = || -> Result<Command> {
        let mut command = as_root(&apt)?;
        command.env("DEBIAN_FRONTEND", "noninteractive");
        Ok(command)
    };
    // The lists of a fresh machine are empty; where they are there, this is quick.
    run_visibly(apt_get()?.args(["-q", "update"]))?;
    let quiet = Quiet::hold()?;
    run_visibly(
        apt_get()?
            .args(["-q", "-y", "--no-install-recommends", "install"])
            .args(packages.split_whitespace()),
    )?;
    drop(quiet);
    if let Some(service) = service_of(packages) {
        // Nor at the next boot.
        let update = find_program("update-rc.d").context("there is no update-rc.d here")?;
        run_visibly(as_root(&update)?.args([service, "disable"]))?;
    }
    Ok(())
}

fn as_root(program: &Path) -> Result<Command> {
    if root::is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find_program("sudo").context("this needs root, and there is no sudo here")?;
    let mut command = Command::new(sudo);
    command.arg(program);
    Ok(command)
}

/// While it lives, packages that are installed start no services.
struct Quiet {
    /// Whether the machine had no policy of its own.
    is_ours: bool,
}

impl Quiet {
    fn hold() -> Result<Self> {
        let is_ours = !Path::new(POLICY).exists();
        if is_ours {
            let write = format!("printf '#!/bin/sh\\nexit 101\\n' >{POLICY} && chmod 755 {POLICY}");
            run_visibly(as_root(Path::new("sh"))?.args(["-c", &write]))?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let removed =
            as_root(Path::new("rm")).and_then(|mut rm| run_visibly(rm.args(["-f", POLICY])));
        if let Err(error) = removed {
            eprintln!("{POLICY} could not be removed: {error:#}");
        }
    }
}
