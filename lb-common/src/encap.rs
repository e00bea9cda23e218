//! Outer headers toward a backend: IP in IP and GUE.
//!
//! - DSCP and ECN are copied outward (RFC 2983, uniform model; RFC 6040, normal mode).
//! - TTL and hop limit are 64, as of a packet that starts here.
//! - DF is the inner packet's; with an inner IPv6 packet, which nobody but its sender may fragment, it is set.
//!   Where it is clear, the identification is the inner one plus the flow's hash, since fragments of two packets
//!   must not meet (RFC 6864); where it is set, it is zero.
//! - The GUE source port and the IPv6 flow label carry the flow's hash (RFC 6438), so that receivers and
//!   routers spread flows. The addresses of IPv4 in IP are the node's and the backend's, never forged: providers
//!   drop forged sources, and decapsulation refuses them. Where that spreads too little, use GUE.
//! - The GUE checksum is zero: RFC 768 allows it over IPv4, and RFC 6935 over IPv6 for tunnels whose inner packet
//!   has a checksum of its own.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::little_endian::{U16, U32, U64},
};

use crate::{
    backend::{Backend, mode},
    checksum,
    flow::Address,
    packet::Packet,
    parse::Ip,
    rewrite::Link,
    wire::{
        ethernet, ipv4, ipv6, protocol,
        udp::{self, Udp},
    },
};

const TTL: u8 = 64;

/// How many bytes the outer headers toward a backend take.
#[must_use]
#[inline(always)]
pub const fn overhead(backend: &Backend) -> usize {
    overhead_of(backend.mode, backend.is_outer_v4())
}

/// How many bytes outer headers take by mode and family.
#[inline(always)]
pub(crate) const fn overhead_of(mode: u8, is_v4: bool) -> usize {
    let ip = if is_v4 { ipv4::LEN } else { ipv6::LEN };
    match mode {
        mode::IPIP => ip,
        mode::GUE => ip.wrapping_add(udp::LEN),
        _ => 0,
    }
}

/// The EtherType of the outermost IP header.
#[must_use]
#[inline(always)]
pub const fn ether_type(backend: &Backend, is_inner_v6: bool) -> u16 {
    let is_v6 = if backend.mode == mode::L2 {
        is_inner_v6
    } else {
        !backend.is_outer_v4()
    };
    if is_v6 {
        ethernet::IPV6
    } else {
        ethernet::IPV4
    }
}

/// The sum of an outer IPv4 header's constant words: version, header length, TTL, protocol and addresses. It is never 0; for an outer IPv6 header, which has
/// no checksum, it is.
///
/// `mode` and `is_inner_v6` tell the protocol; the addresses are those of [`Backend::source`] and
/// [`Backend::address`].
#[must_use]
pub fn constant_sum(source: Address, destination: Address, mode: u8, is_inner_v6: bool) -> u16 {
    if !destination.is_v4() {
        return 0;
    }
    let [s0, s1, s2, s3] = source.v4_octets();
    let [d0, d1, d2, d3] = destination.v4_octets();
    checksum::fold(checksum::sum(&[
        0x45,
        0,
        TTL,
        outer_protocol(mode, is_inner_v6),
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
    ]))
}

#[inline(always)]
const fn outer_protocol(mode: u8, is_inner_v6: bool) -> u8 {
    if mode == mode::GUE {
        protocol::UDP
    } else if is_inner_v6 {
        protocol::IPV6
    } else {
        protocol::IPIP
    }
}

/// What the outer header takes from the inner one.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    dscp_ecn: u8,
    /// Identification, flags and offset of an outer IPv4 header as they lie, in one little-endian word.
    id_flags: u32,
    /// The sum of its two halves: most packets are [`WHOLE`], for which it is known.
    id_flags_sum: u32,
}

/// [`Inner::id_flags`] of a packet that nobody may fragment.
const WHOLE: u32 = (ipv4::DONT_FRAGMENT.to_be() as u32) << 16;

impl Inner {
    /// What the outer header takes from [`Ip::head`]. `hash` is the flow's.
    #[must_use]
    #[inline(always)]
    pub const fn new(ip: &Ip, hash: u32) -> Self {
        if ip.is_v6 {
            // Version (4 bits), then the traffic class, over the first two bytes.
            return Self {
                dscp_ecn: ((ip.head << 4) | (ip.head >> 12 & 0xf)) as u8,
                id_flags: WHOLE,
                id_flags_sum: WHOLE >> 16,
            };
        }
        let id_flags = (ip.head >> 32) as u32;
        let (id_flags, id_flags_sum) = if id_flags & WHOLE != 0 {
            (WHOLE, WHOLE >> 16)
        } else {
            let id = u16::from_be(id_flags as u16).wrapping_add((hash >> 16) as u16);
            (id.to_be() as u32, id.to_be() as u32)
        };
        Self {
            dscp_ecn: (ip.head >> 8) as u8,
            id_flags,
            id_flags_sum,
        }
    }
}

/// Writes the outer headers at `offset`, where there is room for [`overhead`] bytes before the inner packet.
///
/// Returns `None` where the frame is too short.
#[inline(always)]
pub fn write<P: Packet>(
    packet: &mut P,
    offset: usize,
    backend: &Backend,
    ip: &Ip,
    inner: &Inner,
    hash: u32,
) -> Option<()> {
    let protocol = outer_protocol(backend.mode, ip.is_v6);
    let len = outer_len(ip, overhead(backend));
    let udp_at = if backend.is_outer_v4() {
        let outer = packet.at_mut::<OuterV4>(offset)?;
        outer.fill(backend, inner, len, protocol);
        offset.wrapping_add(ipv4::LEN)
    } else {
        let outer = packet.at_mut::<OuterV6>(offset)?;
        outer.fill(backend, inner, len, protocol, hash);
        offset.wrapping_add(ipv6::LEN)
    };
    if backend.mode == mode::GUE {
        *packet.at_mut::<Udp>(udp_at)? = gue(backend, ip, hash);
    }
    Some(())
}

/// All headers before the inner packet of an untagged frame.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Outer<I, U> {
    link: Link,
    ip: I,
    udp: U,
}

/// Writes link header and outer headers of an untagged frame at its start: by one bounds check and without a branch, for a
/// `mode` and a family that the caller knows.
///
/// Returns `None` where the frame is too short.
#[inline(always)]
pub(crate) fn write_untagged<P: Packet>(
    packet: &mut P,
    backend: &Backend,
    (mode, is_v4): (u8, bool),
    ip: &Ip,
    inner: &Inner,
    hash: u32,
) -> Option<()> {
    let protocol = outer_protocol(mode, ip.is_v6);
    let len = outer_len(ip, overhead_of(mode, is_v4));
    // Part after part, so that nothing waits in a register for its turn: the compiler cannot know that a packet is no backend.
    match (is_v4, mode == mode::GUE) {
        (true, false) => {
            let outer = packet.at_mut::<Outer<OuterV4, ()>>(0)?;
            outer.link = Link::new(backend, ethernet::IPV4);
            outer.ip.fill(backend, inner, len, protocol);
        }
        (true, true) => {
            let outer = packet.at_mut::<Outer<OuterV4, Udp>>(0)?;
            outer.link = Link::new(backend, ethernet::IPV4);
            outer.ip.fill(backend, inner, len, protocol);
            outer.udp = gue(backend, ip, hash);
        }
        (false, false) => {
            let outer = packet.at_mut::<Outer<OuterV6, ()>>(0)?;
            outer.link = Link::new(backend, ethernet::IPV6);
            outer.ip.fill(backend, inner, len, protocol, hash);
        }
        (false, true) => {
            let outer = packet.at_mut::<Outer<OuterV6, Udp>>(0)?;
            outer.link = Link::new(backend, ethernet::IPV6);
            outer.ip.fill(backend, inner, len, protocol, hash);
            outer.udp = gue(backend, ip, hash);
        }
    }
    Some(())
}

/// At most 65,535: the packet fits the way's MTU with its outer headers.
#[inline(always)]
const fn outer_len(ip: &Ip, overhead: usize) -> u32 {
    ip.len.wrapping_add(overhead as u32)
}

/// An IPv4 header in words, so that each is one store: what of it depends on the packet lies in the first.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct OuterV4 {
    head: U64,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    source: U32,
    destination: U32,
}

const _: () = assert!(size_of::<OuterV4>() == ipv4::LEN);

impl OuterV4 {
    /// Writes what is constant for a backend before what depends on the packet.
    #[inline(always)]
    fn fill(&mut self, backend: &Backend, inner: &Inner, len: u32, protocol: u8) {
        self.source = backend.source_v4().into();
        self.destination = backend.address_v4().into();
        self.ttl = TTL;
        self.protocol = protocol;
        let dscp_ecn = u32::from(inner.dscp_ecn) << 8;
        let len = u32::from((len as u16).to_be());
        // Of the words as they lie: a sum does not depend on the order of bytes, if it is the same for all (RFC 1071, section 2).
        let sum = u32::from(backend.outer_sum.to_be())
            .wrapping_add(dscp_ecn)
            .wrapping_add(len)
            .wrapping_add(inner.id_flags_sum);
        self.checksum = (!checksum::fold(sum)).into();
        let first = 0x45 | dscp_ecn | (len << 16);
        self.head = (u64::from(first) | (u64::from(inner.id_flags) << 32)).into();
    }
}

/// An IPv6 header in words, as [`OuterV4`] is.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct OuterV6 {
    head: U64,
    source: [U64; 2],
    destination: [U64; 2],
}

const _: () = assert!(size_of::<OuterV6>() == ipv6::LEN);

impl OuterV6 {
    /// As [`OuterV4::fill`].
    #[inline(always)]
    fn fill(&mut self, backend: &Backend, inner: &Inner, len: u32, protocol: u8, hash: u32) {
        self.source = [backend.source.high.into(), backend.source.low.into()];
        self.destination = [backend.address.high.into(), backend.address.low.into()];
        // The flow label is the hash's low 20 bits; the upper ones choose no slot but the GUE port.
        let first = 0x6000_0000 | (u32::from(inner.dscp_ecn) << 20) | (hash & 0x000f_ffff);
        let payload_len = (len.wrapping_sub(ipv6::LEN as u32) as u16).to_be();
        let second = u32::from(payload_len) | (u32::from(protocol) << 16) | (u32::from(TTL) << 24);
        self.head = (u64::from(first.to_be()) | (u64::from(second) << 32)).into();
    }
}

#[inline(always)]
fn gue(backend: &Backend, ip: &Ip, hash: u32) -> Udp {
    // The dynamic ports 49152 to 65535 (RFC 6335).
    let source_port = 0xc000 | (hash >> 18) as u16;
    Udp {
        source_port: source_port.to_be_bytes(),
        destination_port: backend.gue_port,
        len: (ip.len.wrapping_add(udp::LEN as u32) as u16).into(),
        checksum: [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_tells_which_outer_header_there_is(
            source: [u8; 4],
            destination: [u8; 4],
            mode in mode::IPIP..=mode::GUE,
            is_inner_v6: bool,
            v6: [u8; 16],
        ) {
            let (v4, v6) = (Address::from_v4(destination), Address::from_v6(v6));
            prop_assume!(!v6.is_v4());
            prop_assert_ne!(constant_sum(Address::from_v4(source), v4, mode, is_inner_v6), 0);
            prop_assert_eq!(constant_sum(v6, v6, mode, is_inner_v6), 0);
        }
    }
}
