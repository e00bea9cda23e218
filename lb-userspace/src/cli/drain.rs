//! `weir drain` and `weir undrain`

use std::net::IpAddr;

use super::{
    Outcome,
    change::{Options, converse},
};
use crate::api::Target;

const DRAIN_EXAMPLES: &str = "\
Examples:
  weir drain web 10.0.0.11      no new flows of VIP web for this backend
  weir drain --all 10.0.0.11    nor of any other VIP
  weir undrain --all 10.0.0.11

It holds until `weir undrain`: over restarts, and whatever weight the configuration gives.

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

const UNDRAIN_EXAMPLES: &str = "\
Examples:
  weir undrain web 10.0.0.11
  weir undrain --all 10.0.0.11

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

/// Let a backend take no new flows
#[derive(Debug, clap::Args)]
#[command(after_long_help = DRAIN_EXAMPLES, allow_missing_positional = true)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    options: Options,
}

/// Let a drained backend take new flows again
#[derive(Debug, clap::Args)]
#[command(after_long_help = UNDRAIN_EXAMPLES, allow_missing_positional = true)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Name of the VIP
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    vip: Option<String>,
    /// Address of the backend
    #[arg(required = true)]
    backend: Option<IpAddr>,
    /// In every VIP that has the backend
    #[arg(long)]
    all: bool,
}

pub(super) fn drain(args: &Args) -> anyhow::Result<Outcome> {
    run(&args.which, &args.options, true)
}

pub(super) fn undrain(args: &UndrainArgs) -> anyhow::Result<Outcome> {
    run(&args.which, &args.options, false)
}

fn run(which: &Which, options: &Options, is_drained: bool) -> anyhow::Result<Outcome> {
    use anyhow::Context as _;
    let backend = which.backend.context("no backend given")?;
    let (target, what) = match &which.vip {
        Some(vip) => (
            Target::OfVip(vip.clone(), backend),
            format!("{backend} of VIP {vip}"),
        ),
        None => (Target::OfAll(backend), format!("{backend} of every VIP")),
    };
    let client = options.client();
    let changed = converse(async {
        let base = options.base(&client).await?;
        client.drain(base, &target, is_drained).await
    })?;
    let done = if is_drained {
        format!("{what} takes no new flows")
    } else {
        format!("{what} takes new flows again")
    };
    options.tell(changed, &done)
}
