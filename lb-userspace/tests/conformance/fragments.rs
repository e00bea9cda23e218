//! Fragments: the later ones follow the first.

use lb_common::reason::Reason;
use lb_userspace::dataplane::bpf::Action;

use super::{
    case::{Case, forwards, passes},
    frame::sent,
    ip::{FAMILIES, Family, Host, Ip, tcp_to, udp_to},
    world::{self, WAYS, flow_hash, port, spread},
};

/// A datagram of 8 + 64 bytes, to be cut after 40 of them.
fn datagram(family: Family, port: u16) -> Ip {
    udp_to(family, family.vip(), port, &[0x77; 64])
}

fn first(family: Family, port: u16, id: u16) -> Ip {
    datagram(family, port).fragment(id, 0, 40, true)
}

fn later(family: Family, port: u16, id: u16) -> Ip {
    datagram(family, port).fragment(id, 40, 32, false)
}

/// `ip`, a later fragment, goes to the backend `which` of `port`.
fn follows(name: String, ip: &Ip, port: u16, which: u16, reason: Reason) -> Case {
    let service = world::service(super::case::family(ip), ip.protocol, port, which);
    // Ports are not known: the hash is of the addresses and the protocol.
    let out = sent(&service, &[], ip, world::hash(ip, 0, 0));
    Case::new(name, (Action::Tx, reason), ip.frame(), out)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for ((way, port), id) in WAYS.into_iter().zip(100..) {
            let name = |what: &str| format!("{family:?} in {way:?}: {what}");
            let (first, later) = (first(family, port, id), later(family, port, id));
            cases.push(forwards(name("a first fragment"), &[], &first, port));
            cases.push(
                follows(name("the later one follows it"), &later, port, 0, Reason::Forwarded)
                    .after(vec![first.frame()]),
            );
            let middle = datagram(family, port).fragment(id, 40, 16, true);
            cases.push(
                follows(name("one in the middle too"), &middle, port, 0, Reason::Forwarded)
                    .after(vec![first.frame()]),
            );
        }
        cases.extend(pins(family));
        cases.extend(strangers(family));
    }
    cases
}

/// What tells the fragments of two packets apart.
fn pins(family: Family) -> Vec<Case> {
    let port = port::SPREAD;
    // A client whose flow is served by another backend than what orphans are sent to.
    let first = first(family, port, 1);
    let which = spread(flow_hash(&first, port));
    let pinned = vec![first.frame()];
    let other_client = match family {
        Family::V4 => Host::V4([198, 51, 100, 8]),
        Family::V6 => Host::v6(8, 1),
    };
    // Orphans go to the first VIP of address and protocol.
    let orphan = |name: &str, ip: &Ip| {
        let name = format!("{family:?}: {name}");
        follows(name, ip, port::L2, 0, Reason::FragmentOrphan)
    };
    let mut of_tcp = later(family, port, 1);
    of_tcp.protocol = 6;
    vec![
        follows(
            format!("{family:?}: a later fragment follows its flow, not its addresses"),
            &later(family, port, 1),
            port,
            which,
            Reason::Forwarded,
        )
        .after(pinned.clone()),
        orphan(
            "one that comes before its first is hashed by its addresses",
            &later(family, port, 2),
        ),
        orphan(
            "one of another identification is another packet's",
            &later(family, port, 3),
        )
        .after(pinned.clone()),
        orphan("one of another protocol too", &of_tcp).after(pinned.clone()),
        orphan(
            "one of another client too",
            &later(family, port, 1).from(other_client),
        )
        .after(pinned),
        orphan(
            "a lone last byte",
            &datagram(family, port).fragment(9, 64, 1, false),
        ),
    ]
}

fn strangers(family: Family) -> Vec<Case> {
    let data = [0x77; 64];
    let part = |ip: Ip, offset, more| ip.fragment(7, offset, 32, more).frame();
    let stranger = || udp_to(family, family.stranger(), port::L2, &data);
    let closed = || udp_to(family, family.vip(), port::CLOSED, &data);
    let segment = || tcp_to(family, family.stranger(), port::L2, &data);
    let mut tiny = segment();
    tiny.payload.truncate(8);
    let mut tiny_vip = tcp_to(family, family.vip(), port::L2, &data);
    tiny_vip.payload.truncate(8);
    let name = |what: &str| format!("{family:?}: {what}");
    vec![
        passes(
            name("a stranger's first fragment"),
            Reason::NotVip,
            part(stranger(), 0, true),
        ),
        passes(
            name("a stranger's later fragment"),
            Reason::NotVip,
            part(stranger(), 32, false),
        ),
        passes(
            name("a stranger's fragment of TCP"),
            Reason::NotVip,
            part(segment(), 32, true),
        ),
        passes(
            name("a first fragment for a closed port"),
            Reason::NotVip,
            part(closed(), 0, true),
        ),
        passes(
            name("a later fragment for an address that takes only TCP"),
            Reason::NotVip,
            part(udp_to(family, family.quiet(), port::L2, &data), 32, false),
        ),
        passes(
            name("a stranger's first fragment that ends inside TCP"),
            Reason::MalformedTransport,
            tiny.fragment(7, 0, 8, true).frame(),
        ),
        passes(
            name("a first fragment that ends inside TCP (RFC 1858)"),
            Reason::MalformedTransport,
            tiny_vip.fragment(7, 0, 8, true).frame(),
        ),
    ]
}
