//! Ping to a VIP.

use lb_common::reason::Reason;

use super::{
    case::{Case, answers, passes},
    extensions::{DESTINATION, PADDING},
    frame::{back, frame, icmp, icmp_checksum_is_right, vlan},
    ip::{FAMILIES, Family, Host, Ip},
    planes::World,
};

fn request(family: Family) -> u8 {
    if family == Family::V4 { 8 } else { 128 }
}

fn reply(family: Family) -> u8 {
    if family == Family::V4 { 0 } else { 129 }
}

/// A ping with an identifier and sequence number, and with data.
pub(crate) fn ping(family: Family, rest: [u8; 4], data: &[u8]) -> Ip {
    let (client, vip) = (family.client(), family.vip());
    icmp(client, vip, request(family), 0, rest, data)
}

fn pong(family: Family, rest: [u8; 4], data: &[u8]) -> Ip {
    let (client, vip) = (family.client(), family.vip());
    icmp(vip, client, reply(family), 0, rest, data).ttl(64)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        let name = |what: &str| format!("{family:?}: {what}");
        for (what, rest, data) in [
            ("a ping without data", [0, 1, 0, 2], b"".as_slice()),
            ("a ping of 56 bytes", [0x12, 0x34, 0, 1], &[0x5a; 56]),
            ("a ping of an odd length", [0xff; 4], b"odd"),
            ("a ping of 1400 bytes", [1, 2, 3, 4], &[0xa5; 1400]),
        ] {
            cases.push(answers(
                name(what),
                Reason::Echo,
                ping(family, rest, data).frame(),
                back(&[], &pong(family, rest, data)),
            ));
        }
        let (rest, data) = ([0, 7, 0, 9], b"tagged");
        for tags in [[vlan(7)].as_slice(), &[vlan(7), vlan(8)]] {
            cases.push(answers(
                name(&format!("a ping behind {} tags", tags.len())),
                Reason::Echo,
                frame(tags, &ping(family, rest, data)),
                back(tags, &pong(family, rest, data)),
            ));
        }
        cases.push(answers(
            name("TTL 1 is enough, the answer begins with 64"),
            Reason::Echo,
            ping(family, rest, data).ttl(1).frame(),
            back(&[], &pong(family, rest, data)),
        ));
        cases.push(answers(
            name("a ping to an address that is not announced by L2"),
            Reason::Echo,
            at_quiet(family, true).frame(),
            back(&[], &at_quiet(family, false)),
        ));
        cases.extend(not_answered(family));
    }
    cases
}

fn at_quiet(family: Family, is_request: bool) -> Ip {
    let (client, quiet) = (family.client(), family.quiet());
    if is_request {
        icmp(client, quiet, request(family), 0, [1; 4], b"quiet")
    } else {
        icmp(quiet, client, reply(family), 0, [1; 4], b"quiet").ttl(64)
    }
}

fn not_answered(family: Family) -> Vec<Case> {
    let name = |what: &str| format!("{family:?}: {what}");
    let (client, vip, stranger) = (family.client(), family.vip(), family.stranger());
    let mut cut = ping(family, [0; 4], b"");
    cut.payload.truncate(7);
    let long = || ping(family, [1; 4], &[0x11; 64]);
    let mut cases = vec![
        passes(
            name("a ping to a stranger"),
            Reason::NotVip,
            icmp(client, stranger, request(family), 0, [1; 4], b"x").frame(),
        ),
        passes(
            name("an answer to a ping"),
            Reason::IcmpOther,
            icmp(client, vip, reply(family), 0, [1; 4], b"x").frame(),
        ),
        passes(
            name("a ping with a code"),
            Reason::IcmpOther,
            icmp(client, vip, request(family), 1, [1; 4], b"x").frame(),
        ),
        passes(
            name("a ping of seven bytes"),
            Reason::MalformedIcmp,
            cut.frame(),
        ),
        passes(
            name("the first fragment of a ping"),
            Reason::OtherProtocol,
            long().fragment(3, 0, 32, true).frame(),
        ),
        passes(
            name("a later fragment of a ping"),
            Reason::NotVip,
            long().fragment(3, 32, 40, false).frame(),
        ),
    ];
    let sources: &[Host] = match family {
        Family::V4 => &[
            Host::V4([0; 4]),
            Host::V4([127, 0, 0, 1]),
            Host::V4([224, 0, 0, 1]),
            Host::V4([255; 4]),
        ],
        Family::V6 => &[Host::V6([0; 16]), Host::V6([0xff; 16])],
    };
    for source in sources {
        cases.push(passes(
            name(&format!("a ping from {:?}", source.octets())),
            Reason::IcmpOther,
            icmp(*source, vip, request(family), 0, [1; 4], b"x").frame(),
        ));
    }
    if family == Family::V4 {
        let with_options = ping(family, [1; 4], b"x").options(&[1, 1, 1, 0]);
        cases.push(passes(
            "a ping with IPv4 options is the kernel's",
            Reason::IcmpOther,
            with_options.frame(),
        ));
    } else {
        let with_options = ping(family, [1; 4], b"x").extension(DESTINATION, &PADDING);
        cases.push(passes(
            "a ping behind destination options is the kernel's",
            Reason::IcmpOther,
            with_options.frame(),
        ));
    }
    cases
}

/// Identifiers and sequence numbers of every sum: each reply differs from the right one in nothing, but that its
/// checksum may be the other zero of one's complement where both are right.
#[test]
fn the_checksum_of_every_reply_is_right() {
    let mut world = World::new();
    for family in FAMILIES {
        for sum in 0..=0xffffu16 {
            let [high, low] = sum.to_be_bytes();
            let rest = [high, low, 0, 0];
            let request = ping(family, rest, b"").frame();
            let (outcome, host) = world.on_host(&request);
            assert_eq!(outcome.reason, Reason::Echo);
            assert!(
                icmp_checksum_is_right(&host.packet[14..]),
                "{family:?} {sum:#x}"
            );
            let mut right = back(&[], &pong(family, rest, b""));
            let checksum = right.len() - 6..right.len() - 4;
            if sum == 0 && family == Family::V4 {
                // A message of nothing but zeros: hosts take 0xffff alone (the sum of its words must not be zero).
                assert_eq!(host.packet[checksum.clone()], [0xff; 2]);
            }
            right[checksum.clone()].copy_from_slice(&host.packet[checksum]);
            assert_eq!(host.packet, right);
            if let Some(kernel) = world.in_kernel(&request) {
                assert_eq!(kernel, host);
            }
        }
    }
}
