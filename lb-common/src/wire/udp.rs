//! UDP (RFC 768).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// A UDP header, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// Length of header and payload in bytes.
    pub len: U16,
    /// Checksum of pseudo header, header and payload; over IPv4, zero means none.
    pub checksum: [u8; 2],
}

/// Length in bytes.
pub const LEN: usize = size_of::<Udp>();

const _: () = assert!(LEN == 8);
