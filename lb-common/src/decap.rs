//! The other end of a tunnel: what a backend's XDP program (`weir decap`) does with a packet.
//!
//! 1. Parse Ethernet, up to two VLAN tags and the outer IP header ([`outer`]). What is no tunnel packet for one of
//!    this host's addresses goes to the kernel byte for byte as it came.
//! 2. Refuse what the fleet did not send. Outer source addresses can be forged, so the network must keep
//!    outsiders from using the fleet's (BCP 38); without this check anybody could inject inner packets.
//! 3. Check the inner IP header, and combine the ECN fields of both ([`ecn`], RFC 6040).
//! 4. Strip the outer headers. Ethernet header and tags stay, with the EtherType of the inner packet, and the
//!    kernel takes it as if it had come plainly. Nothing is trimmed at the end: the inner IP header tells where its
//!    packet ends, and the kernel heeds it.
//!
//! Not checked: the outer UDP checksum. weir sends none (RFC 6935), and where somebody else does, the inner packet
//! has checksums of its own, which the kernel checks, as it does that of the inner IPv4 header.
//!
//! Fragments of outer packets are left to the kernel, which puts them together and then has nobody to give the
//! whole to: they are counted as [`Reason::Fragment`], and the remedy is an MTU with room for the outer headers.

mod ecn;
mod inner;
mod outer;
mod reason;
mod tables;

#[cfg(test)]
mod tests;

use zerocopy::byteorder::{little_endian::U32, network_endian::U16};

pub use self::{
    reason::Reason,
    tables::{
        Counter, DecapTables, MAX_GUE_PORTS, MAX_LOCAL, MAX_REASONS, MAX_SOURCES, MAX_VIPS, Prefix,
        Settings,
    },
};

use crate::{
    packet::Packet,
    parse::{self, Tags},
    reason::Reason as ParseReason,
    wire::{ethernet, vlan},
};

/// Judges a packet, takes the outer headers off where it is the fleet's, and counts it.
#[inline(always)]
pub fn run<P: Packet, T: DecapTables>(packet: &mut P, tables: &T) -> Reason {
    let frame_len = packet.frame_len();
    let reason = match decapsulate(packet, tables, frame_len) {
        Ok(reason) | Err(reason) => reason,
    };
    tables.count(reason, frame_len as u64);
    reason
}

#[inline(always)]
fn decapsulate<P: Packet, T: DecapTables>(
    packet: &mut P,
    tables: &T,
    frame_len: usize,
) -> Result<Reason, Reason> {
    let (tags, ether_type) = parse::link(packet).map_err(|reason| match reason {
        ParseReason::VlanTags => Reason::VlanTags,
        _ => Reason::Truncated,
    })?;
    let settings = tables.settings().ok_or(Reason::NoSettings)?;
    let ip_at = tags.ip_offset();
    let outer = match ether_type {
        ethernet::IPV4 => outer::v4(packet, ip_at)?,
        ethernet::IPV6 => outer::v6(packet, ip_at)?,
        _ => return Err(Reason::NotIp),
    };
    let tunnel = outer.tunnel(packet, settings)?;
    if !tables.is_local(outer.destination) {
        return Err(Reason::NotLocal);
    }
    let payload = outer.payload(packet, tunnel, frame_len)?;
    if !outer.is_intact(packet, ip_at)? {
        return Err(Reason::OuterChecksum);
    }
    if !settings.is_source(outer.source) {
        return Err(Reason::ForeignSource);
    }
    let inner = inner::parse(packet, &payload)?;
    if settings.checks_vips != 0 && !tables.is_vip(inner.destination) {
        return Err(Reason::NotVip);
    }
    inner.take_ecn(packet, &payload, outer.ecn)?;
    strip(packet, &tags, ip_at, payload.at, inner.ether_type).ok_or(Reason::NotStripped)?;
    Ok(if tunnel == outer::Tunnel::Gue {
        Reason::Gue
    } else {
        Reason::Ipip
    })
}

/// Moves Ethernet header and tags from before the outer IP header to before the inner one.
///
/// By words, all read before the first is written: old and new place may overlap.
#[inline(always)]
fn strip<P: Packet>(
    packet: &mut P,
    tags: &Tags,
    ip_at: usize,
    inner_at: usize,
    ether_type: u64,
) -> Option<()> {
    const FIRST_TAG: usize = ethernet::LEN - 2;
    const SECOND_TAG: usize = FIRST_TAG + vlan::LEN;
    let [a, b, c] = packet.at::<[U32; 3]>(0)?.map(U32::get);
    let mut first = 0;
    let mut second = 0;
    if tags.count > 0 {
        first = packet.at::<U32>(FIRST_TAG)?.get();
    }
    if tags.count > 1 {
        second = packet.at::<U32>(SECOND_TAG)?.get();
    }
    if !packet.adjust_head((inner_at as u32).wrapping_sub(ip_at as u32).cast_signed()) {
        return None;
    }
    *packet.at_mut::<[U32; 3]>(0)? = [a.into(), b.into(), c.into()];
    if tags.count > 0 {
        *packet.at_mut::<U32>(FIRST_TAG)? = first.into();
    }
    if tags.count > 1 {
        *packet.at_mut::<U32>(SECOND_TAG)? = second.into();
    }
    *packet.at_mut::<U16>(ip_at.wrapping_sub(2))? = (ether_type as u16).into();
    Some(())
}
