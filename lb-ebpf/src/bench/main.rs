//! What measurements load beside weir: a driver that restores the packet before every run, and the
//! floors, programs that do only what cannot be avoided.
//!
//! `BPF_PROG_TEST_RUN` does not reset a packet between repeats, so a program that rewrites headers would see
//! its own output from the second repeat on. The driver runs in every repeat instead: it undoes what the last
//! run did to the packet's length, writes the first bytes back, chooses the next flow, and tail-calls the
//! program under test. Its own cost is measured with the `floor_empty` program and subtracted.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

#[path = "../section.rs"]
mod section;

use core::hint::black_box;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, HashMap, LruHashMap, ProgramArray},
    helpers::generated::bpf_xdp_adjust_head,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    bench::{LOOKUPS, Plan, RESTORED},
    flow::Flow,
    pin::Pin,
};

/// The program under test, at index 0.
#[btf_map]
static PROGRAM: ProgramArray<1> = ProgramArray::new();

/// What the driver restores.
#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();

/// Number of the next flow. One driver runs at a time, so that a run which changes its CPU goes on where it was.
#[btf_map]
static NEXT: Array<u32, 1> = Array::new();

/// What `floor_hash` looks in: a kernel hash with keys of 20 bytes.
#[btf_map]
static HASH: HashMap<[u32; 5], u32, 4096> = HashMap::new();

/// What `floor_lru` writes to: keys and values of the size of a pin's. User space sets how many fit.
#[btf_map]
static LRU: LruHashMap<Flow, Pin, 65536> = LruHashMap::new();

/// Restores the packet and runs the program under test.
#[xdp(frags)]
pub fn driver(ctx: XdpContext) -> u32 {
    let _ = drive(&ctx);
    // Reached only where there is no program to call, or the packet could not be restored.
    xdp_action::XDP_ABORTED
}

#[inline(always)]
fn drive(ctx: &XdpContext) -> Option<()> {
    let plan = PLAN.get(0)?;
    // The black box keeps the compiler from subtracting the pointers as 32-bit numbers, which the verifier refuses.
    let len = black_box(ctx.data_end().wrapping_sub(ctx.data()));
    if len != plan.len as usize {
        let grown = (len as u32).wrapping_sub(plan.len).cast_signed();
        // SAFETY: the context is the one that the kernel called the program with.
        let failed = unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) };
        if failed != 0 {
            return None;
        }
    }
    let start = ctx.data();
    if start.wrapping_add(size_of::<[u64; RESTORED]>()) > ctx.data_end() {
        return None;
    }
    // SAFETY: the check above proves the bytes to be in bounds; words of a packet may be written unaligned.
    unsafe { (start as *mut [u64; RESTORED]).write_unaligned(plan.head) };
    if plan.flows != 0 {
        choose_flow(ctx, plan)?;
    }
    // SAFETY: the map holds programs of this type only, as the kernel checks.
    unsafe { PROGRAM.tail_call(ctx, 0) };
    None
}

/// Writes the next flow's source address (low 16 bits) and port, and the next destination.
#[inline(always)]
fn choose_flow(ctx: &XdpContext, plan: &Plan) -> Option<()> {
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: nothing else writes the value while the driver runs.
    let number = unsafe { *next };
    let following = number.wrapping_add(1);
    // SAFETY: as above.
    unsafe { *next = if following < plan.flows { following } else { 0 } };
    // An odd multiplier makes this a permutation of the 32-bit numbers: each flow is another one, in scattered order.
    let flow = number.wrapping_mul(0x9e37_79b1);
    write(ctx, plan, plan.address_offset, (flow >> 16) as u16)?;
    write(ctx, plan, plan.port_offset, flow as u16)?;
    if plan.destinations != 0 {
        // The high bits are the scattered ones.
        let scattered = (u64::from(flow).wrapping_mul(u64::from(plan.destinations))) >> 32;
        write(
            ctx,
            plan,
            plan.destination_offset,
            (scattered as u16).to_be(),
        )?;
    }
    Some(())
}

/// Writes a word of the packet. Where the plan says where the checksums are, they follow (RFC 1624).
#[inline(always)]
fn write(ctx: &XdpContext, plan: &Plan, offset: u32, word: u16) -> Option<()> {
    let old = word_at(ctx, offset)?;
    // SAFETY: `word_at` has proven the two bytes to be in bounds of the packet; words of it may be unaligned.
    let before = unsafe { old.read_unaligned() };
    // SAFETY: as above.
    unsafe { old.write_unaligned(word) };
    if plan.checksum_offset == 0 {
        return Some(());
    }
    correct(ctx, plan.checksum_offset, before, word)?;
    // The ports are no part of the IP header, whose checksum lies before them.
    if plan.ip_checksum_offset != 0 && offset < plan.port_offset {
        correct(ctx, plan.ip_checksum_offset, before, word)?;
    }
    Some(())
}

/// Takes a word out of a checksum and puts another one in.
#[inline(always)]
fn correct(ctx: &XdpContext, offset: u32, before: u16, after: u16) -> Option<()> {
    let checksum = word_at(ctx, offset)?;
    // SAFETY: as in `write`.
    let held = unsafe { checksum.read_unaligned() };
    let sum = u32::from(!held)
        .wrapping_add(u32::from(!before))
        .wrapping_add(u32::from(after));
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    // SAFETY: as in `write`.
    unsafe { checksum.write_unaligned(!(sum as u16)) };
    Some(())
}

/// The word at an offset of the packet, if it is in bounds.
#[inline(always)]
fn word_at(ctx: &XdpContext, offset: u32) -> Option<*mut u16> {
    let at = ctx.data().wrapping_add((offset & 0xff) as usize);
    if at.wrapping_add(2) > ctx.data_end() {
        return None;
    }
    Some(at as *mut u16)
}

/// Makes the next packet of a load and sends it out of the interface that it is said to have come by: run on live frames,
/// whose bytes the kernel leaves as the last packet had them.
#[xdp(frags)]
pub fn generate(ctx: XdpContext) -> u32 {
    PLAN.get(0)
        .and_then(|plan| choose_flow(&ctx, plan))
        .map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// The first floor: nothing at all.
#[xdp(frags)]
pub fn floor_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The second floor: parse Ethernet, IP and TCP, and swap the MAC addresses.
#[xdp(frags)]
pub fn floor_swap(ctx: XdpContext) -> u32 {
    swap(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn swap(ctx: &XdpContext) -> Option<u32> {
    let start = ctx.data();
    // Ethernet (14), IPv6 (40, or IPv4 with room for options) and TCP's ports (4).
    if start.wrapping_add(58) > ctx.data_end() {
        return None;
    }
    let frame = start as *mut u8;
    // SAFETY: the check above proves 58 bytes to be in bounds, for this and all reads below.
    let ether_type = unsafe { u16::from_be(frame.add(12).cast::<u16>().read_unaligned()) };
    let protocol = match ether_type {
        // SAFETY: as above.
        0x0800 => unsafe { frame.add(23).read() },
        // SAFETY: as above.
        0x86dd => unsafe { frame.add(20).read() },
        _ => return None,
    };
    if protocol != 6 && protocol != 17 {
        return None;
    }
    // SAFETY: as above.
    unsafe {
        let destination = frame.cast::<[u16; 3]>().read_unaligned();
        let source = frame.add(6).cast::<[u16; 3]>().read_unaligned();
        frame.cast::<[u16; 3]>().write_unaligned(source);
        frame.add(6).cast::<[u16; 3]>().write_unaligned(destination);
    }
    Some(xdp_action::XDP_TX)
}

/// The third floor: parse, and push an outer IPv4 header of constants.
#[xdp(frags)]
pub fn floor_encap(ctx: XdpContext) -> u32 {
    encap(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn encap(ctx: &XdpContext) -> Option<u32> {
    swap(ctx)?;
    // SAFETY: the context is the one that the kernel called the program with.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } != 0 {
        return None;
    }
    let start = ctx.data();
    if start.wrapping_add(34) > ctx.data_end() {
        return None;
    }
    let frame = start as *mut u8;
    // SAFETY: the check above proves 34 bytes to be in bounds; words of a packet may be written unaligned.
    unsafe {
        frame.cast::<[u64; 4]>().write_unaligned([
            0x0004_0000_0000_0002,
            0x0045_0008_0200_0000,
            0x0440_0000_0000_3c00,
            0x0a00_0001_0a00_0000,
        ]);
        frame.add(32).cast::<u16>().write_unaligned(0x0200);
    }
    Some(xdp_action::XDP_TX)
}

/// One lookup in a kernel hash, by 20 bytes of the packet.
#[xdp(frags)]
pub fn floor_hash(ctx: XdpContext) -> u32 {
    look_up(&ctx, 1).unwrap_or(xdp_action::XDP_DROP)
}

/// Several, one after the other, each by what the one before has found: as whatever follows a lookup waits for what it found.
#[xdp(frags)]
pub fn floor_hashes(ctx: XdpContext) -> u32 {
    look_up(&ctx, LOOKUPS).unwrap_or(xdp_action::XDP_DROP)
}

#[inline(always)]
fn look_up(ctx: &XdpContext, times: usize) -> Option<u32> {
    let start = ctx.data();
    if start.wrapping_add(46) > ctx.data_end() {
        return None;
    }
    // SAFETY: the check above proves 46 bytes to be in bounds; the words may be unaligned.
    let mut key = unsafe { ((start.wrapping_add(26)) as *const [u32; 5]).read_unaligned() };
    for _ in 0..times {
        // SAFETY: nothing changes the map while packets are measured.
        let found = unsafe { HASH.get(key) }?;
        // The value is zero, which nobody knows but user space.
        let [first, ..] = &mut key;
        *first ^= *found;
    }
    Some(xdp_action::XDP_TX)
}

/// One update of an LRU hash, by 40 bytes of the packet.
#[xdp(frags)]
pub fn floor_lru(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start.wrapping_add(54) > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the check above proves 54 bytes to be in bounds; a flow is plain bytes.
    let key = unsafe { ((start.wrapping_add(14)) as *const Flow).read_unaligned() };
    match LRU.insert(key, Pin::default(), 0) {
        Ok(()) => xdp_action::XDP_TX,
        Err(_) => xdp_action::XDP_DROP,
    }
}
