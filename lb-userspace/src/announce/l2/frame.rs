//! The frames, whole: 60 bytes of ARP, 86 of an advertisement.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{
    checksum,
    flow::Address,
    wire::{
        arp::{self, Arp},
        ethernet::{self, Ethernet},
        icmp::{ALL_NODES, ALL_NODES_MAC, Icmp, Neighbour, OVERRIDE, TARGET_ADDRESS, v6},
        ipv6::Ipv6,
        protocol,
    },
};
use zerocopy::{Immutable, IntoBytes, Unaligned};

const EVERYBODY: [u8; 6] = [0xff; 6];

/// Hop limit that proves a packet to come from the link.
const ON_LINK: u8 = 255;

#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct ArpFrame {
    ethernet: Ethernet,
    arp: Arp,
    /// A frame has 60 bytes at least, the checksum not counted.
    padding: [u8; 18],
}

#[derive(Immutable, IntoBytes, Unaligned)]
#[repr(C)]
struct Advertisement {
    ethernet: Ethernet,
    ip: Ipv6,
    neighbour: Neighbour,
}

/// The frames that tell a segment that `address` is at `mac`.
pub(super) fn frames(address: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
    match address {
        // Some hosts heed the one form, some the other.
        IpAddr::V4(address) => [arp::REQUEST, arp::REPLY]
            .map(|operation| gratuitous(address, mac, operation))
            .into(),
        IpAddr::V6(address) => vec![unsolicited(address, mac)],
    }
}

fn gratuitous(address: Ipv4Addr, mac: [u8; 6], operation: u16) -> Vec<u8> {
    let frame = ArpFrame {
        ethernet: Ethernet {
            destination: EVERYBODY,
            source: mac,
            ether_type: ethernet::ARP.into(),
        },
        arp: Arp {
            hardware: 1.into(),
            protocol: ethernet::IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: operation.into(),
            sender_mac: mac,
            sender: address.octets(),
            target_mac: if operation == arp::REPLY { mac } else { [0; 6] },
            target: address.octets(),
        },
        padding: [0; 18],
    };
    frame.as_bytes().to_vec()
}

fn unsolicited(address: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    const LEN: u16 = size_of::<Neighbour>() as u16;
    let target = Address::from_v6(address.octets());
    let sum = (u32::from(v6::ADVERTISEMENT) << 8)
        .wrapping_add(u32::from(OVERRIDE) << 8)
        .wrapping_add((u32::from(TARGET_ADDRESS) << 8) | 1)
        .wrapping_add(checksum::sum(&mac))
        .wrapping_add(checksum::sum_address(target))
        .wrapping_add(checksum::sum_address(target))
        .wrapping_add(checksum::sum(&ALL_NODES))
        .wrapping_add(u32::from(LEN))
        .wrapping_add(u32::from(protocol::ICMPV6));
    let frame = Advertisement {
        ethernet: Ethernet {
            destination: ALL_NODES_MAC,
            source: mac,
            ether_type: ethernet::IPV6.into(),
        },
        ip: Ipv6 {
            version_class_label: [0x60, 0, 0, 0],
            payload_len: LEN.into(),
            next_header: protocol::ICMPV6,
            hop_limit: ON_LINK,
            source: address.octets(),
            destination: ALL_NODES,
        },
        neighbour: Neighbour {
            icmp: Icmp {
                kind: v6::ADVERTISEMENT,
                code: 0,
                checksum: checksum::finish(sum),
                rest: [OVERRIDE, 0, 0, 0],
            },
            target: address.octets(),
            option: TARGET_ADDRESS,
            option_len: 1,
            mac,
        },
    };
    frame.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Slice, NetHeaders, PacketHeaders};

    use super::*;
    use crate::trace::frame::hex;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_ipv4_address_is_told_as_request_and_as_reply() {
        let frames = frames("203.0.113.10".parse().unwrap(), MAC);
        let head = "ffffffffffff020000000001080600010800060400";
        let (told, nobody) = ("020000000001cb00710a", "000000000000cb00710a");
        let padding = "00".repeat(18);
        let shown: Vec<_> = frames.iter().map(|frame| hex(frame)).collect();
        assert_eq!(
            shown,
            [
                format!("{head}01{told}{nobody}{padding}"),
                format!("{head}02{told}{told}{padding}"),
            ]
        );
    }

    #[test]
    fn an_ipv6_address_is_told_to_all_nodes_and_overrides() {
        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frames = frames(address.into(), MAC);
        let [frame] = frames.as_slice() else {
            panic!("{frames:?}");
        };
        let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let ethernet = headers.link.unwrap().ethernet2().unwrap();
        assert_eq!(ethernet.destination, [0x33, 0x33, 0, 0, 0, 1]);
        let Some(NetHeaders::Ipv6(ip, _)) = headers.net else {
            panic!("no IPv6 header");
        };
        assert_eq!((ip.source, ip.hop_limit), (address.octets(), 255));
        assert_eq!(Ipv6Addr::from(ip.destination).to_string(), "ff02::1");
        let message = Icmpv6Slice::from_slice(&frame[54..]).unwrap();
        assert!(message.is_checksum_valid(ip.source, ip.destination));
        // Router and solicited off, override on; then the target and its link-layer address.
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58..62], [0x20, 0, 0, 0]);
        assert_eq!(frame[62..78], address.octets());
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 1]);
    }
}
