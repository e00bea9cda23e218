//! Ethernet II (IEEE 802.3, clause 3.2.6).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{
        little_endian::{U32, U64},
        network_endian::U16,
    },
};

/// An Ethernet header, 14 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Where the frame goes.
    pub destination: [u8; 6],
    /// Who sent it.
    pub source: [u8; 6],
    /// What follows ([`IPV4`], [`IPV6`], …).
    pub ether_type: U16,
}

/// The two addresses at the start of an Ethernet header as two words, 12 bytes: six bytes copied to six others would be a
/// call of memcpy in BPF.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Addresses {
    /// Where the frame goes, and the first two bytes of who sent it.
    pub first: U64,
    /// The last four bytes of who sent it.
    pub last: U32,
}

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Length in bytes.
pub const LEN: usize = size_of::<Ethernet>();

const _: () = assert!(LEN == 14);
