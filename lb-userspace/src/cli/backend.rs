//! `weir backend`

use std::{net::IpAddr, path::PathBuf};

use anyhow::ensure;
use serde::Serialize;

use super::{Outcome, change::converse, output, status::Form, text};
use crate::{
    api::{BackendStatus, LeavingStatus, Status, client::Client},
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir backend list
  weir backend list -o json | jq '.[] | select(.drained)'
  weir backend list -o json | jq '.[] | select(.healthy == false) | {vip, address, health}'
  weir backend show 10.0.0.11

Exit codes: 0 done; 1 failed, or there is no such backend; 2 usage";

/// Show backends, once for each VIP that they serve
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Every backend of every VIP
    List(Options),
    /// One backend in every VIP that has it
    Show {
        /// Address of the backend
        address: IpAddr,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// A backend of a VIP.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    /// The VIP's name.
    pub(super) vip: &'a str,
    /// The backend.
    #[serde(flatten)]
    pub(super) backend: Shown<'a>,
}

/// What there is to be shown of a backend.
#[derive(Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    /// One of the configuration.
    Own(&'a BackendStatus),
    /// One that is leaving: in tables only, since programs find these in the status under their own key.
    Leaving(&'a LeavingStatus),
}

impl Shown<'_> {
    const fn address(&self) -> IpAddr {
        match self {
            Self::Own(backend) => backend.address,
            Self::Leaving(leaving) => leaving.address,
        }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let (Verb::List(options) | Verb::Show { options, .. }) = &args.verb;
    let status = converse(Client::new(&options.socket).status())??;
    let mut rows = rows(&status);
    if options.output == Form::Json {
        rows.retain(|row| matches!(row.backend, Shown::Own(_)));
    }
    if let Verb::Show { address, .. } = &args.verb {
        rows.retain(|row| row.backend.address() == *address);
        ensure!(
            !rows.is_empty(),
            "no VIP has a backend {address}: `weir backend list` lists all"
        );
    }
    output::listing(options.output, &rows, || text::backend_rows(&rows))?;
    Ok(Outcome::Done)
}

fn rows(status: &Status) -> Vec<Row<'_>> {
    let vips = status.vips.iter();
    let rows = vips.flat_map(|vip| {
        let own = vip.backends.iter().map(Shown::Own);
        let leaving = vip.leaving.iter().map(Shown::Leaving);
        own.chain(leaving).map(|backend| Row {
            vip: &vip.name,
            backend,
        })
    });
    rows.collect()
}
