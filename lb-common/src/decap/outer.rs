//! The outer headers of a tunnel packet.

use zerocopy::byteorder::network_endian::U32;

use super::{Reason, Settings, ecn};
use crate::{
    checksum,
    flow::Address,
    packet::Packet,
    wire::{
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        ipv6_extension::Fragment,
        protocol,
        udp::{self, Udp},
    },
};

/// How many 32-bit words of options an IPv4 header can have.
const MAX_OPTIONS: usize = 10;

/// Length of what tells the variants of GUE apart.
const GUE_WORD: u64 = size_of::<U32>() as u64;

/// What an IP packet carries another one in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
pub(super) enum Tunnel {
    /// IPv4 right after the outer header.
    Ipv4,
    /// IPv6 right after the outer header.
    Ipv6,
    /// UDP, and the version tells which.
    Gue,
}

/// Which part of an IP packet a frame has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
enum Part {
    Whole,
    First,
    Later,
}

/// The outer IP header.
///
/// Whole 64-bit words here and below: results with less inside are copied in words that lie across others, which
/// the kernel refuses on the stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) source: Address,
    pub(super) destination: Address,
    /// The ECN field.
    pub(super) ecn: u64,
    /// Protocol of the payload.
    protocol: u64,
    part: Part,
    /// Length of an IPv4 header; 0 for IPv6, which has no checksum.
    checked_len: u64,
    /// Where the payload lies in the frame.
    payload_at: usize,
    /// Length of the payload, as the header claims.
    payload_len: u64,
}

/// Where the inner packet lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    /// Offset in the frame.
    pub(super) at: usize,
    /// Length up to the end of the outer payload.
    pub(super) len: u64,
    /// The version that the inner packet must have: 4 or 6.
    pub(super) version: u64,
}

/// Reads an IPv4 header with its options.
#[inline(always)]
pub(super) fn v4<P: Packet>(packet: &P, at: usize) -> Result<Outer, Reason> {
    let ip = packet.at::<Ipv4>(at).ok_or(Reason::Truncated)?;
    let header_len = ip.header_len();
    let len = u64::from(ip.total_len.get());
    if ip.version() != 4 || header_len < ipv4::LEN || len < header_len as u64 {
        return Err(Reason::MalformedOuter);
    }
    let part = if !ip.is_fragment() {
        Part::Whole
    } else if ip.flags_fragment.get() & ipv4::OFFSET == 0 {
        Part::First
    } else {
        Part::Later
    };
    Ok(Outer {
        source: Address::from_v4(ip.source),
        destination: Address::from_v4(ip.destination),
        ecn: u64::from(ip.dscp_ecn & ecn::MASK),
        protocol: u64::from(ip.protocol),
        part,
        checked_len: header_len as u64,
        payload_at: at.wrapping_add(header_len),
        payload_len: len.wrapping_sub(header_len as u64),
    })
}

/// Reads an IPv6 header. Of extension headers only that of a fragment is known: weir sends none.
#[inline(always)]
pub(super) fn v6<P: Packet>(packet: &P, at: usize) -> Result<Outer, Reason> {
    let ip = packet.at::<Ipv6>(at).ok_or(Reason::Truncated)?;
    let source = Address::from_v6(ip.source);
    let destination = Address::from_v6(ip.destination);
    // A mapped address on the wire could pass for the IPv4 node of the same bytes.
    if ip.version() != 6 || source.is_v4() || destination.is_v4() {
        return Err(Reason::MalformedOuter);
    }
    let mut outer = Outer {
        source,
        destination,
        ecn: u64::from(ip.traffic_class() & ecn::MASK),
        protocol: u64::from(ip.next_header),
        part: Part::Whole,
        checked_len: 0,
        payload_at: at.wrapping_add(ipv6::LEN),
        payload_len: u64::from(ip.payload_len.get()),
    };
    if ip.next_header == protocol::FRAGMENT {
        let fragment = packet
            .at::<Fragment>(outer.payload_at)
            .ok_or(Reason::Truncated)?;
        outer.protocol = u64::from(fragment.next_header);
        outer.part = if fragment.offset_more.get() & 0xfff8 == 0 {
            Part::First
        } else {
            Part::Later
        };
        outer.payload_at = outer.payload_at.wrapping_add(size_of::<Fragment>());
    }
    Ok(outer)
}

impl Outer {
    /// Which tunnel the packet came through, by protocol and port alone.
    #[inline(always)]
    pub(super) fn tunnel<P: Packet>(
        &self,
        packet: &P,
        settings: &Settings,
    ) -> Result<Tunnel, Reason> {
        match self.protocol as u8 {
            protocol::IPIP => Ok(Tunnel::Ipv4),
            protocol::IPV6 => Ok(Tunnel::Ipv6),
            // The ports are in the first fragment only.
            protocol::UDP if self.part != Part::Later => {
                let udp = packet.at::<Udp>(self.payload_at).ok_or(Reason::Truncated)?;
                let port = u16::from_be_bytes(udp.destination_port);
                if settings.is_gue_port(u32::from(port)) {
                    Ok(Tunnel::Gue)
                } else {
                    Err(Reason::NotTunnel)
                }
            }
            _ => Err(Reason::NotTunnel),
        }
    }

    /// Finds the inner packet.
    #[inline(always)]
    pub(super) fn payload<P: Packet>(
        &self,
        packet: &P,
        tunnel: Tunnel,
        frame_len: usize,
    ) -> Result<Payload, Reason> {
        if self.part != Part::Whole {
            return Err(Reason::Fragment);
        }
        if self.payload_at.wrapping_add(self.payload_len as usize) > frame_len {
            return Err(Reason::Truncated);
        }
        if tunnel != Tunnel::Gue {
            return Ok(Payload {
                at: self.payload_at,
                len: self.payload_len,
                version: if tunnel == Tunnel::Ipv6 { 6 } else { 4 },
            });
        }
        let udp = packet.at::<Udp>(self.payload_at).ok_or(Reason::Truncated)?;
        let len = u64::from(udp.len.get());
        if len < udp::LEN as u64 || len > self.payload_len {
            return Err(Reason::MalformedOuter);
        }
        let len = len.wrapping_sub(udp::LEN as u64);
        // Shorter than any GUE header and any IP header: a keepalive.
        if len < GUE_WORD {
            return Err(Reason::GueOther);
        }
        let at = self.payload_at.wrapping_add(udp::LEN);
        // The first two bits are the variant: 0 has a GUE header, 1 (binary 01) begins with the IP header itself.
        // A whole word, since the verifier does not understand the bounds check of a single byte.
        let first = packet.at::<U32>(at).ok_or(Reason::Truncated)?;
        let version = u64::from(first.get() >> 28);
        if version == 4 || version == 6 {
            Ok(Payload { at, len, version })
        } else {
            Err(Reason::GueOther)
        }
    }

    /// Whether the checksum of an IPv4 header is right; `at` is where the header lies.
    #[inline(always)]
    pub(super) fn is_intact<P: Packet>(&self, packet: &P, at: usize) -> Result<bool, Reason> {
        if self.checked_len == 0 {
            return Ok(true);
        }
        let header = packet.at::<[u8; ipv4::LEN]>(at).ok_or(Reason::Truncated)?;
        let mut sum = checksum::sum(header);
        let options = (self.checked_len as usize).wrapping_sub(ipv4::LEN) >> 2;
        let mut at = at.wrapping_add(ipv4::LEN);
        for word in 0..MAX_OPTIONS {
            if word >= options {
                break;
            }
            let option = packet.at::<U32>(at).ok_or(Reason::Truncated)?;
            sum = sum.wrapping_add(checksum::sum_u32(option.get()));
            at = at.wrapping_add(4);
        }
        Ok(checksum::fold(sum) == 0xffff)
    }
}
