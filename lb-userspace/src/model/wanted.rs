//! The whole of what the data plane should hold, from the configuration and what is known of the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    backend::Backend,
    flow::Address,
    slot::SlotTable,
    tables::{Interface, Node},
    vip::{self, VipEntry, VipKey, VipTable},
};
use zerocopy::FromZeros;

use super::{
    ids::{BackendKey, Exhausted, Ids},
    map_address,
    next_hop::{NextHop, Port},
    parallel::in_parallel,
    plan::Held,
    seed::Keys,
    table::{Digest, Member, Owners, maglev, ring},
    way,
};
use crate::config::{self, Affinity, Announce, Config, TableAlgorithm};

/// What a [`Wanted`] is made of, besides what the data plane holds.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What the operator wants.
    pub config: &'a Config,
    /// Keys from the fleet's seed.
    pub keys: &'a Keys,
    /// The interfaces of [`config::Node::interfaces`], in that order.
    pub ports: &'a [Port],
    /// Next hops by backend address.
    pub next_hops: &'a BTreeMap<IpAddr, NextHop>,
}

/// What the data plane should hold.
#[derive(Clone)]
pub struct Wanted {
    /// The node's settings.
    pub node: Node,
    /// Interfaces that frames may leave by.
    pub ports: BTreeSet<u32>,
    /// Interfaces that packets come by.
    pub interfaces: BTreeMap<u32, Interface>,
    /// The VIPs, in the configuration's order.
    pub vips: Vec<WantedVip>,
    /// The same VIPs as packets find them.
    pub vip_table: Arc<Vips>,
}

/// A VIP and its backends.
#[derive(Clone)]
pub struct WantedVip {
    /// Its name in the configuration.
    pub name: String,
    /// Its id, key and flags.
    pub entry: VipEntry,
    /// Its lookup table.
    pub table: Arc<Table>,
    /// Its backends, in the configuration's order.
    pub backends: Vec<WantedBackend>,
}

/// A backend of a VIP.
#[derive(Clone, Copy, Debug)]
pub struct WantedBackend {
    /// Its id.
    pub id: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its weight.
    pub weight: u16,
    /// How many of the VIP's 65,536 slots it owns.
    pub slots: u32,
    /// What packets find under the id.
    pub entry: Backend,
}

/// A lookup table: what it was made of, and who owns which slot. 128 KiB.
pub struct Table {
    /// What it was made of: equal inputs make equal tables.
    inputs: TableInputs,
    owners: Owners,
    /// Slots by backend id.
    counts: BTreeMap<u16, u32>,
    digest: Digest,
}

#[derive(Clone, Eq, PartialEq)]
struct TableInputs {
    algorithm: TableAlgorithm,
    vip: VipKey,
    seed: u64,
    /// By address, so that the configuration's order changes nothing.
    members: Vec<Member>,
    /// The members' ids, by place.
    ids: Vec<u16>,
}

/// All VIPs, as the maps hold them.
pub struct Vips {
    /// Every VIP once.
    pub entries: Vec<VipEntry>,
    /// The table that packets search.
    pub table: Box<VipTable>,
}

/// Why a valid configuration cannot be held by the maps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// More VIPs than the maps hold, those that are leaving included.
    #[error("too many VIPs: {0}")]
    Vips(#[source] Exhausted),
    /// More backends than ids, those that are leaving included.
    #[error("too many backends, each counted once for every VIP that it serves: {0}")]
    Backends(#[source] Exhausted),
    /// The two-choice table found no place for a VIP.
    #[error("the {0} VIPs do not fit into the table that packets search")]
    VipTable(usize),
}

impl Wanted {
    /// Works out what the data plane should hold.
    ///
    /// What `held` shows already is kept: ids through `ids`, tables whose inputs are the same, and the way to a
    /// backend of which the network knows nothing (so that a daemon that restarts, or a route that
    /// flaps, stops no packet). Ids that are new stay taken, also if this fails.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(inputs: &Inputs<'_>, held: &Held, ids: &mut Ids) -> Result<Self, Error> {
        let vips = &inputs.config.vips;
        let named = vips
            .iter()
            .map(|vip| NamedVip::new(vip, inputs, ids))
            .collect::<Result<Vec<_>, _>>()?;
        let tables = tables(&named, held);
        let vips: Vec<_> = vips
            .iter()
            .zip(&named)
            .zip(tables)
            .map(|((vip, named), table)| WantedVip::new(vip, named, table, inputs, held))
            .collect();
        Ok(Self {
            node: Node::new(inputs.keys.hash_keys),
            ports: ports(inputs),
            interfaces: interfaces(inputs),
            vip_table: Arc::new(Vips::new(vips.iter().map(|vip| vip.entry).collect())?),
            vips,
        })
    }
}

/// A VIP that has its ids and not yet its table.
struct NamedVip {
    id: u32,
    table: TableInputs,
}

impl NamedVip {
    fn new(vip: &config::Vip, inputs: &Inputs<'_>, ids: &mut Ids) -> Result<Self, Error> {
        let key = VipKey::new(
            map_address(vip.address),
            vip.port.to_be_bytes(),
            vip.protocol.number(),
        );
        let id = ids.vip(key).map_err(Error::Vips)?;
        let mut members = Vec::with_capacity(vip.backends.len());
        for backend in &vip.backends {
            let key = BackendKey {
                vip: id,
                address: map_address(backend.address),
                mode: way::mode(backend.forward),
            };
            let member = Member {
                address: key.address,
                weight: backend.weight,
            };
            members.push((member, ids.backend(key).map_err(Error::Backends)?));
        }
        members.sort_unstable_by_key(|(member, _)| member.address.octets());
        let (members, ids) = members.into_iter().unzip();
        let table = TableInputs {
            algorithm: vip.table,
            vip: key,
            seed: inputs.keys.table_seed,
            members,
            ids,
        };
        Ok(Self { id, table })
    }
}

/// The VIPs' tables: the one that is held if it was made of the same, else a new one.
fn tables(vips: &[NamedVip], held: &Held) -> Vec<Arc<Table>> {
    let same = |vip: &NamedVip| {
        let table = held.table(vip.id)?;
        (table.inputs == vip.table).then(|| Arc::clone(table))
    };
    let known: Vec<_> = vips.iter().map(same).collect();
    let missing = vips.iter().zip(&known).filter(|(_, known)| known.is_none());
    let missing: Vec<_> = missing.map(|(vip, _)| &vip.table).collect();
    let mut new =
        in_parallel(&missing, |inputs| Arc::new(Table::new((*inputs).clone()))).into_iter();
    known
        .into_iter()
        .filter_map(|table| table.or_else(|| new.next()))
        .collect()
}

impl WantedVip {
    fn new(
        vip: &config::Vip,
        named: &NamedVip,
        table: Arc<Table>,
        inputs: &Inputs<'_>,
        held: &Held,
    ) -> Self {
        let (id, key) = (named.id, named.table.vip);
        let backends = vip
            .backends
            .iter()
            .filter_map(|backend| Some((backend, named.table.id(map_address(backend.address))?)))
            .map(|(backend, backend_id)| WantedBackend {
                id: backend_id,
                address: backend.address,
                weight: backend.weight,
                slots: table.slots(backend_id),
                entry: way::entry(backend, &key, id, held.backend(backend_id), inputs),
            })
            .collect();
        Self {
            name: vip.name.clone(),
            entry: VipEntry {
                key,
                id,
                flags: flags(vip),
            },
            table,
            backends,
        }
    }
}

impl TableInputs {
    /// The id of the member with this address.
    fn id(&self, address: Address) -> Option<u16> {
        let by = address.octets();
        let place = self
            .members
            .binary_search_by_key(&by, |member| member.address.octets());
        self.ids.get(place.ok()?).copied()
    }
}

impl Table {
    fn new(inputs: TableInputs) -> Self {
        let make = match inputs.algorithm {
            TableAlgorithm::Maglev => maglev,
            TableAlgorithm::Ring => ring,
        };
        let owners = make(&inputs.vip, inputs.seed, &inputs.members);
        let counts = owners.counts(inputs.members.len());
        Self {
            counts: inputs.ids.iter().copied().zip(counts).collect(),
            digest: owners.digest(&inputs.members),
            owners,
            inputs,
        }
    }

    /// The digest, equal on every node whose table is equal.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many slots a backend owns, by its id.
    #[must_use]
    pub fn slots(&self, id: u16) -> u32 {
        self.counts.get(&id).copied().unwrap_or_default()
    }

    /// The address of each slot's owner, by slot.
    pub fn owners(&self) -> impl Iterator<Item = Option<Address>> {
        let owners = self.owners.iter();
        owners.map(|place| Some(self.inputs.members.get(place?)?.address))
    }

    /// The table as packets read it, 256 KiB.
    #[must_use]
    pub fn slot_table(&self) -> Box<SlotTable> {
        self.owners.slot_table(&self.inputs.ids)
    }
}

impl Vips {
    fn new(mut entries: Vec<VipEntry>) -> Result<Self, Error> {
        // The configuration's order changes nothing.
        entries.sort_unstable_by_key(|entry| entry.id);
        #[expect(clippy::expect_used, reason = "as any allocation that fails")]
        let mut table = VipTable::new_box_zeroed().expect("256 KiB for the table of VIPs");
        match table.build(&entries) {
            Ok(()) => Ok(Self { entries, table }),
            Err(vip::Full) => Err(Error::VipTable(entries.len())),
        }
    }
}

/// The interfaces that packets come by, and those that lead to a backend.
fn ports(inputs: &Inputs<'_>) -> BTreeSet<u32> {
    let ways_in = inputs.ports.iter().map(|port| port.ifindex);
    let ways_out = inputs.next_hops.values().map(|hop| hop.ifindex);
    ways_in.chain(ways_out).collect()
}

/// The facts of the interfaces that packets come by.
fn interfaces(inputs: &Inputs<'_>) -> BTreeMap<u32, Interface> {
    let facts = inputs.ports.iter().map(|port| {
        let interface = Interface {
            mac: port.mac,
            ..Interface::default()
        };
        (port.ifindex, interface)
    });
    facts.collect()
}

/// What a VIP asks of the pipeline.
const fn flags(vip: &config::Vip) -> u32 {
    let affinity = match vip.affinity {
        Affinity::Flow => 0,
        Affinity::Source => vip::flags::AFFINITY_SOURCE,
    };
    let announce = match vip.announce {
        Announce::None => 0,
        Announce::L2 => vip::flags::ANNOUNCE_L2,
    };
    affinity | announce
}
