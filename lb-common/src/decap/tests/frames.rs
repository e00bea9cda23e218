//! Tunnel packets built by etherparse, which shares no code with lb-common. lb-userspace's tests include this file.

use std::vec::Vec;

use etherparse::{IpEcn, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, UdpHeader};

/// The load balancer that sends, the backend, and who dials what, by family (IPv4, IPv6).
pub(crate) const NODE: ([u8; 4], [u8; 16]) = ([10, 0, 0, 1], v6(0, 1));
pub(crate) const BACKEND: ([u8; 4], [u8; 16]) = ([10, 0, 0, 11], v6(0, 11));
pub(crate) const CLIENT: ([u8; 4], [u8; 16]) = ([198, 51, 100, 7], v6(0x51, 7));
pub(crate) const VIP: ([u8; 4], [u8; 16]) = ([203, 0, 113, 10], v6(0xb0, 10));
pub(crate) const GUE_PORT: u16 = 6080;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 1];

const fn v6(net: u8, host: u8) -> [u8; 16] {
    [
        0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, host,
    ]
}

/// The outer headers.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    pub(crate) is_v6: bool,
    pub(crate) gue: Option<u16>,
    pub(crate) from: ([u8; 4], [u8; 16]),
    pub(crate) to: ([u8; 4], [u8; 16]),
    pub(crate) ecn: u8,
    /// IPv4 options, in bytes.
    pub(crate) options: usize,
    pub(crate) tags: usize,
}

impl Outer {
    pub(crate) fn new(is_v6: bool, gue: Option<u16>) -> Self {
        Self {
            is_v6,
            gue,
            from: NODE,
            to: BACKEND,
            ecn: 0,
            options: 0,
            tags: 0,
        }
    }

    /// All ways of weir to send an inner packet.
    pub(crate) fn all() -> [Self; 4] {
        [false, true]
            .map(|v6| [None, Some(GUE_PORT)].map(|gue| Self::new(v6, gue)))
            .concat()
            .try_into()
            .unwrap()
    }

    /// The frame with a packet in it, which need not be a valid one.
    pub(crate) fn wrap(&self, inner: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let protocol = if let Some(port) = self.gue {
            let len = u16::try_from(inner.len() + 8).unwrap();
            let udp = UdpHeader {
                source_port: 50000,
                destination_port: port,
                length: len,
                checksum: 0,
            };
            payload.extend(udp.to_bytes());
            IpNumber::UDP
        } else if inner.first().is_some_and(|first| first >> 4 == 6) {
            IpNumber::IPV6
        } else {
            IpNumber::IPV4
        };
        payload.extend(inner);
        self.frame(protocol, &payload)
    }

    /// The frame with a payload of any protocol.
    pub(crate) fn frame(&self, protocol: IpNumber, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len()).unwrap();
        let header = if self.is_v6 {
            Ipv6Header {
                traffic_class: self.ecn,
                payload_length: len,
                next_header: protocol,
                hop_limit: 64,
                source: self.from.1,
                destination: self.to.1,
                ..Ipv6Header::default()
            }
            .to_bytes()
            .to_vec()
        } else {
            let mut header = Ipv4Header::new(len, 64, protocol, self.from.0, self.to.0).unwrap();
            header.ecn = IpEcn::try_new(self.ecn).unwrap();
            // No operation (RFC 791), and one that is not zero in every word.
            let mut options = [1u8; 40];
            options[0] = 0x94;
            header.options = options[..self.options].try_into().unwrap();
            header.set_payload_len(payload.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        };
        self.link(self.is_v6, &[&header, payload].concat())
    }

    /// The frame with a plain IP packet: what the kernel is to see of it.
    pub(crate) fn link(&self, is_v6: bool, packet: &[u8]) -> Vec<u8> {
        let mut frame = MACS.to_vec();
        let tags = [[0x88, 0xa8, 0x20, 7], [0x81, 0, 0x40, 9]];
        frame.extend(tags[2 - self.tags..].concat());
        frame.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(packet);
        frame
    }
}

/// What a client sent to the VIP, from its IP header on.
pub(crate) fn inner(is_v6: bool) -> Vec<u8> {
    let builder = if is_v6 {
        PacketBuilder::ipv6(CLIENT.1, VIP.1, 63)
    } else {
        PacketBuilder::ipv4(CLIENT.0, VIP.0, 63)
    };
    let mut packet = Vec::new();
    let payload = b"what a client wrote";
    builder.udp(40000, 443).write(&mut packet, payload).unwrap();
    packet
}

/// The packet with another ECN field, its checksum summed anew.
pub(crate) fn with_ecn(mut packet: Vec<u8>, ecn: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[1] = (packet[1] & 0xcf) | (ecn << 4);
    } else {
        packet[1] = (packet[1] & 0xfc) | ecn;
        let (header, _) = Ipv4Header::from_slice(&packet).unwrap();
        packet[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
    packet
}
