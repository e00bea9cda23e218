//! Reads a keepalived.conf: its virtual servers, and the interfaces of its VRRP instances.

mod check;
mod server;
mod tree;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr as _,
};

use super::{
    report::{Line, Report},
    service::Service,
};
use tree::Node;

/// The most addresses that one range stands for.
const LARGEST_RANGE: u32 = 256;

/// The services of a file, in its order, and the interfaces that it names.
pub(super) fn read(
    text: &str,
    file: &str,
    directory: &Path,
    report: &mut Report,
) -> (Vec<Service>, Vec<String>) {
    let nodes = tree::read(text, file, directory, report);
    let groups = nodes.iter().filter(|node| node.keyword() == GROUP);
    let groups: BTreeMap<&str, &Node> = groups.map(|node| (node.value(), node)).collect();
    let mut services = Vec::new();
    let mut interfaces = Vec::new();
    let mut used = Vec::new();
    for node in &nodes {
        match node.keyword() {
            "virtual_server" => {
                if node.value() == "group" {
                    used.extend(node.values().get(1).cloned());
                }
                for address in addresses(node, &groups, report) {
                    services.extend(server::read(node, address, report));
                }
            }
            GROUP => {}
            "vrrp_instance" => {
                for interface in node.children() {
                    let name = interface.value();
                    if interface.keyword() == "interface" && !interfaces.iter().any(|i| i == name) {
                        interfaces.push(name.to_owned());
                    }
                }
                left_block(
                    node,
                    "weir does not speak VRRP",
                    "keep keepalived for it, without the virtual servers, or announce the VIPs by BGP: docs/fleet.md",
                    report,
                );
            }
            "vrrp_sync_group" | "vrrp_script" | "vrrp_track_process" | "vrrp_track_file"
            | "track_file" => {
                left_block(
                    node,
                    "weir does not speak VRRP",
                    "keep keepalived for it, without the virtual servers",
                    report,
                );
            }
            "global_defs" | "global_definitions" => left_block(
                node,
                "settings of keepalived itself",
                "alerts come from Prometheus (docs/OPERATIONS.md); nothing else of it is needed",
                report,
            ),
            _ => left_block(
                node,
                "weir has nothing like it",
                "keep keepalived for it, without the virtual servers",
                report,
            ),
        }
    }
    for (name, node) in groups {
        if !used.iter().any(|used| used == name) {
            left_block(node, "no virtual server uses this group", "nothing", report);
        }
    }
    (services, interfaces)
}

const GROUP: &str = "virtual_server_group";

/// Reports a block by its first line.
fn left_block(node: &Node, why: &str, help: &str, report: &mut Report) {
    let inner = node.last.saturating_sub(node.line.number);
    let why = match inner {
        0 => why.to_owned(),
        _ => format!("{why}: the block up to line {}", node.last),
    };
    report.left(&node.line, why, help);
}

/// The addresses that a virtual server is for, each with the line that tells it.
fn addresses(
    node: &Node,
    groups: &BTreeMap<&str, &Node>,
    report: &mut Report,
) -> Vec<(Line, SocketAddr)> {
    let values: Vec<&str> = node.values().iter().map(String::as_str).collect();
    match values.as_slice() {
        ["fwmark", ..] => {
            left_fwmark(node, report);
            Vec::new()
        }
        ["group", name, ..] => {
            let Some(group) = groups.get(name) else {
                report.left(
                    &node.line,
                    format!("there is no virtual_server_group {name}"),
                    "add the group, or take the virtual server out",
                );
                return Vec::new();
            };
            let members = group.children().iter();
            members
                .flat_map(|member| member_addresses(member, report))
                .collect()
        }
        [address, port @ ..] => {
            let found = ip(address).zip(port_of(port.first().copied()));
            if found.is_none() {
                not_an_address(&node.line, report);
            }
            found
                .map(|(address, port)| (node.line.clone(), SocketAddr::new(address, port)))
                .into_iter()
                .collect()
        }
        [] => {
            not_an_address(&node.line, report);
            Vec::new()
        }
    }
}

fn left_fwmark(node: &Node, report: &mut Report) {
    left_block(
        node,
        "a firewall mark: weir's VIPs are addresses and ports, which the program reads itself",
        "write a `[[vip]]` for each address and port that the firewall marks so, or one with `port = 0` for all ports",
        report,
    );
}

fn not_an_address(at: &Line, report: &mut Report) {
    report.left(
        at,
        "no address and port",
        "write them as numbers: `virtual_server 203.0.113.10 443`",
    );
}

/// `203.0.113.10 80`, or a range, `203.0.113.10-14 80`.
fn member_addresses(node: &Node, report: &mut Report) -> Vec<(Line, SocketAddr)> {
    if node.keyword() == "fwmark" {
        left_fwmark(node, report);
        return Vec::new();
    }
    let port = port_of(node.values().first().map(String::as_str));
    let Some((addresses, port)) = range(node.keyword()).zip(port) else {
        not_an_address(&node.line, report);
        return Vec::new();
    };
    let at = |address| (node.line.clone(), SocketAddr::new(address, port));
    addresses.into_iter().map(at).collect()
}

/// The addresses from one to another, which is written by its last part alone.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let Some((first, last)) = text.split_once('-') else {
        return ip(text).map(|address| vec![address]);
    };
    let first = ip(first)?;
    let (base, radix) = match first {
        IpAddr::V4(v4) => (u32::from(v4.octets()[3]), 10),
        IpAddr::V6(v6) => (u32::from(v6.segments()[7]), 16),
    };
    let last = u32::from_str_radix(last, radix).ok()?;
    let count = last.checked_sub(base)?;
    let most = if first.is_ipv4() { 255 } else { 0xffff };
    if count >= LARGEST_RANGE || last > most {
        return None;
    }
    let nth = |offset: u32| match first {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + offset).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(offset)).into()),
    };
    Some((0..=count).map(nth).collect())
}

/// An address; keepalived takes it with a prefix length or in brackets, too.
fn ip(text: &str) -> Option<IpAddr> {
    let text = text.split('/').next()?;
    IpAddr::from_str(text.trim_start_matches('[').trim_end_matches(']')).ok()
}

/// A port; none is every port.
fn port_of(text: Option<&str>) -> Option<u16> {
    text.map_or(Some(0), |text| text.parse().ok())
}
