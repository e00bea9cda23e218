//! Reads a `virtual_server` and its real servers.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use super::{
    super::{
        report::{Line, Report},
        service::{
            GRANULARITY, Health, PERSISTENCE, Real, Service, UNHEEDED_WEIGHTS, Way, scheduler,
        },
    },
    check::{self, Usual},
    ip, port_of,
    tree::Node,
};
use crate::config::{Affinity, ForwardMode, Protocol};

/// What is said of the virtual server as a whole.
struct Shared<'n> {
    protocol: Option<Protocol>,
    scheduler: Option<&'n Node>,
    flags: BTreeSet<&'n str>,
    is_persistent: bool,
    way: Option<Way>,
    weight: u16,
    usual: Usual,
}

/// The service of one of its addresses; `None` where it cannot be one.
pub(super) fn read(
    node: &Node,
    (line, address): (Line, SocketAddr),
    report: &mut Report,
) -> Option<Service> {
    let shared = shared(node, report);
    let protocol = shared.protocol?;
    let name = shared.scheduler.map_or("wlc", Node::value);
    let scheduler = scheduler(name, &shared.flags);
    if let Some((why, help)) = scheduler.lost {
        let at = shared.scheduler.map_or(&node.line, |node| &node.line);
        report.left(at, format!("{name}: {why}"), help);
    }
    let mut service = Service {
        line,
        address,
        protocol,
        affinity: if shared.is_persistent {
            Affinity::Source
        } else {
            scheduler.affinity
        },
        health: None,
        reals: Vec::new(),
    };
    let mut checks = Vec::new();
    for child in node.children() {
        if child.keyword() != "real_server" {
            continue;
        }
        if let Some((real, check)) = real(child, &shared, address, report) {
            let first = service.reals.first();
            if name == "rr" && first.is_some_and(|first| first.weight != real.weight) {
                report.changed(&real.line, UNHEEDED_WEIGHTS.0, UNHEEDED_WEIGHTS.1);
            }
            checks.push((real.line.clone(), check));
            service.reals.push(real);
        }
    }
    service.health = one_check(&checks, report);
    Some(service)
}

fn shared<'n>(node: &'n Node, report: &mut Report) -> Shared<'n> {
    let mut shared = Shared {
        protocol: Some(Protocol::Tcp),
        scheduler: None,
        flags: BTreeSet::new(),
        is_persistent: false,
        way: None,
        weight: 1,
        usual: Usual::default(),
    };
    for child in node.children() {
        let at = &child.line;
        let value = child.value();
        match child.keyword() {
            "real_server" => {}
            "protocol" => {
                shared.protocol = match value.to_ascii_uppercase().as_str() {
                    "TCP" => Some(Protocol::Tcp),
                    "UDP" => Some(Protocol::Udp),
                    _ => {
                        let why = format!("{value}: weir balances TCP and UDP; the virtual server of line {} is left out", node.line.number);
                        report.left(at, why, "keep IPVS for this service");
                        None
                    }
                }
            }
            "lb_algo" | "lvs_sched" => shared.scheduler = Some(child),
            "lb_kind" | "lvs_method" => shared.way = Some(way(child, report)),
            flag @ ("sh-port" | "mh-port" | "sh-fallback" | "mh-fallback" | "hashed") => {
                shared.flags.insert(flag);
            }
            "persistence_timeout" => {
                if value != "0" {
                    shared.is_persistent = true;
                    report.changed(at, PERSISTENCE.0, PERSISTENCE.1);
                }
            }
            "persistence_granularity" => {
                if !matches!(value, "255.255.255.255" | "128") {
                    report.left(at, GRANULARITY.0, GRANULARITY.1);
                }
            }
            "weight" => shared.weight = weight(child, report).unwrap_or(shared.weight),
            "quorum" => {
                if value != "1" {
                    report.left(
                        at,
                        "only VIPs that are announced have such a number",
                        "with `announce`, write it as `min_healthy` of the VIP: docs/fleet.md",
                    );
                }
            }
            "virtualhost" => shared.usual.host = Some(value.to_owned()),
            keyword if shared.usual.takes(keyword, child, report) => {}
            "sorry_server" => report.left(
                at,
                "weir has no server of last resort: when all backends fail, all are used (`panic_threshold`)",
                "add it as a backend with `weight = 0`, and raise it by `weir weight` when it is needed",
            ),
            "ip_family" | "net_mask" | "nat_mask" | "ha_suspend" | "no_alpha" => report.changed(
                at,
                "weir needs nothing like it",
                "nothing",
            ),
            "ops" => report.changed(
                at,
                "weir has no one-packet scheduling: packets of a flow go to one backend, and nothing is remembered of it",
                "nothing, where clients change their ports",
            ),
            _ => other(child, report),
        }
    }
    if shared.way.is_none() {
        report.changed(
            &node.line,
            "no lb_kind: it is `l2` here, direct routing",
            "write `forward` where it is to be another (docs/forwarding.md)",
        );
    }
    shared
}

/// Keywords that a virtual server and a real server share, and weir lacks.
fn other(node: &Node, report: &mut Report) {
    let (why, help) = match node.keyword() {
        "quorum_up" | "quorum_down" | "notify_up" | "notify_down" => (
            "weir starts no programs",
            "follow `weir events -o json`, or take an alert of Prometheus (docs/OPERATIONS.md)",
        ),
        "smtp_alert" | "no_smtp_alert" => (
            "weir sends no mail",
            "take the alerts of deploy/prometheus/rules.yml",
        ),
        "alpha" | "omega" => (
            "a backend counts as healthy until a check has failed, and the program stays when the daemon ends",
            "see `on_exit` for what the end of the daemon does, and docs/health.md for the beginning",
        ),
        "hysteresis" => ("it belongs to the quorum", "see what is said of the quorum"),
        "inhibit_on_failure" => (
            "a failed backend takes no flows, and those that it had go to others",
            "nothing; `weir drain` takes a backend out and keeps its flows",
        ),
        "uthreshold" | "lthreshold" => (
            "weir counts no connections of a server",
            "limit the VIP by `[vip.limit]` (docs/limits.md), or have the server refuse",
        ),
        "sorry_server_inhibit" | "sorry_server_lvs_method" => (
            "weir has no server of last resort",
            "see what is said of sorry_server",
        ),
        "persistence_engine" => (
            "weir does not look into SIP",
            "nothing, where calls of one address may go to one backend",
        ),
        _ => (
            "weir has nothing like it",
            "take the service without it, or keep keepalived for it",
        ),
    };
    super::left_block(node, why, help, report);
}

/// `lb_kind`, with the type of its tunnel.
fn way(node: &Node, report: &mut Report) -> Way {
    let at = &node.line;
    match node.value().to_ascii_uppercase().as_str() {
        "DR" => Way::Forward(ForwardMode::L2),
        "NAT" => Way::Nat,
        "TUN" => {
            let values: Vec<&str> = node.values().iter().map(String::as_str).collect();
            let kind = values.iter().position(|word| *word == "type");
            let kind = kind.and_then(|at| values.get(at + 1)).copied();
            match kind.unwrap_or("ipip") {
                "ipip" => Way::Forward(ForwardMode::Ipip),
                "gue" => {
                    let why = "the port of GUE is one for the whole node";
                    let help =
                        "see `gue_port` in `[node]`, and docs/forwarding.md for the outer checksum";
                    report.changed(at, why, help);
                    Way::Forward(ForwardMode::Gue)
                }
                other => {
                    let why = format!("weir has no {other} tunnels: it is `ipip` here");
                    let help =
                        "take IP in IP on the server, by `weir decap` or a tunnel of the kernel";
                    report.left(at, why, help);
                    Way::Forward(ForwardMode::Ipip)
                }
            }
        }
        _ => {
            report.left(
                at,
                "no way of forwarding that weir knows: it is `l2` here",
                "write `forward` where it is to be another (docs/forwarding.md)",
            );
            Way::Forward(ForwardMode::L2)
        }
    }
}

fn weight(node: &Node, report: &mut Report) -> Option<u16> {
    let weight = node.value().parse().ok();
    if weight.is_none() {
        report.left(
            &node.line,
            "no weight from 0 to 65535",
            "divide all weights of the VIP by one number",
        );
    }
    weight
}

/// What is found out of a real server's health.
type Checked = Option<(Line, Health)>;

fn real(
    node: &Node,
    shared: &Shared<'_>,
    vip: SocketAddr,
    report: &mut Report,
) -> Option<(Real, Checked)> {
    let port = node.values().get(1).map(String::as_str);
    let port = match port {
        Some(text) => port_of(Some(text)),
        None => Some(vip.port()),
    };
    let Some((address, port)) = ip(node.value()).zip(port) else {
        report.left(
            &node.line,
            "no address and port",
            "write them as numbers: `real_server 10.0.0.11 443`",
        );
        return None;
    };
    let mut real = Real {
        line: node.line.clone(),
        address,
        port,
        weight: shared.weight,
        way: shared.way.unwrap_or(Way::Forward(ForwardMode::L2)),
    };
    let mut usual = shared.usual.clone();
    let mut checks: Vec<&Node> = Vec::new();
    for child in node.children() {
        match child.keyword() {
            "weight" => real.weight = weight(child, report)?,
            "lvs_method" | "lb_kind" => real.way = way(child, report),
            "virtualhost" => usual.host = Some(child.value().to_owned()),
            keyword if usual.takes(keyword, child, report) => {}
            keyword if keyword.ends_with("_CHECK") || keyword.ends_with("_GET") => {
                checks.push(child);
            }
            _ => other(child, report),
        }
    }
    if real.way != Way::Nat && real.port != vip.port() && vip.port() != 0 {
        report.changed(
            &node.line,
            format!(
                "packets keep the VIP's port {}, as with keepalived: port {} is the one that is checked",
                vip.port(),
                real.port
            ),
            "nothing, if the server serves the VIP's port",
        );
    }
    let mut found = None;
    for check in checks {
        if found.is_some() {
            report.left(
                &check.line,
                "weir has one check for a backend, and another one stands before this",
                "keep the one that tells most of the service",
            );
            continue;
        }
        let health = check::read(check, &usual, (vip, real.port), report);
        found = health.map(|health| (check.line.clone(), health));
    }
    Some((real, found))
}

/// One check for all servers of a VIP: the first; those that differ are told.
fn one_check(checks: &[(Line, Checked)], report: &mut Report) -> Option<Health> {
    let (_, first) = checks
        .iter()
        .find_map(|(_, check)| check.as_ref())
        .cloned()?;
    let first_line = checks
        .iter()
        .find_map(|(_, check)| Some(check.as_ref()?.0.number))?;
    for (line, check) in checks {
        match check {
            Some((line, health)) if *health != first => report.left(
                line,
                format!("a VIP has one check for all backends: that of line {first_line}"),
                "write what all of its backends answer into `[vip.health]`",
            ),
            Some(_) => {}
            None => report.changed(
                line,
                format!("it has no check that weir has, and a VIP has one for all backends: that of line {first_line}"),
                "have the server answer it",
            ),
        }
    }
    Some(first)
}

/// Seconds, with a fraction or without.
pub(super) fn seconds(node: &Node, report: &mut Report) -> Option<Duration> {
    let seconds = node.value().parse().ok();
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if time.is_none() {
        report.left(
            &node.line,
            "no time in seconds",
            "write a number of seconds",
        );
    }
    time
}
