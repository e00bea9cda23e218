//! A process inside a host, with its output in a file of the lab.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{exec, id::LabId, namespace::Namespace, wait};

/// A running process; its lab kills it, at the latest.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command that [`Namespace::command`] made; what it prints goes to `<name>.log` in the lab's folder.
    pub fn start(namespace: &Namespace, name: &str, command: &mut Command) -> Result<Self> {
        let log = namespace.lab().folder().join(format!("{name}.log"));
        exec::gated(|| {
            let file = File::options().create(true).append(true).open(&log);
            let file = file.with_context(|| format!("open {}", log.display()))?;
            command
                .env(LabId::VARIABLE, namespace.lab().to_string())
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file);
            let child = command.spawn().with_context(|| format!("start {name}"))?;
            Ok(Self {
                child,
                log: log.clone(),
            })
        })
    }

    /// Returns the file with the output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns the last lines of the output, for messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(30)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the process ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id of 0")?;
        kill_process(pid, signal).context("send a signal")
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        wait::until("the process to end", patience, || {
            Ok(self.ended()?.is_some())
        })?;
        self.ended()?.context("the process ended and yet did not")
    }
}
