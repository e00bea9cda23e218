//! A host: a network namespace, and ways to do something inside it.

use std::{ffi::OsStr, fs::File, os::fd::AsFd as _, process::Command, thread};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{exec, id::LabId};

/// A network namespace of a lab, which removes it.
#[derive(Debug, Clone)]
pub struct Namespace {
    lab: LabId,
    host: String,
    name: String,
}

impl Namespace {
    pub(super) fn create(lab: &LabId, host: &str) -> Result<Self> {
        let name = format!("{}{host}", lab.prefix());
        exec::run(&mut exec::command("ip", ["netns", "add", &name]))?;
        let namespace = Self {
            lab: lab.clone(),
            host: host.to_owned(),
            name,
        };
        namespace.ip("link set lo up")?;
        // Addresses must be usable at once, and every host's routes are ours to set.
        for key in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{key}/accept_dad"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{key}/accept_ra"), "0")?;
            namespace.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0")?;
            namespace.sysctl(&format!("net/ipv4/conf/{key}/accept_redirects"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{key}/accept_redirects"), "0")?;
        }
        Ok(namespace)
    }

    /// Returns the name inside the lab, for example `lb`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn lab(&self) -> &LabId {
        &self.lab
    }

    /// Returns the file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `ip` in here with arguments separated by spaces, and returns what it printed.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        exec::run(exec::command("ip", ["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Runs a short command in here and returns what it printed.
    pub fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        exec::run(self.command(program).args(arguments))
    }

    /// Sets a sysctl in here, by its path below /proc/sys.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        // The key belongs to the namespace of the one who opens it.
        self.run("sh", ["-c", &format!("echo {value} > /proc/sys/{key}")])
            .map(drop)
    }

    /// Returns a command that runs in here.
    ///
    /// By nsenter, since `ip netns exec` hides /sys/fs/bpf.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = exec::command("nsenter", [format!("--net={}", self.path())]);
        command.arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread of its own inside this namespace: sockets that it opens, and threads that it starts,
    /// belong here.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(&path).with_context(|| format!("open {path}"))?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter {path}"))?;
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(_) => bail!("the thread inside {} panicked", self.host),
            }
        })
    }
}
