//! Packets through the real program, by `BPF_PROG_TEST_RUN`: packet in, verdict and packet out.
//!
//! Frames are built by etherparse, which shares no code with lb-common.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

mod support;

use std::cell::RefCell;

use lb_common::{observe::Watches, reason::Reason};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{Action, BpfDataPlane},
    memory::Memory,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use support::{Case, VIP_V4, VIP_V6, World, tcp_v4, tcp_v6, udp_v4, udp_v6, with_macs};

/// Runs a frame and says under which one reason it was counted.
fn judge(world: &mut World, frame: &[u8]) -> (Action, Vec<u8>, Reason) {
    let before = world.plane.reason_counters().unwrap();
    let run = world.plane.test_run(frame).unwrap();
    let after = world.plane.reason_counters().unwrap();
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let counted: Vec<_> = changed
        .map(|(before, after)| (after.reason, after.packets - before.packets))
        .collect();
    let [(reason, 1)] = counted[..] else {
        panic!("counted under {counted:?}")
    };
    (run.action, run.packet, reason)
}

fn assert_case(world: &mut World, case: &Case) {
    let (action, packet, reason) = judge(world, &case.frame);
    assert_eq!(reason, case.reason, "{}: reason", case.name);
    assert_eq!(action, case.action, "{}: action", case.name);
    assert_eq!(packet, case.expected, "{}: packet", case.name);
}

#[test]
fn a_vips_packets_leave_for_the_backend_with_nothing_changed_but_the_mac_addresses() {
    let mut world = World::new();
    for (name, frame, backend) in [
        ("IPv4 TCP", tcp_v4(VIP_V4, 443, b"hello"), world.v4),
        ("IPv4 UDP", udp_v4(VIP_V4, 443, b"hello"), world.v4_udp),
        ("IPv6 TCP", tcp_v6(VIP_V6, 443, b"hello"), world.v6),
        ("IPv6 UDP", udp_v6(VIP_V6, 443, b"hello"), world.v6_udp),
    ] {
        let before = world.plane.backend_counters(backend.id).unwrap();
        let vip_before = world.plane.vip_counters(backend.vip).unwrap();
        let expected = with_macs(&frame, backend.mac);
        let case = Case {
            name,
            action: Action::Tx,
            reason: Reason::Forwarded,
            expected,
            frame,
        };
        assert_case(&mut world, &case);
        for (before, after) in [
            (before, world.plane.backend_counters(backend.id).unwrap()),
            (vip_before, world.plane.vip_counters(backend.vip).unwrap()),
        ] {
            assert_eq!(after.packets, before.packets + 1, "{name}");
            assert_eq!(
                after.bytes,
                before.bytes + case.frame.len() as u64,
                "{name}"
            );
            assert_eq!(after.new_connections, before.new_connections, "{name}");
        }
    }
}

#[test]
fn counters_of_an_id_that_is_given_again_begin_at_zero() {
    let mut world = World::new();
    let frame = tcp_v4(VIP_V4, 443, b"hello");
    assert_eq!(judge(&mut world, &frame).2, Reason::Forwarded);
    let (vip, id) = (world.v4.vip, world.v4.id);
    let plane = &mut world.plane;
    let counted = plane.backend_counters(id).unwrap();
    assert_eq!(counted.packets, 1);

    // One that comes back under another id goes on there; what was passed on once is not passed on again.
    for _ in 0..2 {
        plane.inherit_counters(id, 999).unwrap();
        assert_eq!(plane.backend_counters(999).unwrap(), counted);
    }
    plane.inherit_counters(999, 998).unwrap();
    assert_eq!(plane.backend_counters(998).unwrap(), counted);

    plane.clear_backend_counters(id).unwrap();
    plane.clear_backend_counters(999).unwrap();
    plane.clear_vip_counters(vip).unwrap();
    for id in [id, 999] {
        assert_eq!(plane.backend_counters(id).unwrap().packets, 0);
    }
    assert_eq!(plane.vip_counters(vip).unwrap().packets, 0);
}

/// The kernel's statistics cost every program of the machine some time, so they are on only while this holds a handle to them.
#[test]
fn the_kernels_statistics_tell_how_often_the_programs_ran() {
    let mut world = World::new();
    let frame = tcp_v4(VIP_V4, 443, b"hello");
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    for _ in 0..5 {
        assert_eq!(judge(&mut world, &frame).2, Reason::Forwarded);
    }
    drop(statistics);
    let runs = world.plane.program_runs().unwrap();
    assert_eq!(runs.len(), 6, "{runs:?}");
    let first = runs.iter().find(|program| program.program == "weir_xdp");
    let first = first.unwrap();
    assert_eq!(first.runs, 5, "{runs:?}");
    assert!(!first.time.is_zero());
    let others = runs.iter().filter(|program| program.program != "weir_xdp");
    assert!(others.clone().all(|program| program.runs == 0), "{runs:?}");
}

#[test]
fn only_a_bare_syn_is_a_new_connection() {
    let mut world = World::new();
    for (flags, is_new) in [
        (0x02, true),
        (0x42, true),  // with ECE, as RFC 3168 does
        (0xc2, true),  // with ECE and CWR
        (0x12, false), // SYN+ACK
        (0x03, false), // SYN+FIN
        (0x06, false), // SYN+RST
        (0x10, false),
    ] {
        let mut frame = tcp_v4(VIP_V4, 443, b"");
        frame[14 + 20 + 13] = flags;
        let before = world
            .plane
            .vip_counters(world.v4.vip)
            .unwrap()
            .new_connections;
        assert_eq!(judge(&mut world, &frame).2, Reason::Forwarded);
        let after = world
            .plane
            .vip_counters(world.v4.vip)
            .unwrap()
            .new_connections;
        assert_eq!(after - before, u64::from(is_new), "flags {flags:#x}");
    }
}

#[test]
fn what_is_for_no_vip_passes_untouched() {
    let mut world = World::new();
    let mut arp = vec![0xff; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let [a, b, c, d] = VIP_V4;
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    for (name, frame, reason) in [
        (
            "another address",
            tcp_v4([203, 0, 113, 99], 443, b"x"),
            Reason::NotVip,
        ),
        ("another port", tcp_v4(VIP_V4, 80, b"x"), Reason::NotVip),
        (
            "another IPv6 address",
            tcp_v6([0x20; 16], 443, b"x"),
            Reason::NotVip,
        ),
        (
            "a VIP's mapped address over IPv6",
            tcp_v6(mapped, 443, b"x"),
            Reason::MalformedIp,
        ),
        ("ARP", arp, Reason::NotIp),
    ] {
        let case = Case {
            name,
            action: Action::Pass,
            reason,
            expected: frame.clone(),
            frame,
        };
        assert_case(&mut world, &case);
    }
}

#[test]
fn headers_that_contradict_themselves_pass_untouched() {
    let mut world = World::new();
    let edit = |mut frame: Vec<u8>, offset: usize, bytes: &[u8]| {
        frame[offset..offset + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let v4 = || tcp_v4(VIP_V4, 443, b"hello");
    let v6 = || tcp_v6(VIP_V6, 443, b"hello");
    let udp = || udp_v4(VIP_V4, 443, b"hello");
    for (name, frame, reason) in [
        (
            "IPv4 with version 5",
            edit(v4(), 14, &[0x55]),
            Reason::MalformedIp,
        ),
        (
            "IPv4 header of 16 bytes",
            edit(v4(), 14, &[0x44]),
            Reason::MalformedIp,
        ),
        (
            "IPv4 total length below its header",
            edit(v4(), 16, &[0, 19]),
            Reason::MalformedIp,
        ),
        (
            "IPv4 total length beyond the frame",
            edit(v4(), 16, &[0x05, 0xdc]),
            Reason::Truncated,
        ),
        (
            "IPv4 total length below TCP's header",
            edit(v4(), 16, &[0, 39]),
            Reason::MalformedTransport,
        ),
        (
            "TCP data offset 4",
            edit(v4(), 46, &[0x40]),
            Reason::MalformedTransport,
        ),
        (
            "TCP data offset beyond the packet",
            edit(v4(), 46, &[0xf0]),
            Reason::MalformedTransport,
        ),
        (
            "UDP length 7",
            edit(udp(), 38, &[0, 7]),
            Reason::MalformedTransport,
        ),
        (
            "UDP length beyond the packet",
            edit(udp(), 38, &[0, 14]),
            Reason::MalformedTransport,
        ),
        (
            "IPv6 with version 4",
            edit(v6(), 14, &[0x40]),
            Reason::MalformedIp,
        ),
        (
            "IPv6 payload length beyond the frame",
            edit(v6(), 18, &[0x05, 0xdc]),
            Reason::Truncated,
        ),
        (
            "IPv6 payload length below TCP's header",
            edit(v6(), 18, &[0, 19]),
            Reason::MalformedTransport,
        ),
    ] {
        let case = Case {
            name,
            action: Action::Pass,
            reason,
            expected: frame.clone(),
            frame,
        };
        assert_case(&mut world, &case);
    }
}

#[test]
fn ipv4_options_and_padding_do_no_harm() {
    let mut world = World::new();
    // Three no-operation options and the end of the list; the checksum is the receiver's to judge.
    let mut frame = tcp_v4(VIP_V4, 443, b"");
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    frame[17] += 4;
    // Ethernet pads short frames: the frame is longer than the packet.
    frame.extend([0; 6]);
    let expected = with_macs(&frame, world.v4.mac);
    let case = Case {
        name: "options",
        action: Action::Tx,
        reason: Reason::Forwarded,
        expected,
        frame,
    };
    assert_case(&mut world, &case);
}

#[test]
fn what_cannot_be_served_is_dropped_under_its_own_reason() {
    let mut world = World::new();
    for (name, port, reason) in [
        ("no backend", support::PORT_EMPTY, Reason::NoBackend),
        ("unresolved", support::PORT_UNRESOLVED, Reason::NoNextHop),
        ("no port", support::PORT_ELSEWHERE, Reason::NoPort),
        ("no table", support::PORT_NO_TABLE, Reason::TableMissing),
    ] {
        let frame = tcp_v4(VIP_V4, port, b"");
        let case = Case {
            name,
            action: Action::Drop,
            reason,
            expected: frame.clone(),
            frame,
        };
        assert_case(&mut world, &case);
    }
}

#[test]
fn a_cleared_table_has_no_backend() {
    let mut world = World::new();
    let frame = tcp_v4(VIP_V4, 443, b"");
    assert_eq!(judge(&mut world, &frame).2, Reason::Forwarded);
    world.plane.clear_table(world.v4.vip).unwrap();
    assert_eq!(judge(&mut world, &frame).2, Reason::NoBackend);
}

#[test]
fn a_vips_whole_address_answers_for_every_port() {
    let mut world = World::new();
    for port in [1, 80, 65535] {
        assert_eq!(
            judge(&mut world, &tcp_v4(support::VIP_ANY, port, b"")).2,
            Reason::Forwarded,
            "{port}"
        );
        assert_eq!(
            judge(&mut world, &udp_v4(support::VIP_ANY, port, b"")).2,
            Reason::NotVip,
            "UDP {port}"
        );
    }
}

#[test]
fn every_prefix_of_a_valid_frame_is_counted_and_passes() {
    let mut world = World::new();
    for frame in [
        tcp_v4(VIP_V4, 443, b"hello"),
        udp_v4(VIP_V4, 443, b"hello"),
        tcp_v6(VIP_V6, 443, b"hello"),
        udp_v6(VIP_V6, 443, b"hello"),
    ] {
        for len in 0..frame.len() {
            let prefix = &frame[..len];
            // The kernel takes no frame below 14 bytes: the same source runs on the host.
            let reason = if len < 14 {
                support::on_host(&Memory::default(), prefix).0.reason
            } else {
                let (action, packet, reason) = judge(&mut world, prefix);
                assert_eq!(action, Action::Pass);
                assert_eq!(packet, prefix);
                reason
            };
            assert_eq!(reason, Reason::Truncated, "{len} bytes");
        }
    }
}

/// Frames of noise, and valid ones with bytes changed: the program never aborts, counts each once, and agrees
/// with the host pipeline on verdict and bytes.
#[test]
fn random_frames_never_abort_and_match_the_host() {
    const FRAMES: u32 = 100_000;
    let mut world = World::new();
    let bases = [
        tcp_v4(VIP_V4, 443, b"hello"),
        udp_v4(VIP_V4, 443, b"hello"),
        tcp_v6(VIP_V6, 443, b"hello"),
        udp_v6(VIP_V6, 443, b""),
    ];
    let noise = vec(any::<u8>(), 14..128);
    let changed = (
        0..bases.len(),
        vec((0usize..96, any::<u8>()), 0..4),
        14usize..128,
    )
        .prop_map(move |(base, edits, len)| {
            let mut frame = bases[base].clone();
            for (offset, value) in edits {
                if let Some(byte) = frame.get_mut(offset) {
                    *byte = value;
                }
            }
            frame.truncate(len);
            frame
        });
    let before: u64 = world.counted();
    let mut runner = TestRunner::new(Config {
        cases: FRAMES,
        failure_persistence: None,
        ..Config::default()
    });
    let plane = RefCell::new(&mut world.plane);
    runner
        .run(&prop_oneof![1 => noise, 3 => changed], |frame| {
            let run = plane.borrow_mut().test_run(&frame).unwrap();
            let (outcome, expected) = support::on_host(&world.host, &frame);
            prop_assert_eq!(run.action, support::action(&outcome));
            prop_assert_eq!(run.packet, expected);
            Ok(())
        })
        .unwrap();
    let after: u64 = world.counted();
    assert_eq!(after - before, u64::from(FRAMES));
}

/// The verifier gives up at a million instructions, and older kernels see less well what they have seen before.
#[test]
fn the_verifier_has_patience_left_for_every_program() {
    let mut normal = BpfDataPlane::private().unwrap();
    let (mut observing, _records) = BpfDataPlane::observing(&Watches::default()).unwrap();
    for plane in [&mut normal, &mut observing] {
        for program in plane.program_sizes().unwrap() {
            assert!(program.verified < 400_000, "{program:?}");
        }
    }
}
