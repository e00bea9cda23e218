//! Saves packets as they come, and tells those who watch what became of them.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    slice,
};

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated::{
        bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_xdp_get_buff_len,
        bpf_xdp_load_bytes,
    },
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    gcra::{Limit, Ticks, ticks},
    observe::{MAX_SAVED, MAX_WATCHES, Record, Told, Watch, Watches, addresses},
    pipeline::Outcome,
    reason::Verdict,
    tables::step,
};

use crate::{
    maps::STEPS,
    saved::SavedPacket,
    steps::{ingress_ifindex, redirect},
};

/// Who watches what.
#[btf_map]
static WATCHES: Array<Watches, 1> = Array::new();

/// Theoretical arrival times of the watchers' rates. Packets read them; only records that are told write.
#[btf_map]
static WATCH_TATS: Array<Ticks, { MAX_WATCHES }> = Array::new();

/// What became of what each watcher was to be told.
#[btf_map]
static WATCH_COUNTERS: PerCpuArray<Told, { MAX_WATCHES }> = PerCpuArray::new();

/// What is told. Nobody is woken by it: the daemon looks in many times a second, and sooner costs packets time.
#[btf_map]
static RECORDS: RingBuf<Record, { 4 * 1024 * 1024 }> = RingBuf::new();

/// `BPF_RB_NO_WAKEUP` of linux/bpf.h.
const NO_WAKEUP: u64 = 1;

/// The packet at hand: from its first step to its last, on one CPU.
#[repr(C)]
struct Scratch {
    /// Whose lot has fallen on it.
    drawn: u32,
    /// The program's answer.
    action: u32,
    record: Record,
    /// As it came, then as it leaves.
    saved: [u8; 2 * MAX_SAVED],
}

#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// A packet has come: draws for whom it is, and saves its first bytes if it is for anybody.
#[inline(always)]
pub(crate) fn begin(ctx: &XdpContext) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
    let scratch = unsafe { &mut *scratch };
    scratch.drawn = 0;
    let Some(watches) = WATCHES.get(0) else {
        return;
    };
    // SAFETY: the helper takes nothing.
    scratch.drawn = watches.drawn(unsafe { bpf_get_prandom_u32() });
    if scratch.drawn == 0 {
        return;
    }
    let len = frame_len(ctx);
    scratch.record.ingress = ingress_ifindex(ctx.ctx);
    scratch.record.came_len = len;
    scratch.record.came_saved = save(ctx, scratch.saved.as_mut_ptr(), len, watches.saved);
}

/// A packet has been judged: goes on in [`weir_observed`] if its lot has fallen on anybody.
#[inline(always)]
pub(crate) fn end(ctx: &XdpContext, outcome: &Outcome) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
    let scratch = unsafe { &mut *scratch };
    if scratch.drawn == 0 {
        return;
    }
    scratch.action = match outcome.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Forward if outcome.is_redirect => xdp_action::XDP_REDIRECT,
        Verdict::Tx | Verdict::Forward => xdp_action::XDP_TX,
    };
    scratch.record.judge(outcome);
    // SAFETY: the map holds programs of this type only, as the kernel checks.
    unsafe { STEPS.tail_call(ctx, step::OBSERVED) };
    // Reached only where the daemon has not filled the map: then nobody is told.
}

/// Tells those who watch of the packet, and sends it where it goes.
#[xdp(frags)]
pub fn weir_observed(ctx: XdpContext) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
    let scratch = unsafe { &mut *scratch };
    if let Some(watches) = WATCHES.get(0) {
        tell(&ctx, scratch, watches);
    }
    if scratch.action == xdp_action::XDP_REDIRECT {
        redirect(scratch.record.egress)
    } else {
        scratch.action
    }
}

/// Writes a record for all whom the packet fits, and whose rate has room for it.
///
/// The verifier follows every path through the loops. What differs between two watchers is kept in the map, whose content it
/// does not know: so the paths of one meet again before the next, and do not double with each.
#[inline(always)]
fn tell(ctx: &XdpContext, scratch: &mut Scratch, watches: &Watches) {
    let addresses = if watches.by_address == 0 {
        None
    } else {
        // SAFETY: the saved bytes are not written before the addresses are read.
        addresses(&unsafe {
            SavedPacket::new(
                scratch.saved.as_ptr(),
                scratch.record.came_saved,
                scratch.record.came_len,
            )
        })
    };
    let drawn = Mask(&raw mut scratch.drawn);
    let admitted = Mask(&raw mut scratch.record.watchers);
    admitted.clear();
    for (watch, index) in watches.watches.iter().zip(0u32..) {
        if !drawn.has(index)
            || !watch.fits(
                scratch.record.reason,
                scratch.record.vip,
                addresses.as_ref(),
            )
        {
            continue;
        }
        if admits(index, watch) {
            admitted.set(index);
        } else {
            count(index, |told| told.over_rate += 1);
        }
    }
    if admitted.is_empty() {
        return;
    }
    let is_written = write(ctx, scratch, watches);
    for index in 0..MAX_WATCHES as u32 {
        if !admitted.has(index) {
            continue;
        }
        count(index, |told| {
            if is_written {
                told.told += 1;
            } else {
                told.ring_full += 1;
            }
        });
    }
}

/// A bit for each watcher, in a map.
#[derive(Clone, Copy)]
struct Mask(*mut u32);

impl Mask {
    #[inline(always)]
    fn load(self) -> u32 {
        // SAFETY: the pointer is to a word of this CPU's own value in a map.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn store(self, bits: u32) {
        // SAFETY: as above.
        unsafe { self.0.write_volatile(bits) };
    }

    #[inline(always)]
    fn clear(self) {
        self.store(0);
    }

    #[inline(always)]
    fn set(self, index: u32) {
        self.store(self.load() | 1 << index);
    }

    #[inline(always)]
    fn has(self, index: u32) -> bool {
        self.load() & 1 << index != 0
    }

    #[inline(always)]
    fn is_empty(self) -> bool {
        self.load() == 0
    }
}

/// Puts the record into the ring. Returns false where that is full.
#[inline(always)]
fn write(ctx: &XdpContext, scratch: &mut Scratch, watches: &Watches) -> bool {
    // The bounds are what the verifier wants to see; it does not know what was written before.
    let came = (scratch.record.came_saved as usize).min(MAX_SAVED);
    scratch.record.left_len = 0;
    scratch.record.left_saved = 0;
    if matches!(
        scratch.action,
        xdp_action::XDP_TX | xdp_action::XDP_REDIRECT
    ) {
        let len = frame_len(ctx);
        // SAFETY: half of the bytes lie after the place.
        let place = unsafe { scratch.saved.as_mut_ptr().add(came) };
        scratch.record.left_len = len;
        scratch.record.left_saved = save(ctx, place, len, watches.saved);
    }
    // SAFETY: the helper takes nothing and only reads the clock.
    scratch.record.time_ns = unsafe { bpf_ktime_get_ns() };
    let left = (scratch.record.left_saved as usize).min(MAX_SAVED);
    let len = size_of::<Record>().wrapping_add(came).wrapping_add(left);
    // SAFETY: record and saved bytes lie in one value, without a gap, and are at least as long.
    let bytes = unsafe { slice::from_raw_parts((&raw const scratch.record).cast::<u8>(), len) };
    RECORDS.output_untyped::<[u8]>(bytes, NO_WAKEUP).is_ok()
}

/// Copies the frame's first bytes. Returns how many.
#[inline(always)]
fn save(ctx: &XdpContext, place: *mut u8, frame_len: u32, wanted: u32) -> u32 {
    let len = frame_len.min(wanted).min(MAX_SAVED as u32);
    if len == 0 {
        return 0;
    }
    // SAFETY: there are `MAX_SAVED` bytes of a map's value at the place, and the context is the kernel's.
    let copied = unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, place.cast(), len) };
    if copied == 0 { len } else { 0 }
}

#[inline(always)]
fn frame_len(ctx: &XdpContext) -> u32 {
    // SAFETY: the context is the one that the kernel called the program with.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) as u32 }
}

/// Whether a watcher's rate has room for one more. All CPUs share it: what is over only reads.
#[inline(always)]
fn admits(index: u32, watch: &Watch) -> bool {
    // SAFETY: the helper takes nothing and only reads the clock.
    let now = ticks(unsafe { bpf_ktime_get_coarse_ns() });
    let Some(tat) = WATCH_TATS.get_ptr_mut(index) else {
        return false;
    };
    let limit = Limit { depth: watch.depth };
    // SAFETY: the pointer is to an aligned word of a map's value; BPF has no atomic load, and this is one.
    let seen = unsafe { tat.read_volatile() };
    let Some(next) = limit.admit(seen, now, watch.interval) else {
        return false;
    };
    // SAFETY: as above; other CPUs change the word by atomics alone.
    let (_, is_first) = unsafe {
        atomic_cxchg::<_, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(tat, seen, next)
    };
    // Where another CPU was first, its packet is told instead.
    is_first
}

#[inline(always)]
fn count(index: u32, count: impl FnOnce(&mut Told)) {
    if let Some(told) = WATCH_COUNTERS.get_ptr_mut(index) {
        // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
        count(unsafe { &mut *told });
    }
}
