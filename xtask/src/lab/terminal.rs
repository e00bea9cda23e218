//! A terminal to look at: a shell in tmux, whose screen is read and whose keys are pressed.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use super::{Lab, exec, id::LabId};

/// A screen of some size with a shell on it; dropped, it ends with all that runs there.
#[derive(Debug)]
pub struct Terminal {
    socket: PathBuf,
    lab: LabId,
}

impl Terminal {
    /// Opens one of so many columns and rows.
    pub fn open(lab: &Lab, columns: u16, rows: u16) -> Result<Self> {
        // A server that was told to end may still hold its socket.
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            socket: lab.folder().join(format!("tmux-{number}.sock")),
            lab: lab.id().clone(),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // Not the user's shell, whose prompt may be anything.
        let shell = "exec env -u NO_COLOR PS1='ready> ' sh";
        terminal.tmux(["new-session", "-d", "-x", &columns, "-y", &rows, shell])?;
        Ok(terminal)
    }

    /// Returns what is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.tmux(["capture-pane", "-p"])
    }

    /// The same with the sequences that colour it.
    pub fn coloured_screen(&self) -> Result<String> {
        self.tmux(["capture-pane", "-p", "-e"])
    }

    /// Writes text, as a person types it.
    pub fn write(&self, text: &str) -> Result<()> {
        self.tmux(["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses a key by its name, such as `Enter` or `C-c`.
    pub fn press(&self, key: &str) -> Result<()> {
        self.tmux(["send-keys", key]).map(drop)
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(["resize-window", "-x", &columns, "-y", &rows])
            .map(drop)
    }

    /// Tells whether a program has the other screen, and whether there is a cursor.
    pub fn modes(&self) -> Result<(bool, bool)> {
        let told = self.tmux(["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        let (other, cursor) = told.trim().split_once(' ').context("two flags")?;
        Ok((other == "1", cursor == "1"))
    }

    fn tmux<const N: usize>(&self, arguments: [&str; N]) -> Result<String> {
        exec::run(self.command().args(arguments))
    }

    /// tmux with no configuration, in UTF-8, on a server of its own, which the lab ends at the latest.
    fn command(&self) -> Command {
        let mut command = exec::command("tmux", ["-u", "-f", "/dev/null", "-S"]);
        command.arg(&self.socket);
        command.env(LabId::VARIABLE, self.lab.to_string());
        // Within a tmux this is another one.
        command.env_remove("TMUX");
        command
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = exec::run_ungated(self.command().arg("kill-server")) {
            eprintln!("the terminal of lab {}: {error:#}", self.lab);
        }
    }
}
