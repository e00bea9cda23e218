//! `weir flows`

use std::{net::IpAddr, path::PathBuf, time::Duration};

use comfy_table::Cell;

use super::{Outcome, change::converse, output, status::Form, table};
use crate::{
    api::{DEFAULT_FLOWS, FlowFilter, FlowStatus, Flows, client::Client},
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir flows
  weir flows --vip web --backend 10.0.0.11
  weir flows --limit 0                     only how many there are, by VIP and backend
  weir flows --limit 100000 -o json | jq '.flows[] | select(.kind == \"old\")'

Exit codes: 0 done; 1 failed, or there is no such VIP; 2 usage";

/// Show the flows that are remembered while their slots change hands
///
/// In steady state there are none: the hash of a flow tells its backend (docs/consistency.md).
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Only flows of this VIP
    #[arg(long, value_name = "NAME")]
    vip: Option<String>,
    /// Only flows that this backend serves
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,
    /// List so many at most; all are counted
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS)]
    limit: usize,
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let filter = FlowFilter {
        vip: args.vip.clone(),
        backend: args.backend,
        limit: Some(args.limit),
    };
    let flows = converse(Client::new(&args.socket).flows(&filter))??;
    output::listing(args.output, &flows, || text(&flows))?;
    Ok(Outcome::Done)
}

fn text(flows: &Flows) -> String {
    if flows.total == 0 {
        return "no flow is remembered: each is where its slot is\n".to_owned();
    }
    let mut counts = table::table(&["VIP", "BACKEND", "FLOWS"], 2);
    for count in &flows.counts {
        counts.add_row([
            Cell::new(&count.vip),
            Cell::new(count.backend),
            table::number(count.flows.to_string()),
        ]);
    }
    let counts = counts.trim_fmt();
    let unlisted = flows.total.saturating_sub(flows.flows.len() as u64);
    let listed = if flows.flows.is_empty() {
        String::new()
    } else {
        format!("\n\n{}", listing(&flows.flows))
    };
    let more = match unlisted {
        0 => String::new(),
        more => format!("\n{more} more: --limit lists them"),
    };
    format!("{counts}{listed}{more}\n")
}

fn listing(flows: &[FlowStatus]) -> String {
    let header = ["VIP", "CLIENT", "BACKEND", "MAP", "SLOT", "AGE", "IDLE"];
    let mut listing = table::table(&header, 5);
    for flow in flows {
        let time = |seconds| {
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
        };
        let idle = time(flow.idle_seconds);
        let note = if flow.expired { " (expired)" } else { "" };
        listing.add_row([
            Cell::new(&flow.vip),
            Cell::new(flow.client),
            Cell::new(flow.backend),
            Cell::new(&flow.kind),
            Cell::new(format!("{} {}", flow.slot, flow.slot_state)),
            table::number(flow.age_seconds.map_or_else(|| "?".to_owned(), time)),
            table::number(format!("{idle}{note}")),
        ]);
    }
    listing.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::FlowCount, config::Protocol};

    #[test]
    fn counts_come_first_and_what_is_not_listed_is_said() {
        let flow = FlowStatus {
            vip: "web".to_owned(),
            protocol: Protocol::Tcp,
            client: "[2001:db8::7]:40000".parse().unwrap(),
            dialled: "[2001:db8::10]:443".parse().unwrap(),
            backend: "10.0.0.11".parse().unwrap(),
            backend_id: 3,
            kind: "old".to_owned(),
            age_seconds: Some(3723.9),
            idle_seconds: 75.2,
            closing: false,
            expired: true,
            slot: 77,
            slot_state: "moving".to_owned(),
        };
        let count = FlowCount {
            vip: "web".to_owned(),
            backend: flow.backend,
            backend_id: 3,
            flows: 12,
        };
        let mut flows = Flows {
            total: 12,
            counts: vec![count],
            flows: vec![flow],
        };
        let shown = text(&flows);
        assert!(
            shown.starts_with("VIP BACKEND   FLOWS\nweb 10.0.0.11    12\n\nVIP"),
            "{shown}"
        );
        for part in [
            "[2001:db8::7]:40000",
            " 77 moving ",
            "1h 2m 3s",
            "1m 15s (expired)",
            "\n11 more: ",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        flows.flows.clear();
        assert!(
            text(&flows).ends_with("12\n12 more: --limit lists them\n"),
            "{}",
            text(&flows)
        );
        assert!(text(&Flows::default()).starts_with("no flow is remembered"));
    }
}
