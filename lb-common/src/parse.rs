//! From a frame's bytes to its flow, by the RFCs: one pass, no loop.
//!
//! What is checked: IPv4 version, header and total length (RFC 791), IPv6 version and payload length
//! (RFC 8200), TCP data offset (RFC 9293), UDP length (RFC 768), and that the frame holds all that the
//! IP header claims. The IPv4 header checksum is left to the receiving host, which checks it anyway.

use crate::{
    flow::{Address, Flow},
    packet::Packet,
    reason::Reason,
    wire::{
        ethernet::{self, Ethernet},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        protocol,
        tcp::{self, Tcp},
        udp::{self, Udp},
    },
};

/// What the rest of the pipeline needs to know of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// Who speaks to whom.
    pub flow: Flow,
    /// Whether a TCP packet asks for a new connection.
    pub is_syn: bool,
    /// The length of the whole frame in bytes, without the FCS.
    pub frame_len: u64,
}

/// Parses a frame.
///
/// # Errors
/// The reason why the frame can be no packet of a flow: not IP, not TCP or UDP, a fragment, truncated, malformed.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Result<Parsed, Reason> {
    let ether_type = packet
        .at::<Ethernet>(0)
        .ok_or(Reason::Truncated)?
        .ether_type
        .get();
    match ether_type {
        ethernet::IPV4 => parse_ipv4(packet),
        ethernet::IPV6 => parse_ipv6(packet),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn parse_ipv4<P: Packet + ?Sized>(packet: &P) -> Result<Parsed, Reason> {
    let ip = packet.at::<Ipv4>(ethernet::LEN).ok_or(Reason::Truncated)?;
    let header_len = ip.header_len();
    let total_len = usize::from(ip.total_len.get());
    if ip.version() != 4 || header_len < ipv4::LEN || total_len < header_len {
        return Err(Reason::MalformedIp);
    }
    if ip.is_fragment() {
        return Err(Reason::Fragment);
    }
    let start = ethernet::LEN.wrapping_add(header_len);
    let transport = Transport {
        source: Address::from_v4(ip.source),
        destination: Address::from_v4(ip.destination),
        protocol: ip.protocol,
        start,
        len: total_len.wrapping_sub(header_len),
    };
    transport.parse(packet)
}

#[inline(always)]
fn parse_ipv6<P: Packet + ?Sized>(packet: &P) -> Result<Parsed, Reason> {
    let ip = packet.at::<Ipv6>(ethernet::LEN).ok_or(Reason::Truncated)?;
    if ip.version() != 6 {
        return Err(Reason::MalformedIp);
    }
    let source = Address::from_v6(ip.source);
    let destination = Address::from_v6(ip.destination);
    // A mapped address on the wire could pass for the IPv4 VIP of the same bytes.
    if source.is_v4() || destination.is_v4() {
        return Err(Reason::MalformedIp);
    }
    let transport = Transport {
        source,
        destination,
        protocol: ip.next_header,
        start: const { ethernet::LEN + ipv6::LEN },
        len: usize::from(ip.payload_len.get()),
    };
    match ip.next_header {
        protocol::FRAGMENT => Err(Reason::Fragment),
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
            Err(Reason::Ipv6Extension)
        }
        _ => transport.parse(packet),
    }
}

/// The payload of an IP packet, before it is known to be a segment or datagram.
struct Transport {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Offset of the payload in the frame, in bytes.
    start: usize,
    /// Length of the payload in bytes, as the IP header claims.
    len: usize,
}

impl Transport {
    #[inline(always)]
    fn parse<P: Packet + ?Sized>(self, packet: &P) -> Result<Parsed, Reason> {
        let frame_len = self.frame_len(packet)?;
        let (source_port, destination_port, is_syn) = match self.protocol {
            protocol::TCP => {
                if self.len < tcp::LEN {
                    return Err(Reason::MalformedTransport);
                }
                let tcp = packet.at::<Tcp>(self.start).ok_or(Reason::Truncated)?;
                let header_len = tcp.header_len();
                if header_len < tcp::LEN || header_len > self.len {
                    return Err(Reason::MalformedTransport);
                }
                (tcp.source_port, tcp.destination_port, tcp.is_syn())
            }
            protocol::UDP => {
                if self.len < udp::LEN {
                    return Err(Reason::MalformedTransport);
                }
                let udp = packet.at::<Udp>(self.start).ok_or(Reason::Truncated)?;
                let len = usize::from(udp.len.get());
                if len < udp::LEN || len > self.len {
                    return Err(Reason::MalformedTransport);
                }
                (udp.source_port, udp.destination_port, false)
            }
            _ => return Err(Reason::OtherProtocol),
        };
        Ok(Parsed {
            flow: Flow {
                source: self.source,
                destination: self.destination,
                source_port,
                destination_port,
                protocol: self.protocol,
                reserved: [0; 3],
            },
            is_syn,
            frame_len: frame_len as u64,
        })
    }

    /// The frame's length, once it is known to hold all of the IP packet.
    #[inline(always)]
    fn frame_len<P: Packet + ?Sized>(&self, packet: &P) -> Result<usize, Reason> {
        let end = self.start.wrapping_add(self.len);
        let len = packet.len();
        if end <= len {
            return Ok(len);
        }
        // Either the frame lies in several buffers, or the header claims too much.
        let len = packet.frame_len();
        if end <= len {
            Ok(len)
        } else {
            Err(Reason::Truncated)
        }
    }
}
