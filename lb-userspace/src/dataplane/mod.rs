//! The maps and programs, behind one trait: in the kernel ([`bpf`]), or in memory for tests.

pub mod apply;
pub mod bpf;
pub mod memory;

use lb_common::{
    backend::Backend,
    slot::SlotTable,
    tables::{Counters, Node},
    vip::{VipEntry, VipTable},
};

/// The maps that packets read, as the reconciler writes them.
///
/// One task owns a data plane, so no map needs a lock. Order of writing: backends, then tables, then
/// VIPs; taking away runs the other way.
pub trait DataPlane {
    /// Writes the node's settings.
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()>;
    /// Writes a backend, or clears it with `Backend::default()`.
    fn set_backend(&mut self, id: u16, backend: &Backend) -> anyhow::Result<()>;
    /// Builds a VIP's lookup table aside and swaps it in whole. When this returns, no packet reads the old one.
    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()>;
    /// Takes a VIP's lookup table away.
    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()>;
    /// Swaps in the table of all VIPs, whole.
    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()>;
    /// Lets frames leave by an interface.
    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()>;
    /// The backends that the maps hold, by id, without empty entries.
    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>>;
    /// The VIPs that the maps hold.
    fn vips(&self) -> anyhow::Result<Vec<VipEntry>>;
    /// A VIP's counters, summed over the CPUs.
    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters>;
    /// A backend's counters, summed over the CPUs.
    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters>;
    /// Frames counted under each reason, by the reason's number, summed over the CPUs.
    fn reason_counters(&self) -> anyhow::Result<Vec<u64>>;
}
