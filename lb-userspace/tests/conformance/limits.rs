//! What cannot be served, frames of unusual sizes, and the rate of answers.

use lb_common::{
    limit::{Judgement, Kind},
    reason::Reason,
    tables::Node,
};
use lb_userspace::dataplane::{DataPlane as _, Judged, bpf::Action};

use super::{
    case::{Case, answers, drops, forwards},
    changes::segment,
    extensions::{HOP_BY_HOP, PADDING},
    frame::back,
    icmp_echo::ping,
    ip::{FAMILIES, Family, Ip, tcp, udp},
    too_big::{sized, told},
    planes::World,
    world::{MTU, Plan, hash_keys, number, port},
};

/// The control bit of a SYN.
const SYN: u8 = 2;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (what, port, reason) in [
            ("no backend", port::NO_BACKEND, Reason::NoBackend),
            ("no next hop", port::NO_NEXT_HOP, Reason::NoNextHop),
            ("no port", port::NO_PORT, Reason::NoPort),
        ] {
            for (protocol, ip) in [("TCP", tcp(family, port)), ("UDP", udp(family, port))] {
                let name = format!("{family:?} {protocol}: {what}");
                cases.push(drops(name, reason, ip.frame()));
            }
        }
        for (protocol, ip) in [("TCP", tcp(family, port::LIMITED)), ("UDP", udp(family, port::LIMITED))] {
            let name = format!("{family:?} {protocol}: over a limit");
            cases.push(drops(name, Reason::Limited, ip.frame()));
        }
        let fragment = udp(family, port::LIMITED).fragment(77, 0, 8, true);
        cases.push(drops(
            format!("{family:?}: a first fragment over a limit"),
            Reason::Limited,
            fragment.frame(),
        ));
        cases.push(drops(
            format!("{family:?}: options over a limit"),
            Reason::Limited,
            options(family, port::LIMITED).frame(),
        ));
        for port in [port::SYN_LIMITED, port::MOVING_LIMITED] {
            cases.push(drops(
                format!("{family:?}: a SYN over a limit of new connections, port {port}"),
                Reason::Limited,
                segment(family, port, 40_000, SYN, 1).frame(),
            ));
        }
        cases.push(forwards(
            format!("{family:?}: what is no SYN is not held up by a limit of new connections"),
            &[],
            &tcp(family, port::SYN_LIMITED),
            port::SYN_LIMITED,
        ));
        for (what, ip) in [
            ("a segment", tcp(family, port::OBSERVED)),
            ("a datagram", udp(family, port::OBSERVED)),
        ] {
            let name = format!("{family:?}: {what} over limits that only count");
            cases.push(forwards(name, &[], &ip, port::OBSERVED));
        }
        // Beyond the first buffer of a frame of several.
        for len in [3506, 3507, 4096, 8999, 9000] {
            cases.push(forwards(
                format!("{family:?}: {len} bytes to a backend on the segment"),
                &[],
                &sized(family, port::L2, len),
                port::L2,
            ));
        }
        cases.push(forwards(
            format!("{family:?}: a jumbo frame that just fits into GUE"),
            &[],
            &sized(family, port::GUE4_JUMBO, 9000 - 28),
            port::GUE4_JUMBO,
        ));
        for (port, len, fits) in [
            (port::GUE4_JUMBO, 9000 - 27, 9000 - 28),
            (port::IPIP4, 9000, MTU - 20),
        ] {
            let ip = sized(family, port, len);
            cases.push(answers(
                format!("{family:?}: a client of {len} bytes is told {fits}"),
                Reason::TooBigAnswered,
                ip.frame(),
                back(&[], &told(&ip, family, fits)),
            ));
        }
        let mut short = drops("", Reason::Truncated, sized(family, port::L2, 9000).frame());
        short.frame.truncate(9000);
        short.out.truncate(9000);
        cases.push(Case {
            name: format!("{family:?}: a jumbo frame that is cut short"),
            action: Action::Pass,
            ..short
        });
    }
    cases
}

/// Whatever the way of a packet through the program's steps.
#[test]
fn every_packet_is_judged_once() {
    let mut world = World::of(&Plan::guarded());
    for family in FAMILIES {
        for (what, protocol, port, ip) in [
            ("plain", 6, port::L2, tcp(family, port::L2)),
            ("options", 6, port::L2, options(family, port::L2)),
            ("a first fragment", 17, port::L2, udp(family, port::L2).fragment(7, 0, 8, true)),
            ("a later one", 17, port::L2, udp(family, port::L2).fragment(7, 8, 8, false)),
            ("encapsulated", 6, port::IPIP4, tcp(family, port::IPIP4)),
            ("too big", 17, port::IPIP4, sized(family, port::IPIP4, MTU)),
            ("on the move", 6, port::MOVING, tcp(family, port::MOVING)),
        ] {
            let vip = u32::from(number(family, protocol, port));
            let counted = |judged: Judged| judged.count(Kind::Packets, Judgement::Allowed);
            let on_host = counted(world.host.judged(vip).unwrap());
            drop(world.on_host(&ip.frame()));
            let on_host = counted(world.host.judged(vip).unwrap()) - on_host;
            assert_eq!(on_host, 1, "{family:?}, {what}");
            if let Some(kernel) = &mut world.kernel {
                let before = counted(kernel.judged(vip).unwrap());
                kernel.test_run(&ip.frame()).unwrap();
                let in_kernel = counted(kernel.judged(vip).unwrap()) - before;
                assert_eq!(in_kernel, 1, "{family:?}, {what}");
            }
        }
    }
}

/// A packet with IPv4 options or an IPv6 extension header.
fn options(family: Family, port: u16) -> Ip {
    match family {
        Family::V4 => tcp(family, port).options(&[1, 1, 1, 0]),
        Family::V6 => tcp(family, port).extension(HOP_BY_HOP, &PADDING),
    }
}

/// On the host there is no clock, so the limit is a matter of the real program alone.
#[test]
fn answers_beyond_the_rate_are_dropped_and_counted() {
    let mut world = World::new();
    let Some(plane) = world.kernel.as_mut() else {
        return;
    };
    let node = Node {
        icmp_interval_ns: 1_000_000_000_000,
        icmp_tolerance_ns: 0,
        ..Node::new(hash_keys())
    };
    plane.set_node(&node).unwrap();
    let frame = ping(Family::V4, [0; 4], b"ping").frame();
    // Each CPU has a limit of its own: as many pings may be answered, and no more.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut limited = 0;
    for _ in 0..=cpus * 2 {
        let (reason, judged) = world.counted_in_kernel(&frame).unwrap();
        if reason == Reason::IcmpLimited {
            limited += 1;
            assert_eq!(judged.action, Action::Drop);
            assert_eq!(judged.packet, frame);
        }
    }
    assert!(limited > cpus, "{limited} limited");
}
