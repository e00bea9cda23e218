//! The steps from what the data plane holds to what it should hold.
//!
//! Backends are written before the tables that name them, tables before the VIPs that lead to them; taking
//! away runs the other way. So a packet that comes between two steps finds an old whole or a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lb_common::{
    backend::Backend,
    tables::{Interface, Node},
    vip::VipEntry,
};
use zerocopy::IntoBytes;

use super::{
    ids::Ids,
    wanted::{Table, Vips, Wanted},
};

/// One write to the data plane.
#[derive(Clone)]
pub enum Step {
    /// The node's settings.
    Node(Node),
    /// An interface that frames may leave by.
    Port(u32),
    /// The facts of an interface that packets come by, by its ifindex.
    Interface(u32, Interface),
    /// A backend, by its id.
    Backend(u16, Backend),
    /// A VIP's lookup table, by the VIP's id.
    Table(u32, Arc<Table>),
    /// All VIPs.
    Vips(Arc<Vips>),
    /// A VIP's lookup table goes.
    ClearTable(u32),
    /// A backend goes.
    ClearBackend(u16),
}

/// What the data plane holds, as far as is known: a record of the steps that were done.
#[derive(Clone, Default)]
pub struct Held {
    node: Option<Node>,
    ports: BTreeSet<u32>,
    interfaces: BTreeMap<u32, Interface>,
    backends: BTreeMap<u16, Backend>,
    /// `None`: there may be a table, but of what is not known.
    tables: BTreeMap<u32, Option<Arc<Table>>>,
    vips: Option<Arc<Vips>>,
}

impl Held {
    /// What an earlier daemon left behind: backends as read back from the maps, VIPs where they are known.
    ///
    /// Everything else is written again, with the ids that [`Ids::adopt`] keeps.
    #[must_use]
    pub fn adopt(vips: &[VipEntry], backends: &[(u16, Backend)]) -> Self {
        let by_backends = backends.iter().map(|(_, b)| u32::from(b.vip));
        let tables = vips.iter().map(|vip| vip.id).chain(by_backends);
        Self {
            tables: tables.map(|id| (id, None)).collect(),
            backends: backends.iter().copied().collect(),
            ..Self::default()
        }
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
            Step::Backend(id, backend) => {
                self.backends.insert(*id, *backend);
            }
            Step::Table(vip, table) => {
                self.tables.insert(*vip, Some(Arc::clone(table)));
            }
            Step::Vips(vips) => self.vips = Some(Arc::clone(vips)),
            Step::ClearTable(vip) => {
                self.tables.remove(vip);
            }
            Step::ClearBackend(id) => {
                self.backends.remove(id);
            }
        }
    }

    /// Frees the ids that nothing here names. For when all of a [`Wanted`] has been written: an id that is
    /// wanted and not yet held would be freed too.
    pub fn release(&self, ids: &mut Ids) {
        ids.retain(
            |vip| self.tables.contains_key(&vip),
            |backend| self.backends.contains_key(&backend),
        );
    }
}

/// The steps that make `held` what is `wanted`, in the order in which they must be done.
#[must_use]
pub fn plan(held: &Held, wanted: &Wanted) -> Vec<Step> {
    let mut steps = Vec::new();
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

    let backends: BTreeMap<_, _> = wanted
        .vips
        .iter()
        .flat_map(|vip| &vip.backends)
        .map(|backend| (backend.id, backend.entry))
        .collect();
    let changed = backends
        .iter()
        .filter(|(id, backend)| held.backends.get(id) != Some(backend));
    steps.extend(changed.map(|(id, backend)| Step::Backend(*id, *backend)));

    for vip in &wanted.vips {
        let id = vip.entry.id;
        if !held.table(id).is_some_and(|t| Arc::ptr_eq(t, &vip.table)) {
            steps.push(Step::Table(id, Arc::clone(&vip.table)));
        }
    }

    let same_vips = |held: &Arc<Vips>| held.entries == wanted.vip_table.entries;
    if !held.vips.as_ref().is_some_and(same_vips) {
        steps.push(Step::Vips(Arc::clone(&wanted.vip_table)));
    }

    let tables: BTreeSet<_> = wanted.vips.iter().map(|vip| vip.entry.id).collect();
    let gone = held.tables.keys().filter(|id| !tables.contains(id));
    steps.extend(gone.copied().map(Step::ClearTable));
    let gone = held.backends.keys().filter(|id| !backends.contains_key(id));
    steps.extend(gone.copied().map(Step::ClearBackend));
    steps
}
