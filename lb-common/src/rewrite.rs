//! Changing a packet's headers on its way out.

use crate::{backend::Backend, packet::Packet, wire::ethernet::Ethernet};

/// Gives the frame the Ethernet addresses of the way to `backend`. Nothing else changes: weir stands
/// for the VIP's host and is no router, so the TTL stays.
///
/// Returns `None` where the frame has no Ethernet header.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(packet: &mut P, backend: &Backend) -> Option<()> {
    let header = packet.at_mut::<Ethernet>(0)?;
    header.destination = backend.mac_destination;
    header.source = backend.mac_source;
    Some(())
}
