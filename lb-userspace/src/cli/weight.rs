//! `weir weight`

use std::net::IpAddr;

use super::{
    Outcome,
    change::{Options, converse},
};

const EXAMPLES: &str = "\
Examples:
  weir weight web 10.0.0.11 50
  weir weight web 10.0.0.11 --reset    the configuration's weight again

It holds until `--reset`: over restarts, and whatever weight the configuration gives. A drained backend takes its
weight when it is undrained.

Exit codes: 0 done, or so already; 1 failed or refused, and nothing has changed; 2 usage";

/// Give a backend of a VIP another share of new flows than the configuration does
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Name of the VIP
    vip: String,
    /// Address of the backend
    backend: IpAddr,
    /// Share of new flows against the VIP's other backends, 0 to 65535
    #[arg(required_unless_present = "reset", conflicts_with = "reset")]
    weight: Option<u16>,
    /// Go back to the configuration's weight
    #[arg(long)]
    reset: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Args {
        vip,
        backend,
        weight,
        options,
        ..
    } = args;
    let client = options.client();
    let changed = converse(async {
        let base = options.base(&client).await?;
        client.weight(base, vip, *backend, *weight).await
    })?;
    let done = match weight {
        Some(weight) => format!("{backend} of VIP {vip} has weight {weight}"),
        None => format!("{backend} of VIP {vip} has the configuration's weight again"),
    };
    options.tell(changed, &done)
}
