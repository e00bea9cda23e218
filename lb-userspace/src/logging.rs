//! Structured logs on standard error.
//!
//! Fields have the same names everywhere: `vip`, `backend`, `interface`, `ifindex`, `generation`, `from`, `to`,
//! `error`. Levels: ERROR needs a human now; WARN is unusual but working; INFO is a change of state; DEBUG
//! says why; TRACE is for single packets and checks.

use std::io::{self, IsTerminal as _};

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
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_colour());
    let set = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| anyhow::anyhow!(error))
}

/// Whether the user wants no colours (<https://no-color.org>).
pub(crate) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
