//! The maps, which are those of `weir_xdp`: user space finds them by these names and lends the pinned ones.

use aya_ebpf::{
    btf_maps::{Array, DevMapHash},
    macros::btf_map,
};
use lb_common::{
    backend::Backend,
    check::CheckTables,
    tables::{MAX_PORTS, Node},
};

/// Settings of the node.
#[btf_map]
pub(crate) static NODE: Array<Node, 1> = Array::new();

/// The backends, by id.
#[btf_map]
pub(crate) static BACKENDS: Array<Backend, 65536> = Array::new();

/// The interfaces that frames may leave by, by ifindex.
#[btf_map]
pub(crate) static PORTS: DevMapHash<{ MAX_PORTS }> = DevMapHash::new();

/// The maps of the running program.
pub(crate) struct KernelTables;

impl CheckTables for KernelTables {
    #[inline(always)]
    fn node(&self) -> Option<&Node> {
        NODE.get(0)
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<&Backend> {
        BACKENDS.get(u32::from(id))
    }

    #[inline(always)]
    fn has_port(&self, ifindex: u32) -> bool {
        PORTS.get_ifindex(ifindex).is_some()
    }
}
