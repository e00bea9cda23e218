//! A data plane in host memory, on which the packet pipeline runs as it does in the kernel.

mod limits;
mod pipeline;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::bail;
use lb_common::{
    access::{List, PrefixKey, verdict},
    backend::Backend,
    flow::Flow,
    fragment::FragmentKey,
    limit::{Limits, OwnRate, OwnRates, Source, SourceKey},
    noted::Noted,
    pin::{Idle, Kind, Pin, Pins},
    slot::SlotTable,
    tables::{Answer, Counters, Drops, Interface, Node, PinCounters},
    vip::{VipEntry, VipTable},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    DataPlane, Judged, ListPlane, Observing, ProgramRuns, ReasonCount, Remembered, Scan, Sizes,
    peer_key, peer_of,
};
use crate::{
    config::XdpMode,
    model::{
        attached::{AttachMode, Refused, Xdp},
        leaving::Leaving,
        slots::Since,
    },
};

/// The maps, in memory.
#[derive(Default)]
pub struct Memory {
    node: Option<Node>,
    vips: Option<Box<VipTable>>,
    tables: BTreeMap<u32, Box<SlotTable>>,
    backends: BTreeMap<u16, Backend>,
    ports: BTreeSet<u32>,
    interfaces: BTreeMap<u32, Interface>,
    peers: BTreeSet<[u8; 8]>,
    attached: BTreeSet<String>,
    refused: Option<Refused>,
    since: BTreeMap<u32, Box<Since>>,
    leaving: Option<Box<Leaving>>,
    idle: BTreeMap<u32, Idle>,
    blocks: HashMap<PrefixKey, u32>,
    block_scopes: BTreeMap<u32, u32>,
    lists: MemoryLists,
    counts: RefCell<Counts>,
    limits: limits::Maps,
    now_ns: u64,
}

impl Memory {
    /// The interfaces that the program is on, by name.
    #[must_use]
    pub const fn attached(&self) -> &BTreeSet<String> {
        &self.attached
    }

    /// Refuses the program on every interface from now on, or takes it again.
    pub fn refuse(&mut self, why: Option<Refused>) {
        self.refused = why;
    }

    /// Lets time pass: the clock stands still otherwise.
    pub const fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }
}

/// The maps of the access lists, which another thread writes.
#[derive(Clone, Default)]
struct MemoryLists(Arc<Mutex<Listed>>);

#[derive(Default)]
struct Listed {
    prefixes: HashMap<PrefixKey, u32>,
    scopes: BTreeMap<u32, u32>,
}

impl MemoryLists {
    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ListPlane for MemoryLists {
    fn set_prefix(&mut self, key: &PrefixKey, verdict: u32) -> anyhow::Result<()> {
        self.lock().prefixes.insert(*key, verdict);
        Ok(())
    }

    fn clear_prefix(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.lock().prefixes.remove(key);
        Ok(())
    }

    fn set_list_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        let mut listed = self.lock();
        if scopes == 0 {
            listed.scopes.remove(&vip);
        } else {
            listed.scopes.insert(vip, scopes);
        }
        Ok(())
    }

    fn prefixes(&self) -> anyhow::Result<Vec<(PrefixKey, u32)>> {
        let listed = self.lock();
        let prefixes = listed.prefixes.iter();
        Ok(prefixes.map(|(key, verdict)| (*key, *verdict)).collect())
    }

    fn list_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        let listed = self.lock();
        Ok(listed
            .scopes
            .iter()
            .map(|(vip, scopes)| (*vip, *scopes))
            .collect())
    }
}

/// What the longest prefix says that a key lies in; 0 where there is none.
fn longest(prefixes: &HashMap<PrefixKey, u32>, key: &PrefixKey) -> u32 {
    let mut shorter = (0..=key.length()).rev().map(|length| key.shortened(length));
    let verdict = shorter.find_map(|key| prefixes.get(&key));
    verdict.copied().unwrap_or_default()
}

#[derive(Default)]
struct Counts {
    vips: BTreeMap<u32, Counters>,
    drops: BTreeMap<u32, Drops>,
    backends: BTreeMap<u16, Counters>,
    outcomes: BTreeMap<u32, u64>,
    fragments: HashMap<FragmentKey, u16>,
    pins: BTreeMap<Kind, HashMap<Flow, Pin>>,
    pin_counters: BTreeMap<Kind, PinCounters>,
    /// The hashes of flows that are marked, where marks are kept.
    marks: Option<BTreeSet<u32>>,
    access: BTreeMap<u32, u64>,
    answer: Option<Answer>,
    noted: Option<Noted>,
}

/// Packets in memory are looked at as they are.
impl Observing for Memory {}

impl DataPlane for Memory {
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()> {
        if self
            .node
            .is_none_or(|before| before.hash_keys.keys != node.hash_keys.keys)
        {
            self.counts.get_mut().marks = None;
        }
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

    fn table(&self, vip: u32) -> anyhow::Result<Option<Box<SlotTable>>> {
        self.tables
            .get(&vip)
            .map(|table| copy(&**table))
            .transpose()
    }

    fn set_since(&mut self, vip: u32, since: Option<&Since>) -> anyhow::Result<()> {
        match since {
            Some(since) => drop(self.since.insert(vip, copy(since)?)),
            None => drop(self.since.remove(&vip)),
        }
        Ok(())
    }

    fn since(&self, vip: u32) -> anyhow::Result<Option<Box<Since>>> {
        self.since.get(&vip).map(|since| copy(&**since)).transpose()
    }

    fn set_leaving(&mut self, leaving: Option<&Leaving>) -> anyhow::Result<()> {
        self.leaving = leaving.map(copy).transpose()?;
        Ok(())
    }

    fn leaving(&self) -> anyhow::Result<Option<Box<Leaving>>> {
        self.leaving.as_deref().map(copy).transpose()
    }

    fn set_idle(&mut self, vip: u32, idle: &Idle) -> anyhow::Result<()> {
        self.idle.insert(vip, *idle);
        Ok(())
    }

    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()> {
        self.tables.remove(&vip);
        self.since.remove(&vip);
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

    fn clear_interface(&mut self, ifindex: u32) -> anyhow::Result<()> {
        self.interfaces.remove(&ifindex);
        Ok(())
    }

    fn interfaces(&self) -> anyhow::Result<Vec<u32>> {
        Ok(self.interfaces.keys().copied().collect())
    }

    fn set_peer(&mut self, mac: [u8; 6], is_one: bool) -> anyhow::Result<()> {
        let key = peer_key(mac);
        if is_one {
            self.peers.insert(key);
        } else {
            self.peers.remove(&key);
        }
        Ok(())
    }

    fn peers(&self) -> anyhow::Result<Vec<[u8; 6]>> {
        Ok(self.peers.iter().copied().map(peer_of).collect())
    }

    fn attach(
        &mut self,
        interface: &str,
        _mode: XdpMode,
        _there: Option<Xdp>,
    ) -> Result<AttachMode, Refused> {
        if let Some(why) = &self.refused {
            return Err(why.clone());
        }
        self.attached.insert(interface.to_owned());
        Ok(AttachMode::Generic)
    }

    fn take_off(&mut self, interface: &str) -> anyhow::Result<()> {
        self.attached.remove(interface);
        Ok(())
    }

    fn program_id(&self) -> anyhow::Result<u32> {
        Ok(0)
    }

    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>> {
        Ok(self.backends.iter().map(|(id, b)| (*id, *b)).collect())
    }

    fn vips(&self) -> anyhow::Result<Vec<VipEntry>> {
        let vips = self.vips.iter().flat_map(|vips| vips.entries());
        Ok(vips.collect())
    }

    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters> {
        let counts = self.counts.borrow();
        Ok(counts.vips.get(&vip).copied().unwrap_or_default())
    }

    fn vip_drops(&self, vip: u32) -> anyhow::Result<Drops> {
        let counts = self.counts.borrow();
        Ok(counts.drops.get(&vip).copied().unwrap_or_default())
    }

    fn clear_vip_counters(&mut self, vip: u32) -> anyhow::Result<()> {
        let counts = self.counts.get_mut();
        counts.vips.remove(&vip);
        counts.drops.remove(&vip);
        for list in List::ALL {
            counts.access.remove(&list.counter(vip));
        }
        Ok(())
    }

    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters> {
        let counts = self.counts.borrow();
        Ok(counts.backends.get(&id).copied().unwrap_or_default())
    }

    fn clear_backend_counters(&mut self, id: u16) -> anyhow::Result<()> {
        self.counts.get_mut().backends.remove(&id);
        Ok(())
    }

    fn inherit_counters(&mut self, from: u16, to: u16) -> anyhow::Result<()> {
        let counts = self.counts.get_mut();
        // What is taken cannot be taken again.
        let more = counts.backends.remove(&from).unwrap_or_default();
        let held = counts.backends.entry(to).or_default();
        held.packets += more.packets;
        held.bytes += more.bytes;
        held.new_connections += more.new_connections;
        Ok(())
    }

    fn program_runs(&self) -> anyhow::Result<Vec<ProgramRuns>> {
        Ok(Vec::new())
    }

    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>> {
        let counts = self.counts.borrow();
        ReasonCount::all(|index| Ok(counts.outcomes.get(&index).copied().unwrap_or_default()))
    }

    fn scan(&self) -> anyhow::Result<Scan> {
        let counts = self.counts.borrow();
        let pins = counts.pins.iter().flat_map(|(kind, pins)| {
            pins.iter()
                .map(|(flow, pin)| Remembered::Pin(*kind, *flow, *pin))
        });
        let fragments = counts
            .fragments
            .iter()
            .map(|(key, backend)| Remembered::Fragment(*key, *backend));
        let entries: Vec<_> = pins.chain(fragments).collect();
        Ok(Scan::new(move |visit| {
            for entry in entries {
                if visit(entry).is_break() {
                    break;
                }
            }
            Ok(())
        }))
    }

    fn pin(&self, kind: Kind, flow: &Flow) -> anyhow::Result<Option<Pin>> {
        Ok(self.find(kind, flow))
    }

    fn remove_pin(&mut self, kind: Kind, flow: &Flow) -> anyhow::Result<()> {
        Pins::remove(self, kind, flow);
        Ok(())
    }

    fn remove_fragment(&mut self, key: &FragmentKey) -> anyhow::Result<()> {
        self.counts.borrow_mut().fragments.remove(key);
        Ok(())
    }

    fn keep_marks(&mut self) -> anyhow::Result<bool> {
        let counts = self.counts.get_mut();
        let pinned = |kind| counts.pins.get(&kind).is_some_and(|pins| !pins.is_empty());
        let is_free = !pinned(Kind::Proven) && !pinned(Kind::Old);
        if is_free {
            counts.marks = Some(BTreeSet::new());
        }
        Ok(is_free)
    }

    fn are_marks_kept(&self) -> bool {
        self.counts.borrow().marks.is_some()
    }

    fn pin_counters(&self, kind: Kind) -> anyhow::Result<PinCounters> {
        let counts = self.counts.borrow();
        Ok(counts.pin_counters.get(&kind).copied().unwrap_or_default())
    }

    fn set_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.blocks.insert(*key, verdict::DENIED);
        Ok(())
    }

    fn clear_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        self.blocks.remove(key);
        Ok(())
    }

    fn block_keys(&self) -> anyhow::Result<Vec<PrefixKey>> {
        Ok(self.blocks.keys().copied().collect())
    }

    fn block_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        let scopes = self.block_scopes.iter();
        let set = scopes.filter(|(_, scopes)| **scopes != 0);
        Ok(set.map(|(vip, scopes)| (*vip, *scopes)).collect())
    }

    fn set_block_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        self.block_scopes.insert(vip, scopes);
        Ok(())
    }

    fn list_plane(&self) -> anyhow::Result<Box<dyn ListPlane>> {
        Ok(Box::new(self.lists.clone()))
    }

    fn access_counter(&self, vip: u32, list: List) -> anyhow::Result<u64> {
        let counts = self.counts.borrow();
        let count = counts.access.get(&list.counter(vip));
        Ok(count.copied().unwrap_or_default())
    }

    fn cpus(&self) -> usize {
        1
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            max_pins: u32::MAX,
            max_sources: u32::MAX,
        }
    }

    fn set_limits(&mut self, vip: u32, limits: &Limits) -> anyhow::Result<()> {
        self.limits.set(vip, limits);
        Ok(())
    }

    fn clear_limits(&mut self, vip: u32) -> anyhow::Result<()> {
        self.limits.clear(vip);
        Ok(())
    }

    fn source(&self, key: &SourceKey) -> anyhow::Result<Option<Source>> {
        let sources = self.limits.sources();
        let found = sources.into_iter().find(|(known, _)| known == key);
        Ok(found.map(|(_, source)| source))
    }

    fn set_own_rates(
        &mut self,
        key: &SourceKey,
        packets: OwnRate,
        connections: OwnRate,
    ) -> anyhow::Result<()> {
        let rates = OwnRates {
            packets,
            connections,
        };
        self.limits.set_own_rates(key, rates);
        Ok(())
    }

    fn own_rate_keys(&self) -> anyhow::Result<Vec<SourceKey>> {
        Ok(self.limits.own_rate_keys())
    }

    fn judged(&self, vip: u32) -> anyhow::Result<Judged> {
        Ok(self.limits.judged(vip))
    }

    fn scan_sources(&self) -> anyhow::Result<Scan<(SourceKey, Source)>> {
        let sources = self.limits.sources();
        Ok(Scan::new(move |visit| {
            for source in sources {
                if visit(source).is_break() {
                    break;
                }
            }
            Ok(())
        }))
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
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
