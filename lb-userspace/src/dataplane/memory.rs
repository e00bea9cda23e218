//! A data plane in host memory, on which the packet pipeline runs as it does in the kernel.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use anyhow::bail;
use lb_common::{
    backend::Backend,
    fragment::FragmentKey,
    pipeline::Outcome,
    slot::SlotTable,
    tables::{Answer, Counters, Interface, Limited, MAX_REASONS, Node, Tables},
    vip::{VipEntry, VipTable},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{DataPlane, ReasonCount};

/// The maps, in memory.
#[derive(Default)]
pub struct Memory {
    node: Option<Node>,
    vips: Option<Box<VipTable>>,
    tables: BTreeMap<u32, Box<SlotTable>>,
    backends: BTreeMap<u16, Backend>,
    ports: BTreeSet<u32>,
    interfaces: BTreeMap<u32, Interface>,
    counts: RefCell<Counts>,
}

#[derive(Default)]
struct Counts {
    vips: BTreeMap<u32, Counters>,
    backends: BTreeMap<u16, Counters>,
    outcomes: BTreeMap<u32, u64>,
    fragments: HashMap<FragmentKey, u16>,
    answer: Option<Answer>,
}

impl DataPlane for Memory {
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()> {
        self.node = Some(*node);
        Ok(())
    }

    fn set_backend(&mut self, id: u16, backend: &Backend) -> anyhow::Result<()> {
        if *backend == Backend::default() {
            self.backends.remove(&id);
        } else {
            self.backends.insert(id, *backend);
        }
        Ok(())
    }

    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()> {
        self.tables.insert(vip, copy(table)?);
        Ok(())
    }

    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()> {
        self.tables.remove(&vip);
        Ok(())
    }

    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()> {
        self.vips = Some(copy(vips)?);
        Ok(())
    }

    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()> {
        self.ports.insert(ifindex);
        Ok(())
    }

    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()> {
        self.interfaces.insert(ifindex, *interface);
        Ok(())
    }

    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>> {
        Ok(self.backends.iter().map(|(id, b)| (*id, *b)).collect())
    }

    fn vips(&self) -> anyhow::Result<Vec<VipEntry>> {
        let vips = self.vips.iter().flat_map(|vips| vips.entries());
        Ok(vips.copied().collect())
    }

    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters> {
        let counts = self.counts.borrow();
        Ok(counts.vips.get(&vip).copied().unwrap_or_default())
    }

    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters> {
        let counts = self.counts.borrow();
        Ok(counts.backends.get(&id).copied().unwrap_or_default())
    }

    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>> {
        let counts = self.counts.borrow();
        ReasonCount::all(|index| Ok(counts.outcomes.get(&index).copied().unwrap_or_default()))
    }
}

impl Tables for Memory {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn vips(&self) -> Option<&VipTable> {
        self.vips.as_deref()
    }

    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        self.tables.get(&vip).map(Box::as_ref)
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn has_port(&self, ifindex: u32) -> bool {
        self.ports.contains(&ifindex)
    }

    fn set_answer(&self, answer: &Answer) {
        self.counts.borrow_mut().answer = Some(*answer);
    }

    fn answer(&self) -> Option<Answer> {
        self.counts.borrow().answer
    }

    fn count_vip(&self, vip: u32, bytes: u64, is_syn: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.vips.entry(vip).or_default().add(bytes, is_syn);
    }

    fn count_backend(&self, id: u16, bytes: u64, is_syn: bool) {
        let mut counts = self.counts.borrow_mut();
        counts.backends.entry(id).or_default().add(bytes, is_syn);
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.get(&ifindex)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u16> {
        self.counts.borrow().fragments.get(key).copied()
    }

    fn pin_fragment(&self, key: &FragmentKey, backend: u16) {
        self.counts.borrow_mut().fragments.insert(*key, backend);
    }

    fn admits(&self, _what: Limited) -> bool {
        // There is no clock here; the limit itself is tested in lb-common and in the kernel.
        true
    }

    fn count_outcome(&self, outcome: &Outcome) {
        let other = if outcome.is_redirect {
            MAX_REASONS as u32
        } else {
            0
        };
        *self
            .counts
            .borrow_mut()
            .outcomes
            .entry(outcome.reason as u32 + other)
            .or_default() += 1;
    }
}

/// A copy on the heap of what is too large for the stack.
fn copy<T>(value: &T) -> anyhow::Result<Box<T>>
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout,
{
    let Ok(mut copy) = T::new_box_zeroed() else {
        bail!("no memory for {} bytes of a map", size_of::<T>());
    };
    copy.as_mut_bytes().copy_from_slice(value.as_bytes());
    Ok(copy)
}
