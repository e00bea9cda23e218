//! A root of its own for packages, in a host of the lab: what a container or a small machine would be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{Segment, output};
use crate::lab::{Namespace, Process, eventually};

/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_mins(1);

/// Mounts what a container runtime mounts, and goes on as what follows. The mounts end with it.
const MOUNT: &str = r#"set -e
root=$1 bpf=$2
shift 2
mkdir -p "$root/proc" "$root/sys"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind "$bpf" "$root/sys/fs/bpf"
exec "$@""#;

/// The capabilities that weir takes (docs/install.md, deploy/systemd/weir.service).
const CAPABILITIES: [&str; 4] = ["cap_bpf", "cap_net_admin", "cap_perfmon", "cap_net_raw"];

/// What a program in the root may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bounds {
    /// Whatever root may.
    None,
    /// What [`CAPABILITIES`] allow.
    Capabilities,
}

/// A root in the host that balances.
pub(super) struct Jail {
    root: PathBuf,
    bpffs: PathBuf,
    host: Namespace,
}

impl Jail {
    pub(super) fn new(segment: &Segment, root: PathBuf) -> Result<Self> {
        // The lab's own, so that the pins lie at their usual place in the root and nowhere else.
        let bpffs = segment.lab.bpffs();
        ensure!(bpffs.is_dir(), "no bpffs at {}", bpffs.display());
        Ok(Self {
            root,
            bpffs,
            host: segment.topology.lb.namespace.clone(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Writes a file of the root.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.root.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
        Ok(())
    }

    /// A program of the root, by its path there, in the host.
    pub(super) fn command(&self, bounds: Bounds, words: &[&str]) -> Command {
        let mut command = self.host.command("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                MOUNT,
                "sh",
            ])
            .arg(&self.root)
            .arg(&self.bpffs);
        match bounds {
            Bounds::None => {
                command.arg("chroot").arg(&self.root).args(words);
            }
            Bounds::Capabilities => {
                // chroot itself needs a capability: the others are dropped after it, and only then weir is started.
                let kept = CAPABILITIES.map(str::to_owned);
                let all = (0..=last_capability())
                    .map(capability)
                    .filter(|name| !kept.contains(name));
                let (program, arguments) = words.split_first().unwrap_or((&"", &[]));
                command
                    .arg("capsh")
                    .arg(format!("--chroot={}", self.root.display()))
                    .arg("--no-new-privs")
                    .arg(format!("--drop={}", all.collect::<Vec<_>>().join(",")))
                    .arg(format!("--shell={program}"))
                    .arg("--")
                    .args(arguments);
            }
        }
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a program to its end, and returns what it printed.
    pub(super) fn run(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(Bounds::None, words))
    }

    /// Starts a program that stays.
    pub(super) fn start(&self, name: &str, bounds: Bounds, words: &[&str]) -> Result<Process> {
        Process::start(&self.host, name, &mut self.command(bounds, words))
    }

    /// Waits until weir serves.
    pub(super) fn serves(&self, daemon: &mut Process) -> Result<()> {
        let waited = eventually("weir to serve", PATIENCE, || {
            ensure!(daemon.ended()?.is_none(), "it ended");
            let mut command =
                self.command(Bounds::None, &["/usr/bin/weir", "status", "-o", "json"]);
            let told = command.output()?;
            let status: serde_json::Value = serde_json::from_slice(&told.stdout)?;
            ensure!(told.status.success(), "{:?}", status.get("problems"));
            Ok(())
        });
        waited.map_err(|error| error.context(daemon.log_tail()))
    }
}

/// The highest number of a capability that this kernel knows.
fn last_capability() -> u32 {
    const AT_LEAST: u32 = 40;
    let told = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    told.trim().parse().unwrap_or(AT_LEAST)
}

/// The name of a capability by its number, as capsh takes both.
fn capability(number: u32) -> String {
    const BITS: [(u32, &str); 4] = [
        (12, "cap_net_admin"),
        (13, "cap_net_raw"),
        (38, "cap_perfmon"),
        (39, "cap_bpf"),
    ];
    let known = BITS.iter().find(|(bit, _)| *bit == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
