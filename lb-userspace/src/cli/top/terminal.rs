//! The terminal: taken, and given back as it was, whatever ends us.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, bail};
use crossterm::{
    execute,
    terminal::{EnterAlternateScreen, enable_raw_mode},
};
use ratatui::{DefaultTerminal, Frame};
use rustix::process::{Signal, getpid, kill_process};

/// The terminal while it is ours: keys come unread, and the picture is on the other screen. The shell's comes back when this
/// is dropped; in a panic before its message is printed.
#[derive(Debug)]
pub(super) struct Terminal(DefaultTerminal);

impl Terminal {
    /// Takes the terminal that standard output is.
    pub(super) fn take() -> anyhow::Result<Self> {
        if !io::stdout().is_terminal() {
            bail!("standard output is no terminal\n  help: `weir top --once` writes a table");
        }
        if std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
            bail!(
                "a terminal of type dumb has no screen\n  help: `weir top --once` writes a table"
            );
        }
        // It gives the terminal back in panics, too.
        let terminal = ratatui::try_init().context("take the terminal")?;
        Ok(Self(terminal))
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }

    /// Stops this process until the shell lets it go on.
    pub(super) fn suspend(&mut self) -> anyhow::Result<()> {
        ratatui::try_restore()?;
        self.0.show_cursor()?;
        kill_process(getpid(), Signal::TSTP).context("suspend")?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.0.clear()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    /// Where this is set, this test is the process that panics on a terminal.
    const PANICS: &str = "WEIR_TEST_PANICS";

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        const MESSAGE: &str = "out of the blue";
        if env::var_os(PANICS).is_some() {
            let _terminal = Terminal::take().unwrap();
            panic!("{MESSAGE}");
        }
        let name = std::thread::current().name().unwrap().to_owned();
        let program = env::current_exe().unwrap();
        // script(1) runs it on a terminal of its own, and prints what came there.
        let run = format!("{} --exact {name} --nocapture; stty -a", program.display());
        let mut script = Command::new("script");
        script.args(["-qc", &run, "/dev/null"]);
        script.env(PANICS, "1").env("TERM", "xterm");
        let output = script.stdin(std::process::Stdio::null()).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        let place = |text: &str| {
            shown
                .find(text)
                .unwrap_or_else(|| panic!("no {text:?}: {shown}"))
        };
        let (other, own) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
        assert!(
            place(other) < place(own) && place(own) < place(MESSAGE),
            "{shown}"
        );
        let modes: Vec<_> = shown.split([' ', ';', '\r', '\n']).collect();
        for mode in ["icanon", "echo", "isig"] {
            assert!(modes.contains(&mode), "{mode}: {shown}");
        }
    }
}
