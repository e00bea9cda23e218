//! IP in IP and GUE, every family over every family.

use lb_common::reason::Reason;
use lb_userspace::dataplane::{DataPlane as _, bpf::Action};

use super::{
    case::{Case, forwards},
    ip::{FAMILIES, Family, tcp, tcp_to, udp, udp_to},
    planes::World,
    world::{WAYS, Way, port},
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (way, port) in WAYS.into_iter().filter(|(way, _)| *way != Way::L2) {
            let name = |what: &str| format!("{family:?} in {way:?}: {what}");
            cases.extend([
                forwards(name("TCP"), &[], &tcp(family, port), port),
                forwards(name("UDP"), &[], &udp(family, port), port),
                forwards(
                    name("an empty datagram"),
                    &[],
                    &udp_to(family, family.vip(), port, b""),
                    port,
                ),
                forwards(
                    name("the inner TTL stays, the outer one is 64"),
                    &[],
                    &tcp(family, port).ttl(1),
                    port,
                ),
            ]);
            // DSCP and ECN are copied outward (RFC 6040, normal mode).
            for (what, tos) in [
                ("DSCP EF", 0xb8),
                ("ECT(0)", 0x02),
                ("ECT(1)", 0x01),
                ("congestion experienced", 0x03),
                ("every bit of DSCP and ECN", 0xff),
            ] {
                let ip = tcp(family, port).tos(tos);
                cases.push(forwards(name(&format!("{what} is copied")), &[], &ip, port));
            }
            // The hash in GUE's source port and the flow label.
            for client in 1..4 {
                let mut ip = udp(family, port);
                ip.payload[1] ^= client;
                let source_port = u16::from_be_bytes([ip.payload[0], ip.payload[1]]);
                let service = super::world::service(family, 17, port, 0);
                let hash = super::world::hash(&ip, source_port, port);
                cases.push(Case {
                    name: name(&format!("entropy of flow {client}")),
                    out: super::frame::sent(&service, &[], &ip, hash),
                    ..forwards("", &[], &ip, port)
                });
            }
        }
    }
    cases.extend(identification());
    cases.extend(padding());
    cases
}

/// DF is copied; without it the outer identification is the inner one plus the upper half of the hash.
fn identification() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way, port) in [(Way::Ipip4, port::IPIP4), (Way::Gue4, port::GUE4)] {
        for id in [0, 1, 0x1234, 0xffff] {
            let ip = tcp(Family::V4, port).id(id);
            cases.push(forwards(
                format!("{way:?}: with DF the outer identification is zero, whatever {id:#x} is inside"),
                &[],
                &ip,
                port,
            ));
            cases.push(forwards(
                format!("{way:?}: without DF it follows the inner {id:#x}"),
                &[],
                &ip.may_be_fragmented(),
                port,
            ));
        }
    }
    cases
}

/// The length is the IP header's; what follows the packet stays behind it.
fn padding() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for (way, port) in WAYS {
            let ip = tcp_to(family, family.vip(), port, b"");
            let mut case = forwards(
                format!("{family:?} in {way:?}: Ethernet's padding is not counted, and stays"),
                &[],
                &ip,
                port,
            );
            case.frame.extend([0xee; 6]);
            case.out.extend([0xee; 6]);
            cases.push(case);
        }
    }
    cases
}

/// xtask/tests/metrics names this test: the lab's interfaces give room enough.
#[test]
fn a_frame_without_headroom_is_dropped_and_counted() {
    let mut world = World::new();
    let frame = tcp(Family::V4, port::GUE4).frame();
    let (outcome, wanted) = world.on_host(&frame);
    let Some(kernel) = &mut world.kernel else {
        return;
    };
    // The kernel wants some of the room for itself, and the outer headers take 28 bytes.
    let run = kernel.test_run_in(&frame, 128).unwrap();
    assert_eq!((run.action, run.packet), (Action::Tx, wanted.packet));
    let before = kernel.reason_counters().unwrap();
    let run = kernel.test_run_in(&frame, 56).unwrap();
    assert_eq!((run.action, run.packet), (Action::Drop, frame));
    let after = kernel.reason_counters().unwrap();
    let counted: Vec<_> = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after)
        .map(|(before, after)| (after.reason, after.packets - before.packets))
        .collect();
    assert_eq!(counted, [(Reason::NoHeadroom, 1)]);
    let drops = kernel.vip_drops(outcome.vip).unwrap();
    let index = Reason::NoHeadroom.drop_index().unwrap() as usize;
    assert_eq!(drops.packets.iter().sum::<u64>(), 1);
    assert_eq!(drops.packets[index], 1);
}
