//! A packet's first bytes as they came, in a map.

use lb_common::{
    observe::MAX_SAVED,
    packet::{Header, Packet},
};

/// A packet that was saved.
pub(crate) struct SavedPacket {
    start: *const u8,
    len: usize,
    frame_len: usize,
}

impl SavedPacket {
    /// # Safety
    /// `start` points to [`MAX_SAVED`] bytes of a map's value that nothing else refers to while this lives.
    #[inline(always)]
    pub(crate) const unsafe fn new(start: *const u8, len: u32, frame_len: u32) -> Self {
        Self {
            start,
            len: len as usize,
            frame_len: frame_len as usize,
        }
    }
}

impl Packet for SavedPacket {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.frame_len
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        // The first is for the verifier, which does not know how much was saved.
        if offset > MAX_SAVED - size_of::<T>() || offset.wrapping_add(size_of::<T>()) > self.len {
            return None;
        }
        // SAFETY: the bytes are in bounds, any bytes are a valid `T`, and `T` needs no alignment.
        Some(unsafe { &*self.start.add(offset).cast::<T>() })
    }

    #[inline(always)]
    fn at_mut<T: Header>(&mut self, _offset: usize) -> Option<&mut T> {
        None
    }

    #[inline(always)]
    fn adjust_head(&mut self, _delta: i32) -> bool {
        false
    }

    #[inline(always)]
    fn adjust_tail(&mut self, _delta: i32) -> bool {
        false
    }
}
