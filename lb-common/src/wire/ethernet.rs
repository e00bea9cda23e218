//! Ethernet II (IEEE 802.3, clause 3.2.6).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{
        little_endian::{self, U32},
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

/// A MAC address as two words: six bytes copied to six others would be a call of memcpy in BPF, and longer words would have to be put
/// together.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MacWords {
    first: U32,
    last: little_endian::U16,
}

impl MacWords {
    /// Of the six lower bytes of a word, as they lie; the others do not matter.
    #[must_use]
    #[inline(always)]
    pub fn of(word: u64) -> Self {
        let word = u64::from_le(word);
        Self {
            first: (word as u32).into(),
            last: ((word >> 32) as u16).into(),
        }
    }
}

/// The two addresses at the start of an Ethernet header, 12 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Addresses {
    /// Where the frame goes.
    pub destination: MacWords,
    /// Who sent it.
    pub source: MacWords,
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
