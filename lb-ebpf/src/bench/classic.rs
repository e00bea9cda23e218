//! What measurements load beside weir: the classic design, which remembers every flow.
//!
//! Parse, VIP, a look into one LRU table of all flows, and where the flow is not there: hash, slot, and an entry for
//! it. Everything but the flow table is weir's own code and kind of map, so that the difference is the table's.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

#[path = "../packet.rs"]
mod packet;
#[path = "../section.rs"]
mod section;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, ArrayOfMaps, LruHashMap, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    backend::Backend,
    flow::{Flow, HashKeys},
    packet::Packet as _,
    parse, rewrite,
    slot::SlotTable,
    tables::Counters,
    vip::{MAX_VIPS, VipTable},
};

use crate::packet::XdpPacket;

#[btf_map]
static KEYS: Array<HashKeys, 1> = Array::new();

#[btf_map]
static VIPS: ArrayOfMaps<Array<VipTable, 1>, 1> = ArrayOfMaps::new();

#[btf_map]
static TABLES: ArrayOfMaps<Array<SlotTable, 1>, { MAX_VIPS }> = ArrayOfMaps::new();

#[btf_map]
static BACKENDS: Array<Backend, 65536> = Array::new();

/// The backend of every flow. User space sets how many fit.
#[btf_map]
static FLOWS: LruHashMap<Flow, u32, 65536> = LruHashMap::new();

#[btf_map]
static VIP_COUNTERS: PerCpuArray<Counters, { MAX_VIPS }> = PerCpuArray::new();

#[btf_map]
static BACKEND_COUNTERS: PerCpuArray<Counters, 65536> = PerCpuArray::new();

/// Frames forwarded, as weir counts them by reason.
#[btf_map]
static FORWARDED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Sends a packet of a VIP's flow to its backend.
#[xdp(frags)]
pub fn classic(ctx: XdpContext) -> u32 {
    forward(&ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn forward(ctx: &XdpContext) -> Option<u32> {
    let mut packet = XdpPacket::new(ctx);
    let parsed = parse::plain(&packet)?;
    let flow = &parsed.flow;
    let vip = VIPS.get_value(0, &0)?.find(flow)?.id;
    // SAFETY: the value is copied at once.
    let known = unsafe { FLOWS.get(flow) }.copied();
    let id = if let Some(id) = known {
        id
    } else {
        let slots = TABLES.get_value(vip, &0)?;
        let id = u32::from(slots.get(KEYS.get(0)?.hash(flow))?.current);
        // Without an entry the next packet is looked up anew.
        let _forgotten = FLOWS.insert(flow, id, 0);
        id
    };
    let backend = BACKENDS.get(id)?;
    if !backend.is_resolved() {
        return None;
    }
    rewrite::addresses(&mut packet, backend)?;
    let bytes = packet.len() as u64;
    if let Some(counters) = VIP_COUNTERS.get_ptr_mut(vip) {
        // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
        unsafe { (*counters).add(bytes, parsed.is_syn) };
    }
    if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(id) {
        // SAFETY: as above.
        unsafe { (*counters).add(bytes, parsed.is_syn) };
    }
    if let Some(count) = FORWARDED.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { *count = (*count).wrapping_add(1) };
    }
    Some(xdp_action::XDP_TX)
}
