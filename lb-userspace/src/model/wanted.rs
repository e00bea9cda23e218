//! The whole of what the data plane should hold, from the configuration and what is known of the network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use lb_common::{
    access::PrefixKey,
    backend::{self, Backend},
    flow::Address,
    limit::Limits,
    pin::Idle,
    slot::NOBODY,
    tables::{Interface, MAX_PEERS, Node},
    vip::{self, VipEntry, VipKey, VipTable},
};
use zerocopy::FromZeros;

use super::{
    blocks::{self, Blocks},
    ids::{BackendKey, Exhausted, Ids},
    limits,
    listed::Listed,
    map_address,
    next_hop::{NextHop, Port},
    overrides::BackendName,
    parallel::in_parallel,
    plan::Held,
    seed::Keys,
    slots::{Settled, Times},
    table::{Digest, Member, Owners, maglev, ring},
    way,
};
use crate::config::{self, Affinity, Announce, Config, TableAlgorithm};

/// How long a pin is kept after FIN or RST: longer than a client waits in TIME-WAIT (RFC 9293, section 3.3.2).
const CLOSED_NS: u64 = 5 * 60 * 1_000_000_000;

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
    /// Addresses of backends that are this node's own.
    pub locals: &'a BTreeSet<IpAddr>,
    /// How the backends stand.
    pub standing: &'a Standing,
    /// How many CPUs may run the program: the possible ones.
    pub cpus: usize,
}

/// How backends stand at a moment: what neither the configuration nor the network tells.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Now, in milliseconds of the monotonic clock, modulo 2³².
    pub now_ms: u32,
    /// Backends that serve nobody: new flows go elsewhere, and so do theirs.
    pub dead: BTreeSet<BackendName>,
    /// Backends that start slowly, with the weight that they have so far.
    pub starting: BTreeMap<BackendName, u16>,
    /// Ids of leaving backends whose time is up: from now on they count as dead.
    pub expired: BTreeSet<u16>,
    /// Ids of leaving backends that nothing names any more: no slot, no pin, no fragmented packet.
    pub unnamed: BTreeSet<u16>,
    /// What a scan has shown that has just ended.
    pub settled: Option<Arc<Settled>>,
    /// What this node may let through of limits that the whole fleet keeps.
    pub parts: limits::Parts,
    /// What commands block.
    pub blocks: Arc<Blocks>,
    /// Addresses that the data plane does not answer for, though their VIPs are announced by L2 at other times.
    pub silent: BTreeSet<IpAddr>,
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
    /// MAC addresses of other nodes of the fleet: what they send here is not balanced again.
    pub peers: BTreeSet<[u8; 6]>,
    /// Prefixes that are blocked.
    pub blocks: BTreeSet<PrefixKey>,
    /// The configuration's access lists, which are written by a thread of their own.
    pub listed: Listed,
    /// The VIPs, in the configuration's order.
    pub vips: Vec<WantedVip>,
    /// The same VIPs as packets find them.
    pub vip_table: Arc<Vips>,
    /// Backends that are no VIP's any more, or died: they stay known until nothing names them. By id.
    pub leaving: BTreeMap<u16, Backend>,
    /// Now, in milliseconds of the monotonic clock, modulo 2³².
    pub now_ms: u32,
    /// What a scan has shown that has just ended.
    pub settled: Option<Arc<Settled>>,
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
    /// What is to be looked up among the blocks for its packets ([`lb_common::access::blocks`]).
    pub blocks: u32,
    /// How long its flows may be silent.
    pub idle: Idle,
    /// How long its slots stay in the states that end by time.
    pub times: Times,
    /// How much it takes.
    pub limits: Option<Arc<Limits>>,
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

/// A lookup table: what it was made of, and who owns which slot. 64 KiB, and twice as much with more than 255 backends.
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
            .map(|vip| NamedVip::new(vip, inputs, held, ids))
            .collect::<Result<Vec<_>, _>>()?;
        let tables = tables(&named, held);
        let standing = inputs.standing;
        let blocks = standing.blocks.keys(|name| {
            let mut pairs = vips.iter().zip(&named);
            let (_, named) = pairs.find(|(vip, _)| vip.name == name)?;
            Some(named.id)
        });
        let blocked = blocks::owners(&blocks);
        let mut ids = named.iter().map(|named| (named.id, named.table.vip));
        let listed = Listed::new(inputs.config, |_| ids.next());
        let vips: Vec<_> = vips
            .iter()
            .zip(&named)
            .zip(tables)
            .map(|((vip, named), table)| {
                let mut vip = WantedVip::new(vip, named, table, inputs, held);
                vip.blocks = blocks::scopes(&blocked, named.id);
                if vip.blocks | listed.scopes_of(named.id) != 0 {
                    vip.entry.flags |= vip::flags::ACCESS;
                }
                vip
            })
            .collect();
        Ok(Self {
            blocks,
            listed,
            node: Node::new(inputs.keys.hash_keys),
            ports: ports(inputs),
            interfaces: interfaces(inputs),
            peers: peers(inputs),
            vip_table: Arc::new(Vips::new(vips.iter().map(|vip| vip.entry).collect())?),
            leaving: leaving(&vips, inputs, held),
            now_ms: standing.now_ms,
            settled: standing.settled.clone(),
            vips,
        })
    }

    /// The ids of the backends that take no new flows and may have old ones: drained and leaving ones.
    pub fn quiet(&self) -> impl Iterator<Item = u16> {
        let own = self.vips.iter().flat_map(|vip| &vip.backends);
        let drained = own.filter(|backend| backend.weight == 0);
        let leaving = self.leaving.iter().filter(|(_, entry)| entry.is_alive());
        let leaving = leaving.map(|(id, _)| *id);
        drained.map(|backend| backend.id).chain(leaving)
    }

    /// Every backend that packets may find, leaving ones included, by id.
    #[must_use]
    pub fn backends(&self) -> BTreeMap<u16, Backend> {
        let own = self.vips.iter().flat_map(|vip| &vip.backends);
        let mut all: BTreeMap<_, _> = own.map(|backend| (backend.id, backend.entry)).collect();
        all.extend(self.leaving.iter().map(|(id, entry)| (*id, *entry)));
        all
    }
}

/// What packets to a VIP are known by.
#[must_use]
pub fn vip_key(vip: &config::Vip) -> VipKey {
    let port = vip.port.to_be_bytes();
    VipKey::new(map_address(vip.address), port, vip.protocol.number())
}

/// The backends that are held and no VIP's own any more, without those that nothing names.
fn leaving(vips: &[WantedVip], inputs: &Inputs<'_>, held: &Held) -> BTreeMap<u16, Backend> {
    let own: BTreeSet<u16> = vips
        .iter()
        .flat_map(|vip| &vip.backends)
        .map(|backend| backend.id)
        .collect();
    let standing = inputs.standing;
    let gone = held
        .backends()
        .filter(|(id, _)| !own.contains(id) && !standing.unnamed.contains(id));
    gone.map(|(id, entry)| {
        let mut entry = way::leaving(entry, inputs);
        if standing.expired.contains(&id) {
            entry.flags |= backend::flags::DEAD;
        }
        (id, entry)
    })
    .collect()
}

/// A VIP that has its ids and not yet its table.
struct NamedVip {
    id: u32,
    table: TableInputs,
}

impl NamedVip {
    fn new(
        vip: &config::Vip,
        inputs: &Inputs<'_>,
        held: &Held,
        ids: &mut Ids,
    ) -> Result<Self, Error> {
        let key = vip_key(vip);
        let id = ids.vip(key).map_err(Error::Vips)?;
        let mut members = Vec::with_capacity(vip.backends.len());
        for backend in &vip.backends {
            let key = BackendKey {
                vip: id,
                address: map_address(backend.address),
                mode: way::mode(backend.forward),
            };
            let name = BackendName {
                vip: vip.name.clone(),
                backend: backend.address,
            };
            let is_dead = inputs.standing.dead.contains(&name);
            let member = Member {
                address: key.address,
                weight: if is_dead {
                    0
                } else {
                    let starting = inputs.standing.starting.get(&name).copied();
                    starting.map_or(backend.weight, |weight| weight.min(backend.weight))
                },
            };
            let mut id = ids.backend(key).map_err(Error::Backends)?;
            if !is_dead && held.backend(id).is_some_and(|entry| !entry.is_alive()) {
                // It is back: under another id, so that pins of the dead one stay without effect.
                ids.bury(id);
                id = ids.backend(key).map_err(Error::Backends)?;
            }
            members.push((member, id));
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
/// The id that a backend of a VIP has, if it has one.
#[must_use]
pub fn id_of(vip: &config::Vip, backend: &config::Backend, ids: &Ids) -> Option<u16> {
    let address = map_address(backend.address);
    ids.known(&vip_key(vip), address, way::mode(backend.forward))
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
            .map(|(backend, backend_id)| {
                let mut entry = way::entry(backend, &key, id, held.backend(backend_id), inputs);
                let name = BackendName {
                    vip: vip.name.clone(),
                    backend: backend.address,
                };
                if inputs.standing.dead.contains(&name) {
                    entry.flags |= backend::flags::DEAD;
                }
                WantedBackend {
                    id: backend_id,
                    address: backend.address,
                    weight: backend.weight,
                    slots: table.slots(backend_id),
                    entry,
                }
            })
            .collect();
        Self {
            name: vip.name.clone(),
            entry: VipEntry {
                key,
                id,
                flags: flags(vip, inputs.standing) | shared(vip, inputs),
            },
            table,
            backends,
            blocks: 0,
            idle: idle(&vip.flows),
            limits: limits::limits(&vip.limits, &vip.name, &inputs.standing.parts, inputs.cpus)
                .map(Arc::new),
            times: Times {
                hold_ms: Times::HOLD_MS,
                move_ms: u32::try_from(vip.flows.move_window.as_millis()).unwrap_or(u32::MAX / 2),
            },
        }
    }
}

/// How long packets take a flow for alive.
fn idle(flows: &config::Flows) -> Idle {
    let open_ns = u64::try_from(flows.flow_idle.as_nanos()).unwrap_or(u64::MAX);
    Idle {
        open_ns,
        closed_ns: open_ns.min(CLOSED_NS),
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

    /// The id of each slot's owner, by slot.
    #[must_use]
    pub fn owner_ids(&self) -> Vec<u16> {
        let id = |place| self.inputs.ids.get(place?).copied();
        let owners = self.owners.iter();
        owners.map(|place| id(place).unwrap_or(NOBODY)).collect()
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

/// Whether this node serves a VIP as well as it balances it.
fn is_served_here(vip: &config::Vip, inputs: &Inputs<'_>) -> bool {
    let mut addresses = vip.backends.iter().map(|backend| &backend.address);
    addresses.any(|address| inputs.locals.contains(address))
}

/// Whether other nodes of the fleet may send a VIP's packets here: where this node serves it, or where it is said that there
/// are such nodes, whatever they believe of this one.
fn shared(vip: &config::Vip, inputs: &Inputs<'_>) -> u32 {
    if !inputs.config.node.peers.is_empty() || is_served_here(vip, inputs) {
        vip::flags::SHARED
    } else {
        0
    }
}

/// The MAC addresses of other nodes that may send frames here: of the peers that are named, and of those who serve a VIP beside this node,
/// since they may balance it beside this node too. A router's is none, whoever is behind it.
fn peers(inputs: &Inputs<'_>) -> BTreeSet<[u8; 6]> {
    let served = inputs.config.vips.iter();
    let served = served.filter(|vip| is_served_here(vip, inputs));
    let beside = served
        .flat_map(|vip| &vip.backends)
        .filter(|backend| !inputs.locals.contains(&backend.address));
    let named = inputs
        .config
        .node
        .peers
        .iter()
        .map(|address| (*address, None));
    let all = beside
        .map(|backend| (backend.address, backend.mac))
        .chain(named);
    let macs = all.filter_map(|(address, mac)| {
        let hop = inputs.next_hops.get(&address);
        let is_on_link = |hop: &&NextHop| hop.gateway == address;
        mac.or_else(|| hop.filter(is_on_link)?.mac_destination)
    });
    macs.take(MAX_PEERS).collect()
}

/// What a VIP asks of the pipeline.
fn flags(vip: &config::Vip, standing: &Standing) -> u32 {
    let limits = limits::vip_flags(&vip.limits);
    let affinity = match vip.affinity {
        Affinity::Flow => 0,
        Affinity::Source => vip::flags::AFFINITY_SOURCE,
    };
    let announce = match vip.announce {
        // A route leads here by this node's own addresses.
        Announce::None | Announce::Route => 0,
        Announce::L2 if standing.silent.contains(&vip.address) => 0,
        Announce::L2 => vip::flags::ANNOUNCE_L2,
    };
    affinity | announce | limits
}
