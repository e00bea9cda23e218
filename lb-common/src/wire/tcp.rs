//! TCP (RFC 9293).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

/// A TCP header without its options, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// Sequence number of the first byte of payload; in a SYN, the initial one.
    pub sequence: [u8; 4],
    /// Next sequence number that the sender expects, where ACK is set.
    pub acknowledgement: [u8; 4],
    /// Header length in 32-bit words (4 bits) and reserved bits.
    pub data_offset: u8,
    /// Control bits ([`flags`]).
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Checksum of pseudo header, header and payload.
    pub checksum: [u8; 2],
    /// Urgent pointer.
    pub urgent: U16,
}

/// Control bits.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// Length in bytes, without options.
pub const LEN: usize = size_of::<Tcp>();

const _: () = assert!(LEN == 20);

impl Tcp {
    /// The header's length with its options, in bytes: 0 to 60, at least 20 where the header is valid.
    #[must_use]
    #[inline(always)]
    pub const fn header_len(&self) -> usize {
        header_len(self.data_offset)
    }

    /// Whether this segment asks for a new connection: SYN without ACK, FIN or RST.
    #[must_use]
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        is_syn(self.flags)
    }
}

/// [`Tcp::header_len`] by [`Tcp::data_offset`].
#[inline(always)]
pub(crate) const fn header_len(data_offset: u8) -> usize {
    ((data_offset >> 4) as usize) << 2
}

/// [`Tcp::is_syn`] by [`Tcp::flags`].
#[inline(always)]
pub(crate) const fn is_syn(flags: u8) -> bool {
    flags & (flags::SYN | flags::ACK | flags::FIN | flags::RST) == flags::SYN
}
