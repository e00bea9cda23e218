//! Outer headers toward backends, as an independent library reads them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod lab;

use std::{collections::BTreeSet, net::IpAddr};

use etherparse::{EtherType, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, UdpHeaderSlice};
use lab::{Lab, PORT, WEB4, WEB6, frame, mac, run, web};
use lb_common::{backend::flags, reason::Reason};
use lb_userspace::{
    config::{Announce, Backend, ForwardMode, Vip},
    dataplane::DataPlane as _,
    model::next_hop::{Port, Vlans},
};

const V4: &str = "10.0.0.11";
const V6: &str = "2001:db8::b";
const ETHERNET: usize = 14;

fn served(vip: &str, backend: &str, forward: ForwardMode) -> Vip {
    let backend = Backend {
        address: backend.parse().unwrap(),
        weight: 100,
        forward,
        mac: None,
    };
    Vip {
        backends: vec![backend],
        ..web(vip, &[])
    }
}

fn client(vip: &str) -> &'static str {
    if vip == WEB4 {
        "198.51.100.7"
    } else {
        "2001:db8:c::7"
    }
}

/// A SYN whose DSCP and ECN are `class`, with DF as told.
fn syn(vip: &str, class: u8, is_df: bool) -> Vec<u8> {
    let mut frame = frame(client(vip), vip, 7);
    if vip == WEB4 {
        frame[ETHERNET + 1] = class;
        frame[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&0x1234u16.to_be_bytes());
        frame[ETHERNET + 6] = if is_df { 0x40 } else { 0 };
        let header = Ipv4HeaderSlice::from_slice(&frame[ETHERNET..]).unwrap();
        let checksum = header.to_header().calc_header_checksum();
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame[ETHERNET] = 0x60 | (class >> 4);
        frame[ETHERNET + 1] |= class << 4;
    }
    frame
}

#[test]
fn outer_headers_are_right_in_every_mode_and_family() {
    let combinations = [
        (WEB4, V4, ForwardMode::Ipip),
        (WEB4, V6, ForwardMode::Ipip),
        (WEB6, V6, ForwardMode::Ipip),
        (WEB4, V4, ForwardMode::Gue),
        (WEB4, V6, ForwardMode::Gue),
        (WEB6, V4, ForwardMode::Gue),
        (WEB6, V6, ForwardMode::Gue),
    ];
    for (vip, backend, mode) in combinations {
        let mut lab = Lab::new(vec![served(vip, backend, mode)]);
        lab.apply().unwrap();
        for is_df in [true, false] {
            for class in [0, 0b1011_1001, 0b0010_1011] {
                let before = syn(vip, class, is_df);
                let (outcome, after) = run(&lab.memory, &before);
                let what = format!("{vip} over {backend} by {mode:?}, DF {is_df}, class {class}");
                assert_eq!(outcome.reason, Reason::Forwarded, "{what}");
                check(&before, &after, (vip, backend, mode), (class, is_df), &what);
            }
        }
    }
}

/// Holds a frame that left against the one that came.
fn check(
    before: &[u8],
    after: &[u8],
    (vip, backend, mode): (&str, &str, ForwardMode),
    (class, is_df): (u8, bool),
    what: &str,
) {
    let inner = &before[ETHERNET..];
    assert_eq!(after[..6], mac(1), "{what}");
    assert_eq!(after[6..12], PORT.mac, "{what}");
    let ether_type = u16::from_be_bytes([after[12], after[13]]);
    let packet = &after[ETHERNET..];
    let backend: IpAddr = backend.parse().unwrap();
    let protocol = match mode {
        ForwardMode::Gue => IpNumber::UDP,
        _ if vip == WEB6 => IpNumber::IPV6,
        _ => IpNumber::IPV4,
    };
    let rest = if backend.is_ipv4() {
        assert_eq!(ether_type, EtherType::IPV4.0, "{what}");
        let outer = Ipv4HeaderSlice::from_slice(packet).unwrap().to_header();
        assert_eq!(outer.header_len(), 20, "{what}");
        assert_eq!(IpAddr::from(outer.source), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(IpAddr::from(outer.destination), backend, "{what}");
        assert_eq!((outer.time_to_live, outer.protocol), (64, protocol));
        assert_eq!(usize::from(outer.total_len), packet.len(), "{what}");
        assert_eq!(outer.dscp.value() << 2 | outer.ecn.value(), class, "{what}");
        assert_eq!(
            outer.header_checksum,
            outer.calc_header_checksum(),
            "{what}"
        );
        let keeps_whole = vip == WEB6 || is_df;
        assert_eq!(outer.dont_fragment, keeps_whole, "{what}");
        if keeps_whole {
            assert_eq!(outer.identification, 0, "{what}");
        }
        &packet[20..]
    } else {
        assert_eq!(ether_type, EtherType::IPV6.0, "{what}");
        let outer = Ipv6HeaderSlice::from_slice(packet).unwrap().to_header();
        let source: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(IpAddr::from(outer.source), source, "{what}");
        assert_eq!(IpAddr::from(outer.destination), backend, "{what}");
        assert_eq!((outer.hop_limit, outer.next_header), (64, protocol));
        assert_eq!(usize::from(outer.payload_length), packet.len() - 40);
        assert_eq!(outer.traffic_class, class, "{what}");
        &packet[40..]
    };
    let rest = if mode == ForwardMode::Gue {
        let udp = UdpHeaderSlice::from_slice(rest).unwrap();
        assert_eq!(udp.destination_port(), 6080, "{what}");
        assert!(udp.source_port() >= 0xc000, "{what}");
        assert_eq!(usize::from(udp.length()), rest.len(), "{what}");
        assert_eq!(udp.checksum(), 0, "{what}");
        &rest[8..]
    } else {
        rest
    };
    assert_eq!(rest, inner, "{what}");
}

#[test]
fn gue_spreads_flows_by_their_source_port_and_keeps_each() {
    let mut lab = Lab::new(vec![served(WEB4, V4, ForwardMode::Gue)]);
    lab.config.node.gue_port = 7000;
    lab.apply().unwrap();
    let ports = |flow| {
        let (_, after) = run(&lab.memory, &frame("198.51.100.7", WEB4, flow));
        let udp = UdpHeaderSlice::from_slice(&after[ETHERNET + 20..]).unwrap();
        (udp.source_port(), udp.destination_port())
    };
    assert_eq!(ports(1), ports(1));
    assert_eq!(ports(1).1, 7000);
    let sources: BTreeSet<_> = (0..1000).map(|flow| ports(flow).0).collect();
    assert!(sources.len() > 900, "{}", sources.len());
}

#[test]
fn what_does_not_fit_the_mtu_is_answered_and_what_fits_is_sent() {
    let mut lab = Lab::new(vec![served(WEB4, V4, ForwardMode::Ipip)]);
    let fits = syn(WEB4, 0, true);
    let set = |lab: &mut Lab, mtu| {
        for hop in lab.next_hops.values_mut() {
            hop.mtu = mtu;
        }
        lab.apply().unwrap()
    };
    let whole = (fits.len() - ETHERNET + 20) as u16;
    set(&mut lab, whole);
    let (outcome, _) = run(&lab.memory, &fits);
    assert_eq!(outcome.reason, Reason::Forwarded);
    // A change of MTU alone is one write.
    assert_eq!(set(&mut lab, whole - 1), 1);
    let (outcome, answer) = run(&lab.memory, &fits);
    assert_eq!(outcome.reason, Reason::TooBigAnswered);
    let ip = Ipv4HeaderSlice::from_slice(&answer[ETHERNET..]).unwrap();
    assert_eq!(ip.source_addr().to_string(), WEB4);
    assert_eq!(ip.destination_addr().to_string(), "198.51.100.7");
    // "Fragmentation needed", with the MTU that fits inside the outer header.
    assert_eq!(answer[ETHERNET + 20..][..2], [3, 4]);
    let mtu = u16::from_be_bytes([answer[ETHERNET + 26], answer[ETHERNET + 27]]);
    assert_eq!(mtu, whole - 1 - 20);
    let (outcome, _) = run(&lab.memory, &syn(WEB4, 0, false));
    assert_eq!(outcome.reason, Reason::TooBig);
    // L2 adds nothing, so the MTU of the segment is the sender's matter.
    lab.config.vips[0].backends[0].forward = ForwardMode::L2;
    lab.apply().unwrap();
    lab.settle();
    let outcome = lab.send("198.51.100.7", WEB4, 7);
    assert_eq!(outcome, (Reason::Forwarded, Some(1)));
}

#[test]
fn a_backend_whose_mode_changes_is_another_one() {
    let mut lab = Lab::new(vec![served(WEB4, V4, ForwardMode::L2)]);
    let mut ids = BTreeSet::new();
    for mode in [ForwardMode::L2, ForwardMode::Ipip, ForwardMode::Gue] {
        lab.config.vips[0].backends[0].forward = mode;
        let wanted = lab.wanted();
        ids.insert(wanted.vips[0].backends[0].id);
        lab.apply().unwrap();
        lab.settle();
        // The old one is gone, and the table names the new one.
        assert_eq!(lab.memory.backends().unwrap().len(), 1);
        let (outcome, _) = run(&lab.memory, &syn(WEB4, 0, true));
        assert_eq!(outcome.reason, Reason::Forwarded);
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn frames_leave_with_the_tags_of_the_way_out() {
    let mut lab = Lab::new(vec![served(WEB4, V4, ForwardMode::L2)]);
    let tags = Vlans {
        count: 2,
        ids: [100, 200],
        is_service: true,
    };
    for hop in lab.next_hops.values_mut() {
        hop.vlans = tags;
    }
    lab.apply().unwrap();
    let before = syn(WEB4, 0, true);
    let (outcome, after) = run(&lab.memory, &before);
    assert_eq!(outcome.reason, Reason::Forwarded);
    assert_eq!(
        after[12..22],
        [0x88, 0xa8, 0, 100, 0x81, 0, 0, 200, 0x08, 0]
    );
    assert_eq!(after[22..], before[14..]);
    // While the network is not known, the tags stay.
    lab.next_hops.clear();
    assert_eq!(lab.apply().unwrap(), 0);
    let (_, entry) = lab.memory.backends().unwrap()[0];
    assert_eq!(
        entry.flags,
        flags::RESOLVED | flags::VLANS_SET | flags::SERVICE_VLAN
    );
    assert_eq!(entry.mtu, 1500);
}

#[test]
fn arp_is_answered_with_the_interfaces_mac_address_where_a_vip_is_announced() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)])]);
    lab.apply().unwrap();
    let ask = [
        &[0xff; 6][..],
        &[2, 9, 9, 9, 9, 9, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1],
        &[2, 9, 9, 9, 9, 9, 198, 51, 100, 7, 0, 0, 0, 0, 0, 0],
        &[203, 0, 113, 10],
    ]
    .concat();
    assert_eq!(run(&lab.memory, &ask).0.reason, Reason::NotIp);
    lab.config.vips[0].announce = Announce::L2;
    // The VIPs alone are written; the interface was known.
    assert_eq!(lab.steps(), "vips");
    lab.apply().unwrap();
    let sender = |lab: &Lab| {
        let (outcome, answer) = run(&lab.memory, &ask);
        assert_eq!(outcome.reason, Reason::NeighbourAnswered);
        answer[22..28].to_vec()
    };
    assert_eq!(sender(&lab), PORT.mac);
    lab.ports = vec![Port {
        mac: [2, 0, 0, 0, 0, 0x55],
        ..PORT
    }];
    assert_eq!(lab.steps(), "interface");
    lab.apply().unwrap();
    assert_eq!(sender(&lab), [2, 0, 0, 0, 0, 0x55]);
}
