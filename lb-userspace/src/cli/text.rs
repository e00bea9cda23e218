//! A status as text and tables that fit 80 columns.

use std::{fmt::Write as _, net::SocketAddr};

use comfy_table::{Cell, Color, Table};

use super::{
    backend::{Row, Shown},
    table::{bytes, count, fit, number, share, table},
};
use crate::api::{
    AccessCount, AccessStatus, AgreementStatus, AnnounceStatus, BackendStatus, HealthState,
    HealthStatus, InterfaceStatus, KubernetesStatus, LeavingStatus, NodeCounts, ObservedStatus,
    OverrideStatus, Status, VipStatus,
};

/// The whole of `weir status`.
pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    let ready = if status.ready { "ready" } else { "not ready" };
    // Writing to a string cannot fail.
    writeln!(
        text,
        "node {}, weir {}, generation {}, {ready}",
        status.node, status.version, status.generation
    )
    .ok();
    for interface in &status.interfaces {
        writeln!(text, "{}", interface_line(interface)).ok();
    }
    if status.config.applied != status.config.file {
        let applied = status.config.applied.display();
        writeln!(text, "configuration {applied}, by {}", status.config.by).ok();
    }
    if status.drained {
        writeln!(
            text,
            "by command: the node is drained, and announces no VIP (`weir undrain-node`)"
        )
        .ok();
    }
    for changed in &status.overrides {
        writeln!(text, "by command: {}", command(changed)).ok();
    }
    for stands in status.announcements.iter().filter(|stands| !stands.on) {
        let because = stands.because.as_str();
        writeln!(text, "{} is not announced ({because})", stands.address).ok();
    }
    text += &access(&status.access);
    if status.observed.active {
        let ObservedStatus {
            watchers,
            captured,
            skipped,
            ..
        } = status.observed;
        writeln!(
            text,
            "packets are watched by {watchers}: {} captured, {} skipped",
            count(captured),
            count(skipped)
        )
        .ok();
    }
    if let Some(cluster) = &status.kubernetes {
        writeln!(text, "{}", kubernetes(cluster)).ok();
    }
    if let Some(line) = status.agreement.as_ref().and_then(agreement) {
        writeln!(text, "{line}").ok();
    }
    for problem in &status.problems {
        writeln!(text, "problem: {problem}").ok();
    }
    for shown in &status.vips {
        write!(text, "\n{}", vip(shown)).ok();
    }
    if status.reasons.iter().any(|reason| reason.packets > 0) {
        writeln!(text, "\n{}", reasons(status).trim_fmt()).ok();
    }
    text
}

/// How the node stands with its cluster.
fn kubernetes(cluster: &KubernetesStatus) -> String {
    let api = match (cluster.connected, cluster.synced) {
        (true, true) => "connected",
        (true, false) => "reading",
        (false, _) => "API server away",
    };
    let writer = if cluster.writer { ", writes" } else { "" };
    let services = cluster
        .objects
        .iter()
        .find(|count| count.kind == "services");
    let services = services.map_or(0, |count| count.objects);
    format!(
        "kubernetes {}: {api}{writer}, {services} Services of load balancers",
        cluster.class
    )
}

/// Where the nodes of the fleet differ; `None` where all agree.
fn agreement(agreement: &AgreementStatus) -> Option<String> {
    let NodeCounts {
        differs,
        unreachable,
        ..
    } = agreement.nodes;
    let mut parts = Vec::new();
    if differs > 0 {
        let names = agreement.vips.iter().map(|vip| vip.vip.as_str());
        let names: Vec<_> = names.collect();
        let word = if differs == 1 { "differs" } else { "differ" };
        parts.push(format!("{differs} {word} in {}", names.join(", ")));
    }
    if unreachable > 0 {
        parts.push(format!("{unreachable} unreachable"));
    }
    if agreement.error.is_some() {
        parts.push("Redis is away".to_owned());
    }
    // The command comes first: names of VIPs may be many.
    (!parts.is_empty()).then(|| {
        fit(&format!(
            "other nodes of the fleet (`weir fleet`): {}",
            parts.join("; ")
        ))
    })
}

/// Access lists and blocks, and what they have decided; empty where there are none.
fn access(access: &AccessStatus) -> String {
    let mut text = String::new();
    if access.blocks > 0 {
        // Writing to a string cannot fail, here and below.
        let blocks = count(access.blocks);
        writeln!(
            text,
            "by command: {blocks} prefixes blocked (`weir block list`)"
        )
        .ok();
    }
    let loading = if access.in_force {
        ""
    } else {
        ", being written"
    };
    for list in &access.lists {
        let vip = list.vip.as_ref().map(|vip| format!(" of VIP {vip}"));
        let vip = vip.as_deref().unwrap_or(" of all VIPs");
        let prefixes = count(list.prefixes);
        writeln!(
            text,
            "{} list{vip}: {prefixes} prefixes{loading}",
            list.list
        )
        .ok();
    }
    for decided in access.counts.iter().filter(|decided| decided.packets > 0) {
        let AccessCount {
            vip,
            list,
            result,
            packets,
        } = decided;
        writeln!(
            text,
            "{list} of VIP {vip}: {} packets {result}",
            count(*packets)
        )
        .ok();
    }
    text
}

/// An interface, and how the program is on it or why it is not.
fn interface_line(interface: &InterfaceStatus) -> String {
    let state = match (&interface.mode, &interface.foreign) {
        (Some(mode), _) => format!("{} XDP", mode.as_str()),
        (None, Some(foreign)) => format!("not attached: another XDP program, {foreign}"),
        (None, None) => format!("not attached: {}", interface.state.as_str()),
    };
    format!("interface {} ({state})", interface.name)
}

/// A VIP and its backends.
pub(super) fn vip(vip: &VipStatus) -> String {
    let mut text = vip_lines(vip) + "\n";
    if let Some(announce) = &vip.announce {
        writeln!(text, "  {}", announce_line(announce)).ok();
    }
    if !vip.backends.is_empty() {
        writeln!(text, "{}", backends(vip).trim_fmt()).ok();
    }
    for backend in &vip.backends {
        let line = backend.health.as_ref().and_then(health_line);
        if let Some(line) = line {
            writeln!(text, "{}", fit(&format!("  {}: {line}", backend.address))).ok();
        }
        ebb_line(&vip.name, backend).map(|line| writeln!(text, "{line}").ok());
    }
    for leaving in &vip.leaving {
        writeln!(text, "{}", leaving_line(leaving)).ok();
        if let Some(line) = leaving.health.as_ref().and_then(health_line) {
            writeln!(text, "{}", fit(&format!("    {line}"))).ok();
        }
    }
    text
}

/// How a VIP is announced, or why it is not.
fn announce_line(announce: &AnnounceStatus) -> String {
    let reason = match announce.reason.as_str() {
        "too_few_healthy" => format!(
            "fewer than {} backends pass their checks",
            announce.min_healthy
        ),
        "hold_down" => "held down after a withdrawal".to_owned(),
        "unknown" => "its backends have not been checked yet".to_owned(),
        "start" => "not before `weir announce on`".to_owned(),
        "command" => "by command, until `weir announce on`".to_owned(),
        "owner" => "another node of the cluster does it".to_owned(),
        other => other.replace('_', " "),
    };
    match (announce.announced, announce.wanted) {
        (true, true) => format!("announced by {}", announce.by),
        (true, false) => format!("still announced by {}: {reason}", announce.by),
        (false, true) => format!("should be announced by {}, and is not", announce.by),
        (false, false) => format!("not announced by {}: {reason}", announce.by),
    }
}

/// What is to be said of a backend's checks; nothing where they pass.
fn health_line(health: &HealthStatus) -> Option<String> {
    let flaps = match health.flaps {
        0 | 1 => String::new(),
        flaps => format!(" ({} flaps)", count(flaps)),
    };
    match (health.state, &health.reason, &health.last_error) {
        (HealthState::Failed, Some(reason), _) => {
            let since = health.since.get(..19).unwrap_or(&health.since);
            Some(format!("failed at {since}{flaps}: {reason}"))
        }
        (HealthState::Failed, None, Some(error)) => Some(format!("failed{flaps}: {error}")),
        (_, _, Some(error)) => Some(format!(
            "{}, but failed {} in a row{flaps}: {error}",
            health.state.as_str(),
            health.in_a_row
        )),
        _ => None,
    }
}

/// VIPs, a line each.
pub(super) fn vips(vips: &[VipStatus]) -> String {
    let header = [
        "VIP", "DIALLED", "PROTO", "DIGEST", "BACKENDS", "PACKETS", "NEW",
    ];
    let mut table = table(&header, 4);
    for vip in vips {
        table.add_row([
            Cell::new(&vip.name),
            Cell::new(dialled(vip)),
            Cell::new(vip.protocol.as_str()),
            Cell::new(&vip.table_digest),
            number(vip.backends.len().to_string()),
            number(count(vip.packets)),
            number(count(vip.new_connections)),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

/// Backends of all VIPs, a line each.
pub(super) fn backend_rows(rows: &[Row<'_>]) -> String {
    let header = ["VIP", "BACKEND", "STATE", "WEIGHT", "SLOTS", "PACKETS"];
    let mut table = table(&header, 3);
    for Row { vip, backend } in rows {
        let backend = match backend {
            Shown::Own(backend) => backend,
            Shown::Leaving(leaving) => {
                table.add_row([
                    Cell::new(vip),
                    Cell::new(leaving.address),
                    Cell::new(leaving_state(leaving)).fg(Color::Yellow),
                    number("-".to_owned()),
                    number("-".to_owned()),
                    number(count(leaving.packets)),
                ]);
                continue;
            }
        };
        table.add_row([
            Cell::new(vip),
            Cell::new(backend.address),
            state(backend),
            number(weight(backend)),
            number(share(backend.slots)),
            number(count(backend.packets)),
        ]);
    }
    let mut text = table.trim_fmt() + "\n";
    for Row { vip, backend } in rows {
        if let Shown::Own(backend) = backend
            && let Some(line) = ebb_line(vip, backend)
        {
            // Writing to a string cannot fail.
            writeln!(text, "{line}").ok();
        }
    }
    text
}

fn state(backend: &BackendStatus) -> Cell {
    let health = backend.health.as_ref().map(|health| health.state);
    if !backend.resolved {
        Cell::new("unresolved").fg(Color::Red)
    } else if health == Some(HealthState::Failed) {
        Cell::new("failed").fg(Color::Red)
    } else if backend.weight == 0 {
        Cell::new(drain(backend)).fg(Color::Yellow)
    } else if health == Some(HealthState::Unknown) {
        Cell::new("not checked yet").fg(Color::Yellow)
    } else {
        Cell::new("ok")
    }
}

/// How far a backend that leaves has come.
fn leaving_state(leaving: &LeavingStatus) -> String {
    let what = if leaving.alive { "leaving" } else { "dead" };
    match leaving.pins {
        0 => what.to_owned(),
        pins => format!("{what}, {} flows", count(pins)),
    }
}

/// What the checks say of a backend: a word.
fn health(backend: &BackendStatus) -> Cell {
    match backend.health.as_ref().map(|health| health.state) {
        None => Cell::new("-"),
        Some(HealthState::Unknown) => Cell::new("unknown").fg(Color::Yellow),
        Some(HealthState::Healthy) => Cell::new("ok"),
        Some(HealthState::Failed) => Cell::new("failed").fg(Color::Red),
    }
}

/// How far a backend that takes no new flows has come.
fn drain(backend: &BackendStatus) -> String {
    match (backend.empty, backend.pins) {
        (Some(true), _) => "drained, empty".to_owned(),
        (_, 0) => "drained".to_owned(),
        (_, pins) => format!("drained, {} flows", count(pins)),
    }
}

/// What still comes to a backend that takes no new flows; `None` where that is nothing, or nothing is known.
fn ebb_line(vip: &str, backend: &BackendStatus) -> Option<String> {
    let still = still(backend.packets_per_second, backend.drain_seconds_left);
    (backend.empty == Some(false) && !still.is_empty())
        .then(|| format!("  {} of {vip} drains{still}", backend.address))
}

/// How many packets still come to a backend that takes no new flows, and how long it has; empty where neither is known.
fn still(packets_per_second: Option<f64>, seconds_left: Option<f64>) -> String {
    let rate = packets_per_second.map_or_else(String::new, |rate| {
        format!("; {rate:.1} packets/s still come")
    });
    let left = seconds_left.map_or_else(String::new, |seconds| format!("; {seconds:.0} s left"));
    rate + &left
}

/// A backend that is not configured any more, or that died, and is still named.
fn leaving_line(leaving: &LeavingStatus) -> String {
    let what = if leaving.alive {
        "leaving"
    } else {
        "dead, waits for its id to be free"
    };
    let still = if leaving.alive {
        still(leaving.packets_per_second, leaving.drain_seconds_left)
    } else {
        String::new()
    };
    format!(
        "  {} (id {}): {what}; {} flows remembered, {} packets{still}",
        leaving.address,
        leaving.id,
        count(leaving.pins),
        count(leaving.packets)
    )
}

/// The slots that change hands, and when the next ones do; empty where all are Stable.
fn moving_line(vip: &VipStatus) -> String {
    let slots = &vip.slots;
    let changing = [
        ("holding", slots.holding),
        ("moving", slots.moving),
        ("settling", slots.settling),
    ];
    let changing: Vec<_> = changing
        .iter()
        .filter(|(_, slots)| *slots > 0)
        .map(|(state, slots)| format!("{slots} {state}"))
        .collect();
    if changing.is_empty() {
        return String::new();
    }
    let left = vip.seconds_left.map_or_else(String::new, |seconds| {
        format!(", the next change in {seconds:.0} s")
    });
    format!(
        "\n  slots: {} stable, {}{left}; {} flows remembered",
        slots.stable,
        changing.join(", "),
        count(vip.pins)
    )
}

fn dialled(vip: &VipStatus) -> String {
    match vip.port {
        0 => format!("{} (every port)", vip.address),
        port => SocketAddr::new(vip.address, port).to_string(),
    }
}

fn vip_lines(vip: &VipStatus) -> String {
    let protocol = vip.protocol.as_str();
    let dialled = dialled(vip);
    let served = match (vip.is_served(), vip.fails_open) {
        (false, _) => ": no backend takes packets",
        (true, true) => ": too many backends fail their checks, so all are used",
        (true, false) => "",
    };
    format!(
        "VIP {}{served}\n  {protocol} {dialled}, table {} {}\n  {} packets, {}, {} new connections{}",
        vip.name,
        vip.table.as_str(),
        vip.table_digest,
        count(vip.packets),
        bytes(vip.bytes),
        count(vip.new_connections),
        moving_line(vip),
    )
}

fn backends(vip: &VipStatus) -> Table {
    let is_checked = vip.backends.iter().any(|backend| backend.health.is_some());
    let mut header = vec![
        "BACKEND", "MODE", "MAC", "WEIGHT", "SLOTS", "PACKETS", "BYTES", "NEW",
    ];
    if is_checked {
        header.insert(1, "HEALTH");
    }
    let mut table = table(&header, 3 + usize::from(is_checked));
    for backend in &vip.backends {
        let checked = is_checked.then(|| health(backend));
        let own = [
            Cell::new(backend.forward.as_str()),
            next_hop(backend),
            number(weight(backend)),
            number(share(backend.slots)),
            number(count(backend.packets)),
            number(bytes(backend.bytes)),
            number(count(backend.new_connections)),
        ];
        let address = std::iter::once(Cell::new(backend.address));
        table.add_row(address.chain(checked).chain(own));
    }
    table
}

/// The weight that counts; a star where it is not the configuration's.
fn weight(backend: &BackendStatus) -> String {
    let star = if backend.weight == backend.configured_weight {
        ""
    } else {
        "*"
    };
    format!("{}{star}", backend.weight)
}

/// What a command has changed of a backend.
pub(super) fn command(command: &OverrideStatus) -> String {
    let drained = command.drained.then(|| "drained".to_owned());
    let weight = command.weight.map(|weight| format!("weight {weight}"));
    let what: Vec<_> = drained.into_iter().chain(weight).collect();
    let unknown = if command.configured {
        ""
    } else {
        " (not in the configuration)"
    };
    format!(
        "{} of VIP {}: {}{unknown}",
        command.backend,
        command.vip,
        what.join(", ")
    )
}

fn next_hop(backend: &BackendStatus) -> Cell {
    match &backend.mac {
        Some(mac) if backend.resolved => Cell::new(mac),
        _ => Cell::new("unresolved").fg(Color::Red),
    }
}

fn reasons(status: &Status) -> Table {
    let mut table = table(&["REASON", "VERDICT", "PACKETS"], 2);
    let counted = status.reasons.iter().filter(|reason| reason.packets > 0);
    for reason in counted {
        table.add_row([
            Cell::new(&reason.reason),
            Cell::new(&reason.verdict),
            number(reason.packets.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{By, ListStatus, VipAgreement};
    use lb_common::access::List;

    #[test]
    fn lists_are_shown_where_there_are_some() {
        assert_eq!(access(&AccessStatus::default()), "");
        let list = ListStatus {
            vip: None,
            list: "deny".to_owned(),
            prefixes: 1_000_000,
            file: None,
        };
        let decided = |list, packets| AccessCount::new("web", list, packets);
        let shown = access(&AccessStatus {
            in_force: false,
            blocks: 2,
            refused_files: 0,
            lists: vec![list],
            counts: vec![decided(List::NodeDeny, 7), decided(List::NodeAllow, 0)],
        });
        assert_eq!(
            shown,
            "by command: 2 prefixes blocked (`weir block list`)\n\
             deny list of all VIPs: 1.0M prefixes, being written\n\
             node_deny of VIP web: 7 packets denied\n"
        );
    }

    #[test]
    fn a_fleet_that_agrees_takes_no_line() {
        let mut told = AgreementStatus {
            by: By::Redis,
            error: None,
            nodes: NodeCounts {
                agrees: 2,
                ..NodeCounts::default()
            },
            vips: Vec::new(),
        };
        assert_eq!(agreement(&told), None);
        told.nodes.differs = 1;
        told.nodes.unreachable = 2;
        told.vips = ["web", "dns"]
            .map(|vip| VipAgreement {
                vip: vip.to_owned(),
                nodes: 1,
            })
            .to_vec();
        assert_eq!(
            agreement(&told).unwrap(),
            "other nodes of the fleet (`weir fleet`): 1 differs in web, dns; 2 unreachable"
        );
        told.nodes = NodeCounts::default();
        told.error = Some("no answer".to_owned());
        assert_eq!(
            agreement(&told).unwrap(),
            "other nodes of the fleet (`weir fleet`): Redis is away"
        );
    }
}
