//! Backends as packets find them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::Address;

/// How packets reach a backend.
pub mod mode {
    /// Ethernet addresses rewritten; the backend shares a segment with this node.
    pub const L2: u8 = 1;
}

/// Facts about a backend that change while it lives.
pub mod flags {
    /// `mac_destination`, `mac_source` and `ifindex` are known.
    pub const RESOLVED: u8 = 1;
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
    /// Zero.
    pub reserved0: u32,
    /// The backend's own address.
    pub address: Address,
    /// Zero.
    pub reserved: [u64; 3],
}

const _: () = assert!(size_of::<Backend>() == 64);

impl Backend {
    /// Whether the next hop is known.
    #[must_use]
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.flags & flags::RESOLVED != 0
    }
}
