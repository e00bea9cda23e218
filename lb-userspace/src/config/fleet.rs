//! Reads `[fleet]`: which other nodes this one compares its tables with.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Fleet, keys,
    section::{Field, Section},
    source::Report,
};

/// How many peers there are at most.
const MOST_PEERS: usize = 64;

/// The section, or its defaults.
pub(super) fn read(
    top: &Section<'_>,
    listen: Option<SocketAddr>,
    report: &mut Report<'_>,
) -> Option<Fleet> {
    const WANTED: &str = "a section `[fleet]`";
    const HELP: &str =
        "write `[fleet]` on a line of its own, and `peers = [\"10.0.0.2:9407\"]` below";
    let Some(field) = top.field("fleet") else {
        return Some(Fleet::default());
    };
    let section = field.section(WANTED, HELP, &keys::FLEET, report)?;
    let peers = match section.field("peers") {
        Some(field) => peers(&field, top.field("redis").is_some(), report)
            .filter(|peers| is_reached(&field, peers, listen, report)),
        None => Some(BTreeSet::new()),
    };
    Some(Fleet { peers: peers? })
}

/// Whether the peers can ask in their turn: the listener's default is this host's alone.
fn is_reached(
    field: &Field<'_>,
    peers: &BTreeSet<SocketAddr>,
    listen: Option<SocketAddr>,
    report: &mut Report<'_>,
) -> bool {
    let is_here = |address: &SocketAddr| address.ip().is_loopback();
    let Some(listen) = listen.filter(is_here) else {
        return true;
    };
    let is_reached = peers.iter().all(is_here);
    if !is_reached {
        report.add(
            field.offset,
            &field.path,
            format!("peers on other hosts, which cannot ask this node at {listen}"),
            "a `metrics_listen` that the peers reach",
            format!(
                "write `metrics_listen = \"10.0.0.1:{}\"` with this node's own address into `[node]`",
                listen.port()
            ),
        );
    }
    is_reached
}

/// Each address once, whatever the order. This node's own may be among them, so that all nodes can have the same list.
fn peers(
    field: &Field<'_>,
    has_redis: bool,
    report: &mut Report<'_>,
) -> Option<BTreeSet<SocketAddr>> {
    const HELP: &str = "write `peers = [\"10.0.0.2:9407\", \"[2001:db8::2]:9407\"]`: the `metrics_listen` of the other nodes";
    let wanted = format!("a list of at most {MOST_PEERS} addresses with ports");
    let items = field.items(&wanted, HELP, report)?;
    if items.len() > MOST_PEERS {
        let found = format!("{} addresses", items.len());
        report.add(field.offset, &field.path, found, wanted, HELP);
        return None;
    }
    if has_redis && !items.is_empty() {
        report.add(
            field.offset,
            &field.path,
            "peers beside a section `[redis]`, by which the nodes of a fleet hear of each other",
            "one of the two",
            "take `peers` out; or `[redis]`, where no limit needs it",
        );
        return None;
    }
    let read = |item: Field<'_>| {
        let wanted = "an address and a port of another node";
        item.parse(wanted, HELP, report, |text| {
            let address: SocketAddr = text.parse().ok()?;
            let ip = address.ip();
            let is_host = !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0;
            is_host.then_some(address)
        })
    };
    let peers: Vec<_> = items.into_iter().map(read).collect();
    peers.into_iter().collect()
}
