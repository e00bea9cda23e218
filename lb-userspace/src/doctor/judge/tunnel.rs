//! Whether a server takes outer headers off.

use std::net::IpAddr;

use super::{USUAL_PACKET, overhead, server::rp_filter, word};
use crate::{
    config::ForwardMode,
    dataplane::bpf::decap::IpPrefix,
    doctor::{
        facts::{Decap, Nic, Server, Tunnel, Wanted},
        finding::Finding,
    },
};

/// What is needed for tunnels; nothing where packets come as they are.
pub(super) fn check(facts: &Server, wanted: &Wanted) -> Vec<Finding> {
    let tunnels: Vec<_> = wanted
        .tunnels
        .iter()
        .copied()
        .filter(|tunnel| tunnel.forward != ForwardMode::L2)
        .collect();
    if tunnels.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if let Err(error) = &facts.decap {
        findings.push(
            Finding::warn("decap", Finding::HOST, format!("cannot be asked: {error}"))
                .why("whether tunnelled packets are taken is missing from this report")
                .remedy("run it as root:")
                .command("sudo weir doctor --backend"),
        );
    }
    for name in &facts.facing {
        findings.extend(mtu(name, facts, &tunnels));
        let attached = facts.decap.as_ref().map_or(&[][..], Vec::as_slice);
        match attached.iter().find(|decap| decap.interface == *name) {
            Some(decap) => findings.push(settings(decap, facts, wanted)),
            None if facts.decap.is_ok() => {
                let missing = tunnels
                    .iter()
                    .filter_map(|tunnel| lacking(*tunnel, facts, wanted));
                match missing.collect::<Vec<_>>().first() {
                    Some(missing) => findings.push(absent(name, missing, facts, wanted)),
                    None => findings.extend(kernel(facts, &tunnels)),
                }
            }
            None => {}
        }
    }
    findings
}

fn mtu(name: &str, facts: &Server, tunnels: &[Tunnel]) -> Option<Finding> {
    const CHECK: &str = "mtu";
    let nic = facts.net.nics.get(name)?;
    let sizes = tunnels
        .iter()
        .map(|tunnel| overhead(tunnel.forward, tunnel.is_outer_v4));
    let needed = USUAL_PACKET + sizes.max()?;
    if nic.mtu >= needed {
        return Some(Finding::ok(
            CHECK,
            name,
            format!("packets of {USUAL_PACKET} bytes fit, outer headers included"),
        ));
    }
    let finding = Finding::warn(
        CHECK,
        name,
        format!(
            "MTU {}, and packets of {USUAL_PACKET} bytes come in {needed}",
            nic.mtu
        ),
    );
    Some(
        finding
            .why("full packets with their outer headers are too long to be received; where the load balancer's MTU is larger, they are lost")
            .remedy("give load balancers, and whatever lies between, the same:")
            .command(format!("ip link set dev {} mtu {needed}", word(name))),
    )
}

/// The kernel's device that takes such packets.
const fn device(tunnel: Tunnel) -> &'static str {
    match (tunnel.is_outer_v4, tunnel.is_inner_v4) {
        (true, true) => "ipip",
        (true, false) => "sit",
        (false, _) => "ip6tnl",
    }
}

/// What the kernel lacks to take such packets by itself.
fn lacking(tunnel: Tunnel, facts: &Server, wanted: &Wanted) -> Option<String> {
    let kind = device(tunnel);
    let mut nics = facts.net.nics.values();
    if !nics.any(|nic| nic.is_up && nic.kind.as_deref() == Some(kind)) {
        return Some(format!("no {kind} device is up"));
    }
    let port = wanted.gue_port;
    let mut sockets = facts.sockets.iter();
    let is_open = sockets.any(|socket| {
        !socket.is_tcp && socket.port == port && socket.address.is_ipv4() == tunnel.is_outer_v4
    });
    (tunnel.forward == ForwardMode::Gue && !is_open)
        .then(|| format!("no fou receiver is open on UDP port {port}"))
}

/// Nothing takes the outer headers off.
fn absent(name: &str, missing: &str, facts: &Server, wanted: &Wanted) -> Finding {
    let finding = Finding::fail(
        "decap",
        name,
        format!("nothing takes outer headers off: `weir decap` is not attached, and {missing}"),
    )
    .why("tunnelled packets are refused or ignored");
    let nic = facts.net.nics.get(name);
    let other = nic.and_then(|nic| nic.xdp.as_ref());
    let finding = match other {
        Some(other) => finding.remedy(format!(
            "another XDP program is there ({}), and an interface bears one: take it off, or use the kernel's tunnels \
             (docs/backends.md); then:",
            other.program
        )),
        None => finding,
    };
    if wanted.sources.is_empty() {
        return finding.remedy(format!(
            "attach it with the addresses that the load balancers have as `encap_source`: \
             `weir decap attach --interface {name} --from ADDRESS`; give them to doctor by --from, and it prints the command"
        ));
    }
    finding.command(attach(name, None, facts, wanted))
}

/// Whether the program that is attached takes what weir sends.
fn settings(decap: &Decap, facts: &Server, wanted: &Wanted) -> Finding {
    const CHECK: &str = "decap";
    let name = &decap.interface;
    let told = &decap.settings;
    let mend = |what: String, why: &str| {
        Finding::fail(CHECK, name, what)
            .why(why)
            .command(attach(name, Some(decap), facts, wanted))
    };
    if !decap.is_attached {
        return mend(
            "has pins of `weir decap`, and the program is not on it any more".to_owned(),
            "tunnelled packets are refused or ignored",
        );
    }
    let mut strangers = wanted
        .sources
        .iter()
        .filter(|source| !told.from.iter().any(|from| from.covers(source)));
    if let Some(source) = strangers.next() {
        return mend(
            format!("`weir decap` takes nothing from {source}"),
            "that load balancer's packets are dropped and counted as foreign_source",
        );
    }
    let port = wanted.gue_port;
    let has_gue = wanted
        .tunnels
        .iter()
        .any(|tunnel| tunnel.forward == ForwardMode::Gue);
    if has_gue && !told.gue_ports.contains(&port) {
        return mend(
            format!("`weir decap` takes no GUE on port {port}"),
            "packets to that port are answered with \"port unreachable\"",
        );
    }
    if let Some(address) = wanted.own.iter().find(|own| !told.local.contains(own)) {
        return mend(
            format!("`weir decap` takes no tunnel to {address}"),
            "packets to that address go on to the kernel with their outer headers",
        );
    }
    let mut vips = wanted.vips.iter();
    let unknown = vips.find(|vip| !told.vips.is_empty() && !told.vips.contains(&vip.address));
    if let Some(vip) = unknown {
        return mend(
            format!("`weir decap` takes nothing for {}", vip.address),
            "packets for that VIP are dropped and counted as not_vip",
        );
    }
    Finding::ok(
        CHECK,
        name,
        "`weir decap` takes what the load balancers send",
    )
}

/// The command that attaches the program with all that is needed, and with what it was told before.
fn attach(name: &str, held: Option<&Decap>, facts: &Server, wanted: &Wanted) -> String {
    let mut command = format!("weir decap attach --interface {}", word(name));
    let mut add = |flag: &str, value: String| {
        command.extend([" --", flag, " ", &word(&value)]);
    };
    let before = held.map(|decap| &decap.settings);
    let mut from: Vec<IpPrefix> = before.map(|told| told.from.clone()).unwrap_or_default();
    for source in &wanted.sources {
        if !from.iter().any(|prefix| prefix.covers(source)) {
            from.push(*source);
        }
    }
    for prefix in &from {
        add("from", prefix.to_string());
    }
    let mut ports: Vec<u16> = before
        .map(|told| told.gue_ports.clone())
        .unwrap_or_default();
    if !ports.contains(&wanted.gue_port) {
        ports.push(wanted.gue_port);
    }
    if ports != [crate::config::DEFAULT_GUE_PORT] {
        for port in ports {
            add("gue-port", port.to_string());
        }
    }
    // By default those of the interface itself.
    let on_interface = |address: &IpAddr| {
        let mut held = facts.net.addresses.iter();
        held.any(|held| held.address == *address && held.interface == name)
    };
    let mut local: Vec<IpAddr> = before.map(|told| told.local.clone()).unwrap_or_default();
    for own in &wanted.own {
        if !local.contains(own) {
            local.push(*own);
        }
    }
    if !local.iter().all(on_interface) {
        for address in local {
            add("local", address.to_string());
        }
    }
    let mut vips: Vec<IpAddr> = before.map(|told| told.vips.clone()).unwrap_or_default();
    if !vips.is_empty() {
        vips.extend(wanted.vips.iter().map(|vip| vip.address));
        vips.sort_unstable();
        vips.dedup();
    }
    for address in vips {
        add("vip", address.to_string());
    }
    if let Some(pins) = &facts.decap_pins {
        add("pin-path", pins.display().to_string());
    }
    command
}

/// The kernel's tunnels take what comes: that what is inside is not dropped.
fn kernel(facts: &Server, tunnels: &[Tunnel]) -> Vec<Finding> {
    let kinds: Vec<_> = tunnels.iter().map(|tunnel| device(*tunnel)).collect();
    let is_used = |kind: &Option<String>| kind.as_deref().is_some_and(|kind| kinds.contains(&kind));
    let nics = facts
        .net
        .nics
        .values()
        .filter(|nic| nic.is_up && is_used(&nic.kind));
    let judge = |nic: &Nic| {
        let taken = Finding::ok(
            "decap",
            &nic.name,
            "the kernel's tunnel takes outer headers off",
        );
        [taken, rp_filter(facts.net.all, nic)]
    };
    nics.flat_map(judge).collect()
}

#[cfg(test)]
mod tests;
