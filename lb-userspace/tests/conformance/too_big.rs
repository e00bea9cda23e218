//! Packets at the edge of what fits into the outer header, and beyond it.

use lb_common::reason::Reason;

use super::{
    case::{Case, answers, drops, forwards},
    frame::{Tag, back, frame, from_vip, icmp, vlan},
    ip::{FAMILIES, Family, Host, Ip, udp_to},
    world::{MTU, WAYS, Way, port},
};

/// A datagram that makes an IP packet of `len` bytes.
pub(crate) fn sized(family: Family, port: u16, len: usize) -> Ip {
    let headers = match family {
        Family::V4 => 28,
        Family::V6 => 48,
    };
    let data: Vec<u8> = (0..len - headers).map(|i| i as u8).collect();
    udp_to(family, family.vip(), port, &data)
}

/// What the client is told: the MTU that fits, and as much of its packet as the RFCs want.
pub(crate) fn told(ip: &Ip, family: Family, mtu: usize) -> Ip {
    let bytes = ip.bytes();
    let mtu = (mtu as u32).to_be_bytes();
    let (kind, code, most) = match family {
        // Fragmentation needed, in 576 bytes (RFC 1191, RFC 1812).
        Family::V4 => (3, 4, 576 - 28),
        // Packet too big, in the minimum MTU (RFC 4443).
        Family::V6 => (2, 0, 1280 - 48),
    };
    let quote = &bytes[..bytes.len().min(most) & !3];
    from_vip(icmp(ip.destination, ip.source, kind, code, mtu, quote))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (way, port) in WAYS.into_iter().filter(|(way, _)| *way != Way::L2) {
            let name = |what: &str| format!("{family:?} in {way:?}: {what}");
            let fits = MTU - way.overhead();
            cases.push(forwards(
                name("a packet that just fits"),
                &[],
                &sized(family, port, fits),
                port,
            ));
            for len in [fits + 1, fits + 2, fits + 3, fits + 4, MTU] {
                let ip = sized(family, port, len);
                cases.push(answers(
                    name(&format!("the client of {len} bytes is told {fits}")),
                    Reason::TooBigAnswered,
                    ip.frame(),
                    back(&[], &told(&ip, family, fits)),
                ));
            }
        }
        for tags in [[vlan(7)].as_slice(), &[vlan(7), vlan(8)]] {
            cases.push(tagged(family, tags));
        }
        let ip = sized(family, port::L2, 3000);
        cases.push(forwards(
            format!("{family:?}: without an outer header no length is judged"),
            &[],
            &ip,
            port::L2,
        ));
    }
    cases.extend(untold());
    cases
}

/// Tags stay on what goes back.
fn tagged(family: Family, tags: &[Tag]) -> Case {
    let ip = sized(family, port::IPIP4, MTU);
    answers(
        format!("{family:?}: the answer keeps {} tags", tags.len()),
        Reason::TooBigAnswered,
        frame(tags, &ip),
        back(tags, &told(&ip, family, MTU - 20)),
    )
}

/// Packets whose sender may not be told, or does not want to be.
fn untold() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way, port) in WAYS.into_iter().filter(|(way, _)| *way != Way::L2) {
        let fits = MTU - way.overhead();
        let without_df = sized(Family::V4, port, fits).may_be_fragmented();
        cases.push(forwards(
            format!("{way:?}: a packet without DF that just fits"),
            &[],
            &without_df,
            port,
        ));
        cases.push(drops(
            format!("{way:?}: one without DF that does not fit"),
            Reason::TooBig,
            sized(Family::V4, port, fits + 1).may_be_fragmented().frame(),
        ));
        // An ICMP error is never answered by another (RFC 1122, RFC 4443).
        for family in FAMILIES {
            let quote = super::icmp_errors::quote(family, 6, port);
            let mut long = quote.bytes();
            let headers = match family {
                Family::V4 => 28,
                Family::V6 => 48,
            };
            long.resize(fits + 1 - headers, 0);
            let kind = if family == Family::V4 { 11 } else { 3 };
            let error = icmp(family.client(), family.vip(), kind, 0, [0; 4], &long);
            cases.push(drops(
                format!("{family:?} in {way:?}: an ICMP error that does not fit"),
                Reason::TooBig,
                error.frame(),
            ));
        }
    }
    for (family, source) in [
        (Family::V4, Host::V4([224, 0, 0, 1])),
        (Family::V4, Host::V4([255; 4])),
        (Family::V4, Host::V4([0; 4])),
        (Family::V4, Host::V4([127, 0, 0, 1])),
        (Family::V6, Host::V6([0; 16])),
        (Family::V6, Host::V6([0xff; 16])),
    ] {
        let ip = sized(family, port::IPIP4, MTU).from(source);
        cases.push(drops(
            format!("{family:?}: nobody to tell at {:?}", source.octets()),
            Reason::TooBig,
            ip.frame(),
        ));
    }
    cases
}
