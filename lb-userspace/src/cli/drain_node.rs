//! `weir drain-node` and `weir undrain-node`

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    Outcome,
    change::{Options, converse},
    output,
    status::Form,
};
use crate::api::{
    Changed, Status, VipStatus,
    client::{Client, ClientError},
};

const DRAIN_EXAMPLES: &str = "\
Examples:
  weir drain-node                       no traffic for this node any more: withdraw every VIP that it announces
  weir drain-node --wait                and wait until no packets come any more
  weir drain-node --wait --quiet 30s --timeout 10m
  weir undrain-node

It holds until `weir undrain-node`: over restarts and reloads. What still comes is forwarded. Flows of slots that are
Stable live on through the fleet's other nodes. Services' addresses that this node announces by L2 go to the cluster's
other nodes within 3 s.

Exit codes: 0 done, or so already; 1 failed or refused, or packets still come after --timeout; 2 usage";

const UNDRAIN_EXAMPLES: &str = "\
Examples:
  weir undrain-node

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(500);

/// How often a person is told of how many packets still come.
const TELL: Duration = Duration::from_secs(5);

/// Withdraw every VIP that this node announces
#[derive(Debug, clap::Args)]
#[command(after_long_help = DRAIN_EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
    /// Wait until no packets come any more for the VIPs that are announced
    #[arg(long)]
    wait: bool,
    /// How long none must have come
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s", requires = "wait")]
    quiet: Duration,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "5min", requires = "wait")]
    timeout: Duration,
}

/// Let this node announce its VIPs again
#[derive(Debug, clap::Args)]
#[command(after_long_help = UNDRAIN_EXAMPLES)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    options: Options,
}

/// What came of waiting. Field names are stable.
#[derive(Debug, Serialize)]
struct Waited {
    #[serde(flatten)]
    changed: Changed,
    /// Whether no packets came for as long as was asked for.
    quiet: bool,
    /// Whether the network is still told of a VIP.
    announced: bool,
    /// Packets a second that came last.
    packets_per_second: f64,
    /// How long it took until then.
    seconds: f64,
}

pub(super) fn drain(args: &Args) -> anyhow::Result<Outcome> {
    const DONE: &str = "the node is drained: it announces no VIP";
    let client = args.options.client();
    let changed = converse(async {
        let base = args.options.base(&client).await?;
        client.drain_node(base, true).await
    })?;
    if !args.wait {
        return args.options.tell(changed, DONE);
    }
    let changed = match changed {
        Ok(changed) => changed,
        Err(error) => return args.options.tell(Err(error), DONE),
    };
    let waited = converse(wait(args, &client, changed))??;
    match args.options.output {
        Form::Json => {
            let text = serde_json::to_string_pretty(&waited)?;
            output::data(format_args!("{text}\n"))?;
        }
        Form::Table if waited.quiet => output::message(format_args!(
            "{DONE}, and for {} no packets have come (generation {})",
            humantime::format_duration(args.quiet),
            changed.generation
        )),
        Form::Table if waited.announced => output::message(format_args!(
            "after {} VIPs are still announced: `weir status` says why",
            humantime::format_duration(args.timeout)
        )),
        Form::Table => output::message(format_args!(
            "after {} packets still come, {:.1} a second: has the network been told? (`weir status`, docs/fleet.md)",
            humantime::format_duration(args.timeout),
            waited.packets_per_second
        )),
    }
    Ok(if waited.quiet {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

pub(super) fn undrain(args: &UndrainArgs) -> anyhow::Result<Outcome> {
    let client = args.options.client();
    let changed = converse(async {
        let base = args.options.base(&client).await?;
        client.drain_node(base, false).await
    })?;
    let done = "the node announces its VIPs again";
    args.options.tell(changed, done)
}

async fn wait(args: &Args, client: &Client, changed: Changed) -> Result<Waited, ClientError> {
    let began = Instant::now();
    let mut last = Packets::of(&client.status().await?);
    // Since when none have come.
    let mut quiet_since = Instant::now();
    let mut looked = Instant::now();
    let mut told = Instant::now();
    let mut rate;
    loop {
        sleep(LOOK).await;
        let packets = Packets::of(&client.status().await?);
        let now = Instant::now();
        let came = packets.count.saturating_sub(last.count);
        rate = f64::from(u32::try_from(came).unwrap_or(u32::MAX))
            / now.duration_since(looked).as_secs_f64();
        looked = now;
        if came > 0 || packets.is_announced {
            quiet_since = now;
        }
        last = packets;
        let quiet = now.duration_since(quiet_since) >= args.quiet;
        if quiet || now.duration_since(began) >= args.timeout {
            return Ok(Waited {
                changed,
                quiet,
                announced: last.is_announced,
                packets_per_second: rate,
                seconds: began.elapsed().as_secs_f64(),
            });
        }
        if args.options.output == Form::Table && now.duration_since(told) >= TELL {
            output::message(format_args!("{rate:.1} packets a second still come"));
            told = now;
        }
    }
}

/// What has come for the VIPs that this node announces. Others get their packets whatever it says.
struct Packets {
    count: u64,
    /// Whether the network is still told of one of them.
    is_announced: bool,
}

impl Packets {
    fn of(status: &Status) -> Self {
        let vips = status.vips.iter().filter(|vip| vip.announce.is_some());
        let of_vip = |vip: &VipStatus| -> u64 {
            let dropped = vip.dropped.iter().map(|drop| drop.packets);
            vip.packets + dropped.sum::<u64>()
        };
        let mut announced = vips.clone().filter_map(|vip| vip.announce.as_ref());
        Self {
            count: vips.map(of_vip).sum(),
            is_announced: announced.any(|announce| announce.announced),
        }
    }
}
