//! `weir status`

use std::path::PathBuf;

use super::{Outcome, output, table};
use crate::{
    api::{
        Status,
        client::{Client, ClientError},
    },
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir status
  weir status -o json | jq '.vips[].backends[] | select(.resolved | not)'
  weir status --socket /run/weir/weir.sock

Exit codes: 0 all is well, 1 failed, 2 usage, 3 degraded: the daemon is away (packets are still
forwarded), it is not ready, or a VIP has no backend that packets can reach";

/// Show what the daemon does: interfaces, VIPs, backends, counters
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Form of a listing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = match runtime.block_on(Client::new(&args.socket).status()) {
        Ok(status) => status,
        Err(error @ ClientError::Away { .. }) => {
            output::message(format_args!(
                "the daemon is away: {error}\n  help: start it with `weir run --config FILE`; what it left attached goes on forwarding"
            ));
            return Ok(Outcome::Degraded);
        }
        Err(error) => return Err(error.into()),
    };
    match args.output {
        Form::Table => output::data(table::status(&status))?,
        Form::Json => output::data(format_args!("{}\n", serde_json::to_string_pretty(&status)?))?,
    }
    Ok(if is_well(&status) {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

/// Ready, and every VIP has a backend that takes packets.
fn is_well(status: &Status) -> bool {
    status.ready && status.vips.iter().all(crate::api::VipStatus::is_served)
}
