//! Who owns a packet's bytes: the kernel (in BPF) or a byte slice (on the host).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A header that may lie at any offset of a packet: plain bytes without alignment or padding.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned> Header for T {}

/// A frame, from its Ethernet header on, without the FCS.
///
/// Only headers are read and written, each by one bounds check. A slice over the whole packet is
/// deliberately absent: the kernel's verifier refuses it.
pub trait Packet {
    /// The bytes that [`Packet::at`] can reach: all of the frame, or the first buffer of a frame of several.
    fn len(&self) -> usize;

    /// Whether [`Packet::at`] can reach nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of the whole frame, also where it lies in several buffers.
    ///
    /// In BPF this is a helper call: ask only when [`Packet::len`] does not settle the matter.
    fn frame_len(&self) -> usize;

    /// The header at `offset` bytes, or `None` where the packet ends before it does.
    fn at<T: Header>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset` bytes, for writing.
    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;
}

/// A packet in host memory, for unit tests, property tests, fuzzers and the host model.
impl Packet for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn frame_len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.get(offset..)?)
            .ok()
            .map(|(header, _)| header)
    }

    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        T::mut_from_prefix(self.get_mut(offset..)?)
            .ok()
            .map(|(header, _)| header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_only_where_all_of_it_lies() {
        let packet: &[u8] = &[1, 2, 3, 4];
        assert_eq!(packet.at::<[u8; 2]>(2), Some(&[3, 4]));
        assert_eq!(packet.at::<[u8; 2]>(3), None);
        assert_eq!(packet.at::<[u8; 2]>(usize::MAX), None);
        assert_eq!(packet.at::<[u8; 5]>(0), None);
    }
}
