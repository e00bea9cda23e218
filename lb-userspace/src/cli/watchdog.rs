//! `weir watchdog`

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, output};
use crate::{
    announce::watchdog,
    logging::{self, Format},
};

const EXAMPLES: &str = "\
Examples:
  weir watchdog --config /etc/weir/weir.toml

Runs beside the daemon, as a process of its own. Routes for VIPs outlive their daemon for `announce.dead_daemon_hold`
while its program is attached; then they are withdrawn here, and at once where there is neither daemon nor program.";

/// Withdraw the routes of VIPs whose daemon is gone for good
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Configuration file of the daemon
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/weir/weir.toml"
    )]
    config: PathBuf,
    /// How log lines look; `RUST_LOG` says which there are (default: info)
    #[arg(long, value_enum, default_value_t)]
    log_format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    logging::init(args.log_format)?;
    let (paths, announcing) = match watchdog::of_file(&args.config) {
        Ok(found) => found,
        Err(errors) => {
            output::message(&errors);
            return Ok(Outcome::Refused);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listening for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for signals")?;
        let end = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        watchdog::run(&args.config, &paths, announcing, end).await
    })?;
    Ok(Outcome::Done)
}
