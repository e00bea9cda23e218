//! Writes what was found as a `weir.toml`.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{
    Node,
    report::Report,
    service::{Health, Probe, Real, Service, Way},
};
use crate::config::{Affinity, ForwardMode};

/// Of the networks for documentation: it stands where the operator's own must be.
const NO_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The same for IPv6.
const NO_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The whole file.
pub(super) fn text(
    services: &[Service],
    node: &Node,
    (format, file): (&str, &str),
    report: &mut Report,
) -> String {
    let mut text = format!(
        "# Imported from {} ({format}). `weir check` says whether it is valid on this host.\n\n",
        file.replace(|c: char| c.is_control(), "?")
    );
    text.push_str(&node_section(services, node, file, report));
    for service in services {
        vip(&mut text, service);
    }
    text
}

fn node_section(services: &[Service], node: &Node, file: &str, report: &mut Report) -> String {
    let mut text = "[node]\n".to_owned();
    let (interfaces, comment) = if node.interfaces.is_empty() {
        let why =
            "the interface that packets for the VIPs come by is not known: `eth0` stands there";
        let help = "write it into `node.interfaces`, or import with `--interface IF`";
        report.missing(file, why, help);
        (
            vec!["eth0".to_owned()],
            "  # FILL IN: packets for the VIPs come by it",
        )
    } else {
        (node.interfaces.clone(), "")
    };
    let quoted: Vec<_> = interfaces.iter().map(|name| string(name)).collect();
    line(
        &mut text,
        format_args!("interfaces = [{}]{comment}", quoted.join(", ")),
    );
    line(
        &mut text,
        format_args!(
            "seed_file  = \"/etc/weir/seed\"  # `openssl rand -hex 32`, the same on every node of a fleet"
        ),
    );
    let tunnelled = || {
        let reals = services.iter().flat_map(|service| &service.reals);
        reals.filter(|real| real.way != Way::Forward(ForwardMode::L2))
    };
    let mut sources: Vec<IpAddr> = node.encap_source.clone();
    let mut is_filled = true;
    for placeholder in [NO_SOURCE_V4, NO_SOURCE_V6] {
        let is_family = |address: &IpAddr| address.is_ipv4() == placeholder.is_ipv4();
        let is_needed = tunnelled().any(|real| is_family(&real.address));
        if is_needed && !sources.iter().any(is_family) {
            sources.push(placeholder);
            is_filled = false;
            report.missing(
                file,
                format!("the address that tunnelled packets are sent from is not known: {placeholder} stands there"),
                "write this node's own into `node.encap_source`, or import with `--encap-source ADDRESS`",
            );
        }
    }
    if !sources.is_empty() {
        let quoted: Vec<_> = sources
            .iter()
            .map(|address| format!("\"{address}\""))
            .collect();
        let comment = if is_filled {
            ""
        } else {
            "  # FILL IN: this node's own"
        };
        line(
            &mut text,
            format_args!("encap_source = [{}]{comment}", quoted.join(", ")),
        );
    }
    text
}

fn vip(text: &mut String, service: &Service) {
    let Service {
        line: at,
        address,
        protocol,
        affinity,
        health,
        reals,
    } = service;
    // The way of most of them is the VIP's, so that few have their own.
    let forward = common(reals);
    line(
        text,
        format_args!(
            "\n# {}:{}\n[[vip]]",
            at.file.replace(|c: char| c.is_control(), "?"),
            at.number
        ),
    );
    line(
        text,
        format_args!("name     = \"{}\"", name(*address, protocol.as_str())),
    );
    line(text, format_args!("address  = \"{}\"", address.ip()));
    line(text, format_args!("port     = {}", address.port()));
    line(text, format_args!("protocol = \"{}\"", protocol.as_str()));
    line(text, format_args!("forward  = \"{}\"", forward.as_str()));
    if *affinity == Affinity::Source {
        line(text, format_args!("affinity = \"source\""));
    }
    if let Some(health) = health {
        health_section(text, health);
    }
    for real in reals {
        line(
            text,
            format_args!(
                "\n[[vip.backend]]\naddress = \"{}\"\nweight  = {}",
                real.address, real.weight
            ),
        );
        if let Way::Forward(own) = real.way
            && own != forward
        {
            line(text, format_args!("forward = \"{}\"", own.as_str()));
        }
    }
}

/// The way that most backends have, the first of equals.
fn common(reals: &[Real]) -> ForwardMode {
    let modes = [ForwardMode::L2, ForwardMode::Ipip, ForwardMode::Gue];
    let count = |mode: &ForwardMode| {
        reals
            .iter()
            .filter(|real| real.way == Way::Forward(*mode))
            .count()
    };
    let most = modes.iter().rev().max_by_key(|mode| count(mode));
    most.copied().unwrap_or(ForwardMode::L2)
}

fn health_section(text: &mut String, health: &Health) {
    let Health {
        probe,
        port,
        interval,
        timeout,
        fall,
    } = health;
    line(text, format_args!("\n[vip.health]"));
    match probe {
        Probe::Tcp => line(text, format_args!("type     = \"tcp\"")),
        Probe::Dns { query } => line(
            text,
            format_args!("type     = \"dns\"\nquery    = {}", string(query)),
        ),
        Probe::Http {
            tls,
            path,
            host,
            expect_status,
        } => {
            let kind = if *tls { "https" } else { "http" };
            line(
                text,
                format_args!("type     = \"{kind}\"\npath     = {}", string(path)),
            );
            if let Some(host) = host {
                line(text, format_args!("host     = {}", string(host)));
            }
            line(text, format_args!("expect_status = \"{expect_status}\""));
        }
    }
    if let Some(port) = port {
        line(text, format_args!("port     = {port}"));
    }
    line(text, format_args!("interval = \"{}\"", time(*interval)));
    line(text, format_args!("timeout  = \"{}\"", time(*timeout)));
    // keepalived takes a server back after one passed check.
    line(text, format_args!("rise     = 1\nfall     = {fall}"));
}

fn time(time: Duration) -> String {
    humantime::format_duration(Duration::from_millis(
        time.as_millis().try_into().unwrap_or(u64::MAX),
    ))
    .to_string()
}

/// A name of what weir takes as one: letters, digits, `.` and `-`.
fn name(address: SocketAddr, protocol: &str) -> String {
    let ip = address.ip().to_string().replace(':', "-");
    match address.port() {
        0 => format!("{protocol}-{ip}"),
        port => format!("{protocol}-{ip}-{port}"),
    }
}

/// A string as TOML has it.
fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").ok();
}
