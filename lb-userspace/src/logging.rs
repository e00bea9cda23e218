//! Structured logs on standard error, one line an event.
//!
//! Fields have the same names everywhere, which docs/OPERATIONS.md lists; none has a secret. Levels: ERROR needs a human
//! now; WARN is unusual but working; INFO is a change of state; DEBUG says why; TRACE is for single packets and checks.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    panic,
};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to standard error: INFO and above, or what `RUST_LOG` says.
///
/// # Errors
/// `RUST_LOG` is not understood, or logs go somewhere already.
pub fn init(format: Format) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| anyhow::anyhow!("RUST_LOG: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(io::stderr().is_terminal() && !no_colour());
    let set = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| anyhow::anyhow!(error))?;
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            error = panic.payload_as_str(),
            at = panic.location().map(tracing::field::display),
            backtrace = backtrace.map(tracing::field::display),
            "panic: a defect, please report it"
        );
    }));
    Ok(())
}

/// Keeps to one line what comes at once, as events do: a field of several lines has `\n` instead.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let (text, end) = match event.strip_suffix(b"\n") {
        Some(text) => (text, &b"\n"[..]),
        None => (event, &b""[..]),
    };
    if !text.contains(&b'\n') {
        return Cow::Borrowed(event);
    }
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    Cow::Owned([&lines.join(&b"\\n"[..]), end].concat())
}

/// Whether the user wants no colours (<https://no-color.org>).
pub(crate) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut written = Vec::new();
        let mut writer = OneLine(&mut written);
        for event in ["plain\n", "error=first\nsecond\n\nlast\n", "no end"] {
            writer.write_all(event.as_bytes()).unwrap();
        }
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written, "plain\nerror=first\\nsecond\\n\\nlast\nno end");
    }
}
