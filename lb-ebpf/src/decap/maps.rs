//! The maps, and the program's view of them. User space finds them by these names and checks key and value sizes.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    decap::{Counter, DecapTables, MAX_LOCAL, MAX_REASONS, MAX_VIPS, Reason, Settings},
    flow::Address,
};

/// The settings. Written before the program is attached, and never again.
#[btf_map]
pub(crate) static DECAP_SETTINGS: Array<Settings, 1> = Array::new();

/// Addresses of this host that tunnels end at.
#[btf_map]
pub(crate) static DECAP_LOCAL: HashMap<Address, u32, { MAX_LOCAL }> = HashMap::new();

/// Addresses that inner packets may be for.
#[btf_map]
pub(crate) static DECAP_VIPS: HashMap<Address, u32, { MAX_VIPS }> = HashMap::new();

/// Frames and bytes, by the reason's number.
#[btf_map]
pub(crate) static DECAP_COUNTERS: PerCpuArray<Counter, { MAX_REASONS }> = PerCpuArray::new();

/// The maps of the running program.
pub(crate) struct KernelTables;

impl DecapTables for KernelTables {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        DECAP_SETTINGS.get(0)
    }

    #[inline(always)]
    fn is_local(&self, address: Address) -> bool {
        DECAP_LOCAL.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_vip(&self, address: Address) -> bool {
        DECAP_VIPS.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn count(&self, reason: Reason, bytes: u64) {
        if let Some(counter) = DECAP_COUNTERS.get_ptr_mut(reason as u32) {
            // SAFETY: the value is this CPU's own, and nothing else on it runs meanwhile.
            unsafe { (*counter).add(bytes) };
        }
    }
}
