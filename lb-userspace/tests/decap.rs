//! `weir_decap` in the kernel, by `BPF_PROG_TEST_RUN`, against the same source on the host.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a panic is a failed test"
)]

#[path = "../../lb-common/src/decap/tests/frames.rs"]
mod frames;

use std::{cell::Cell, net::IpAddr};

use etherparse::IpNumber;
use frames::{BACKEND, CLIENT, GUE_PORT, NODE, Outer, VIP, inner, with_ecn};
use lb_common::{
    decap::{self, DecapTables, Prefix, Reason, Settings},
    flow::Address,
    packet::{HEADROOM, HostPacket},
    reason::Verdict,
};
use lb_userspace::dataplane::bpf::{
    Action,
    decap::{Decap, DecapSettings},
};

/// The same settings on both sides.
struct Pair {
    kernel: Decap,
    host: Host,
    /// Packets by reason, on the host.
    counted: Vec<u64>,
}

struct Host {
    settings: Settings,
    local: [Address; 2],
    vips: [Address; 2],
    last: Cell<Option<Reason>>,
}

impl DecapTables for Host {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn is_local(&self, address: Address) -> bool {
        self.local.contains(&address)
    }

    fn is_vip(&self, address: Address) -> bool {
        self.vips.contains(&address)
    }

    fn count(&self, reason: Reason, _bytes: u64) {
        self.last.set(Some(reason));
    }
}

fn ips(pair: ([u8; 4], [u8; 16])) -> Vec<IpAddr> {
    vec![pair.0.into(), pair.1.into()]
}

fn addresses(pair: ([u8; 4], [u8; 16])) -> [Address; 2] {
    [Address::from_v4(pair.0), Address::from_v6(pair.1)]
}

impl Pair {
    fn new(checks_vips: bool) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads BPF programs and must run as root"
        );
        let settings = DecapSettings {
            from: ["10.0.0.0/29", "2001:db8::/125"]
                .map(|text| text.parse().unwrap())
                .into(),
            local: ips(BACKEND),
            gue_ports: vec![GUE_PORT, 6081],
            vips: if checks_vips { ips(VIP) } else { vec![] },
        };
        let from = addresses(NODE).map(|node| Prefix::new(node, 125));
        Self {
            kernel: Decap::private(&settings).unwrap(),
            host: Host {
                settings: Settings::new(&from, &settings.gue_ports, checks_vips).unwrap(),
                local: addresses(BACKEND),
                vips: addresses(VIP),
                last: Cell::default(),
            },
            counted: vec![0; Reason::COUNT],
        }
    }

    /// Runs a frame on both sides, and returns what the host made of it.
    fn judge(&mut self, frame: &[u8]) -> (Reason, Vec<u8>) {
        let mut buffer = vec![0; HEADROOM + frame.len()];
        let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
        let reason = decap::run(&mut packet, &self.host);
        assert_eq!(self.host.last.take(), Some(reason));
        self.counted[reason as usize] += 1;
        let run = self.kernel.test_run(frame).unwrap();
        let action = match reason.verdict() {
            Verdict::Pass => Action::Pass,
            _ => Action::Drop,
        };
        assert_eq!(run.action, action, "{reason:?} {frame:02x?}");
        assert_eq!(run.packet, packet.bytes(), "{reason:?} {frame:02x?}");
        (reason, run.packet)
    }

    /// The kernel counted every frame under the host's reason.
    fn assert_counts(&self) {
        for count in self.kernel.counts().unwrap() {
            let expected = self.counted[count.reason as usize];
            assert_eq!(count.counter.packets, expected, "{:?}", count.reason);
        }
    }
}

#[test]
fn the_inner_packet_comes_out_byte_for_byte() {
    let mut pair = Pair::new(true);
    for outer in Outer::all() {
        for inner_v6 in [false, true] {
            for tags in 0..=2 {
                for options in [0, 40] {
                    let outer = Outer {
                        options,
                        tags,
                        ..outer.clone()
                    };
                    let (reason, packet) = pair.judge(&outer.wrap(&inner(inner_v6)));
                    assert!(reason.is_decapsulated(), "{outer:?}");
                    assert_eq!(packet, outer.link(inner_v6, &inner(inner_v6)), "{outer:?}");
                }
            }
        }
    }
    pair.assert_counts();
}

#[test]
fn ecn_is_combined() {
    let mut pair = Pair::new(false);
    for outer in Outer::all() {
        for (inner_v6, (was, ecn, becomes)) in [false, true]
            .into_iter()
            .flat_map(|v6| [(2, 3, 3), (1, 3, 3), (2, 1, 1), (3, 0, 3)].map(|row| (v6, row)))
        {
            let outer = Outer {
                ecn,
                ..outer.clone()
            };
            let (_, packet) = pair.judge(&outer.wrap(&with_ecn(inner(inner_v6), was)));
            assert_eq!(
                packet,
                outer.link(inner_v6, &with_ecn(inner(inner_v6), becomes))
            );
        }
        let lost = Outer { ecn: 3, ..outer };
        assert_eq!(pair.judge(&lost.wrap(&inner(false))).0, Reason::EcnLost);
    }
    pair.assert_counts();
}

#[test]
fn what_is_not_for_the_program_passes_and_what_is_not_the_fleets_is_dropped() {
    let mut pair = Pair::new(false);
    for outer in Outer::all() {
        let foreign = Outer {
            from: CLIENT,
            ..outer.clone()
        };
        assert_eq!(
            pair.judge(&foreign.wrap(&inner(false))).0,
            Reason::ForeignSource
        );
        let others = Outer {
            to: CLIENT,
            ..outer.clone()
        };
        assert_eq!(pair.judge(&others.wrap(&inner(false))).0, Reason::NotLocal);
        let plain = outer.frame(IpNumber::TCP, &[0; 20]);
        assert_eq!(pair.judge(&plain).0, Reason::NotTunnel);
        let frame = outer.wrap(&inner(true));
        for len in 14..frame.len() {
            assert_eq!(pair.judge(&frame[..len]).0, Reason::Truncated);
        }
    }
    pair.assert_counts();
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same packets in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

#[test]
fn fifty_thousand_mutated_packets_fare_alike_in_the_kernel_and_on_the_host() {
    let mut random = Random(0x5eed);
    for checks_vips in [false, true] {
        let mut pair = Pair::new(checks_vips);
        for _ in 0..25_000 {
            let frame = mutated(&mut random);
            let (_reason, _packet) = pair.judge(&frame);
        }
        pair.assert_counts();
        let met = pair.counted.iter().filter(|packets| **packets > 10).count();
        // All but `not_stripped`, `no_settings` and, in the first round, `not_vip`.
        assert!(met >= Reason::COUNT - 3, "{:?}", pair.counted);
    }
}

/// A tunnel packet, more or less damaged where it hurts.
fn mutated(random: &mut Random) -> Vec<u8> {
    let mut outer = Outer::all()[random.below(4)].clone();
    outer.tags = random.below(3);
    outer.options = random.below(11) * 4;
    outer.ecn = random.below(4) as u8;
    match random.below(12) {
        0 => outer.from = CLIENT,
        1 => outer.to = CLIENT,
        2 => outer.gue = outer.gue.and(Some(4789)),
        _ => {}
    }
    let mut packet = with_ecn(inner(random.below(2) == 0), random.below(4) as u8);
    if random.below(8) == 0 {
        let at = random.below(40);
        packet[at] ^= 1 << random.below(8);
    }
    let mut frame = outer.wrap(&packet);
    // The outer IP header, and what follows it.
    let ip = 14 + 4 * outer.tags;
    match random.below(8) {
        0 => {
            let at = ip + random.below(72.min(frame.len() - ip));
            frame[at] = random.next() as u8;
        }
        1 => {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        2 => frame.truncate((14 + random.below(frame.len() - 14)).max(14)),
        3 if !outer.is_v6 => {
            let flags = [0x2000_u16, 0x0001, 0x2010, 0x8000][random.below(4)];
            frame[ip + 6..ip + 8].copy_from_slice(&flags.to_be_bytes());
        }
        3 => frame[ip + 6] = 44,
        4 => {
            frame.extend((0..random.below(30)).map(|_| 0xaa));
        }
        5 if random.below(4) == 0 => {
            frame.splice(12..12, [0x81, 0, 0, 1]);
        }
        6 if random.below(4) == 0 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
        _ => {}
    }
    frame
}
