//! The probes of traceroute: UDP to ports 33434 to 33689 of a VIP's address, where no VIP is.

use lb_common::reason::Reason;

use super::{
    case::{Case, answers, passes},
    frame::{back, frame, from_vip, icmp, vlan},
    ip::{FAMILIES, Family, Host, Ip, tcp_to, udp_to},
};

fn probe(family: Family, port: u16) -> Ip {
    udp_to(family, family.vip(), port, b"traceroute probe").ttl(1)
}

/// "Port unreachable", from the VIP.
fn unreachable(ip: &Ip, family: Family) -> Ip {
    let (kind, code) = match family {
        Family::V4 => (3, 3),
        Family::V6 => (1, 4),
    };
    let bytes = ip.bytes();
    let quote = &bytes[..bytes.len() & !3];
    from_vip(icmp(ip.destination, ip.source, kind, code, [0; 4], quote))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let name = |what: &str| format!("{family:?}: {what}");
        let ends = |what: &str, ip: &Ip| {
            let answer = back(&[], &unreachable(ip, family));
            answers(name(what), Reason::TracerouteAnswered, ip.frame(), answer)
        };
        let tagged = probe(family, 33440);
        let odd = udp_to(family, family.vip(), 33440, b"odd");
        cases.extend([
            ends("the first port", &probe(family, 33434)),
            ends("the last port", &probe(family, 33434 + 255)),
            ends("whatever its TTL", &probe(family, 33500).ttl(30)),
            ends("a probe of an odd length", &odd),
            answers(
                name("behind a tag"),
                Reason::TracerouteAnswered,
                frame(&[vlan(7)], &tagged),
                back(&[vlan(7)], &unreachable(&tagged, family)),
            ),
            passes(
                name("one port before the first"),
                Reason::NotVip,
                probe(family, 33433).frame(),
            ),
            passes(
                name("one port after the last"),
                Reason::NotVip,
                probe(family, 33434 + 256).frame(),
            ),
            passes(
                name("a probe to a stranger"),
                Reason::NotVip,
                probe(family, 33434).to(family.stranger()).frame(),
            ),
            passes(
                name("TCP to such a port"),
                Reason::NotVip,
                tcp_to(family, family.vip(), 33434, b"").frame(),
            ),
        ]);
    }
    for source in [Host::V4([224, 0, 0, 1]), Host::V4([0; 4])] {
        cases.push(passes(
            format!("nobody to answer at {:?}", source.octets()),
            Reason::NotVip,
            probe(Family::V4, 33434).from(source).frame(),
        ));
    }
    let options = probe(Family::V4, 33434).options(&[1, 1, 1, 0]);
    cases.push(answers(
        "a probe with IPv4 options",
        Reason::TracerouteAnswered,
        options.frame(),
        back(&[], &unreachable(&options, Family::V4)),
    ));
    cases
}
