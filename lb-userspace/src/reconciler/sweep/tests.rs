//! Clients, slots and pins through whatever happens: the real model, packets and sweeper, over maps in memory.

mod marks;

use std::net::IpAddr;

use etherparse::PacketBuilder;
use lb_common::{
    backend::Backend,
    packet::{HEADROOM, HostPacket},
    pin::Pins,
    pipeline,
    reason::Reason,
    slot::{NOBODY, State},
    tables::Tables as _,
};
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::{
    api::{FlowFilter, Flows, FlowsBasis},
    config::{self, Config},
    dataplane::{apply::apply, memory::Memory},
    model::{
        ids::Ids,
        map_address,
        next_hop::{NextHop, Port, Vlans},
        overrides::BackendName,
        seed::Keys,
        slots::Slots,
        wanted::{Inputs, Standing},
    },
};

/// Backends of the configuration, or that may come to be.
const HOSTS: u8 = 5;
/// Clients; each has one connection at a time.
const CLIENTS: u16 = 48;
const MOVE_SECONDS: u64 = 60;
const IDLE_SECONDS: u64 = 120;
/// The longest step of the clock: every live connection is heard at its end.
const STEP_SECONDS: u64 = 25;
const PORT: Port = Port {
    ifindex: 2,
    mac: [2, 0, 0, 0, 0, 1],
};

#[derive(Clone, Debug)]
enum Event {
    Weight(u8, u16),
    Remove(u8),
    Fail(u8),
    Recover(u8),
    /// The daemon ends and comes back, with or without the note since when slots are in their states.
    Restart(bool),
    Open(u16),
    Close(u16),
    Send(u16),
    /// Milliseconds go by, and everybody is heard.
    Pass(u64),
    BeginScan,
    EndScan,
}

fn event() -> impl Strategy<Value = Event> {
    let host = || 0..HOSTS;
    let client = || 0..CLIENTS;
    prop_oneof![
        3 => (host(), select(vec![0, 50, 100, 200])).prop_map(|(h, weight)| Event::Weight(h, weight)),
        2 => host().prop_map(Event::Remove),
        1 => host().prop_map(Event::Fail),
        1 => host().prop_map(Event::Recover),
        1 => any::<bool>().prop_map(Event::Restart),
        3 => client().prop_map(Event::Open),
        1 => client().prop_map(Event::Close),
        2 => client().prop_map(Event::Send),
        6 => (100..STEP_SECONDS * 1000).prop_map(Event::Pass),
        2 => (2900u64..3200).prop_map(Event::Pass),
        3 => Just(Event::BeginScan),
        3 => Just(Event::EndScan),
    ]
}

struct World {
    runtime: Runtime,
    config: Config,
    keys: Keys,
    next_hops: BTreeMap<IpAddr, NextHop>,
    plane: Memory,
    held: Held,
    ids: Ids,
    sweeper: Sweeper,
    wanted: Option<Wanted>,
    failed: BTreeSet<IpAddr>,
    expired: BTreeSet<u16>,
    /// The backend that each client's connection is at.
    connections: BTreeMap<u16, IpAddr>,
    /// What each id has been since it was named first.
    known: BTreeMap<u16, Backend>,
    now_ms: u64,
}

fn address(host: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, 10 + host])
}

fn backend(host: u8, weight: u16) -> config::Backend {
    config::Backend {
        address: address(host),
        weight,
        forward: config::ForwardMode::L2,
        mac: None,
    }
}

impl World {
    fn new(hosts: u8) -> Self {
        let text = format!(
            "[node]\ninterfaces = [\"lo\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\naddress = \"203.0.113.10\"\n\
             port = 443\nprotocol = \"tcp\"\nmove_window = \"{MOVE_SECONDS}s\"\nflow_idle = \"{IDLE_SECONDS}s\"\n"
        );
        let mut config = Config::parse(&text, "weir.toml").unwrap();
        config.vips[0].backends = (0..hosts).map(|host| backend(host, 100)).collect();
        let next_hops = (0..HOSTS).map(|host| {
            let hop = NextHop {
                ifindex: PORT.ifindex,
                mac_source: PORT.mac,
                mac_destination: Some([2, 0, 0, 0, 0, 0x10 + host]),
                gateway: address(host),
                mtu: 1500,
                vlans: Vlans::default(),
            };
            (address(host), hop)
        });
        let mut world = Self {
            runtime: Builder::new_current_thread().build().unwrap(),
            keys: Keys::derive("x"),
            config,
            next_hops: next_hops.collect(),
            plane: Memory::default(),
            held: Held::default(),
            ids: Ids::default(),
            sweeper: Sweeper::default(),
            wanted: None,
            failed: BTreeSet::new(),
            expired: BTreeSet::new(),
            connections: BTreeMap::new(),
            known: BTreeMap::new(),
            // Shortly before the 32-bit clock starts anew.
            now_ms: (1 << 32) - 100_000,
        };
        world.plane.set_now_ns(world.now_ms * 1_000_000);
        world.reconcile(None);
        world
    }

    /// What the daemon does after every event.
    fn reconcile(&mut self, findings: Option<Findings>) {
        let name = |backend: &config::Backend| BackendName {
            vip: "web".to_owned(),
            backend: backend.address,
        };
        let backends = &self.config.vips[0].backends;
        let dead = backends
            .iter()
            .filter(|backend| self.failed.contains(&backend.address));
        let (settled, unnamed) = findings.map_or_else(Default::default, |findings| {
            (Some(findings.settled.into()), findings.unnamed)
        });
        let standing = Standing {
            now_ms: milliseconds(&self.plane),
            dead: dead.map(name).collect(),
            expired: std::mem::take(&mut self.expired),
            unnamed,
            settled,
            ..Standing::default()
        };
        let wanted = self.wanted(&standing);
        apply(
            &mut self.plane,
            &mut self.held,
            &wanted,
            &mut self.ids,
            "test",
        )
        .unwrap();
        self.wanted = Some(wanted);
        self.check();
    }

    fn wanted(&mut self, standing: &Standing) -> Wanted {
        let inputs = Inputs {
            config: &self.config,
            keys: &self.keys,
            ports: &[PORT],
            next_hops: &self.next_hops,
            locals: &BTreeSet::new(),
            standing,
            cpus: 1,
        };
        Wanted::new(&inputs, &self.held, &mut self.ids).unwrap()
    }

    fn vip(&self) -> u32 {
        self.wanted.as_ref().unwrap().vips[0].entry.id
    }

    fn slots(&self) -> &Slots {
        self.held.slots(self.vip()).unwrap()
    }

    fn pins(&self) -> Vec<(Flow, Pin)> {
        let mut pins = Vec::new();
        let visit = &mut |entry| {
            if let Remembered::Pin(_, flow, pin) = entry {
                pins.push((flow, pin));
            }
            ControlFlow::Continue(())
        };
        self.plane.scan().unwrap().walk(visit).unwrap();
        pins
    }

    /// What holds at any time.
    fn check(&mut self) {
        let held: BTreeMap<_, _> = self.plane.backends().unwrap().into_iter().collect();
        let mut named: BTreeSet<u16> = self.pins().iter().map(|(_, pin)| pin.backend).collect();
        let mut by_slots = BTreeSet::new();
        for slot in &self.slots().table().slots {
            by_slots.insert(slot.current);
            if slot.state() == State::Moving {
                by_slots.insert(slot.previous);
            }
        }
        assert!(by_slots.iter().eq(self.slots().named()));
        named.extend(by_slots);
        named.remove(&NOBODY);
        for id in named {
            assert!(held.contains_key(&id), "{id} is named and not known");
        }
        for (id, now) in &held {
            if let Some(before) = self.known.get(id) {
                let key = |entry: &Backend| (entry.vip, entry.address, entry.mode);
                assert_eq!(key(before), key(now), "{id} is somebody else's");
                assert!(
                    before.is_alive() || !now.is_alive(),
                    "{id} is back from the dead"
                );
            }
        }
        for (flow, _) in self.pins() {
            let place = Place::of(&flow, &self.held).unwrap();
            let slot = self.slots().slot(place.index);
            assert_ne!(slot.state(), State::Stable, "a pin where nothing moves");
        }
        self.known = held;
    }

    /// Sends a segment of a client's connection; tells where it went.
    fn packet(&self, client: u16, is_syn: bool) -> Option<IpAddr> {
        let builder = PacketBuilder::ethernet2([2, 9, 9, 9, 9, 9], PORT.mac)
            .ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64)
            .tcp(1024 + client, 443, 7 + u32::from(!is_syn), 65_535);
        let builder = if is_syn {
            builder.syn()
        } else {
            builder.ack(1)
        };
        let mut frame = Vec::new();
        builder.write(&mut frame, b"").unwrap();
        let mut buffer = vec![0; HEADROOM + frame.len()];
        let mut packet = HostPacket::new(&mut buffer, &frame).unwrap();
        let outcome = pipeline::run(&mut packet, &self.plane, PORT.ifindex);
        (outcome.reason == Reason::Forwarded).then(|| address(packet.bytes()[5] - 0x10))
    }

    fn send(&self, client: u16) {
        if let Some(backend) = self.connections.get(&client) {
            assert_eq!(
                self.packet(client, false),
                Some(*backend),
                "the connection of client {client} is broken"
            );
        }
    }

    fn begin_scan(&mut self) {
        let _guard = self.runtime.enter();
        // Nobody waits for the pause.
        self.sweeper.next = None;
        let wanted = self.wanted.as_ref().unwrap();
        self.sweeper
            .begin(&mut self.plane, &self.held, wanted)
            .unwrap();
    }

    fn end_scan(&mut self) {
        while self.sweeper.scan.is_some() {
            let message = self.runtime.block_on(self.sweeper.next());
            let found = self
                .sweeper
                .judge(message, &mut self.plane, &self.held)
                .unwrap();
            if let Some(findings) = found {
                self.reconcile(Some(findings));
            }
        }
    }

    fn restart(&mut self, with_since: bool) {
        let id = self.vip();
        if !with_since {
            self.plane.set_since(id, None).unwrap();
        }
        let now_ms = milliseconds(&self.plane);
        let table = self.plane.table(id).unwrap().unwrap();
        let slots = Slots::adopt(table, self.plane.since(id).unwrap(), now_ms);
        let vips = DataPlane::vips(&self.plane).unwrap();
        let backends = self.plane.backends().unwrap();
        self.held = Held::adopt(&vips, &backends, [(id, slots)]);
        self.ids = Ids::adopt(&vips, &backends);
        self.sweeper = Sweeper::default();
    }

    /// A backend's death ends its connections, and nobody else's.
    fn fail(&mut self, host: u8) {
        let address = address(host);
        self.connections.retain(|_, backend| *backend != address);
        let backends = &self.config.vips[0].backends;
        if backends.iter().any(|backend| backend.address == address) {
            self.failed.insert(address);
        }
        let leaving = self.wanted.iter().flat_map(|wanted| &wanted.leaving);
        let dying = leaving.filter(|(_, entry)| entry.address == map_address(address));
        self.expired = dying.map(|(id, _)| *id).collect();
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Weight(host, weight) => {
                let backends = &mut self.config.vips[0].backends;
                backends.retain(|backend| backend.address != address(host));
                backends.push(backend(host, weight));
            }
            Event::Remove(host) => {
                let backends = &mut self.config.vips[0].backends;
                backends.retain(|backend| backend.address != address(host));
            }
            Event::Fail(host) => self.fail(host),
            Event::Recover(host) => {
                self.failed.remove(&address(host));
            }
            Event::Restart(with_since) => self.restart(with_since),
            Event::Open(client) => {
                if !self.connections.contains_key(&client)
                    && let Some(backend) = self.packet(client, true)
                {
                    self.connections.insert(client, backend);
                }
            }
            Event::Close(client) => {
                self.connections.remove(&client);
            }
            Event::Send(client) => self.send(client),
            Event::Pass(ms) => {
                self.now_ms += ms;
                self.plane.set_now_ns(self.now_ms * 1_000_000);
                for client in 0..CLIENTS {
                    self.send(client);
                }
            }
            Event::BeginScan => self.begin_scan(),
            Event::EndScan => self.end_scan(),
        }
        self.reconcile(None);
        // As the daemon does after every change.
        if self.sweeper.scan.is_some() {
            self.begin_scan();
        }
    }

    /// Everybody hangs up, and time goes by until nothing is left of the past.
    fn come_to_rest(&mut self) {
        self.connections.clear();
        let all = MOVE_SECONDS + IDLE_SECONDS + MARGIN_NS / 1_000_000_000;
        // The holds, and a step that each of the waits may begin late.
        for _ in 0..all / STEP_SECONDS + 8 {
            self.happen(&Event::Pass(STEP_SECONDS * 1000));
            self.happen(&Event::BeginScan);
            self.happen(&Event::EndScan);
        }
    }

    /// Each slot's backend, by address.
    fn owners(&self) -> Vec<Option<IpAddr>> {
        let slots = &self.plane.slots(self.vip()).unwrap().slots;
        let owner = |id| Some(crate::model::ip_address(self.known.get(&id)?.address));
        slots.iter().map(|slot| owner(slot.current)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_connection_breaks_only_if_its_own_backend_died(events in vec(event(), 20..80)) {
        let mut world = World::new(3);
        for client in 0..CLIENTS / 2 {
            world.happen(&Event::Open(client));
        }
        for event in &events {
            world.happen(event);
        }
        world.come_to_rest();
        prop_assert!(world.slots().is_stable(), "{:?}", world.slots().census());
        prop_assert_eq!(world.pins(), vec![]);
        prop_assert_eq!(world.known.len(), world.config.vips[0].backends.len(), "somebody never left");

        let mut fresh = World::new(0);
        fresh.config = world.config.clone();
        fresh.failed = world.failed.clone();
        fresh.held = Held::default();
        fresh.reconcile(None);
        prop_assert_eq!(world.owners(), fresh.owners());
    }
}

#[test]
fn what_is_neither_removed_nor_swept_nor_there_was_evicted() {
    let mut losses = Losses::default();
    let count = |made, removed| PinCounters {
        made,
        removed,
        ..PinCounters::default()
    };
    let quiet = |losses: &mut Losses, made, removed, seen| {
        losses.note(&count(made, removed), &count(made, removed), seen);
    };
    // Five were missing before this daemon began.
    quiet(&mut losses, 100, 20, 75);
    assert_eq!(losses.evicted, 0);
    losses.swept = 10;
    quiet(&mut losses, 200, 30, 150);
    assert_eq!(losses.evicted, 5);
    // Pins that came while the scan went on make it look as if some were back.
    quiet(&mut losses, 200, 30, 160);
    assert_eq!(losses.evicted, 5);
    quiet(&mut losses, 210, 30, 155);
    assert_eq!(losses.evicted, 10);

    // Ten come while the first scan goes on, and five are missing since before it: these are not taken for its find later.
    let mut busy = Losses::default();
    busy.note(&count(100, 20), &count(110, 20), 85);
    quiet(&mut busy, 110, 20, 85);
    assert_eq!(busy.evicted, 0);
    quiet(&mut busy, 110, 20, 84);
    assert_eq!(busy.evicted, 1);
}

#[test]
fn flows_are_listed_while_their_slots_change_hands_and_not_before() {
    let mut world = World::new(3);
    for client in 0..CLIENTS {
        world.happen(&Event::Open(client));
    }
    let list = |world: &World, filter: FlowFilter| {
        let basis = FlowsBasis {
            scan: world.plane.scan().unwrap(),
            held: world.held.clone(),
            names: BTreeMap::from([(world.vip(), "web".to_owned())]),
            now_ns: DataPlane::now_ns(&world.plane),
        };
        basis.list(&filter).unwrap()
    };
    assert_eq!(list(&world, FlowFilter::default()), Flows::default());

    world.happen(&Event::Weight(0, 0));
    world.happen(&Event::Pass(1000));
    let flows = list(&world, FlowFilter::default());
    let moved: Vec<_> = world
        .connections
        .iter()
        .filter(|(_, backend)| **backend == address(0))
        .map(|(client, backend)| (*client, *backend))
        .collect();
    assert!(!moved.is_empty());
    for (client, backend) in &moved {
        let found = flows
            .flows
            .iter()
            .find(|flow| flow.client.port() == 1024 + *client);
        let found = found.unwrap();
        assert_eq!((found.backend, found.vip.as_str()), (*backend, "web"));
        assert_eq!(found.slot_state, "holding");
        assert_eq!(found.dialled.to_string(), "203.0.113.10:443");
        // To within the steps of a pin's times.
        assert!(found.idle_seconds < 0.14 && !found.expired && !found.closing);
        assert!(found.age_seconds.unwrap() < 1.0 + 1.08, "{found:?}");
    }
    let sum: u64 = flows.counts.iter().map(|count| count.flows).sum();
    assert_eq!((flows.total, flows.flows.len() as u64), (sum, sum));

    world.happen(&Event::Pass(20_000));
    let later = list(&world, FlowFilter::default());
    let kept = later.flows.iter().filter(|flow| flow.backend == address(0));
    let ages: Vec<_> = kept
        .map(|flow| (flow.age_seconds.unwrap(), flow.idle_seconds))
        .collect();
    assert_eq!(ages.len(), moved.len());
    assert!(
        ages.iter()
            .all(|(age, idle)| *age >= 20.0 && *age < 22.1 && *idle < 0.14),
        "{ages:?}"
    );

    let filter = FlowFilter {
        backend: Some(address(0)),
        limit: Some(1),
        ..FlowFilter::default()
    };
    let drained = list(&world, filter);
    assert_eq!(
        (drained.total, drained.flows.len()),
        (moved.len() as u64, 1)
    );
    assert_eq!(drained.counts.len(), 1);

    world.fail(0);
    world.reconcile(None);
    let filter = FlowFilter {
        vip: Some("web".to_owned()),
        backend: Some(address(0)),
        limit: None,
    };
    let dead = list(&world, filter);
    assert!(dead.flows.iter().all(|flow| flow.expired));
}

#[test]
fn who_comes_back_and_leaves_again_during_a_scan_stays_known() {
    let mut world = World::new(3);
    world.happen(&Event::Remove(2));
    for _ in 0..5 {
        world.happen(&Event::Pass(STEP_SECONDS * 1000));
    }
    let census = world.slots().census();
    assert_eq!(census.holding + census.moving, 0, "{census:?}");
    world.happen(&Event::BeginScan);
    world.happen(&Event::Weight(2, 100));
    world.happen(&Event::Pass(3001));
    for client in 0..CLIENTS {
        world.happen(&Event::Open(client));
    }
    assert!(world.connections.values().any(|at| *at == address(2)));
    world.happen(&Event::Remove(2));
    world.happen(&Event::EndScan);
    world.happen(&Event::Pass(1000));
}
