//! What a test loads beside weir: a packet that takes long over reading a slot, so that a swap of the table that did not
//! wait for it would be seen.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

#[path = "../section.rs"]
mod section;

use core::ptr;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ArrayOfMaps},
    cty::{c_long, c_void},
    helpers::generated::bpf_loop,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    bench::Readings,
    slot::{Slot, SlotTable},
    vip::MAX_VIPS,
};

/// How often the reader goes round: some tens of milliseconds.
const OUTER: u32 = 8;
const INNER: u32 = 1 << 18;

/// weir's own.
#[btf_map]
static TABLES: ArrayOfMaps<Array<SlotTable, 1>, { MAX_VIPS }> = ArrayOfMaps::new();

/// What the reader tells.
#[btf_map]
static READINGS: Array<Readings, 1> = Array::new();

/// Finds a slot of the first VIP as any packet does, dwells on it, and then reads it.
#[xdp(frags)]
pub fn reader(_ctx: XdpContext) -> u32 {
    read().map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_PASS)
}

#[inline(always)]
fn read() -> Option<()> {
    let readings = READINGS.get_ptr_mut(0)?;
    let slot: *const Slot = TABLES.get_value(0, &0)?.slots.first()?;
    // SAFETY: user space runs one reader at a time, and only reads.
    unsafe { add_one(&raw mut (*readings).began) };
    let around = around as *const () as *mut c_void;
    // SAFETY: the callback is of the form that the helper calls, and takes no context.
    unsafe { bpf_loop(OUTER, around, ptr::null_mut(), 0) };
    // SAFETY: the slot lies in a value of a map, which the kernel keeps for as long as a packet may read it.
    let backend = unsafe { ptr::read_volatile(&raw const (*slot).current) };
    // SAFETY: as above.
    let seen = unsafe { (*readings).seen.get_mut(usize::from(backend & 1)) };
    if let Some(seen) = seen {
        // SAFETY: as above.
        unsafe { add_one(seen) };
    }
    // SAFETY: as above.
    unsafe { add_one(&raw mut (*readings).ended) };
    Some(())
}

/// Counts where user space looks on: nothing is put off.
#[inline(always)]
unsafe fn add_one(count: *mut u64) {
    // SAFETY: the caller's pointer is to a value of a map.
    unsafe { ptr::write_volatile(count, ptr::read_volatile(count).wrapping_add(1)) };
}

#[inline(never)]
extern "C" fn around(_: u32, _: *mut c_void) -> c_long {
    let nothing = nothing as *const () as *mut c_void;
    // SAFETY: the callback is of the form that the helper calls, and takes no context.
    unsafe { bpf_loop(INNER, nothing, ptr::null_mut(), 0) };
    0
}

#[inline(never)]
extern "C" fn nothing(_: u32, _: *mut c_void) -> c_long {
    0
}
