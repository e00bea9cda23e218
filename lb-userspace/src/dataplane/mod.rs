//! The maps and programs, behind one trait: in the kernel ([`bpf`]), or in memory for tests.

pub mod apply;
pub mod bpf;
pub mod memory;

use lb_common::{
    backend::Backend,
    reason::{REDIRECT, Reason, Verdict},
    slot::SlotTable,
    tables::{Counters, Interface, MAX_REASONS, Node},
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
    /// Writes an interface's facts, by its ifindex.
    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()>;
    /// The backends that the maps hold, by id, without empty entries.
    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>>;
    /// The VIPs that the maps hold.
    fn vips(&self) -> anyhow::Result<Vec<VipEntry>>;
    /// A VIP's counters, summed over the CPUs.
    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters>;
    /// A backend's counters, summed over the CPUs.
    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters>;
    /// Frames counted under each reason, summed over the CPUs.
    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>>;
}

/// Frames counted under one reason and verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReasonCount {
    /// Why frames went where they went.
    pub reason: Reason,
    /// Whether they left by another interface than the one they came by.
    pub is_redirect: bool,
    /// How many.
    pub packets: u64,
}

impl ReasonCount {
    /// Every reason, twice where frames may leave by another interface; `count` gives the frames at an index of
    /// the counters' map.
    fn all(mut count: impl FnMut(u32) -> anyhow::Result<u64>) -> anyhow::Result<Vec<Self>> {
        let mut counts = Vec::new();
        for reason in Reason::ALL.iter().copied() {
            let mut push = |is_redirect, index| -> anyhow::Result<()> {
                counts.push(Self {
                    reason,
                    is_redirect,
                    packets: count(index)?,
                });
                Ok(())
            };
            push(false, reason as u32)?;
            if reason.verdict() == Verdict::Forward {
                push(true, reason as u32 + MAX_REASONS as u32)?;
            }
        }
        Ok(counts)
    }

    /// What became of the frames: `pass`, `drop`, `tx` or `redirect`.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        if self.is_redirect {
            REDIRECT
        } else {
            self.reason.verdict().as_str()
        }
    }
}
