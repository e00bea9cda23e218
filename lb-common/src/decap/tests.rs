//! Every rule, packet in and packet out.

mod frames;

use std::{cell::RefCell, collections::BTreeMap, vec, vec::Vec};

use etherparse::IpNumber;

use self::frames::{BACKEND, CLIENT, GUE_PORT, NODE, Outer, VIP, inner, with_ecn};
use super::*;
use crate::{
    flow::Address,
    packet::{HEADROOM, HostPacket},
    reason::Verdict,
};

/// Maps in host memory.
struct Host {
    settings: Option<Settings>,
    local: Vec<Address>,
    vips: Vec<Address>,
    counters: RefCell<BTreeMap<&'static str, Counter>>,
}

impl DecapTables for Host {
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn is_local(&self, address: Address) -> bool {
        self.local.contains(&address)
    }

    fn is_vip(&self, address: Address) -> bool {
        self.vips.contains(&address)
    }

    fn count(&self, reason: Reason, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        counters.entry(reason.as_str()).or_default().add(bytes);
    }
}

fn both(pair: ([u8; 4], [u8; 16])) -> [Address; 2] {
    [Address::from_v4(pair.0), Address::from_v6(pair.1)]
}

fn host() -> Host {
    // 10.0.0.0/29 and 2001:db8::/125.
    let from = both(NODE).map(|node| Prefix::new(node, 125));
    Host {
        settings: Settings::new(&from, &[GUE_PORT, 6081], false),
        local: both(BACKEND).to_vec(),
        vips: vec![],
        counters: RefCell::default(),
    }
}

fn run(host: &Host, frame: &[u8]) -> (Reason, Vec<u8>) {
    let mut buffer = vec![0; HEADROOM + frame.len()];
    let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
    let before = host.counters.borrow().clone();
    let reason = super::run(&mut packet, host);
    let after = host.counters.borrow();
    let old = before.get(reason.as_str()).copied().unwrap_or_default();
    let new = after[reason.as_str()];
    assert_eq!(new.packets, old.packets + 1);
    assert_eq!(new.bytes, old.bytes + frame.len() as u64);
    let total = |counters: &BTreeMap<_, Counter>| counters.values().map(|c| c.packets).sum::<u64>();
    assert_eq!(total(&after), total(&before) + 1, "counted once");
    if !reason.is_decapsulated() && reason.verdict() == Verdict::Pass {
        assert_eq!(packet.bytes(), frame, "{reason:?} passes untouched");
    }
    (reason, packet.bytes().to_vec())
}

fn assert_reason(host: &Host, frame: &[u8], expected: Reason) {
    assert_eq!(run(host, frame).0, expected, "{frame:02x?}");
}

#[test]
fn every_family_in_every_other_with_tags_and_options() {
    let host = host();
    for outer in Outer::all() {
        for inner_v6 in [false, true] {
            for tags in 0..=2 {
                for options in [0, 4, 40] {
                    let outer = Outer {
                        options,
                        tags,
                        ..outer.clone()
                    };
                    let (reason, packet) = run(&host, &outer.wrap(&inner(inner_v6)));
                    let expected = if outer.gue.is_some() {
                        Reason::Gue
                    } else {
                        Reason::Ipip
                    };
                    assert_eq!(reason, expected, "{outer:?}");
                    assert_eq!(packet, outer.link(inner_v6, &inner(inner_v6)), "{outer:?}");
                }
            }
        }
    }
    // The second of the ports.
    let (reason, _) = run(&host, &Outer::new(false, Some(6081)).wrap(&inner(true)));
    assert_eq!(reason, Reason::Gue);
}

#[test]
fn padding_of_short_frames_stays_where_it_is() {
    let outer = Outer::new(false, None);
    let mut frame = outer.wrap(&inner(false));
    frame.extend([0xaa; 9]);
    let mut expected = outer.link(false, &inner(false));
    expected.extend([0xaa; 9]);
    assert_eq!(run(&host(), &frame), (Reason::Ipip, expected));
}

#[test]
fn ecn_of_both_headers_is_combined() {
    let host = host();
    for outer in Outer::all() {
        for inner_v6 in [false, true] {
            // Inner, outer, combined (RFC 6040, figure 4); what differs from the inner one, and some that do not.
            for (was, ecn, becomes) in [
                (0, 0, Some(0)),
                (0, 1, Some(0)),
                (0, 2, Some(0)),
                (0, 3, None),
                (2, 0, Some(2)),
                (2, 1, Some(1)),
                (2, 2, Some(2)),
                (2, 3, Some(3)),
                (1, 2, Some(1)),
                (1, 3, Some(3)),
                (3, 0, Some(3)),
                (3, 3, Some(3)),
            ] {
                let outer = Outer {
                    ecn,
                    ..outer.clone()
                };
                let (reason, packet) = run(&host, &outer.wrap(&with_ecn(inner(inner_v6), was)));
                match becomes {
                    Some(becomes) => assert_eq!(
                        packet,
                        outer.link(inner_v6, &with_ecn(inner(inner_v6), becomes)),
                        "{outer:?} {was}"
                    ),
                    None => assert_eq!(reason, Reason::EcnLost),
                }
            }
        }
    }
}

#[test]
fn only_the_fleet_is_heard() {
    let host = host();
    let mut foreign = NODE;
    foreign.0[3] = 9;
    foreign.1[15] = 9;
    let mut kin = NODE;
    kin.0[3] = 7;
    kin.1[15] = 7;
    for outer in Outer::all() {
        for from in [foreign, CLIENT] {
            let outer = Outer {
                from,
                ..outer.clone()
            };
            assert_reason(&host, &outer.wrap(&inner(false)), Reason::ForeignSource);
            // Nobody else's tunnel is touched.
            let outer = Outer {
                to: CLIENT,
                ..outer
            };
            assert_reason(&host, &outer.wrap(&inner(false)), Reason::NotLocal);
        }
        let outer = Outer { from: kin, ..outer };
        assert!(run(&host, &outer.wrap(&inner(false))).0.is_decapsulated());
    }
}

#[test]
fn a_mapped_address_does_not_pass_for_a_node() {
    let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    let outer = Outer {
        from: (NODE.0, mapped(NODE.0)),
        ..Outer::new(true, None)
    };
    assert_reason(&host(), &outer.wrap(&inner(false)), Reason::MalformedOuter);
    let mut inner = inner(true);
    inner[24..40].copy_from_slice(&mapped(VIP.0));
    let frame = Outer::new(true, None).wrap(&inner);
    assert_reason(&host(), &frame, Reason::MalformedInner);
}

#[test]
fn vips_are_checked_where_they_are_given() {
    let mut host = host();
    host.settings = Settings::new(
        &both(NODE).map(|node| Prefix::new(node, 128)),
        &[GUE_PORT],
        true,
    );
    host.vips = vec![Address::from_v4(VIP.0)];
    for outer in Outer::all() {
        assert!(run(&host, &outer.wrap(&inner(false))).0.is_decapsulated());
        assert_reason(&host, &outer.wrap(&inner(true)), Reason::NotVip);
    }
}

#[test]
fn what_is_no_tunnel_passes() {
    let mut host = host();
    for v6 in [false, true] {
        let plain = Outer::new(v6, None);
        for protocol in [
            IpNumber::TCP,
            IpNumber::ICMP,
            IpNumber::IPV6_ICMP,
            IpNumber::GRE,
        ] {
            assert_reason(&host, &plain.frame(protocol, &[0; 40]), Reason::NotTunnel);
        }
        let dns = Outer::new(v6, Some(53)).wrap(&inner(false));
        assert_reason(&host, &dns, Reason::NotTunnel);
        // Port 0 is what unused entries hold.
        let zero = Outer::new(v6, Some(0)).wrap(&inner(false));
        assert_reason(&host, &zero, Reason::NotTunnel);
        // GUE variant 0, control and data, other versions, and nothing at all.
        for first in [0x00, 0x20, 0x10, 0x50, 0x70, 0x80, 0xf0] {
            let mut message = inner(false);
            message[0] = first;
            let frame = Outer::new(v6, Some(GUE_PORT)).wrap(&message);
            assert_reason(&host, &frame, Reason::GueOther);
        }
        let empty = Outer::new(v6, Some(GUE_PORT)).wrap(&[]);
        assert_reason(&host, &empty, Reason::GueOther);
    }
    let mut arp = vec![0xff; 42];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_reason(&host, &arp, Reason::NotIp);
    let mut tags = Outer {
        tags: 2,
        ..Outer::new(false, None)
    }
    .wrap(&inner(false));
    tags.splice(12..12, [0x81, 0, 0, 1]);
    assert_reason(&host, &tags, Reason::VlanTags);
    host.settings = None;
    let frame = Outer::new(false, None).wrap(&inner(false));
    assert_reason(&host, &frame, Reason::NoSettings);
}

#[test]
fn fragments_of_outer_packets_are_the_kernels() {
    let host = host();
    for gue in [None, Some(GUE_PORT)] {
        for (flags, later) in [(0x2000_u16, false), (0x2010, true), (0x0010, true)] {
            let mut frame = Outer::new(false, gue).wrap(&inner(false));
            frame[20..22].copy_from_slice(&flags.to_be_bytes());
            // A later fragment of UDP does not tell its port.
            let expected = if gue.is_some() && later {
                Reason::NotTunnel
            } else {
                Reason::Fragment
            };
            assert_reason(&host, &frame, expected);
        }
        for more in [0x0001_u16, 0x0010] {
            let mut whole = Outer::new(true, gue).wrap(&inner(false));
            let [high, low] = more.to_be_bytes();
            let header = [whole[20], 0, high, low, 0, 0, 0, 7];
            whole[20] = 44;
            whole.splice(54..54, header);
            let len = u16::try_from(whole.len() - 54).unwrap();
            whole[18..20].copy_from_slice(&len.to_be_bytes());
            let expected = if gue.is_some() && more == 0x0010 {
                Reason::NotTunnel
            } else {
                Reason::Fragment
            };
            assert_reason(&host, &whole, expected);
        }
    }
}

#[test]
fn a_damaged_outer_header_is_dropped() {
    let host = host();
    for options in [0, 40] {
        let outer = Outer {
            options,
            ..Outer::new(false, None)
        };
        let good = outer.wrap(&inner(false));
        // Every byte that says nothing else: TTL, identification, checksum, options.
        for at in [18, 19, 22, 24, 25].into_iter().chain(34..34 + options) {
            let mut frame = good.clone();
            frame[at] ^= 0x10;
            assert_reason(&host, &frame, Reason::OuterChecksum);
        }
    }
    // Where the damage is in the checksum of a packet for others, nobody looks.
    let mut frame = Outer {
        to: CLIENT,
        ..Outer::new(false, None)
    }
    .wrap(&inner(false));
    frame[24] ^= 1;
    assert_reason(&host, &frame, Reason::NotLocal);
}

#[test]
fn a_malformed_inner_packet_is_dropped() {
    let host = host();
    for outer in Outer::all() {
        let mut cases = vec![];
        // IPv4: header length, total length below it, and beyond the payload.
        for (at, bytes) in [
            (0, vec![0x44]),
            (2, vec![0, 19]),
            (2, vec![0xff, 0xff]),
            (3, vec![48]),
        ] {
            let mut packet = inner(false);
            packet[at..at + bytes.len()].copy_from_slice(&bytes);
            cases.push(packet);
        }
        // IPv6: payload length beyond the payload.
        let mut packet = inner(true);
        packet[4..6].copy_from_slice(&[0, 28]);
        cases.push(packet);
        // Cut short.
        cases.push(inner(false)[..19].to_vec());
        cases.push(inner(true)[..39].to_vec());
        for packet in cases {
            assert_reason(&host, &outer.wrap(&packet), Reason::MalformedInner);
        }
    }
    // The protocol says otherwise than the version.
    for v6 in [false, true] {
        let outer = Outer::new(v6, None);
        assert_reason(
            &host,
            &outer.frame(IpNumber::IPV4, &inner(true)),
            Reason::MalformedInner,
        );
        assert_reason(
            &host,
            &outer.frame(IpNumber::IPV6, &inner(false)),
            Reason::MalformedInner,
        );
    }
}

#[test]
fn a_udp_length_that_lies_is_the_kernels() {
    let host = host();
    for v6 in [false, true] {
        let good = Outer::new(v6, Some(GUE_PORT)).wrap(&inner(false));
        let at = if v6 { 14 + 40 + 4 } else { 14 + 20 + 4 };
        for len in [0_u16, 7, 0xffff] {
            let mut frame = good.clone();
            frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
            assert_reason(&host, &frame, Reason::MalformedOuter);
        }
        // Shorter than the IP payload is allowed, but the inner packet must fit.
        let mut frame = good;
        frame[at + 1] -= 1;
        assert_reason(&host, &frame, Reason::MalformedInner);
    }
}

#[test]
fn every_prefix_of_a_packet_passes_untouched() {
    let host = host();
    for outer in Outer::all() {
        for tags in 0..=2 {
            let outer = Outer {
                tags,
                options: 8,
                ..outer.clone()
            };
            let frame = outer.wrap(&inner(true));
            for len in 0..frame.len() {
                assert_reason(&host, &frame[..len], Reason::Truncated);
            }
        }
    }
}

#[test]
fn prefixes_hold_what_they_should() {
    let node = Address::from_v4([10, 1, 2, 3]);
    for (bits, other, holds) in [
        (96 + 32, [10, 1, 2, 3], true),
        (96 + 32, [10, 1, 2, 2], false),
        (96 + 24, [10, 1, 2, 255], true),
        (96 + 24, [10, 1, 3, 3], false),
        (96 + 23, [10, 1, 3, 3], true),
        (96, [203, 0, 113, 1], true),
    ] {
        let prefix = Prefix::new(node, bits);
        assert_eq!(
            prefix.contains(Address::from_v4(other)),
            holds,
            "{bits} {other:?}"
        );
    }
    let all_v4 = Prefix::new(node, 96);
    assert!(!all_v4.contains(Address::from_v6(NODE.1)));
    assert!(Prefix::new(Address::default(), 0).contains(Address::from_v6(NODE.1)));
    let settings = Settings::new(&[all_v4], &[], false).unwrap();
    assert!(settings.is_source(node) && !settings.is_source(Address::default()));
    assert_eq!(Settings::new(&[all_v4; MAX_SOURCES + 1], &[], false), None);
    assert_eq!(Settings::new(&[], &[1; MAX_GUE_PORTS + 1], false), None);
}

#[test]
fn numbers_are_dense_and_names_unique() {
    let mut names = std::collections::BTreeSet::new();
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index);
        assert!(names.insert(reason.as_str()));
        assert!(reason.text().trim().ends_with('.'));
    }
}
