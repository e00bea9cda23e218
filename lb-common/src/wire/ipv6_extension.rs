//! IPv6 extension headers (RFC 8200, section 4).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// What hop-by-hop, routing and destination options headers begin with, 4 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Extension {
    /// What follows this header.
    pub next_header: u8,
    /// Length in units of 8 bytes, not counting the first 8.
    pub len: u8,
    /// In a routing header, its type.
    pub routing_type: u8,
    /// In a routing header, how many nodes are still to be visited.
    pub segments_left: u8,
}

/// A fragment header, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// What the fragmented part begins with.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 bytes (13 bits), reserved (2 bits), more fragments (1 bit).
    pub offset_more: U16,
    /// Identification, shared by the fragments of one packet.
    pub id: U32,
}

const _: () = assert!(size_of::<Extension>() == 4 && size_of::<Fragment>() == 8);
