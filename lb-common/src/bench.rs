//! What user space tells the measuring driver (lb-ebpf/src/bench).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many 64-bit words of the packet's head are written back before every run.
pub const RESTORED: usize = 6;

/// How many lookups the longer of the two floors of hashes does.
pub const LOOKUPS: usize = 9;

/// How the packet is to be restored before every run. Host order.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// The packet's first bytes.
    pub head: [u64; RESTORED],
    /// The packet's length in bytes.
    pub len: u32,
    /// How many flows come one after the other, and then again; 0 leaves the frame's own.
    pub flows: u32,
    /// Offset of the two low bytes of the source address.
    pub address_offset: u32,
    /// Offset of the source port.
    pub port_offset: u32,
    /// How many destinations come in turn, numbered in the two low bytes of their address, network order; 0 leaves the
    /// frame's own.
    pub destinations: u32,
    /// Offset of the two low bytes of the destination address.
    pub destination_offset: u32,
    /// Offset of the checksum of TCP or UDP, which the generator keeps right.
    pub checksum_offset: u32,
    /// Offset of the IPv4 header's checksum; 0 for IPv6.
    pub ip_checksum_offset: u32,
}

/// How far the slow reader of a table is (lb-ebpf/src/bench/reader.rs). Host order.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Readings {
    /// Readings that have begun: the table has been looked up.
    pub began: u64,
    /// Readings that are over.
    pub ended: u64,
    /// How many of those found a backend with an even id in the slot, and how many one with an odd id.
    pub seen: [u64; 2],
}
