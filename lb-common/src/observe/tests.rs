use super::*;
use crate::packet::HostPacket;
use proptest::prelude::*;
use std::vec::Vec;

const ALL: Watch = Watch {
    reasons: ANY_REASON,
    interval: 0,
    depth: 0,
    source: Net {
        address: Address { high: 0, low: 0 },
        mask: Address { high: 0, low: 0 },
    },
    destination: Net {
        address: Address { high: 0, low: 0 },
        mask: Address { high: 0, low: 0 },
    },
    vip: ANY_VIP,
    reserved: 0,
};

fn v4(last: u8) -> Address {
    Address::from_v4([192, 0, 2, last])
}

#[test]
fn a_watch_of_everything_fits_everything() {
    for reason in Reason::ALL {
        for vip in [0, 4095, NO_VIP] {
            assert!(ALL.fits(*reason as u32, vip, None));
            assert!(ALL.fits(*reason as u32, vip, Some(&(v4(1), v4(2)))));
        }
    }
    assert!(!Watch::default().fits(0, 0, None), "no reason is wanted");
}

#[test]
fn reasons_and_vips_are_told_apart() {
    let denied = Watch {
        reasons: 1 << Reason::Denied as u32 | 1 << Reason::Limited as u32,
        vip: 7,
        ..ALL
    };
    for reason in Reason::ALL {
        let is_wanted = matches!(reason, Reason::Denied | Reason::Limited);
        assert_eq!(denied.fits(*reason as u32, 7, None), is_wanted);
        assert!(!denied.fits(*reason as u32, 8, None));
        assert!(!denied.fits(*reason as u32, NO_VIP, None));
    }
    let nobodys = Watch { vip: NO_VIP, ..ALL };
    assert!(nobodys.fits(Reason::NotVip as u32, NO_VIP, None));
    assert!(!nobodys.fits(Reason::NotVip as u32, 0, None));
}

#[test]
fn what_has_no_address_lies_in_no_prefix() {
    let from = Watch {
        source: Net::new(v4(0), 96 + 24),
        ..ALL
    };
    let outside = Address::from_v4([192, 0, 3, 1]);
    assert!(from.has_addresses() && !ALL.has_addresses());
    assert!(from.fits(0, 0, Some(&(v4(9), outside))));
    assert!(!from.fits(0, 0, Some(&(outside, v4(9)))));
    assert!(!from.fits(0, 0, None));
    let to = Watch {
        source: Net::default(),
        destination: Net::new(v4(5), 128),
        ..from
    };
    assert!(to.fits(0, 0, Some(&(outside, v4(5)))));
    assert!(!to.fits(0, 0, Some(&(v4(5), v4(4)))));
}

proptest! {
    #[test]
    fn a_prefix_holds_what_agrees_in_its_bits(address: [u8; 16], other: [u8; 16], bits in 0u32..=128) {
        let net = Net::new(Address::from_v6(address), bits);
        let (a, b) = (u128::from_be_bytes(address), u128::from_be_bytes(other));
        let agrees = (a ^ b).leading_zeros() >= bits;
        prop_assert_eq!(net.contains(Address::from_v6(other)), agrees);
        prop_assert!(net.contains(Address::from_v6(address)));
        prop_assert_eq!(net.is_any(), bits == 0);
    }
}

#[test]
fn lots_fall_as_often_as_is_asked_for() {
    let mut watches = Watches::default();
    assert_eq!(watches.drawn(0), 0, "nobody watches");
    watches.sampled = [EVERY, 0, one_in(4), one_in(1), one_in(10_000), 0, 0, EVERY];
    assert_eq!(watches.drawn(u32::MAX), 0b1000_1001);
    assert_eq!(watches.drawn(0), 0b1001_1101);
    let mut drawn = [0u32; MAX_WATCHES];
    // Every 4,096th number.
    for random in 0..1u32 << 20 {
        let mask = watches.drawn(random << 12);
        for (count, bit) in drawn.iter_mut().zip(0..) {
            *count += mask >> bit & 1;
        }
    }
    assert_eq!(drawn[0], 1 << 20);
    assert_eq!(drawn[1], 0);
    assert_eq!(drawn[2], 1 << 18);
    assert_eq!(drawn[4], 105, "2^20 / 10,000");
}

#[test]
fn addresses_are_read_behind_tags_and_of_both_families() {
    let mut buffer = [0; 512];
    let mut of = |frame: &[u8]| addresses(&HostPacket::new(&mut buffer, frame).unwrap());
    let mut frame: Vec<u8> = [0; 12].into();
    frame.extend([0x81, 0, 0, 7, 0x08, 0, 0x45]);
    frame.extend([0; 11]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    assert_eq!(of(&frame), Some((v4(1), v4(2))));
    assert_eq!(of(&frame[..frame.len() - 1]), None, "it ends too early");
    let mut frame: Vec<u8> = [0; 12].into();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend([1; 16]);
    frame.extend([2; 16]);
    let expected = (Address::from_v6([1; 16]), Address::from_v6([2; 16]));
    assert_eq!(of(&frame), Some(expected));
    let mut arp: Vec<u8> = [0; 12].into();
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    assert_eq!(of(&arp), None);
}

#[test]
fn a_record_tells_where_a_packet_leaves() {
    let mut record = Record {
        ingress: 3,
        ..Record::default()
    };
    let outcome = Outcome {
        reason: Reason::Forwarded,
        is_redirect: true,
        backend: 9,
        ifindex: 5,
        ..Outcome::UNKNOWN
    };
    record.judge(&outcome);
    assert_eq!((record.egress, record.backend), (5, 9));
    assert!(record.is_redirect());
    record.judge(&Outcome {
        is_redirect: false,
        ..outcome
    });
    assert_eq!(record.egress, 3);
    assert!(!record.is_redirect());
    record.judge(&Outcome {
        reason: Reason::Denied,
        ..outcome
    });
    assert_eq!(record.egress, 0);
    assert_eq!(record.reason(), Some(Reason::Denied));
}
