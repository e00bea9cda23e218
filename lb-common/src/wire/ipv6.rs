//! IPv6 (RFC 8200).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// An IPv6 header, 40 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (4 bits), traffic class (8 bits) and flow label (20 bits).
    pub version_class_label: [u8; 4],
    /// Length in bytes of what follows this header, extension headers included.
    pub payload_len: U16,
    /// Protocol or extension header that follows ([`super::protocol`]).
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

/// Length in bytes.
pub const LEN: usize = size_of::<Ipv6>();

const _: () = assert!(LEN == 40);

impl Ipv6 {
    /// The header's version field: 6 for IPv6.
    #[must_use]
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        let [first, ..] = self.version_class_label;
        first >> 4
    }

    /// The traffic class: DSCP (6 bits) and ECN (2 bits).
    #[must_use]
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        let [a, b, ..] = self.version_class_label;
        (a << 4) | (b >> 4)
    }
}
