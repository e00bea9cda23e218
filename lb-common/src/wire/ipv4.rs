//! IPv4 (RFC 791).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// An IPv4 header without its options, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    pub version_ihl: u8,
    /// DSCP (6 bits, RFC 2474) and ECN (2 bits, RFC 3168).
    pub dscp_ecn: u8,
    /// Length of header and payload in bytes.
    pub total_len: U16,
    /// Identification, shared by the fragments of one packet.
    pub id: U16,
    /// Flags (3 bits) and fragment offset in units of 8 bytes (13 bits).
    pub flags_fragment: U16,
    /// Time to live, in hops.
    pub ttl: u8,
    /// Protocol of the payload ([`super::protocol`]).
    pub protocol: u8,
    /// Checksum of the header with its options (RFC 1071).
    pub checksum: [u8; 2],
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

/// Length in bytes, without options.
pub const LEN: usize = size_of::<Ipv4>();

const _: () = assert!(LEN == 20);

/// "Don't fragment", in [`Ipv4::flags_fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments", in [`Ipv4::flags_fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in [`Ipv4::flags_fragment`].
pub const OFFSET: u16 = 0x1fff;

impl Ipv4 {
    /// The header's version field: 4 for IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// The header's length with its options, in bytes: 0 to 60, at least 20 where the header is valid.
    #[must_use]
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        ((self.version_ihl & 0x0f) as usize) << 2
    }

    /// Whether this is one of several fragments: more follow, or some went before.
    #[must_use]
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        // "More fragments" and the offset; "don't fragment" and the reserved bit do not count.
        self.flags_fragment.get() & 0x3fff != 0
    }
}
