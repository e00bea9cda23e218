//! The ways to backends, and what fits through them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{USUAL_PACKET, overhead, word};
use crate::{
    config::{Config, ForwardMode},
    doctor::{
        facts::{Balancer, Nic},
        finding::Finding,
    },
    neighbours::{NextHop, Problem},
};

/// A backend as packets are to reach it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Target {
    address: IpAddr,
    forward: ForwardMode,
    /// Whether its MAC address is configured.
    has_mac: bool,
}

pub(super) fn check(facts: &Balancer, config: &Config) -> Vec<Finding> {
    let backends = config.vips.iter().flat_map(|vip| &vip.backends);
    let targets: BTreeSet<Target> = backends
        .map(|backend| Target {
            address: backend.address,
            forward: backend.forward,
            has_mac: backend.mac.is_some(),
        })
        .collect();
    let mut findings: Vec<_> = targets.iter().map(|target| way(target, facts)).collect();
    findings.extend(room(facts, &targets));
    findings.extend(exits(facts, config, &targets));
    findings
}

/// Whether there is a way.
fn way(target: &Target, facts: &Balancer) -> Finding {
    const CHECK: &str = "next-hop";
    const LOST: &str = "packets for it are dropped as no_next_hop, or go to where it was last seen";
    let address = target.address;
    let problem = facts.ways.problems.get(&address);
    let problem = match problem {
        // A configured MAC address needs neither route nor neighbour.
        Some(_) if target.has_mac => None,
        problem => problem,
    };
    if problem == Some(&Problem::Local) {
        let text = "is this node itself: its packets are left to the kernel";
        return Finding::ok(CHECK, address, text);
    }
    if let Some(problem) = problem {
        return mend(
            Finding::fail(CHECK, address, problem.to_string()).why(LOST),
            problem,
        );
    }
    let Some(hop) = facts.ways.next_hops.get(&address) else {
        let text = "is reached by its configured MAC address, by the first interface";
        return if target.has_mac {
            Finding::ok(CHECK, address, text)
        } else {
            Finding::fail(
                CHECK,
                address,
                "the kernel told nothing about the way to it",
            )
            .why(LOST)
        };
    };
    let interface = out(facts, hop).map_or("?", |nic| nic.name.as_str());
    if target.forward == ForwardMode::L2 && hop.gateway != address && !target.has_mac {
        return Finding::fail(
            CHECK,
            address,
            format!("is behind router {}, and its mode is l2", hop.gateway),
        )
        .why("an l2 packet keeps the VIP as its destination: the router sends it back to where the VIP is routed, that is here")
        .remedy("write `forward = \"ipip\"` or `\"gue\"` for this backend (docs/forwarding.md)");
    }
    let via = if hop.gateway == address {
        String::new()
    } else {
        format!(" via {}", hop.gateway)
    };
    Finding::ok(CHECK, address, format!("is reached by {interface}{via}"))
}

/// What mends a way.
fn mend(finding: Finding, problem: &Problem) -> Finding {
    match problem {
        Problem::NoRoute(_) => finding.remedy(
            "give this host a route to it (`ip route add ADDRESS via ROUTER dev INTERFACE`), or an address on its segment",
        ),
        // Judged above.
        Problem::Local => finding,
        Problem::NotEthernet { .. } => {
            finding.remedy("route it by an Ethernet interface; to go through a tunnel, let weir encapsulate: `forward = \"gue\"`")
        }
        Problem::Vlan { .. } => finding.remedy("see docs/forwarding.md for the VLAN devices that weir can write tags of"),
        Problem::Unresolved { gateway, interface } | Problem::Silent { gateway, interface } => finding
            .remedy(format!(
                "see that {gateway} is up and on the segment of {interface}; ask again:"
            ))
            .command(format!("ping -c 3 -I {} {gateway}", word(interface))),
        Problem::Refused { .. } => finding
            .command("sysctl -w net.ipv4.neigh.default.gc_thresh3=65536")
            .command("sysctl -w net.ipv6.neigh.default.gc_thresh3=65536"),
    }
}

/// The interface by which packets leave.
fn out<'a>(facts: &'a Balancer, hop: &NextHop) -> Option<&'a Nic> {
    facts.net.by_index(hop.ifindex)
}

/// Whether packets of the usual size fit through, outer headers included; once for each interface.
fn room(facts: &Balancer, targets: &BTreeSet<Target>) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    // What is needed at most, and what the narrowest way takes, by the interface out.
    let mut needs: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for target in targets {
        let Some(hop) = facts.ways.next_hops.get(&target.address) else {
            continue;
        };
        let needed = USUAL_PACKET + overhead(target.forward, target.address.is_ipv4());
        let room = u32::from(hop.mtu);
        let (most, least) = needs.entry(hop.ifindex).or_insert((needed, room));
        *most = needed.max(*most);
        *least = room.min(*least);
    }
    let judge = |(index, (needed, room)): (u32, (u32, u32))| {
        let nic = facts.net.by_index(index)?;
        let name = &nic.name;
        if room >= needed {
            return Some(Finding::ok(
                CHECK,
                name,
                format!("packets of {USUAL_PACKET} bytes fit through, outer headers included"),
            ));
        }
        let finding = Finding::warn(
            CHECK,
            name,
            format!("MTU {room} toward backends, and packets of {USUAL_PACKET} bytes need {needed} there"),
        )
        .why(
            "full packets do not fit, outer headers included: weir tells clients by ICMP to send smaller ones, \
             clients whose networks swallow that hang, and packets without DF are lost",
        );
        Some(if nic.mtu < needed {
            finding
                .remedy("give backends, and whatever lies between, the same:")
                .command(format!("ip link set dev {} mtu {needed}", word(name)))
        } else {
            finding.remedy("a route or a VLAN device on the way has an MTU of its own: raise that (`ip route get BACKEND`)")
        })
    };
    needs.into_iter().filter_map(judge).collect()
}

/// Interfaces that packets leave by and do not come by.
fn exits(facts: &Balancer, config: &Config, targets: &BTreeSet<Target>) -> Vec<Finding> {
    const CHECK: &str = "redirect";
    let hops = targets
        .iter()
        .filter_map(|target| facts.ways.next_hops.get(&target.address));
    let indexes: BTreeSet<u32> = hops.map(|hop| hop.ifindex).collect();
    let nics = indexes
        .iter()
        .filter_map(|index| facts.net.by_index(*index));
    let is_single = config.node.interfaces.len() == 1;
    // Where packets come and go by the same one interface, nothing is redirected.
    let others = nics.filter(|nic| !(is_single && config.node.interfaces.contains(&nic.name)));
    let judge = |nic: &Nic| {
        let name = &nic.name;
        match nic.can {
            Some(can) if !can.transmit => Finding::fail(
                CHECK,
                name,
                "leads to backends, and its driver sends nothing that comes by another interface",
            )
            .why("packets that are redirected to it are lost in the kernel, where weir cannot count them")
            .remedy("let packets come by the interface that leads to the backends, or use another driver; some send once an XDP program is on the interface: write it into `interfaces`"),
            Some(_) => Finding::ok(CHECK, name, "sends what comes by other interfaces"),
            None => Finding::note(
                CHECK,
                name,
                "whether its driver sends what comes by another interface is not known: this kernel (before 6.3) does not tell",
            )
            .why("where it does not, packets that are redirected to it are lost"),
        }
    };
    others.map(judge).collect()
}

#[cfg(test)]
mod tests;
