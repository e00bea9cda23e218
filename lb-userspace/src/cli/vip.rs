//! `weir vip`

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Outcome, change::converse, output, status::Form, text};
use crate::{api::client::Client, config::DEFAULT_API_SOCKET};

const EXAMPLES: &str = "\
Examples:
  weir vip list
  weir vip list -o json | jq '.[].table_digest'
  weir vip show web

Exit codes: 0 done; 1 failed, or there is no such VIP; 2 usage";

/// Show VIPs: their tables, counters and backends
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Every VIP, a line each
    List(Options),
    /// One VIP and its backends
    Show {
        /// Name of the VIP
        name: String,
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

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let (Verb::List(options) | Verb::Show { options, .. }) = &args.verb;
    let vips = converse(Client::new(&options.socket).status())??.vips;
    match &args.verb {
        Verb::List(_) => output::listing(options.output, &vips, || text::vips(&vips))?,
        Verb::Show { name, .. } => {
            let vip = vips.iter().find(|vip| vip.name == *name);
            let vip = vip.with_context(|| {
                format!("there is no VIP {name}: `weir vip list` lists those that there are")
            })?;
            output::listing(options.output, vip, || text::vip(vip))?;
        }
    }
    Ok(Outcome::Done)
}
