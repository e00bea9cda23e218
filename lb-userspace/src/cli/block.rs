//! `weir block` and `weir unblock`

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use comfy_table::Cell;

use super::{
    Outcome,
    change::{Options, converse},
    output,
    status::Form,
    table,
};
use crate::{
    api::{BlockList, BlockStatus, NewBlock, OldBlock, client::Client},
    config::{DEFAULT_API_SOCKET, Prefix},
};

const BLOCK_EXAMPLES: &str = "\
Examples:
  weir block 192.0.2.0/24                          drop what these addresses send, to every VIP
  weir block 192.0.2.7 --vip web --for 10m         only to VIP web, and for ten minutes
  weir block 2001:db8::/32 --reason \"ticket 4711\"
  weir block list
  weir block list -o json | jq -r '.blocks[].prefix'

It holds until `weir unblock` or until its time is over, also over restarts, and beats whatever the configuration
allows. A prefix that is blocked already is blocked as said now.

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

const UNBLOCK_EXAMPLES: &str = "\
Examples:
  weir unblock 192.0.2.0/24              blocked for every VIP
  weir unblock 192.0.2.7 --vip web       blocked for VIP web

Exit codes: 0 done; 1 failed, or it is not blocked by command; 2 usage";

/// Drop what a prefix sends, to one VIP or to all, for good or for a time
#[derive(Debug, clap::Args)]
#[command(after_long_help = BLOCK_EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Address or prefix
    #[arg(required = true, value_parser = prefix)]
    prefix: Option<Prefix>,
    /// Only for the VIP of this name
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// For how long, as 90s, 10m or 2h 30m [default: until `weir unblock`]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Why, in a line for whoever reads the list
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what is blocked by command
    #[command(visible_alias = "ls")]
    List {
        /// Socket of the daemon
        #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
        socket: PathBuf,
        /// Form of the output; field names of json are stable
        #[arg(short, long, value_enum, default_value_t)]
        output: Form,
    },
}

/// Let a blocked prefix send again
#[derive(Debug, clap::Args)]
#[command(after_long_help = UNBLOCK_EXAMPLES)]
pub(super) struct UnblockArgs {
    /// Address or prefix, as it was blocked
    #[arg(value_parser = prefix)]
    prefix: Prefix,
    /// Blocked for the VIP of this name
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    #[command(flatten)]
    options: Options,
}

fn prefix(text: &str) -> Result<Prefix, String> {
    let parsed = text.parse::<Prefix>();
    parsed.map_err(|wrong| format!("{wrong}; {}", wrong.help()))
}

pub(super) fn block(args: &Args) -> anyhow::Result<Outcome> {
    use anyhow::Context as _;
    if let Some(Verb::List { socket, output }) = &args.verb {
        let list = converse(Client::new(socket).blocks())??;
        output::listing(*output, &list, || text(&list))?;
        return Ok(Outcome::Done);
    }
    let prefix = args.prefix.context("no prefix given")?;
    let new = NewBlock {
        prefix,
        vip: args.vip.clone(),
        seconds: args.time.map(|time| time.as_secs_f64()),
        reason: args.reason.clone(),
    };
    let client = args.options.client();
    let changed = converse(async {
        let base = args.options.base(&client).await?;
        client.block(base, &new).await
    })?;
    let time = args.time.map_or_else(String::new, |time| {
        format!(" for {}", humantime::format_duration(time))
    });
    let done = format!("{}{time}", whose(prefix, args.vip.as_deref(), "blocked"));
    args.options.tell(changed, &done)
}

pub(super) fn unblock(args: &UnblockArgs) -> anyhow::Result<Outcome> {
    let old = OldBlock {
        prefix: args.prefix,
        vip: args.vip.clone(),
    };
    let client = args.options.client();
    let changed = converse(async {
        let base = args.options.base(&client).await?;
        client.unblock(base, &old).await
    })?;
    let done = whose(args.prefix, args.vip.as_deref(), "blocked no longer");
    args.options.tell(changed, &done)
}

fn whose(prefix: Prefix, vip: Option<&str>, what: &str) -> String {
    match vip {
        Some(vip) => format!("{prefix} is {what} for VIP {vip}"),
        None => format!("{prefix} is {what} for every VIP"),
    }
}

fn text(list: &BlockList) -> String {
    if list.blocks.is_empty() {
        return "nothing is blocked by command\n".to_owned();
    }
    let mut shown = table::table(&["PREFIX", "VIP", "LEFT", "BY", "REASON"], 5);
    for block in &list.blocks {
        shown.add_row([
            Cell::new(block.prefix),
            Cell::new(vip(block)),
            Cell::new(left(block)),
            Cell::new(&block.by),
            Cell::new(block.reason.as_deref().unwrap_or("-")),
        ]);
    }
    format!("{}\n", shown.trim_fmt())
}

fn vip(block: &BlockStatus) -> String {
    match &block.vip {
        None => "all".to_owned(),
        Some(vip) if block.configured => vip.clone(),
        Some(vip) => format!("{vip} (not configured)"),
    }
}

/// How long it lasts, in whole seconds.
fn left(block: &BlockStatus) -> String {
    block.seconds_left.map_or_else(
        || "until undone".to_owned(),
        |seconds| {
            let time = Duration::try_from_secs_f64(seconds.ceil()).unwrap_or_default();
            humantime::format_duration(time).to_string()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(prefix: &str, vip: Option<&str>) -> BlockStatus {
        BlockStatus {
            prefix: prefix.parse().unwrap(),
            vip: vip.map(str::to_owned),
            since: "2026-01-01T00:00:00Z".to_owned(),
            until: None,
            seconds_left: None,
            reason: None,
            by: "uid 0".to_owned(),
            configured: vip != Some("gone"),
        }
    }

    #[test]
    fn the_list_says_for_whom_and_how_long() {
        let mut timed = status("192.0.2.0/24", None);
        timed.seconds_left = Some(599.2);
        timed.reason = Some("scans".to_owned());
        let list = BlockList {
            blocks: vec![timed, status("2001:db8::/32", Some("gone"))],
        };
        let shown = text(&list);
        for part in [
            "192.0.2.0/24",
            "all",
            "10m",
            "scans",
            "gone (not configured)",
            "until undone",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(
            text(&BlockList::default()),
            "nothing is blocked by command\n"
        );
    }
}
