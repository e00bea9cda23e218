//! The maps, and the pipeline's view of them.
//!
//! All lookups are of arrays, which the kernel turns into a few inline instructions. User space finds the
//! maps by these names and checks their key and value sizes.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, DevMapHash, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    backend::Backend,
    reason::Reason,
    slot::SlotTable,
    tables::{Counters, MAX_PORTS, MAX_REASONS, Node, Tables},
    vip::{MAX_VIPS, VipTable},
};

/// Settings of the node.
#[btf_map]
pub(crate) static NODE: Array<Node, 1> = Array::new();

/// The table of all VIPs, in one inner map that is swapped whole.
#[btf_map]
pub(crate) static VIPS: ArrayOfMaps<Array<VipTable, 1>, 1> = ArrayOfMaps::new();

/// The lookup table of each VIP, by the VIP's id; each an inner map that is swapped whole.
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<SlotTable, 1>, { MAX_VIPS }> = ArrayOfMaps::new();

/// The backends, by id.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, 65536> = Array::new();

/// What was forwarded, by the VIP's id.
#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<Counters, { MAX_VIPS }> = PerCpuArray::new();

/// What was forwarded, by the backend's id.
#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counters, 65536> = PerCpuArray::new();

/// Frames, by the reason's number.
#[btf_map]
pub(crate) static REASON_COUNTERS: PerCpuArray<u64, { MAX_REASONS }> = PerCpuArray::new();

/// The interfaces that frames may leave by, by ifindex.
#[btf_map]
pub(crate) static PORTS: DevMapHash<{ MAX_PORTS }> = DevMapHash::new();

/// The maps of the running program.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn node(&self) -> Option<&Node> {
        NODE.get(0)
    }

    #[inline(always)]
    fn vips(&self) -> Option<&VipTable> {
        VIPS.get_value(0, &0)
    }

    #[inline(always)]
    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        TABLES.get_value(vip, &0)
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&Backend> {
        BACKENDS.get(u32::from(id))
    }

    #[inline(always)]
    fn has_port(&self, ifindex: u32) -> bool {
        PORTS.get_ifindex(ifindex).is_some()
    }

    #[inline(always)]
    fn count_vip(&self, vip: u32, bytes: u64, is_syn: bool) {
        if let Some(counters) = VIP_COUNTERS.get_ptr_mut(vip) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { (*counters).add(bytes, is_syn) };
        }
    }

    #[inline(always)]
    fn count_backend(&self, id: u16, bytes: u64, is_syn: bool) {
        if let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(id)) {
            // SAFETY: as in `count_vip`.
            unsafe { (*counters).add(bytes, is_syn) };
        }
    }

    #[inline(always)]
    fn count_reason(&self, reason: Reason) {
        if let Some(count) = REASON_COUNTERS.get_ptr_mut(reason as u32) {
            // SAFETY: as in `count_vip`.
            unsafe { *count = (*count).wrapping_add(1) };
        }
    }
}
