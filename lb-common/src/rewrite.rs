//! The Ethernet header and tags of a packet on its way out.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{little_endian::U32, network_endian::U16},
};

use crate::{
    backend::{Backend, flags},
    packet::Packet,
    parse::Tags,
    wire::{
        ethernet::{self, Addresses},
        vlan::{self, Vlan},
    },
};

/// An Ethernet header whose addresses are written as words.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Link {
    addresses: Addresses,
    ether_type: U16,
}

impl Link {
    /// Of frames on the way to `backend`.
    #[inline(always)]
    pub(crate) fn new(backend: &Backend, ether_type: u16) -> Self {
        Self {
            addresses: backend.ethernet(),
            ether_type: ether_type.into(),
        }
    }
}

/// The tags that a frame leaves with: the backend's, or its own where it leaves by the interface it came by.
#[must_use]
#[inline(always)]
pub const fn tags(backend: &Backend, came_with: Tags, is_redirect: bool) -> Tags {
    if backend.flags & flags::VLANS_SET != 0 {
        let is_service = backend.flags & flags::SERVICE_VLAN != 0;
        let [outer, inner] = backend.vlans;
        return Tags {
            count: if backend.vlan_count > 2 {
                2
            } else {
                backend.vlan_count as u32
            },
            outer_type: if is_service {
                ethernet::SERVICE_VLAN
            } else {
                ethernet::VLAN
            } as u32,
            outer: u16::from_be_bytes(outer) as u32,
            inner: u16::from_be_bytes(inner) as u32,
        };
    }
    if is_redirect { Tags::NONE } else { came_with }
}

/// Gives the frame the Ethernet addresses of the way to `backend`, and nothing else. The TTL stays: weir stands
/// for the VIP's host and is no router.
///
/// Returns `None` where the frame has no Ethernet header.
#[inline(always)]
pub fn addresses<P: Packet>(packet: &mut P, backend: &Backend) -> Option<()> {
    *packet.at_mut::<Addresses>(0)? = backend.ethernet();
    Some(())
}

/// Writes Ethernet addresses, tags and EtherType at the frame's start, right before what begins at
/// [`Tags::ip_offset`].
///
/// Returns `None` where the frame is too short.
#[inline(always)]
pub fn link<P: Packet>(
    packet: &mut P,
    backend: &Backend,
    tags: &Tags,
    ether_type: u16,
) -> Option<()> {
    let first = if tags.count == 0 {
        ether_type
    } else {
        tags.outer_type as u16
    };
    *packet.at_mut::<Link>(0)? = Link::new(backend, first);
    if tags.count > 0 {
        *packet.at_mut::<Vlan>(ethernet::LEN)? = Vlan {
            tci: (tags.outer as u16).into(),
            ether_type: if tags.count == 1 {
                ether_type
            } else {
                ethernet::VLAN
            }
            .into(),
        };
    }
    if tags.count > 1 {
        *packet.at_mut::<Vlan>(const { ethernet::LEN + vlan::LEN })? = Vlan {
            tci: (tags.inner as u16).into(),
            ether_type: ether_type.into(),
        };
    }
    Some(())
}

/// Swaps the frame's Ethernet addresses: back to where it came from.
///
/// Returns `None` where the frame has no Ethernet header.
#[inline(always)]
pub fn swap<P: Packet>(packet: &mut P) -> Option<()> {
    // As three words: copying six bytes over six others would be a call of memmove.
    let words = packet.at_mut::<[U32; 3]>(0)?;
    let [a, b, c] = words.map(U32::get);
    *words = [
        ((b >> 16) | (c << 16)).into(),
        ((c >> 16) | (a << 16)).into(),
        ((a >> 16) | (b << 16)).into(),
    ];
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{HEADROOM, HostPacket};

    #[test]
    fn swapping_exchanges_the_addresses() {
        let mut buffer = [0; HEADROOM + 14];
        let mut packet =
            HostPacket::new(&mut buffer, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0]).unwrap();
        swap(&mut packet).unwrap();
        assert_eq!(
            packet.bytes(),
            [7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 8, 0]
        );
    }
}
