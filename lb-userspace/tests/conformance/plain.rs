//! Packets without anything unusual, to backends on the segment.

use lb_common::reason::Reason;

use super::{
    case::{Case, forwards, passes},
    frame::sent,
    ip::{FAMILIES, Family, Ip, tcp, tcp_to, udp, udp_to},
    world::{self, port, service, spread},
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        cases.extend([
            forwards(
                format!("{family:?} TCP: nothing changes but the MAC addresses"),
                &[],
                &tcp(family, port::L2),
                port::L2,
            ),
            forwards(
                format!("{family:?} UDP: nothing changes but the MAC addresses"),
                &[],
                &udp(family, port::L2),
                port::L2,
            ),
            forwards(
                format!("{family:?} TCP without data"),
                &[],
                &tcp_to(family, family.vip(), port::L2, b""),
                port::L2,
            ),
            forwards(
                format!("{family:?} UDP without data"),
                &[],
                &udp_to(family, family.vip(), port::L2, b""),
                port::L2,
            ),
            forwards(
                format!("{family:?}: weir is no router, TTL 1 stays 1"),
                &[],
                &tcp(family, port::L2).ttl(1),
                port::L2,
            ),
            forwards(
                format!("{family:?}: DSCP and ECN stay"),
                &[],
                &tcp(family, port::L2).tos(0xbb),
                port::L2,
            ),
            forwards(
                format!("{family:?}: a packet of exactly 1500 bytes"),
                &[],
                &full_sized(family),
                port::L2,
            ),
            passes(
                format!("{family:?} TCP to another port of the VIP"),
                Reason::NotVip,
                tcp(family, port::CLOSED).frame(),
            ),
            passes(
                format!("{family:?} UDP to another port of the VIP"),
                Reason::NotVip,
                udp(family, port::CLOSED).frame(),
            ),
            passes(
                format!("{family:?} TCP to another address"),
                Reason::NotVip,
                tcp_to(family, family.stranger(), port::L2, b"x").frame(),
            ),
            passes(
                format!("{family:?} UDP to an address that takes only TCP"),
                Reason::NotVip,
                udp_to(family, family.quiet(), port::L2, b"x").frame(),
            ),
        ]);
        cases.extend(chosen(family));
    }
    cases
}

/// Which VIP and which backend.
fn chosen(family: Family) -> Vec<Case> {
    let mut cases = Vec::new();
        for to in [1, 80, 65535] {
            let ip = tcp_to(family, family.quiet(), to, b"x");
            let out = sent(&service(family, 6, 0, 0), &[], &ip, 0);
            let case = forwards("", &[], &ip, port::L2);
            cases.push(Case {
                name: format!("{family:?}: a VIP of every port takes port {to}"),
                out,
                ..case
            });
        }
        for client in 0..4 {
            let mut ip = tcp(family, port::SPREAD);
            ip.payload[1] ^= client;
            let source_port = u16::from_be_bytes([ip.payload[0], ip.payload[1]]);
            let hash = world::hash(&ip, source_port, port::SPREAD);
            let service = service(family, 6, port::SPREAD, spread(hash));
            cases.push(Case {
                name: format!("{family:?}: the flow's hash names its backend (flow {client})"),
                out: sent(&service, &[], &ip, hash),
                ..forwards("", &[], &ip, port::SPREAD)
            });
            // The ports and the protocol do not count.
            let mut ip = udp_to(family, family.sticky(), port::AFFINITY, b"hello");
            ip.payload[1] ^= client;
            let mut by_source = ip.clone();
            by_source.protocol = 0;
            let hash = world::hash(&by_source, 0, 0);
            let service = world::service(family, 17, port::AFFINITY, spread(hash));
            cases.push(Case {
                name: format!("{family:?}: with source affinity ports do not count (flow {client})"),
                out: sent(&service, &[], &ip, hash),
                ..forwards("", &[], &ip, port::AFFINITY)
            });
        }
    cases
}

fn full_sized(family: Family) -> Ip {
    let headers = tcp_to(family, family.vip(), port::L2, b"").bytes().len();
    let data = vec![0x5a; 1500 - headers];
    tcp_to(family, family.vip(), port::L2, &data)
}
