//! The bytes of a packet in the kernel, by pointers that the verifier can follow.

use aya_ebpf::{
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::packet::{Header, Packet};

/// A packet that XDP hands to the program.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    /// The packet of this run.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// A pointer to `size` bytes at `offset`, where the packet's first buffer holds them all.
    #[inline(always)]
    fn pointer(&self, offset: usize, size: usize) -> Option<usize> {
        // This very form (start + offset + size > end) is the one that the verifier understands.
        let start = self.ctx.data().wrapping_add(offset);
        // SAFETY: the kernel hands out no packet at address 0. Without the promise every reference is held against 0.
        unsafe { core::hint::assert_unchecked(start != 0) };
        if start.wrapping_add(size) > self.ctx.data_end() {
            None
        } else {
            Some(start)
        }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end().wrapping_sub(self.ctx.data())
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        // SAFETY: the context is the one that the kernel called the program with.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as usize }
    }

    #[inline(always)]
    fn at<T: Header>(&self, offset: usize) -> Option<&T> {
        let pointer = self.pointer(offset, size_of::<T>())?;
        // SAFETY: the bytes are in bounds, any bytes are a valid `T`, and `T` needs no alignment; nobody
        // writes them while `self` is borrowed.
        Some(unsafe { &*(pointer as *const T) })
    }

    #[inline(always)]
    fn at_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let pointer = self.pointer(offset, size_of::<T>())?;
        // SAFETY: as in `at`; `self` is borrowed mutably, so this is the only reference into the packet.
        Some(unsafe { &mut *(pointer as *mut T) })
    }
    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is the one that the kernel called the program with; `self` is borrowed mutably, so
        // no reference into the packet outlives the call, and later ones read the new start.
        unsafe { bpf_xdp_adjust_head(self.ctx.ctx, delta) == 0 }
    }

    #[inline(always)]
    fn adjust_tail(&mut self, delta: i32) -> bool {
        // SAFETY: as in `adjust_head`.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, delta) == 0 }
    }
}
