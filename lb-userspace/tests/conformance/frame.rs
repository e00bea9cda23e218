//! Frames around IP packets, and what weir must make of them, written by etherparse.

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, UdpHeader, checksum::Sum16BitWords,
};

use super::{
    ip::{Family, Host, Ip},
    world::{self, Service, Way},
};

/// The router by which the client's packets come.
pub(crate) const ROUTER: [u8; 6] = [0x02, 0, 0, 0, 0, 0xfe];
/// The interface that packets come by.
pub(crate) const NODE: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A VLAN tag: its EtherType and control information.
pub(crate) type Tag = (u16, u16);

/// An 802.1Q tag.
pub(crate) const fn vlan(tci: u16) -> Tag {
    (0x8100, tci)
}

/// An 802.1ad service tag.
pub(crate) const fn service(tci: u16) -> Tag {
    (0x88a8, tci)
}

/// A frame of these bytes.
pub(crate) fn ethernet(
    destination: [u8; 6],
    source: [u8; 6],
    tags: &[Tag],
    ether_type: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    for (kind, tci) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn ether_type(ip: &Ip) -> u16 {
    match ip.source {
        Host::V4(_) => 0x0800,
        Host::V6(_) => 0x86dd,
    }
}

/// A frame from the client's router to the node.
pub(crate) fn frame(tags: &[Tag], ip: &Ip) -> Vec<u8> {
    ethernet(NODE, ROUTER, tags, ether_type(ip), &ip.bytes())
}

/// A frame from the node back to the client's router.
pub(crate) fn back(tags: &[Tag], ip: &Ip) -> Vec<u8> {
    ethernet(ROUTER, NODE, tags, ether_type(ip), &ip.bytes())
}

/// How `ip` must leave for the service's backend: with outer headers where its way wants them. `hash` is the flow's.
pub(crate) fn sent(service: &Service, tags: &[Tag], ip: &Ip, hash: u32) -> Vec<u8> {
    match outer(service, ip, hash) {
        Some(outer) => ethernet(service.mac, NODE, tags, ether_type(&outer), &outer.bytes()),
        None => ethernet(service.mac, NODE, tags, ether_type(ip), &ip.bytes()),
    }
}

/// The packet around `ip`, as the documentation of `lb_common::encap` promises it.
fn outer(service: &Service, ip: &Ip, hash: u32) -> Option<Ip> {
    let inner = ip.bytes();
    let (family, is_gue) = match service.way {
        Way::L2 => return None,
        Way::Ipip4 => (Family::V4, false),
        Way::Ipip6 => (Family::V6, false),
        Way::Gue4 => (Family::V4, true),
        Way::Gue6 => (Family::V6, true),
    };
    let (protocol, payload) = match (is_gue, ip.source) {
        (true, _) => {
            let header = UdpHeader {
                source_port: 0xc000 | (hash >> 18) as u16,
                destination_port: world::GUE_PORT,
                length: inner.len() as u16 + 8,
                checksum: 0,
            };
            (17, [header.to_bytes().as_slice(), &inner].concat())
        }
        (false, Host::V4(_)) => (4, inner),
        (false, Host::V6(_)) => (41, inner),
    };
    let dont_fragment = ip.dont_fragment || matches!(ip.source, Host::V6(_));
    Some(Ip {
        source: world::node_address(family),
        destination: service.address,
        ttl: 64,
        tos: ip.tos,
        id: if dont_fragment {
            0
        } else {
            ip.id.wrapping_add((hash >> 16) as u16)
        },
        dont_fragment,
        flow_label: hash & 0xf_ffff,
        ..Ip::new(family, protocol, payload)
    })
}

/// An ICMP or ICMPv6 message with its checksum.
pub(crate) fn icmp(
    source: Host,
    destination: Host,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: &[u8],
) -> Ip {
    let (family, protocol, mut message) = match (source, destination) {
        (Host::V4(_), Host::V4(_)) => {
            let kind = Icmpv4Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: rest,
            };
            let header = Icmpv4Header::with_checksum(kind, payload);
            (Family::V4, 1, header.to_bytes().to_vec())
        }
        (Host::V6(from), Host::V6(to)) => {
            let kind = Icmpv6Type::Unknown {
                type_u8: kind,
                code_u8: code,
                bytes5to8: rest,
            };
            let header = Icmpv6Header::with_checksum(kind, from, to, payload).unwrap();
            (Family::V6, 58, header.to_bytes().to_vec())
        }
        _ => panic!("source and destination are of two families"),
    };
    message.extend(payload);
    Ip::new(family, protocol, message)
        .from(source)
        .to(destination)
}

/// What weir sends in the VIP's name.
pub(crate) fn from_vip(ip: Ip) -> Ip {
    Ip {
        ttl: 64,
        id: 0,
        dont_fragment: true,
        flow_label: 0,
        ..ip
    }
}

/// Whether the checksum of an ICMP message in an IP packet of these bytes is right.
pub(crate) fn icmp_checksum_is_right(ip: &[u8]) -> bool {
    let sum = if ip[0] >> 4 == 4 {
        Sum16BitWords::new().add_slice(&ip[20..])
    } else {
        let message = &ip[40..];
        Sum16BitWords::new()
            .add_slice(&ip[8..40])
            .add_4bytes((message.len() as u32).to_be_bytes())
            .add_2bytes([0, 58])
            .add_slice(message)
    };
    sum.ones_complement() == 0
}
