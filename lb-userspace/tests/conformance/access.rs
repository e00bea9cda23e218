//! Access lists and blocks: who may send to a VIP.
//!
//! Every service has lists of its own, in one of the ways that `world` writes them.

use lb_common::{access::List, reason::Reason};
use lb_userspace::dataplane::{DataPlane as _, bpf::Action};

use super::{
    case::{Case, drops, forwards},
    frame::{frame, sent, vlan},
    icmp_errors,
    ip::{FAMILIES, Family, Host, Ip, tcp, tcp_to, udp, udp_to},
    planes::World,
    world::{self, access, number, port, spread, stranger},
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (what, port, is_allowed) in access::SERVICES {
            for (protocol, ip) in [("TCP", tcp(family, port)), ("UDP", udp(family, port))] {
                let name = format!("{family:?} {protocol}: {what}");
                cases.push(if is_allowed {
                    forwards(name, &[], &ip, port)
                } else {
                    drops(name, Reason::Denied, ip.frame())
                });
            }
        }
        cases.extend(strangers(family));
        cases.extend(unusual(family));
    }
    cases
}

/// A packet from somebody else goes to the one backend that serves `port`.
fn from_stranger(name: String, ip: &Ip, port: u16) -> Case {
    let service = world::service(super::case::family(ip), ip.protocol, port, 0);
    let out = sent(&service, &[], ip, world::flow_hash(ip, port));
    Case::new(name, (Action::Tx, Reason::Forwarded), ip.frame(), out)
}

/// A client that other prefixes name, or none.
fn strangers(family: Family) -> Vec<Case> {
    let from = |port: u16| tcp_to(family, family.vip(), port, b"x").from(stranger(family));
    let passing = [
        access::VIP_DENY,
        access::VIP_BLOCK,
        access::NODE_BLOCK,
        access::NODE,
        access::UNLISTED,
    ];
    let passing = passing.map(|port| {
        let name = format!("{family:?}: a stranger to port {port}");
        from_stranger(name, &from(port), port)
    });
    let denied = drops(
        format!("{family:?}: a stranger where all but the client are denied"),
        Reason::Denied,
        from(access::VIP_ALLOW).frame(),
    );
    passing.into_iter().chain([denied]).collect()
}

/// Tags, fragments, slots that change hands, and ICMP errors.
fn unusual(family: Family) -> Vec<Case> {
    let name = |what: &str| format!("{family:?}: {what}");
    let whole = |port: u16| udp_to(family, family.vip(), port, &[0x77; 64]);
    let first = |port: u16| whole(port).fragment(77, 0, 40, true);
    let tags = [vlan(7), vlan(8)];
    let denied = access::VIP_DENY;
    let allowed = access::VIP_ALLOW;
    let quote = |port: u16| icmp_errors::quote(family, 6, port).bytes();
    let error = |port: u16| icmp_errors::too_big(family, &quote(port));
    let drop = |what: &str, ip: &Ip| drops(name(what), Reason::Denied, ip.frame());
    vec![
        drops(
            name("denied behind tags"),
            Reason::Denied,
            frame(&tags, &tcp(family, denied)),
        ),
        forwards(name("allowed behind tags"), &tags, &tcp(family, allowed), allowed),
        drop("a first fragment is denied", &first(denied)),
        forwards(name("a first fragment is allowed"), &[], &first(allowed), allowed),
        drop("denied, and its slot changes hands", &tcp(family, access::DENIED_MOVING)),
        drop("an ICMP error about a denied client's flow", &error(denied)),
        drop("an ICMP error about a blocked client's flow", &error(access::NODE_BLOCK)),
        drop("a later fragment is denied by its source", &sticky_part(family, stranger(family))),
        follows(
            name("a later fragment of another source"),
            &sticky_part(family, family.client()),
        ),
        icmp_errors::steered(
            name("an ICMP error about an allowed client's flow, from a router that no list names"),
            &[],
            &error(allowed),
            6,
            allowed,
        ),
    ]
}

/// A later fragment to an address that has one VIP: fragments have no port, so that it is judged by that.
fn sticky_part(family: Family, client: Host) -> Ip {
    let whole = udp_to(family, family.sticky(), port::AFFINITY, &[0x77; 64]).from(client);
    whole.fragment(91, 40, 32, false)
}

/// The part goes where its source hashes to.
fn follows(name: String, ip: &Ip) -> Case {
    let mut by_source = ip.clone();
    by_source.protocol = 0;
    let hash = world::hash(&by_source, 0, 0);
    let service = world::service(super::case::family(ip), 17, port::AFFINITY, spread(hash));
    let out = sent(&service, &[], ip, hash);
    Case::new(name, (Action::Tx, Reason::FragmentOrphan), ip.frame(), out)
}

#[test]
fn each_list_counts_what_it_decides() {
    let mut world = World::new();
    for family in FAMILIES {
        let counts = |world: &World, port: u16, list: List| {
            let vip = u32::from(number(family, 6, port));
            let host = world.host.access_counter(vip, list).unwrap();
            let kernel = world.kernel.as_ref().map(|k| k.access_counter(vip, list).unwrap());
            if let Some(kernel) = kernel {
                assert_eq!(host, kernel, "{list:?}");
            }
            host
        };
        let (client, stranger) = (family.client(), stranger(family));
        for (port, source, list) in [
            (access::VIP_BLOCK, client, List::VipBlock),
            (access::NODE_BLOCK, client, List::NodeBlock),
            (access::VIP_ALLOW, client, List::VipAllow),
            (access::VIP_DENY, client, List::VipDeny),
            (access::NODE, client, List::NodeDeny),
            (access::NODE, stranger, List::NodeAllow),
            (access::UNLISTED, client, List::Unlisted),
        ] {
            let before = List::ALL.map(|list| counts(&world, port, list));
            let frame = tcp(family, port).from(source).frame();
            for _ in 0..3 {
                drop(world.on_host(&frame));
                world.in_kernel(&frame);
            }
            for (before, other) in before.into_iter().zip(List::ALL) {
                let counted = counts(&world, port, other) - before;
                let expected = if other == list { 3 } else { 0 };
                assert_eq!(counted, expected, "{port} {other:?}");
            }
        }
    }
}
