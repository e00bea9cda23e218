//! A server of VIPs: whether it takes what weir sends, and answers from the VIP without saying that it has it.

use super::{nic, tunnel, whole, word};
use crate::doctor::{
    Dialled,
    facts::{Conf, Held, Net, Nic, Server, Wanted},
    finding::{Finding, Report, Role},
};

/// Judges a server.
pub(in crate::doctor) fn judge(facts: &Server, wanted: &Wanted) -> Report {
    let net = &facts.net;
    let mut findings = Vec::new();
    if wanted.is_stranger {
        findings.push(
            Finding::fail(
                "backend",
                Finding::HOST,
                "no backend of the configuration is an address of this host",
            )
            .why("weir sends nothing here; what follows holds for every VIP of the configuration")
            .remedy("give the configuration that names this host, or give this host the address"),
        );
    }
    findings.extend(links(facts));
    let mut addresses: Vec<_> = wanted.vips.iter().map(|vip| vip.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    for address in &addresses {
        findings.extend(vip(*address, facts));
    }
    for name in &facts.facing {
        let Some(nic) = net.nics.get(name) else {
            continue;
        };
        if addresses.iter().any(std::net::IpAddr::is_ipv4) {
            findings.push(arp_ignore(net.all, nic));
            findings.push(arp_announce(net.all, nic));
            findings.push(rp_filter(net.all, nic));
        }
        if addresses.iter().any(std::net::IpAddr::is_ipv6) {
            findings.push(ipv6(nic));
        }
    }
    findings.extend(tunnel::check(facts, wanted));
    findings.extend(wanted.vips.iter().filter_map(|vip| listening(vip, facts)));
    Report::new(Role::Backend, findings)
}

fn links(facts: &Server) -> Vec<Finding> {
    const CHECK: &str = "link";
    let nics = &facts.net.nics;
    let mut findings = Vec::new();
    if nics.get("lo").is_some_and(|lo| !lo.is_up) {
        findings.push(
            Finding::fail(CHECK, "lo", "is down")
                .why("the VIPs on it are no addresses of this host")
                .command("ip link set dev lo up"),
        );
    }
    if facts.facing.is_empty() {
        findings.push(
            Finding::fail(
                CHECK,
                Finding::HOST,
                "no interface is known by which weir's packets come",
            )
            .why("none is up with an address")
            .remedy("name it: `--interface eth0`"),
        );
    }
    for name in &facts.facing {
        findings.push(match nics.get(name) {
            Some(found) => nic::link(found),
            None => nic::absent(name, &[]),
        });
    }
    findings
}

/// Whether an interface's addresses are not told to a segment by ARP.
fn is_quiet(net: &Net, held: &Held) -> bool {
    let nic = net.nics.get(&held.interface);
    nic.is_some_and(|nic| nic.is_loopback || nic.kind.as_deref() == Some("dummy"))
}

fn vip(address: std::net::IpAddr, facts: &Server) -> Vec<Finding> {
    const CHECK: &str = "vip-address";
    let nodad = if address.is_ipv4() { "" } else { " nodad" };
    let add = format!("ip address add {address}/{} dev lo{nodad}", whole(address));
    let held: Vec<_> = facts
        .net
        .addresses
        .iter()
        .filter(|held| held.address == address)
        .collect();
    if held.is_empty() {
        return vec![
            Finding::fail(CHECK, address, "is no address of this host")
                .why("the kernel drops, or routes on, what weir sends here for it")
                .command(add),
        ];
    }
    let is_on_lo = held
        .iter()
        .any(|held| held.interface == "lo" && held.prefix == whole(address));
    let judge = |held: &&Held| {
        let (interface, prefix) = (&held.interface, held.prefix);
        let del = format!("ip address del {address}/{prefix} dev {}", word(interface));
        if held.is_tentative {
            return Finding::fail(
                CHECK,
                address,
                format!("waits on {interface} for duplicates, or has found one"),
            )
            .why("until then, and for good if another host has it, the kernel does not use it")
            .command(del)
            .command(add.clone());
        }
        if !is_quiet(&facts.net, held) {
            let finding = Finding::fail(CHECK, address, format!("is on {interface}, which answers for it"))
                .why("the segment learns that the VIP is here, and sends its packets past the load balancer")
                .command(del);
            return if is_on_lo {
                finding
            } else {
                finding.command(add.clone())
            };
        }
        if prefix != whole(address) {
            return Finding::warn(CHECK, address, format!("is on {interface} as a network of /{prefix}"))
                .why("the kernel takes all of that network for its own: nothing of it can be reached from here")
                .command(del)
                .command(add.clone());
        }
        Finding::ok(CHECK, address, format!("is on {interface}"))
    };
    held.iter().map(judge).collect()
}

fn arp_ignore(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "arp-ignore";
    match all.arp_ignore.max(nic.conf.arp_ignore) {
        Some(0) => Finding::fail(CHECK, &nic.name, "arp_ignore is 0")
            .why("this host answers ARP for VIPs that are on lo: the segment sends their packets here, past the load balancer")
            .command("sysctl -w net.ipv4.conf.all.arp_ignore=1"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("arp_ignore is {value}")),
        None => unreadable(CHECK, nic),
    }
}

fn arp_announce(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "arp-announce";
    match all.arp_announce.max(nic.conf.arp_announce) {
        Some(0) => Finding::fail(CHECK, &nic.name, "arp_announce is 0")
            .why("this host asks by ARP in the name of the VIP, and the router learns that the VIP is here")
            .command("sysctl -w net.ipv4.conf.all.arp_announce=2"),
        Some(1) => Finding::note(CHECK, &nic.name, "arp_announce is 1")
            .why("it keeps VIPs out of ARP only where they are in no network of the interface")
            .command("sysctl -w net.ipv4.conf.all.arp_announce=2"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("arp_announce is {value}")),
        None => unreadable(CHECK, nic),
    }
}

pub(super) fn rp_filter(all: Conf, nic: &Nic) -> Finding {
    const CHECK: &str = "rp-filter";
    match all.rp_filter.max(nic.conf.rp_filter) {
        Some(1) => Finding::warn(CHECK, &nic.name, "rp_filter is strict (1)")
            .why("packets are dropped without a word from clients to whom the way back is not the interface they came by")
            .command("sysctl -w net.ipv4.conf.all.rp_filter=2"),
        Some(value) => Finding::ok(CHECK, &nic.name, format!("rp_filter is {value}")),
        None => unreadable(CHECK, nic),
    }
}

fn unreadable(check: &str, nic: &Nic) -> Finding {
    Finding::note(check, &nic.name, "the setting cannot be read")
        .remedy("see that /proc/sys/net is mounted")
}

fn ipv6(nic: &Nic) -> Finding {
    const CHECK: &str = "ipv6";
    if !nic.conf.no_ipv6 {
        return Finding::ok(CHECK, &nic.name, "IPv6 is on");
    }
    // sysctl takes a slash for a dot in a name.
    let key = nic.name.replace('.', "/");
    Finding::fail(CHECK, &nic.name, "IPv6 is switched off")
        .why("packets for IPv6 VIPs are dropped")
        .command(format!(
            "sysctl -w {}",
            word(&format!("net.ipv6.conf.{key}.disable_ipv6=0"))
        ))
}

/// Whether a server is there; `None` where no port is known.
fn listening(vip: &Dialled, facts: &Server) -> Option<Finding> {
    const CHECK: &str = "listening";
    let port = vip.port.filter(|port| *port > 0)?;
    let is_tcp = vip.protocol == crate::config::Protocol::Tcp;
    let takes = |address: std::net::IpAddr| {
        let is_every = address.is_unspecified()
            && (address.is_ipv4() == vip.address.is_ipv4()
                || address.is_ipv6() && !facts.is_v6_only);
        is_every || address == vip.address
    };
    let mut sockets = facts.sockets.iter();
    let found = sockets.any(|s| s.is_tcp == is_tcp && s.port == port && takes(s.address));
    let protocol = vip.protocol.as_str();
    if found {
        return Some(Finding::ok(
            CHECK,
            vip,
            format!("a server takes {protocol}"),
        ));
    }
    let finding = Finding::fail(CHECK, vip, format!("no server takes {protocol} there"));
    Some(
        finding
            .why("the kernel refuses connections to it, and clients see that; ports are not translated")
            .remedy("start the server, on the VIP or on every address; what listens:")
            .command(if is_tcp { "ss -ltn" } else { "ss -lun" }),
    )
}

#[cfg(test)]
mod tests;
