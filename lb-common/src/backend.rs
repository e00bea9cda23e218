//! Backends as packets find them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Address,
    wire::ethernet::{Addresses, MacWords},
};

/// How packets reach a backend.
pub mod mode {
    /// Ethernet addresses rewritten; the backend shares a segment with this node.
    pub const L2: u8 = 1;
    /// IP in IP (RFC 2003, RFC 2473): IPv4 in IPv4, IPv4 in IPv6 or IPv6 in IPv6.
    pub const IPIP: u8 = 2;
    /// Generic UDP encapsulation, variant 1 (draft-ietf-intarea-gue): the IP packet right after the UDP header.
    pub const GUE: u8 = 3;
}

/// Facts about a backend that change while it lives.
pub mod flags {
    /// `mac_destination`, `mac_source` and `ifindex` are known.
    pub const RESOLVED: u8 = 1;
    /// Frames leave with the tags of `vlans` (none, if `vlan_count` is 0), whatever tags they came with.
    /// Without this flag tags are kept where the frame leaves by the interface it came by, and taken off
    /// where it leaves by another.
    pub const VLANS_SET: u8 = 2;
    /// The outer of two tags is a service tag (802.1ad).
    pub const SERVICE_VLAN: u8 = 4;
    /// It serves nobody any more: pins that name it count for nothing. Never taken back under the same id.
    pub const DEAD: u8 = 8;
    /// It is this node itself: packets are left to its kernel. Never together with [`RESOLVED`], so that packets for
    /// others pay nothing for it.
    pub const LOCAL: u8 = 16;
}

/// A backend: one (VIP, address, mode), and the way to it. One cache line.
///
/// VIP, address and mode never change while anything names the entry's id. The way (MAC addresses,
/// interface) follows the network; each MAC address lies in an aligned 8-byte word of its own, so that a
/// packet sees the old one or the new one.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Backend {
    /// MAC address of the next hop toward the backend.
    pub mac_destination: [u8; 6],
    /// [`mode`]; 0 in an entry that is no backend.
    pub mode: u8,
    /// [`flags`].
    pub flags: u8,
    /// MAC address of the interface that leads there.
    pub mac_source: [u8; 6],
    /// The VIP's id, host order.
    pub vip: u16,
    /// The interface that leads there. Host order.
    pub ifindex: u32,
    /// The largest IP packet, in bytes and with its outer headers, that may leave toward the backend. Host order.
    pub mtu: u16,
    /// How many tags frames leave with: 0, 1 or 2.
    pub vlan_count: u8,
    /// Zero.
    pub reserved: u8,
    /// The backend's own address: where encapsulated packets go.
    pub address: Address,
    /// Source address of the outer header, of the same family as `address`.
    pub source: Address,
    /// Tag control information of the tags, the outer one first, in network order.
    pub vlans: [[u8; 2]; 2],
    /// Destination port of [`mode::GUE`], network order.
    pub gue_port: [u8; 2],
    /// Sum of the outer IPv4 header's constant words ([`crate::encap::constant_sum`]); 0 where the outer header is an IPv6 one, or there is none. Host order.
    pub outer_sum: u16,
}

const _: () = assert!(size_of::<Backend>() == 64);

impl Backend {
    /// Whether the next hop is known.
    #[must_use]
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.flags & flags::RESOLVED != 0
    }

    /// Whether it is this node itself.
    #[must_use]
    #[inline(always)]
    pub const fn is_local(&self) -> bool {
        self.flags & flags::LOCAL != 0
    }

    /// The Ethernet addresses of frames that go there. Each is read by one load, and so is the old one or the new one.
    #[must_use]
    #[inline(always)]
    pub fn ethernet(&self) -> Addresses {
        let [destination, source, ..]: &[u64; 8] = zerocopy::transmute_ref!(self);
        Addresses {
            destination: MacWords::of(*destination),
            source: MacWords::of(*source),
        }
    }

    /// Whether its outer header is an IPv4 one, by what is read of it anyway.
    #[must_use]
    #[inline(always)]
    pub const fn is_outer_v4(&self) -> bool {
        self.outer_sum != 0
    }

    /// The IPv4 address that its own maps, as it lies, by one load.
    #[inline(always)]
    pub(crate) const fn address_v4(&self) -> u32 {
        let words: &[u32; 16] = zerocopy::transmute_ref!(self);
        u32::from_le(words[9])
    }

    /// The same of the source address.
    #[inline(always)]
    pub(crate) const fn source_v4(&self) -> u32 {
        let words: &[u32; 16] = zerocopy::transmute_ref!(self);
        u32::from_le(words[13])
    }

    /// Whether the entry is a backend that serves its flows, be it leaving or not.
    #[must_use]
    #[inline(always)]
    pub const fn is_alive(&self) -> bool {
        self.mode != 0 && self.flags & flags::DEAD == 0
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn the_addresses_of_its_frames_are_its_own_and_nothing_of_what_lies_beside() {
        let backend = Backend {
            mac_destination: [1, 2, 3, 4, 5, 6],
            mode: 0xff,
            flags: 0xff,
            mac_source: [7, 8, 9, 10, 11, 12],
            vip: 0xffff,
            ..Backend::default()
        };
        let written = backend.ethernet();
        assert_eq!(written.as_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }
}
