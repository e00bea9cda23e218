//! What other load balancers were seen to get wrong, each as a case of its own.

use lb_common::reason::Reason;

use super::{
    case::{Case, answers, forwards, passes},
    extensions::{DESTINATION, PADDING},
    frame::{back, icmp, vlan},
    icmp_echo::ping,
    ip::{FAMILIES, Family, Ip, tcp, tcp_to, udp_to},
    too_big::{sized, told},
    world::{MTU, port},
};

pub(crate) fn cases() -> Vec<Case> {
    let v4 = Family::V4;
    let stranger = v4.stranger();
    let mut lying = tcp(v4, port::L2).frame();
    lying.resize(60, 0);
    lying[16..18].copy_from_slice(&1420u16.to_be_bytes());
    let mut cases = vec![
        passes(
            "fragments of others are dropped",
            Reason::NotVip,
            udp_to(v4, stranger, 443, &[0; 64]).fragment(7, 0, 32, true).frame(),
        ),
        passes(
            "later fragments of others are dropped",
            Reason::NotVip,
            udp_to(v4, stranger, 443, &[0; 64]).fragment(7, 32, 32, false).frame(),
        ),
        passes(
            "packets of others with IPv4 options are dropped",
            Reason::NotVip,
            tcp_to(v4, stranger, 443, b"x").options(&[1, 1, 1, 0]).frame(),
        ),
        passes(
            "pings to others are answered",
            Reason::NotVip,
            icmp(v4.client(), stranger, 8, 0, [0, 1, 0, 1], b"x").frame(),
        ),
        passes(
            "the length in the IP header is trusted: 1,420 bytes in a frame of 60",
            Reason::Truncated,
            lying,
        ),
    ];
    // 0x0800 is added to the checksum without its carry going around the end.
    for checksum in 0xf7ff..=0xffffu16 {
        if checksum % 0x100 == 0xff || checksum >= 0xfff9 {
            let rest = !checksum - 0x0800 * u16::from(checksum < 0xf800);
            cases.extend(carry(checksum, rest));
        }
    }
    for family in FAMILIES {
        cases.push(forwards(
            format!("{family:?}: VLAN tags are not understood"),
            &[vlan(100)],
            &tcp(family, port::IPIP4),
            port::IPIP4,
        ));
        let big = sized(family, port::GUE4, MTU);
        cases.push(answers(
            format!("{family:?}: too big for the encapsulation, and nobody is told"),
            Reason::TooBigAnswered,
            big.frame(),
            back(&[], &told(&big, family, MTU - 28)),
        ));
        let quote = super::icmp_errors::quote(family, 6, port::IPIP4);
        let kinds: [(&str, u8, u8); 2] = match family {
            Family::V4 => [("fragmentation needed", 3, 4), ("time exceeded", 11, 0)],
            Family::V6 => [("packet too big", 2, 0), ("time exceeded", 3, 0)],
        };
        for (what, kind, code) in kinds {
            let error = icmp(family.client(), family.vip(), kind, code, [0; 4], &quote.bytes());
            let client = Ip::new(family, 6, Vec::new());
            let hash = super::world::flow_hash(&client, port::IPIP4);
            let service = super::world::service(family, 6, port::IPIP4, 0);
            cases.push(Case::new(
                format!("{family:?}: {what} with 8 bytes of TCP is lost"),
                (lb_userspace::dataplane::bpf::Action::Tx, Reason::IcmpError),
                error.frame(),
                super::frame::sent(&service, &[], &error, hash),
            ));
        }
    }
    cases.push(forwards(
        "extension headers hide TCP",
        &[],
        &tcp(Family::V6, port::L2).extension(DESTINATION, &PADDING),
        port::L2,
    ));
    cases
}

/// A ping whose checksum is `checksum`.
fn carry(checksum: u16, rest: u16) -> Option<Case> {
    let [high, low] = rest.to_be_bytes();
    let request = ping(Family::V4, [high, low, 0, 0], b"");
    if request.payload[2..4] != checksum.to_be_bytes() {
        return None;
    }
    let (client, vip) = (Family::V4.client(), Family::V4.vip());
    let reply = icmp(vip, client, 0, 0, [high, low, 0, 0], b"").ttl(64);
    Some(answers(
        format!("echo: the carry of checksum {checksum:#06x} is lost"),
        Reason::Echo,
        request.frame(),
        back(&[], &reply),
    ))
}
