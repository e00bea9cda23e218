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

    /// Moves the start of the frame by `delta` bytes: a negative number makes room, of undefined content.
    /// Returns false, and changes nothing, where that cannot be.
    #[must_use]
    fn adjust_head(&mut self, delta: i32) -> bool;

    /// Moves the end of the frame by `delta` bytes: a positive number makes room, filled with zeros.
    /// Returns false, and changes nothing, where that cannot be.
    #[must_use]
    fn adjust_tail(&mut self, delta: i32) -> bool;
}

/// A packet in host memory, for unit tests, property tests, fuzzers and the host model.
///
/// It lies in a larger buffer, so that it can grow at both ends as a packet in the kernel can.
#[derive(Debug)]
pub struct HostPacket<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
}

/// Room before a packet, in bytes: what XDP promises (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;

/// The shortest frame that the kernel leaves a program with, in bytes (`ETH_HLEN`).
const MIN_LEN: usize = 14;

impl<'a> HostPacket<'a> {
    /// Copies `frame` into `buffer`, after [`HEADROOM`].
    ///
    /// Returns `None` where the buffer is too short.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], frame: &[u8]) -> Option<Self> {
        let end = HEADROOM.checked_add(frame.len())?;
        buffer.get_mut(HEADROOM..end)?.copy_from_slice(frame);
        Some(Self {
            buffer,
            start: HEADROOM,
            end,
        })
    }

    /// The frame as it is now.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }
}

impl Packet for HostPacket<'_> {
    fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    fn frame_len(&self) -> usize {
        self.len()
    }

    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.bytes().get(offset..)?)
            .ok()
            .map(|(header, _)| header)
    }

    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let bytes = self.buffer.get_mut(self.start..self.end)?;
        T::mut_from_prefix(bytes.get_mut(offset..)?)
            .ok()
            .map(|(header, _)| header)
    }

    fn adjust_head(&mut self, delta: i32) -> bool {
        let start = self.start.checked_add_signed(delta as isize);
        let Some(start) = start.filter(|start| start.saturating_add(MIN_LEN) <= self.end) else {
            return false;
        };
        self.start = start;
        true
    }

    fn adjust_tail(&mut self, delta: i32) -> bool {
        let end = self.end.checked_add_signed(delta as isize);
        let fits =
            |end: &usize| *end <= self.buffer.len() && *end >= self.start.saturating_add(MIN_LEN);
        let Some(end) = end.filter(fits) else {
            return false;
        };
        if let Some(new) = self.buffer.get_mut(self.end..end) {
            new.fill(0);
        }
        self.end = end;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_only_where_all_of_it_lies() {
        let mut buffer = [0; 300];
        let packet = HostPacket::new(&mut buffer, &[1, 2, 3, 4]).unwrap();
        assert_eq!(packet.at::<[u8; 2]>(2), Some(&[3, 4]));
        assert_eq!(packet.at::<[u8; 2]>(3), None);
        assert_eq!(packet.at::<[u8; 2]>(usize::MAX), None);
        assert_eq!(packet.at::<[u8; 5]>(0), None);
    }

    #[test]
    fn grows_at_both_ends_as_far_as_the_buffer_goes() {
        let mut buffer = [0xff; 280];
        let mut packet = HostPacket::new(&mut buffer, &[7; 14]).unwrap();
        assert!(!packet.adjust_head(-257) && !packet.adjust_head(1) && !packet.adjust_tail(11));
        assert!(packet.adjust_tail(10) && packet.adjust_head(-2));
        assert_eq!(packet.len(), 26);
        assert_eq!(packet.at::<[u8; 10]>(16), Some(&[0; 10]));
        assert!(packet.adjust_head(2) && packet.adjust_tail(-10));
        assert_eq!(packet.bytes(), [7; 14]);
    }
}
