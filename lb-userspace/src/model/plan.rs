//! The steps from what the data plane holds to what it should hold.
//!
//! Backends are written before the tables that name them, tables before the VIPs that lead to them; taking
//! away runs the other way. So a packet that comes between two steps finds an old whole or a new one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use lb_common::{
    access::PrefixKey,
    backend::Backend,
    flow::Address,
    limit::Limits,
    pin::Idle,
    tables::{Interface, Node},
    vip::VipEntry,
};
use zerocopy::IntoBytes;

use super::{
    ids::Ids,
    slots::Slots,
    wanted::{Table, Vips, Wanted, WantedVip},
};

/// How many tables may change at a time by time alone: the rest follow, and commands need not wait for all of them.
pub const MOST_BY_TIME: usize = 16;

/// One write to the data plane.
#[derive(Clone)]
pub enum Step {
    /// The node's settings.
    Node(Node),
    /// An interface that frames may leave by.
    Port(u32),
    /// The facts of an interface that packets come by, by its ifindex.
    Interface(u32, Interface),
    /// The MAC address of another node of the fleet.
    Peer([u8; 6]),
    /// The counters of an id that is given to a backend now begin at zero.
    NewBackend(u16),
    /// A backend, by its id.
    Backend(u16, Backend),
    /// The counters of an id that is given to a VIP now begin at zero.
    NewVip(u32),
    /// How long the flows of a VIP may be silent, by the VIP's id.
    Idle(u32, Idle),
    /// A prefix that is blocked.
    Block(PrefixKey),
    /// What is to be looked up among the blocks for a VIP's packets, by the VIP's id.
    BlockScopes(u32, u32),
    /// A VIP's limits, by the VIP's id.
    Limits(u32, Arc<Limits>),
    /// A VIP's lookup table and its slots on the way there, by the VIP's id.
    Table(u32, Arc<Table>, Arc<Slots>),
    /// All VIPs.
    Vips(Arc<Vips>),
    /// A prefix that is blocked no longer.
    Unblock(PrefixKey),
    /// The facts of an interface go: packets come by it no more.
    ClearInterface(u32),
    /// A MAC address is no other node's any more.
    ClearPeer([u8; 6]),
    /// A VIP's limits go.
    ClearLimits(u32),
    /// A VIP's lookup table goes.
    ClearTable(u32),
    /// A backend goes; what was counted of it goes on under the second id, where it came back under one.
    ClearBackend(u16, Option<u16>),
}

/// What the data plane holds, as far as is known: a record of the steps that were done.
#[derive(Clone, Default)]
pub struct Held {
    node: Option<Node>,
    ports: BTreeSet<u32>,
    interfaces: BTreeMap<u32, Interface>,
    peers: BTreeSet<[u8; 6]>,
    backends: BTreeMap<u16, Backend>,
    idle: BTreeMap<u32, Idle>,
    blocks: BTreeSet<PrefixKey>,
    /// VIPs for which no blocks are looked up are not in it.
    block_scopes: BTreeMap<u32, u32>,
    limits: BTreeMap<u32, Arc<Limits>>,
    /// `None`: there may be a table, but of what is not known.
    tables: BTreeMap<u32, Option<Arc<Table>>>,
    slots: BTreeMap<u32, Arc<Slots>>,
    /// How many slots of a VIP were given to another owner.
    moves: BTreeMap<u32, u64>,
    vips: Option<Arc<Vips>>,
}

impl Held {
    /// What an earlier daemon left behind: backends and slots as read back from the maps, VIPs where they are known.
    ///
    /// Everything else is written again, with the ids that [`Ids::adopt`] keeps.
    #[must_use]
    pub fn adopt(
        vips: &[VipEntry],
        backends: &[(u16, Backend)],
        slots: impl IntoIterator<Item = (u32, Slots)>,
    ) -> Self {
        let by_backends = backends.iter().map(|(_, b)| u32::from(b.vip));
        let tables = vips.iter().map(|vip| vip.id).chain(by_backends);
        let slots = slots.into_iter().map(|(vip, slots)| (vip, Arc::new(slots)));
        Self {
            tables: tables.map(|id| (id, None)).collect(),
            backends: backends.iter().copied().collect(),
            slots: slots.collect(),
            ..Self::default()
        }
    }

    /// Notes interfaces whose facts the maps hold, whatever they are.
    pub fn adopt_interfaces(&mut self, ifindexes: impl IntoIterator<Item = u32>) {
        let unknown = |ifindex| (ifindex, Interface::default());
        self.interfaces.extend(ifindexes.into_iter().map(unknown));
    }

    /// Notes MAC addresses of other nodes that the maps hold.
    pub fn adopt_peers(&mut self, macs: impl IntoIterator<Item = [u8; 6]>) {
        self.peers.extend(macs);
    }

    /// Notes prefixes that the maps hold as blocked, and for which VIPs blocks are looked up.
    pub fn adopt_blocks(
        &mut self,
        keys: impl IntoIterator<Item = PrefixKey>,
        scopes: impl IntoIterator<Item = (u32, u32)>,
    ) {
        self.blocks.extend(keys);
        self.block_scopes.extend(scopes);
    }

    /// What is looked up among the blocks for a VIP.
    fn block_scopes(&self, vip: u32) -> u32 {
        self.block_scopes.get(&vip).copied().unwrap_or_default()
    }

    /// How many prefixes are blocked.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Notes which interfaces there are: the kernel lets no frame leave by one that has gone, nor by one that has
    /// come back under its number.
    pub fn retain_ports(&mut self, exists: impl Fn(u32) -> bool) {
        self.ports.retain(|ifindex| exists(*ifindex));
    }

    /// What packets find under each backend's id.
    pub fn backends(&self) -> impl Iterator<Item = (u16, &Backend)> {
        self.backends.iter().map(|(id, backend)| (*id, backend))
    }

    /// A VIP's slots as packets read them.
    #[must_use]
    pub fn slots(&self, vip: u32) -> Option<&Arc<Slots>> {
        self.slots.get(&vip)
    }

    /// How many of a VIP's slots were given to another owner since this began to record.
    #[must_use]
    pub fn moves(&self, vip: u32) -> u64 {
        self.moves.get(&vip).copied().unwrap_or_default()
    }

    /// The slots of every VIP, by its id.
    pub fn all_slots(&self) -> impl Iterator<Item = (u32, &Arc<Slots>)> {
        self.slots.iter().map(|(vip, slots)| (*vip, slots))
    }

    /// All VIPs, where they are known.
    #[must_use]
    pub const fn vips(&self) -> Option<&Arc<Vips>> {
        self.vips.as_ref()
    }

    /// The node's settings, where they are known.
    #[must_use]
    pub const fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// How long a VIP's flows may be silent.
    #[must_use]
    pub fn idle(&self, vip: u32) -> Option<&Idle> {
        self.idle.get(&vip)
    }

    /// What packets find under a backend's id.
    #[must_use]
    pub fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(&id)
    }

    /// A VIP's lookup table, where it is known.
    #[must_use]
    pub fn table(&self, vip: u32) -> Option<&Arc<Table>> {
        self.tables.get(&vip)?.as_ref()
    }

    /// Notes a step that was done.
    pub fn record(&mut self, step: &Step) {
        match step {
            Step::Node(node) => self.node = Some(*node),
            Step::Port(ifindex) => {
                self.ports.insert(*ifindex);
            }
            Step::Interface(ifindex, interface) => {
                self.interfaces.insert(*ifindex, *interface);
            }
            Step::ClearInterface(ifindex) => {
                self.interfaces.remove(ifindex);
            }
            Step::Peer(mac) => {
                self.peers.insert(*mac);
            }
            Step::ClearPeer(mac) => {
                self.peers.remove(mac);
            }
            // It is held when there is something under it.
            Step::NewBackend(_) | Step::NewVip(_) => {}
            Step::Backend(id, backend) => {
                self.backends.insert(*id, *backend);
            }
            Step::Idle(vip, idle) => {
                self.idle.insert(*vip, *idle);
            }
            Step::Block(key) => {
                self.blocks.insert(*key);
            }
            Step::Unblock(key) => {
                self.blocks.remove(key);
            }
            Step::BlockScopes(vip, 0) => {
                self.block_scopes.remove(vip);
            }
            Step::BlockScopes(vip, scopes) => {
                self.block_scopes.insert(*vip, *scopes);
            }
            Step::Limits(vip, limits) => {
                self.limits.insert(*vip, Arc::clone(limits));
            }
            Step::ClearLimits(vip) => {
                self.limits.remove(vip);
            }
            Step::Table(vip, table, slots) => {
                self.tables.insert(*vip, Some(Arc::clone(table)));
                if let Some(before) = self.slots.insert(*vip, Arc::clone(slots)) {
                    *self.moves.entry(*vip).or_default() += slots.moved_since(&before);
                }
            }
            Step::Vips(vips) => self.vips = Some(Arc::clone(vips)),
            Step::ClearTable(vip) => {
                self.tables.remove(vip);
                self.slots.remove(vip);
                self.moves.remove(vip);
                self.idle.remove(vip);
                self.block_scopes.remove(vip);
            }
            Step::ClearBackend(id, _) => {
                self.backends.remove(id);
            }
        }
    }

    /// Frees the ids that nothing here names. For when all of a [`Wanted`] has been written: an id that is
    /// wanted and not yet held would be freed too.
    pub fn release(&self, ids: &mut Ids) {
        let named: BTreeSet<_> = self.backends.values().map(|b| u32::from(b.vip)).collect();
        ids.retain(
            |vip| self.tables.contains_key(&vip) || named.contains(&vip),
            |backend| self.backends.contains_key(&backend),
        );
    }
}

impl Held {
    /// Whether a VIP has the table that is wanted, and so slots that are on the way there.
    fn has_table(&self, vip: &WantedVip) -> bool {
        let table = self.table(vip.entry.id);
        table.is_some_and(|table| Arc::ptr_eq(table, &vip.table))
    }

    /// Whether nothing but time changes the slots of a VIP: they are on the way to the table that is wanted, everybody
    /// whom they name is alive, and no scan has shown anything of them.
    fn waits_for_time(
        &self,
        vip: &WantedVip,
        is_alive: &impl Fn(u16) -> bool,
        wanted: &Wanted,
    ) -> bool {
        let is_alone = |slots: &Arc<Slots>| {
            let may_settle = wanted.settled.is_some() && slots.census().settling > 0;
            !may_settle && slots.named().iter().all(|id| is_alive(*id))
        };
        self.has_table(vip) && self.slots(vip.entry.id).is_some_and(is_alone)
    }

    /// The slots of a VIP after what is wanted and what time it is; `None` where they and the table stay.
    fn advance(
        &self,
        vip: &WantedVip,
        is_alive: &impl Fn(u16) -> bool,
        waits_for_time: bool,
        wanted: &Wanted,
    ) -> Option<Arc<Slots>> {
        let id = vip.entry.id;
        let now_ms = wanted.now_ms;
        let is_same = self.has_table(vip);
        let Some(held) = self.slots(id) else {
            // Nobody's flows have used it yet.
            return Some(Arc::new(Slots::new(&vip.table.owner_ids())));
        };
        let rests = waits_for_time && !held.is_due(now_ms, &vip.times);
        if is_same && (held.is_stable() || rests) {
            return None;
        }
        let settled = wanted.settled.as_ref().and_then(|settled| {
            let is_foreign = |slot| settled.foreign.contains(&(id, slot));
            held.settle(settled.began_ms, is_foreign, now_ms)
        });
        let settled = settled.map(Arc::new);
        let slots = settled.as_ref().unwrap_or(held);
        let next = slots.advance(&vip.table.owner_ids(), is_alive, now_ms, &vip.times);
        match (next, settled) {
            (Some(slots), _) => Some(Arc::new(slots)),
            (None, Some(slots)) => Some(slots),
            (None, None) if is_same => None,
            (None, None) => Some(Arc::clone(held)),
        }
    }
}

/// The steps that make `held` what is `wanted`, in the order in which they must be done.
#[must_use]
pub fn plan(held: &Held, wanted: &Wanted) -> Vec<Step> {
    let mut steps = Vec::new();
    surroundings(held, wanted, &mut steps);
    let backends = wanted.backends();
    let new = backends.keys().filter(|id| !held.backends.contains_key(id));
    steps.extend(new.copied().map(Step::NewBackend));
    let vips = wanted.vips.iter().map(|vip| vip.entry.id);
    let new = vips.filter(|id| !held.tables.contains_key(id));
    steps.extend(new.map(Step::NewVip));
    let changed = backends
        .iter()
        .filter(|(id, backend)| held.backends.get(id) != Some(backend));
    steps.extend(changed.map(|(id, backend)| Step::Backend(*id, *backend)));

    let is_alive = |id: u16| backends.get(&id).is_some_and(Backend::is_alive);
    let idle = wanted.vips.iter().map(|vip| (vip.entry.id, vip.idle));
    let changed = idle.filter(|(id, idle)| held.idle(*id) != Some(idle));
    steps.extend(changed.map(|(id, idle)| Step::Idle(id, idle)));
    steps.extend(
        wanted
            .blocks
            .difference(&held.blocks)
            .copied()
            .map(Step::Block),
    );
    let scopes = wanted.vips.iter().map(|vip| (vip.entry.id, vip.blocks));
    let changed = scopes.filter(|(id, scopes)| held.block_scopes(*id) != *scopes);
    steps.extend(changed.map(|(id, scopes)| Step::BlockScopes(id, scopes)));
    let limits = wanted
        .vips
        .iter()
        .filter_map(|vip| Some((vip.entry.id, vip.limits.as_ref()?)));
    let limits: BTreeMap<_, _> = limits.collect();
    let changed = limits
        .iter()
        .filter(|(id, limits)| held.limits.get(id) != Some(limits));
    steps.extend(changed.map(|(id, limits)| Step::Limits(*id, Arc::clone(limits))));
    // One after the other: the data plane writes them at once.
    let mut by_time = 0;
    for vip in &wanted.vips {
        let id = vip.entry.id;
        let waits_for_time = held.waits_for_time(vip, &is_alive, wanted);
        if waits_for_time && by_time == MOST_BY_TIME {
            // Longer in a state than need be does no harm.
            continue;
        }
        if let Some(slots) = held.advance(vip, &is_alive, waits_for_time, wanted) {
            by_time += usize::from(waits_for_time);
            steps.push(Step::Table(id, Arc::clone(&vip.table), slots));
        }
    }

    let same_vips = |held: &Arc<Vips>| held.entries == wanted.vip_table.entries;
    if !held.vips.as_ref().is_some_and(same_vips) {
        steps.push(Step::Vips(Arc::clone(&wanted.vip_table)));
    }

    steps.extend(
        held.blocks
            .difference(&wanted.blocks)
            .copied()
            .map(Step::Unblock),
    );
    let tables: BTreeSet<_> = wanted.vips.iter().map(|vip| vip.entry.id).collect();
    let gone = held.block_scopes.keys().filter(|id| !tables.contains(id));
    steps.extend(gone.map(|id| Step::BlockScopes(*id, 0)));
    let gone = held.interfaces.keys();
    let gone = gone.filter(|ifindex| !wanted.interfaces.contains_key(ifindex));
    steps.extend(gone.copied().map(Step::ClearInterface));
    steps.extend(
        held.peers
            .difference(&wanted.peers)
            .copied()
            .map(Step::ClearPeer),
    );
    let gone = held.limits.keys().filter(|id| !limits.contains_key(id));
    steps.extend(gone.copied().map(Step::ClearLimits));
    let gone = held.tables.keys().filter(|id| !tables.contains(id));
    steps.extend(gone.copied().map(Step::ClearTable));
    let gone = held.backends.iter();
    let gone: Vec<_> = gone.filter(|(id, _)| !backends.contains_key(id)).collect();
    if !gone.is_empty() {
        let heirs = heirs(&backends);
        let heir = |of: &Backend| heirs.get(&(of.vip, of.address)).copied();
        steps.extend(
            gone.into_iter()
                .map(|(id, of)| Step::ClearBackend(*id, heir(of))),
        );
    }
    steps
}

/// The node's settings, its interfaces, and the other nodes.
fn surroundings(held: &Held, wanted: &Wanted, steps: &mut Vec<Step>) {
    if held.node.as_ref().map(IntoBytes::as_bytes) != Some(wanted.node.as_bytes()) {
        steps.push(Step::Node(wanted.node));
    }
    steps.extend(
        wanted
            .ports
            .difference(&held.ports)
            .copied()
            .map(Step::Port),
    );
    let changed = wanted
        .interfaces
        .iter()
        .filter(|(ifindex, interface)| held.interfaces.get(ifindex) != Some(interface));
    steps.extend(changed.map(|(ifindex, interface)| Step::Interface(*ifindex, *interface)));

    steps.extend(
        wanted
            .peers
            .difference(&held.peers)
            .copied()
            .map(Step::Peer),
    );
}

/// The ids under which backends are known, by VIP and address: the living ones'.
fn heirs(backends: &BTreeMap<u16, Backend>) -> HashMap<(u16, Address), u16> {
    let mut heirs = HashMap::new();
    for (id, backend) in backends {
        let known = heirs.entry((backend.vip, backend.address));
        let known = known.or_insert(*id);
        if backend.is_alive() {
            *known = *id;
        }
    }
    heirs
}
