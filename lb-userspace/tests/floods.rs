//! Many flows through the real program and its real maps: what is pinned, and what floods cannot take away.
//!
//! Packets come from the measuring driver, a new flow in every repeat.
#![expect(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    ops::ControlFlow,
    thread,
    time::Instant,
};

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
    flow::{Address, Flow, HASH_KEYS, HashKeys},
    gcra::MAX_DEPTH,
    limit::{self, Limits, OwnRate, Rate, rate_flags, vip_flags},
    pin::{Idle, Kind},
    reason::Reason,
    slot::{Slot, SlotTable},
    tables::{Node, PinCounters},
    vip::{VipEntry, VipKey, VipTable},
};
use lb_userspace::dataplane::{
    DataPlane as _, Remembered, Sizes,
    bpf::{
        BpfDataPlane,
        driver::{Driver, Flows, Sample},
    },
};
use zerocopy::FromZeros as _;

const VIP: [u8; 4] = [203, 0, 113, 10];
const PORT: u16 = 443;
/// The owners of Stable slots, and of Moving ones before.
const BACKENDS: u16 = 16;
/// The owner to which slots move.
const NEW: u16 = BACKENDS + 1;
/// The loopback interface, by which the frames of test runs come.
const LOOPBACK: u32 = 1;
const MILLION: u32 = 1_000_000;
/// `XDP_DROP` and `XDP_TX` of linux/bpf.h.
const DROP: u32 = 1;
const TX: u32 = 3;
/// Pins of flows kept on the owner before that a CPU may make in a second, and at once.
const BUDGET: u64 = 1000;

/// Clients' networks: the driver fills in the rest.
const CLIENTS: [u8; 4] = [198, 51, 0, 0];
const FLOOD: [u8; 4] = [100, 64, 0, 0];

struct Balancer {
    plane: BpfDataPlane,
    driver: Driver,
}

impl Balancer {
    fn new(max_pins: u32) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads BPF programs and must run as root"
        );
        let mut plane = BpfDataPlane::private_with(Sizes {
            max_pins,
            max_sources: 1024,
        })
        .unwrap();
        let mut keys = [0; HASH_KEYS];
        for (key, index) in keys.iter_mut().zip(1u64..) {
            *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index);
        }
        let node = Node {
            pin_interval_ns: 1_000_000_000 / BUDGET,
            pin_tolerance_ns: 1_000_000_000 / BUDGET * (BUDGET - 1),
            ..Node::new(HashKeys { keys })
        };
        plane.set_node(&node).unwrap();
        for id in 1..=NEW {
            let backend = Backend {
                mac_destination: [2, 0, 0, 0, 1, id as u8],
                mode: mode::L2,
                flags: backend::flags::RESOLVED,
                mac_source: [2, 0, 0, 0, 0, 1],
                ifindex: LOOPBACK,
                mtu: 1500,
                ..Backend::default()
            };
            plane.set_backend(id, &backend).unwrap();
        }
        let idle = Idle {
            open_ns: u64::MAX,
            closed_ns: u64::MAX,
        };
        plane.set_idle(0, &idle).unwrap();
        let driver = Driver::load(1).unwrap();
        let mut balancer = Self { plane, driver };
        balancer.slots(|_, owner| Slot::stable(owner));
        balancer.guard(0);
        balancer
    }

    /// Writes the table of the one VIP, with these flags.
    fn guard(&mut self, flags: u32) {
        let mut vips = VipTable::new_box_zeroed().unwrap();
        let key = VipKey::new(Address::from_v4(VIP), PORT.to_be_bytes(), 6);
        vips.build(&[VipEntry { key, id: 0, flags }]).unwrap();
        self.plane.set_vips(&vips).unwrap();
    }

    /// Sends packets of one flow, the last of which meets this fate.
    fn send_own(&mut self, client: [u8; 4], packets: u32, action: u32) {
        let sample = Sample {
            frame: What::Ack.frame(client),
            flows: Flows::Own,
            destinations: 0,
            action,
        };
        let driver = &mut self.driver;
        driver.measure(&mut self.plane, &sample, packets).unwrap();
    }

    /// Writes the table: `slot` is given a slot's number and its owner.
    fn slots(&mut self, slot: impl Fn(u16, u16) -> Slot) {
        let mut table = SlotTable::new_box_zeroed().unwrap();
        for (entry, number) in table.slots.iter_mut().zip(0..=u16::MAX) {
            *entry = slot(number, number % BACKENDS + 1);
        }
        self.plane.set_table(0, &table).unwrap();
    }

    /// A tenth of the slots is Moving.
    fn move_a_tenth(&mut self) {
        self.slots(|number, owner| match number % 10 {
            0 => Slot::moving(NEW, owner),
            _ => Slot::stable(owner),
        });
    }

    /// Sends so many packets, all of which must be forwarded.
    fn send(&mut self, client: [u8; 4], what: What, flows: Flows, packets: u32) {
        let sample = Sample {
            frame: what.frame(client),
            flows,
            destinations: 0,
            action: TX,
        };
        let before = self.forwarded();
        let driver = &mut self.driver;
        driver.measure(&mut self.plane, &sample, packets).unwrap();
        assert_eq!(self.forwarded() - before, u64::from(packets));
    }

    fn forwarded(&self) -> u64 {
        let counts = self.plane.reason_counters().unwrap();
        let forwarded = counts
            .iter()
            .filter(|count| count.reason == Reason::Forwarded);
        forwarded.map(|count| count.packets).sum()
    }

    fn packets_of(&self, backend: u16) -> u64 {
        self.plane.backend_counters(backend).unwrap().packets
    }

    fn counters(&self, kind: Kind) -> PinCounters {
        self.plane.pin_counters(kind).unwrap()
    }

    /// Flows that are pinned to a backend, in one map.
    fn pinned(&self, wanted: Kind, backend: u16) -> HashSet<Flow> {
        let mut flows = HashSet::new();
        self.visit(|kind, flow, to| {
            if kind == wanted && to == backend {
                flows.insert(flow);
            }
        });
        flows
    }

    fn visit(&self, mut each: impl FnMut(Kind, Flow, u16)) {
        let mut visit = |remembered| {
            if let Remembered::Pin(kind, flow, pin) = remembered {
                each(kind, flow, pin.backend);
            }
            ControlFlow::Continue(())
        };
        self.plane.scan().unwrap().walk(&mut visit).unwrap();
    }

    fn assert_nothing_is_pinned(&self, after: &str) {
        let mut found = 0;
        self.visit(|_, _, _| found += 1);
        assert_eq!(found, 0, "{after}: pins in the maps");
        for kind in Kind::ALL {
            assert_eq!(
                self.counters(kind),
                PinCounters::default(),
                "{after}: {kind:?}"
            );
        }
    }
}

#[derive(Clone, Copy)]
enum What {
    Syn,
    /// A bare ACK with the number after the SYN's.
    Ack,
}

impl What {
    fn frame(self, client: [u8; 4]) -> Vec<u8> {
        let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(client, VIP, 64);
        let packet = match self {
            Self::Syn => packet.tcp(40000, PORT, 1, 65535).syn(),
            Self::Ack => packet.tcp(40000, PORT, 2, 65535).ack(1),
        };
        let mut frame = Vec::new();
        packet.write(&mut frame, &[0; 10]).unwrap();
        frame
    }
}

#[test]
fn a_million_flows_through_stable_slots_leave_no_pin() {
    let mut balancer = Balancer::new(65_536);
    let flows = 1 << 20;
    balancer.send(CLIENTS, What::Syn, Flows::Cycle(flows), flows);
    let after_syns: Vec<u64> = (1..=BACKENDS).map(|id| balancer.packets_of(id)).collect();
    balancer.send(CLIENTS, What::Ack, Flows::Cycle(flows), flows);
    for (id, of_syns) in (1..=BACKENDS).zip(after_syns) {
        // Every flow stays where it began: each backend gets as much of the second packets as of the first.
        assert_eq!(balancer.packets_of(id), 2 * of_syns, "backend {id}");
        assert!(of_syns > u64::from(flows / 20), "the flows are spread");
    }
    balancer.assert_nothing_is_pinned("flows");
}

#[test]
fn floods_into_stable_slots_leave_no_pin() {
    let mut balancer = Balancer::new(65_536);
    balancer.send(FLOOD, What::Syn, Flows::Fresh, MILLION);
    balancer.assert_nothing_is_pinned("SYNs");
    balancer.send(FLOOD, What::Ack, Flows::Fresh, MILLION);
    balancer.assert_nothing_is_pinned("bare ACKs");
}

/// Sixty times as many sources as are remembered, and one of them had been over its limit before they came.
#[test]
fn floods_of_sources_do_not_make_a_limit_forget_who_is_over_it() {
    const BURST: u32 = 50;
    let heavy = [192, 0, 2, 1];
    let mut balancer = Balancer::new(1024);
    let every_bit = Address {
        high: u64::MAX,
        low: u64::MAX,
    };
    let mut limits = Limits {
        mask_v4: every_bit,
        mask_v6: every_bit,
        ..Limits::default()
    };
    // So slow that none comes back while this runs.
    limits.rates[limit::Kind::PacketsPerSource as usize] = Rate {
        interval: MAX_DEPTH / u64::from(BURST),
        depth: MAX_DEPTH,
        ..Rate::default()
    };
    let mut limits = limits.told();
    balancer.plane.set_limits(0, &limits).unwrap();
    balancer.guard(vip_flags([limit::Kind::PacketsPerSource]));
    let key = limits.key(Address::from_v4(heavy), 0);
    assert_eq!(balancer.plane.source(&key).unwrap(), None);

    balancer.send_own(heavy, BURST, TX);
    balancer.send_own(heavy, 1, DROP);
    // Each address sends fewer than its burst.
    balancer.send(FLOOD, What::Ack, Flows::Fresh, MILLION);
    balancer.send_own(heavy, 1, DROP);
    let known = balancer.plane.source(&key).unwrap().unwrap();
    assert_eq!((known.packets, known.over), (u64::from(BURST) + 2, 2));
    let mut sources = HashMap::new();
    let scan = balancer.plane.scan_sources().unwrap();
    scan.walk(&mut |(key, source)| {
        assert!(sources.insert(key, source).is_none(), "{key:?} twice");
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(sources.len(), 1024, "every place is taken");
    assert_eq!(sources.get(&key), Some(&known));

    // A limit of its own holds as soon as the VIP's limits say that there are some.
    let own = OwnRate {
        interval: 1,
        depth: MAX_DEPTH,
    };
    let none = OwnRate::default();
    balancer.plane.set_own_rates(&key, own, none).unwrap();
    assert_eq!(balancer.plane.own_rate_keys().unwrap(), [key]);
    balancer.send_own(heavy, 1, DROP);
    for rate in &mut limits.rates {
        rate.flags |= rate_flags::OWN_RATES;
    }
    balancer.plane.set_limits(0, &limits).unwrap();
    balancer.send_own(heavy, 1000, TX);
    for _ in 0..2 {
        balancer.plane.set_own_rates(&key, none, none).unwrap();
    }
    assert_eq!(balancer.plane.own_rate_keys().unwrap(), []);
    balancer.send_own(heavy, 1, DROP);
}

#[test]
fn floods_into_moving_slots_take_no_proven_flow_away() {
    const FLOWS: u32 = 20_000;
    let mut balancer = Balancer::new(16_384);
    balancer.move_a_tenth();
    balancer.send(CLIENTS, What::Syn, Flows::Cycle(FLOWS), FLOWS);
    balancer.send(CLIENTS, What::Ack, Flows::Cycle(FLOWS), FLOWS);
    let proven = balancer.pinned(Kind::Proven, NEW);
    assert!(
        proven.len() > FLOWS as usize / 20,
        "about a tenth: {}",
        proven.len()
    );
    assert!(
        balancer.pinned(Kind::Syn, NEW).is_empty(),
        "all were promoted"
    );
    assert_eq!(balancer.packets_of(NEW), 2 * proven.len() as u64);
    assert_eq!(balancer.counters(Kind::Old), PinCounters::default());

    let started = Instant::now();
    balancer.send(FLOOD, What::Syn, Flows::Fresh, MILLION);
    balancer.send(FLOOD, What::Ack, Flows::Fresh, MILLION);
    let seconds = started.elapsed().as_secs() + 1;

    let syns = balancer.counters(Kind::Syn);
    assert!(
        syns.made > 4 * 16_384,
        "the flood is more than fits: {syns:?}"
    );
    assert!(
        balancer.pinned(Kind::Proven, NEW) == proven,
        "proven flows were lost or forged"
    );
    let old = balancer.counters(Kind::Old);
    let cpus = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    assert!(
        old.made <= cpus * BUDGET * (seconds + 1),
        "beyond the budget of {cpus} CPUs in {seconds} s: {old:?}"
    );
    assert!(old.over_budget > u64::from(MILLION / 20), "{old:?}");
    for kind in Kind::ALL {
        assert_eq!(balancer.counters(kind).failed, 0, "{kind:?}");
    }

    // Every established flow still goes to its backend, and so do those of Stable slots.
    let before: Vec<u64> = (1..=NEW).map(|id| balancer.packets_of(id)).collect();
    balancer.send(CLIENTS, What::Ack, Flows::Cycle(FLOWS), FLOWS);
    let to_new = balancer.packets_of(NEW) - before.last().unwrap();
    assert_eq!(to_new, proven.len() as u64);
}

#[test]
fn an_old_flow_whose_pin_was_not_made_goes_where_it_was_all_the_same() {
    let mut balancer = Balancer::new(16_384);
    balancer.move_a_tenth();
    // More old flows than the budget lets pin: none of them reaches the new owner, twice.
    for _ in 0..2 {
        balancer.send(CLIENTS, What::Ack, Flows::Cycle(MILLION), MILLION);
    }
    assert_eq!(balancer.packets_of(NEW), 0);
    assert!(balancer.counters(Kind::Old).over_budget > 0);
    assert!(balancer.pinned(Kind::Old, NEW).is_empty());
}
