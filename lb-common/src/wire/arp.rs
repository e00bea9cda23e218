//! ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// An ARP packet, 28 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Arp {
    /// Hardware type: 1 for Ethernet.
    pub hardware: U16,
    /// Protocol type: that of IPv4.
    pub protocol: U16,
    /// Length of a hardware address: 6.
    pub hardware_len: u8,
    /// Length of a protocol address: 4.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// MAC address of the sender.
    pub sender_mac: [u8; 6],
    /// IPv4 address of the sender; zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// MAC address of the target; means nothing in a request.
    pub target_mac: [u8; 6],
    /// IPv4 address of the target.
    pub target: [u8; 4],
}

/// "Who has this address?"
pub const REQUEST: u16 = 1;
/// "I have."
pub const REPLY: u16 = 2;

const _: () = assert!(size_of::<Arp>() == 28);
