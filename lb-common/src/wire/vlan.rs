//! VLAN tags (IEEE 802.1Q, clause 9).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// What follows a tag protocol identifier: 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Vlan {
    /// Tag control information: priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub tci: U16,
    /// What follows, as in [`super::ethernet::Ethernet`].
    pub ether_type: U16,
}

/// Length in bytes.
pub const LEN: usize = size_of::<Vlan>();

const _: () = assert!(LEN == 4);
