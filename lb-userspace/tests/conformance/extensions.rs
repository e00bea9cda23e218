//! IPv6 extension headers.

use lb_common::reason::Reason;

use super::{
    case::{Case, forwards, passes},
    ip::{Family, Ip, tcp, tcp_to, udp},
    world::{WAYS, port},
};

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION: u8 = 60;
/// Padding of six bytes.
pub(crate) const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
/// A routing header of one segment that has been visited.
const ARRIVED: [u8; 24] = [
    0, 2, 4, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// A fragment header of the one and only fragment (RFC 6946).
const ATOMIC: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 9];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let chains: [(&str, &dyn Fn(Ip) -> Ip); 6] = [
        ("hop-by-hop options", &|ip| ip.extension(HOP_BY_HOP, &PADDING)),
        ("destination options", &|ip| {
            ip.extension(DESTINATION, &PADDING)
        }),
        ("a route that ends here", &|ip| ip.extension(ROUTING, &ARRIVED)),
        ("an atomic fragment", &|ip| ip.extension(FRAGMENT, &ATOMIC)),
        ("24 bytes of options", &|ip| {
            let mut long = [0; 24];
            long[1..4].copy_from_slice(&[2, 1, 20]);
            ip.extension(DESTINATION, &long)
        }),
        ("every kind, in the order of RFC 8200", &|ip| {
            ip.extension(HOP_BY_HOP, &PADDING)
                .extension(DESTINATION, &PADDING)
                .extension(ROUTING, &ARRIVED)
                .extension(FRAGMENT, &ATOMIC)
                .extension(DESTINATION, &PADDING)
        }),
    ];
    for (way, port) in WAYS {
        for (name, extend) in &chains {
            let ip = extend(tcp(Family::V6, port));
            cases.push(forwards(format!("TCP in {way:?}: {name}"), &[], &ip, port));
            let ip = extend(udp(Family::V6, port));
            cases.push(forwards(format!("UDP in {way:?}: {name}"), &[], &ip, port));
        }
    }
    for count in 1..=8 {
        let ip = (0..count).fold(tcp(Family::V6, port::L2), |ip, _| {
            ip.extension(DESTINATION, &PADDING)
        });
        cases.push(if count <= 6 {
            let name = format!("a chain of {count} headers is walked through");
            forwards(name, &[], &ip, port::L2)
        } else {
            let name = format!("a chain of {count} is left to the kernel");
            passes(name, Reason::Ipv6Extension, ip.frame())
        });
    }
    cases.extend(left_alone());
    cases
}

fn left_alone() -> Vec<Case> {
    let mut one_left = ARRIVED;
    one_left[3] = 1;
    let vip = || tcp(Family::V6, port::L2);
    let stranger = || tcp_to(Family::V6, Family::V6.stranger(), port::L2, b"x");
    let mut unknown = vip();
    unknown.protocol = 59;
    let mut beyond = PADDING;
    beyond[1] = 200;
    let mut short = vip();
    short.protocol = DESTINATION;
    short.payload.truncate(4);
    let mut esp = vip();
    esp.protocol = 50;
    let mut ah = vip();
    ah.protocol = 51;
    vec![
        passes(
            "a route that goes on elsewhere",
            Reason::Ipv6Extension,
            vip().extension(ROUTING, &one_left).frame(),
        ),
        passes(
            "a stranger's route that goes on elsewhere",
            Reason::Ipv6Extension,
            stranger().extension(ROUTING, &one_left).frame(),
        ),
        passes(
            "a stranger's hop-by-hop options",
            Reason::NotVip,
            stranger().extension(HOP_BY_HOP, &PADDING).frame(),
        ),
        passes(
            "no next header",
            Reason::OtherProtocol,
            unknown.extension(DESTINATION, &PADDING).frame(),
        ),
        passes("ESP to the VIP", Reason::OtherProtocol, esp.frame()),
        passes(
            "an authentication header before TCP is not walked through",
            Reason::OtherProtocol,
            ah.frame(),
        ),
        passes(
            "an extension header beyond the packet",
            Reason::MalformedIp,
            vip().extension(DESTINATION, &beyond).frame(),
        ),
        passes(
            "an extension header of which half is there",
            Reason::MalformedIp,
            short.frame(),
        ),
    ]
}
