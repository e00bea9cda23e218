//! ICMP (RFC 792) and ICMPv6 (RFC 4443, RFC 4861).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The part that all messages of both protocols begin with, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// Kind of message ([`v4`], [`v6`]).
    pub kind: u8,
    /// What is meant within the kind.
    pub code: u8,
    /// Checksum of the message (ICMP), or of pseudo header and message (ICMPv6).
    pub checksum: [u8; 2],
    /// Identifier and sequence of an echo; in "fragmentation needed" the MTU is in the last two bytes, in
    /// "packet too big" in all four.
    pub rest: [u8; 4],
}

/// Length in bytes.
pub const LEN: usize = size_of::<Icmp>();

const _: () = assert!(LEN == 8);

/// Kinds of ICMP for IPv4.
pub mod v4 {
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable; its code tells more.
    pub const UNREACHABLE: u8 = 3;
    /// Ping.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER: u8 = 12;
    /// Code of [`UNREACHABLE`]: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: too big, and DF is set (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
}

/// Kinds of ICMPv6.
pub mod v6 {
    /// Destination unreachable; its code tells more.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big (RFC 8201).
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER: u8 = 4;
    /// Ping.
    pub const ECHO: u8 = 128;
    /// Answer to [`ECHO`].
    pub const ECHO_REPLY: u8 = 129;
    /// Neighbour solicitation.
    pub const SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const ADVERTISEMENT: u8 = 136;
    /// Code of [`UNREACHABLE`]: nobody listens on the port.
    pub const PORT_UNREACHABLE: u8 = 4;
}

/// A neighbour solicitation or advertisement with one link-layer address option, 32 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Neighbour {
    /// Kind, code, checksum; in an advertisement the first byte of the rest has the flags.
    pub icmp: Icmp,
    /// Whose link-layer address is asked for or told.
    pub target: [u8; 16],
    /// Option type: 1 source, 2 target link-layer address.
    pub option: u8,
    /// Option length in units of 8 bytes: 1.
    pub option_len: u8,
    /// The link-layer address.
    pub mac: [u8; 6],
}

const _: () = assert!(size_of::<Neighbour>() == 32);

/// Flag of an advertisement: it answers a solicitation.
pub const SOLICITED: u8 = 0x40;
/// Flag of an advertisement: what it tells takes the place of what was known.
pub const OVERRIDE: u8 = 0x20;
/// Option with the target's link-layer address.
pub const TARGET_ADDRESS: u8 = 2;
/// All nodes of the link, `ff02::1`.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// The MAC address of [`ALL_NODES`].
pub const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
