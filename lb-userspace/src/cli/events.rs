//! `weir events`

use std::{net::IpAddr, path::PathBuf};

use anyhow::bail;

use super::{
    Outcome,
    change::converse,
    output,
    packets::{self, OneIn},
    status::Form,
};
use crate::{
    api::{Event, What, client::Client},
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir events
  weir events -o json | jq 'select(.type == \"health\" and .state == \"failed\")'
  weir events --packets 1/10000 --vip web -o json   sampled packets, a line each (docs/capture.md)

Exit codes: 0 the reader has gone; 1 the daemon has ended, or is away; 2 usage";

/// Follow what happens: configurations, commands, health, moves, next hops; or packets
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Packets instead, drawn by chance: one in so many, as `1/10000`
    #[arg(long, value_name = "1/N")]
    packets: Option<OneIn>,
    /// Only packets to this VIP
    #[arg(long, value_name = "NAME", requires = "packets")]
    vip: Option<String>,
    /// Only packets with these reasons, by commas; `drop` and `pass` stand for all of that verdict
    #[arg(long, value_name = "REASONS", requires = "packets")]
    reason: Option<String>,
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output: a line for each event; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    converse(async {
        let client = Client::new(&args.socket);
        if let Some(sample) = args.packets {
            let (vip, reason) = (args.vip.clone(), args.reason.clone());
            return packets::follow(&client, sample, vip, reason, args.output).await;
        }
        let mut events = client.events().await?;
        while let Some(event) = events.next().await? {
            match args.output {
                Form::Json => output::data(format_args!("{}\n", serde_json::to_string(&event)?))?,
                Form::Table => output::data(format_args!("{}\n", line(&event)))?,
            }
        }
        bail!("the daemon has ended the stream of events")
    })?
}

/// What a command has changed; nothing of any other event.
fn by_command(what: &What) -> String {
    match what {
        What::Drained {
            generation,
            by,
            vip,
            backend,
        } => format!("generation {generation}: {backend} of VIP {vip} drained by {by}"),
        What::Undrained {
            generation,
            by,
            vip,
            backend,
        } => format!("generation {generation}: {backend} of VIP {vip} undrained by {by}"),
        What::Weight {
            generation,
            by,
            vip,
            backend,
            weight,
        } => {
            let weight = weight.map_or_else(
                || "the configuration's weight".to_owned(),
                |weight| format!("weight {weight}"),
            );
            format!("generation {generation}: {backend} of VIP {vip} has {weight} by {by}")
        }
        What::AnnounceSet {
            generation,
            by,
            vip,
            address,
            on,
        } => {
            let on = if *on { "on" } else { "off" };
            format!("generation {generation}: {address} of VIP {vip} announced {on} by {by}")
        }
        What::Blocked {
            generation,
            by,
            prefix,
            vip,
            until,
            ..
        } => {
            let until = until.as_ref().map(|until| format!(" until {until}"));
            let until = until.unwrap_or_default();
            format!(
                "generation {generation}: {prefix} blocked {} by {by}{until}",
                of(vip.as_deref())
            )
        }
        What::Unblocked {
            generation,
            by,
            prefix,
            vip,
        } => format!(
            "generation {generation}: {prefix} blocked no longer {} by {by}",
            of(vip.as_deref())
        ),
        What::NodeDrained { generation, by } => {
            format!("generation {generation}: node drained by {by}")
        }
        What::NodeUndrained { generation, by } => {
            format!("generation {generation}: node undrained by {by}")
        }
        _ => String::new(),
    }
}

/// What is blocked concerns one VIP, or all.
fn of(vip: Option<&str>) -> String {
    match vip {
        Some(vip) => format!("for VIP {vip}"),
        None => "for every VIP".to_owned(),
    }
}

fn of_vip(backend: &IpAddr, vip: Option<&str>) -> String {
    match vip {
        Some(vip) => format!("{backend} of VIP {vip}"),
        None => format!("{backend} of a VIP that is gone"),
    }
}

/// An event as a line for people.
pub(super) fn line(event: &Event) -> String {
    let what = match &event.what {
        What::Applied {
            generation,
            by,
            file,
        } => format!(
            "generation {generation}: {} applied by {by}",
            file.display()
        ),
        What::Refused { by, file, error } => {
            let error = error.lines().next().unwrap_or_default();
            format!("{} by {by} refused: {error}", file.display())
        }
        What::Drained { .. }
        | What::Undrained { .. }
        | What::Weight { .. }
        | What::NodeDrained { .. }
        | What::NodeUndrained { .. }
        | What::AnnounceSet { .. }
        | What::Blocked { .. }
        | What::Unblocked { .. } => by_command(&event.what),
        What::Announced {
            address,
            on,
            because,
        } => {
            let what = if *on { "is" } else { "is not" };
            format!("{address} {what} announced ({})", because.as_str())
        }
        What::Services { added, removed } => {
            let added = added.iter().map(|name| format!("+{name}"));
            let removed = removed.iter().map(|name| format!("-{name}"));
            let names: Vec<_> = added.chain(removed).collect();
            format!("VIPs of Services: {}", names.join(" "))
        }
        What::ListRead { file, prefixes } => {
            format!(
                "{} has changed: {prefixes} prefixes are in force",
                file.display()
            )
        }
        What::NextHop {
            vip,
            backend,
            resolved: true,
        } => format!("{backend} of VIP {vip}: its next hop is known"),
        What::NextHop { vip, backend, .. } => {
            format!("{backend} of VIP {vip}: its next hop is not known")
        }
        What::Health {
            vip,
            backend,
            state,
            reason,
        } => {
            let reason = reason.as_deref().map(|reason| format!(": {reason}"));
            let (state, reason) = (state.as_str(), reason.unwrap_or_default());
            format!("{backend} of VIP {vip} is {state}{reason}")
        }
        What::FailsOpen {
            vip,
            fails_open: true,
        } => format!("VIP {vip}: too many backends fail their checks, so all are used"),
        What::FailsOpen { vip, .. } => {
            format!("VIP {vip}: backends that fail their checks are left out again")
        }
        What::Announcement {
            address,
            announced,
            reason,
        } => {
            let what = if *announced { "announced" } else { "withdrawn" };
            format!("{address} {what}: {}", reason.replace('_', " "))
        }
        What::Moving { vip, slots } => format!("VIP {vip}: {slots} slots begin to change hands"),
        What::Settled { vip } => format!("VIP {vip}: all slots are stable"),
        What::Leaving {
            vip,
            backend,
            id,
            alive,
        } => {
            let what = if *alive {
                "is leaving"
            } else {
                "is dead, and leaves"
            };
            format!("{} {what} (id {id})", of_vip(backend, vip.as_deref()))
        }
        What::Left { vip, backend, id } => {
            format!("{} has left (id {id})", of_vip(backend, vip.as_deref()))
        }
        What::Interface { interface, state } => {
            format!("interface {interface}: {}", state.as_str())
        }
        What::Missed { events } => format!("{events} events missed: the reader was too slow"),
    };
    format!("{} {what}", event.time)
}
