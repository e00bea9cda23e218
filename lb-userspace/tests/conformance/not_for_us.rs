//! What is for no VIP leaves byte for byte as it came, whatever it is.

use lb_common::reason::Reason;

use super::{
    case::{Case, passes},
    extensions::{DESTINATION, HOP_BY_HOP, PADDING},
    frame::{NODE, ROUTER, ethernet, frame, icmp, vlan},
    ip::{FAMILIES, Family, Host, Ip, tcp_to, udp_to},
    world::port,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let name = |what: &str| format!("{family:?}: a stranger's {what}");
        let stranger = family.stranger();
        let tcp = || tcp_to(family, stranger, port::L2, b"not yours");
        let udp = || udp_to(family, stranger, port::L2, b"not yours");
        let pass = |what: &str, ip: &Ip| passes(name(what), Reason::NotVip, ip.frame());
        cases.extend([
            pass("TCP with TTL 1", &tcp().ttl(1)),
            pass("TCP with TTL 0", &tcp().ttl(0)),
            pass("UDP with every bit of DSCP and ECN", &udp().tos(0xff)),
            pass("UDP of 3,000 bytes", &udp_to(family, stranger, 443, &[1; 3000])),
            pass("DNS", &udp_to(family, stranger, 53, b"query")),
            pass("traceroute", &udp_to(family, stranger, 33434, b"").ttl(1)),
        ]);
        for protocol in [0x2f, 50, 51, 89, 112, 132] {
            let ip = Ip::new(family, protocol, vec![0x41; 32]).to(stranger);
            cases.push(passes(
                name(&format!("protocol {protocol}")),
                Reason::OtherProtocol,
                ip.frame(),
            ));
        }
        let answer = if family == Family::V4 { 0 } else { 129 };
        let pong = icmp(family.client(), stranger, answer, 0, [1; 4], b"x");
        cases.push(pass("answer to its ping", &pong));
        let quote = tcp_to(family, family.vip(), 443, b"").bytes();
        let kind = if family == Family::V4 { 3 } else { 1 };
        let error = icmp(family.client(), stranger, kind, 1, [0; 4], &quote);
        cases.push(pass("ICMP error", &error));
        cases.push(passes(
            name("packet behind two tags"),
            Reason::NotVip,
            frame(&[vlan(1), vlan(2)], &tcp()),
        ));
        let mut padded = tcp().frame();
        padded.extend([0xaa; 10]);
        cases.push(passes(name("frame with padding"), Reason::NotVip, padded));
    }
    cases.extend(odd_ones());
    cases
}

fn odd_ones() -> Vec<Case> {
    let v4 = || tcp_to(Family::V4, Family::V4.stranger(), port::L2, b"x");
    let v6 = || tcp_to(Family::V6, Family::V6.stranger(), port::L2, b"x");
    let of_type = |ether_type: u16| ethernet(NODE, ROUTER, &[], ether_type, &[0x42; 60]);
    let mapped = |host: Host| {
        let mut octets = [0; 16];
        octets[10..12].fill(0xff);
        octets[12..].copy_from_slice(host.octets());
        Host::V6(octets)
    };
    let to_mapped = tcp_to(Family::V6, mapped(Family::V4.vip()), port::L2, b"x");
    let from_mapped = tcp_to(Family::V6, Family::V6.vip(), port::L2, b"x")
        .from(mapped(Family::V4.client()));
    let mut no_checksum = udp_to(Family::V4, Family::V4.stranger(), 443, b"x");
    no_checksum.payload[6..8].fill(0);
    vec![
        passes(
            "a stranger's IPv4 options",
            Reason::NotVip,
            v4().options(&[0x83, 7, 4, 1, 2, 3, 4, 0]).frame(),
        ),
        passes(
            "a stranger's IPv6 options",
            Reason::NotVip,
            v6().extension(HOP_BY_HOP, &PADDING)
                .extension(DESTINATION, &PADDING)
                .frame(),
        ),
        passes(
            "a stranger's UDP without a checksum",
            Reason::NotVip,
            no_checksum.frame(),
        ),
        passes("LLDP", Reason::NotIp, of_type(0x88cc)),
        passes("PPPoE", Reason::NotIp, of_type(0x8864)),
        passes("MPLS", Reason::NotIp, of_type(0x8847)),
        passes("a length instead of a type (802.3)", Reason::NotIp, of_type(60)),
        passes(
            "the VIP's address, mapped into IPv6, is not the VIP",
            Reason::MalformedIp,
            to_mapped.frame(),
        ),
        passes(
            "a client's mapped address on the wire",
            Reason::MalformedIp,
            from_mapped.frame(),
        ),
    ]
}
