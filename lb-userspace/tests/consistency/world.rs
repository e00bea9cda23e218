//! One slot, its flows, their pins and the daemon, small enough to be searched to the end.
//!
//! Packets go by [`lb_common::pin::route`] and the slot by [`lb_userspace::model::slots::next`], the product's own
//! functions. Time is left out: a window ends at any moment at which whoever may not be silent for so long has
//! been heard, and a pin expires at any moment at which its flow may be silent.

use std::cell::RefCell;

use lb_common::{
    flow::{Address, Flow},
    pin::{self, Idle, Inserted, Kind, Pin, Pins, Segment},
    slot::{HOLDING, NOBODY, SETTLING, Slot, State},
    wire::tcp::flags::{ACK, SYN},
};
use lb_userspace::model::slots::{self, Times};

/// Flows of the slot, at most.
pub(crate) const FLOWS: usize = 2;

/// What may happen in a search. Together it would be too much to come to an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Scope {
    /// How many flows there are.
    pub(crate) flows: usize,
    /// Packets are held up between slot and pins.
    pub(crate) held_up: bool,
    /// Somebody forges packets, of flows that are in no handshake.
    pub(crate) forged: bool,
    /// Pins expire.
    pub(crate) expiry: bool,
    /// Events are told in words.
    pub(crate) told: bool,
    /// A rule that is broken.
    pub(crate) broken: Option<Broken>,
}

/// Backends: ids 1 to this.
pub(crate) const BACKENDS: u16 = 3;

const NOW_NS: u64 = 1_000_000;
const IDLE: Idle = Idle {
    open_ns: 1000,
    closed_ns: 1000,
};
const TIMES: Times = Times {
    hold_ms: 1,
    move_ms: 1,
};

/// Initial sequence number of the flows' own SYNs, and of forged ones.
const OWN: u32 = 1000;
const FORGED: u32 = 0x8000_0000;

/// A rule that is broken on purpose: the search must find it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Broken {
    /// A slot moves without having been Holding.
    NoHold,
    /// A window ends while live flows have not been heard.
    ShortWindow,
    /// A hold ends while a handshake in flight has not been heard.
    ShortHold,
    /// What is Settling becomes Stable without a scan.
    NoScan,
    /// Scans look at `old` and `proven` before `syn`.
    ScanBackwards,
    /// A pin to the slot's owner is deleted though another pin of the flow names another backend.
    LonelyJudgement,
    /// What a scan has read is deleted even if the slot has moved meanwhile.
    LateDeletion,
    /// A swap does not wait for the packets that read the old table.
    NoGrace,
    /// A packet need not fit the SYN that made the pin.
    AnythingFits,
    /// A SYN with another sequence number does not renew the pin that it hits.
    OldSequence,
    /// Pins to dead backends are followed.
    DeadPins,
}

impl Broken {
    /// Every one.
    pub(crate) const ALL: [Self; 11] = [
        Self::NoHold,
        Self::ShortWindow,
        Self::ShortHold,
        Self::NoScan,
        Self::ScanBackwards,
        Self::LonelyJudgement,
        Self::LateDeletion,
        Self::NoGrace,
        Self::AnythingFits,
        Self::OldSequence,
        Self::DeadPins,
    ];
}

/// What the client of a flow knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    /// No connection.
    Idle,
    /// SYNs were sent; these backends got one (a bit each).
    Handshake(u8),
    /// This backend's answer has come; no backend has seen that yet.
    Answered(u16),
    /// A connection with this backend.
    Open(u16),
}

/// A packet that has read its slot, and not yet its pins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Flying {
    is_syn: bool,
    slot: Slot,
}

/// A pin, without the numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    backend: u16,
    is_forged: bool,
    is_expired: bool,
}

/// A flow and what is remembered of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tracked {
    client: Client,
    /// By [`Kind`].
    pins: [Option<Held>; 3],
    flying: Option<Flying>,
    /// Whether a packet went by the slot as it is.
    is_heard: bool,
}

/// A scan under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Scan {
    /// How many pins were read.
    position: u8,
    /// What was read last, and not yet judged.
    read: Option<Held>,
    /// Whether a pin to another backend was seen.
    is_foreign: bool,
    /// Whether the slot has been as it is since the scan began.
    is_same: bool,
}

/// Everything.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct World {
    slot: Slot,
    wanted: u16,
    /// A bit for each backend that is dead.
    dead: u8,
    flows: [Tracked; FLOWS],
    scan: Option<Scan>,
    scope: Scope,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// In words.
    pub(crate) text: String,
    /// The world after it.
    pub(crate) after: World,
    /// A connection broke whose backend lives.
    pub(crate) is_violation: bool,
}

/// What happened in words, where they are asked for: millions of events are not.
macro_rules! say {
    ($world:expr, $($words:tt)*) => {
        if $world.scope.told { format!($($words)*) } else { String::new() }
    };
}

fn bit(backend: u16) -> u8 {
    1 << (backend - 1)
}

fn key(flow: usize) -> Flow {
    Flow {
        source: Address::from_v4([192, 0, 2, flow as u8]),
        destination: Address::from_v4([203, 0, 113, 1]),
        source_port: [1, 1],
        destination_port: [0, 80],
        protocol: 6,
    }
}

/// The pins of one flow, as the product's function sees them.
struct View<'a> {
    pins: RefCell<[Option<Held>; 3]>,
    world: &'a World,
}

impl Held {
    fn pin(self) -> Pin {
        Pin {
            used_ns: if self.is_expired { 0 } else { NOW_NS },
            initial_sequence: if self.is_forged { FORGED } else { OWN },
            backend: self.backend,
            flags: 0,
        }
    }

    fn new(kind: Kind, pin: &Pin) -> Self {
        Self {
            backend: pin.backend,
            // Only a pin in `syn` is asked.
            is_forged: kind == Kind::Syn && pin.initial_sequence != OWN,
            is_expired: false,
        }
    }
}

impl Pins for View<'_> {
    fn now_ns(&self) -> u64 {
        NOW_NS
    }

    fn find(&self, kind: Kind, _flow: &Flow) -> Option<Pin> {
        let mut held = self.pins.borrow()[kind as usize]?;
        if self.world.scope.broken == Some(Broken::AnythingFits) {
            held.is_forged = false;
        }
        Some(held.pin())
    }

    fn refresh(&self, kind: Kind, _flow: &Flow, pin: &Pin) {
        if self.world.scope.broken == Some(Broken::OldSequence) {
            return;
        }
        if let Some(held) = &mut self.pins.borrow_mut()[kind as usize] {
            *held = Held::new(kind, pin);
        }
    }

    fn insert(&self, kind: Kind, _flow: &Flow, pin: &Pin) -> Inserted {
        let held = &mut self.pins.borrow_mut()[kind as usize];
        match held {
            Some(held) => Inserted::Exists(held.pin()),
            None => {
                *held = Some(Held::new(kind, pin));
                Inserted::New
            }
        }
    }

    fn remove(&self, kind: Kind, _flow: &Flow) {
        self.pins.borrow_mut()[kind as usize] = None;
    }

    fn is_alive(&self, backend: u16) -> bool {
        self.world.scope.broken == Some(Broken::DeadPins) || self.world.is_alive(backend)
    }
}

impl World {
    /// A slot that has always been the first backend's.
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            slot: Slot::stable(1),
            wanted: 1,
            dead: 0,
            flows: [Tracked {
                client: Client::Idle,
                pins: [None; 3],
                flying: None,
                is_heard: false,
            }; FLOWS],
            scan: None,
            scope,
        }
    }

    /// The same world, whose events are told in words.
    pub(crate) fn told(mut self) -> Self {
        self.scope.told = true;
        self
    }

    fn is_alive(&self, backend: u16) -> bool {
        backend != NOBODY && self.dead & bit(backend) == 0
    }

    /// Everything that can happen next.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for flow in 0..self.scope.flows {
            self.client_events(flow, &mut events);
        }
        // The kernel has waited for every packet that read an older table before the daemon goes on.
        let is_quiet = self.scope.broken == Some(Broken::NoGrace)
            || self
                .flows
                .iter()
                .all(|flow| flow.flying.is_none_or(|flying| flying.slot == self.slot));
        if is_quiet {
            self.daemon_events(&mut events);
        }
        events
    }

    fn event(&self, text: String, change: impl FnOnce(&mut Self)) -> Event {
        let mut after = self.clone();
        change(&mut after);
        Event {
            text,
            after,
            is_violation: false,
        }
    }

    fn client_events(&self, flow: usize, events: &mut Vec<Event>) {
        let tracked = &self.flows[flow];
        // Packets: at once, or held up between slot and pins.
        let may_send = matches!(tracked.client, Client::Answered(_) | Client::Open(_));
        // A SYN is repeated after a second: the first is long through.
        let may_syn = !may_send && tracked.flying.is_none();
        for (is_syn, may) in [(true, may_syn), (false, may_send)] {
            if !may {
                continue;
            }
            let begin = |world: &mut Self| {
                let client = &mut world.flows[flow].client;
                if *client == Client::Idle {
                    *client = Client::Handshake(0);
                }
            };
            let name = if is_syn { "SYN" } else { "packet" };
            let mut before = self.clone();
            begin(&mut before);
            events.push(before.deliver(
                flow,
                is_syn,
                self.slot,
                &say!(self, "{name} of flow {flow}"),
            ));
            if self.scope.held_up && tracked.flying.is_none() && !self.slot.is_stable() {
                let text = say!(self, "{name} of flow {flow} reads {:?}", self.slot);
                events.push(self.event(text, |world| {
                    begin(world);
                    world.flows[flow].flying = Some(Flying {
                        is_syn,
                        slot: self.slot,
                    });
                }));
            }
        }
        if let Some(flying) = tracked.flying {
            let mut before = self.clone();
            before.flows[flow].flying = None;
            let text = say!(
                self,
                "held-up packet of flow {flow}, SYN: {}",
                flying.is_syn
            );
            events.push(before.deliver(flow, flying.is_syn, flying.slot, &text));
        }
        // The answer to a SYN arrives: the first one counts.
        if let Client::Handshake(half) = tracked.client {
            for backend in (1..=BACKENDS).filter(|backend| half & bit(*backend) != 0) {
                let text = say!(self, "flow {flow} opens with {backend}");
                events.push(self.event(text, |world| {
                    world.flows[flow].client = Client::Answered(backend);
                }));
            }
        }
        if self.scope.forged && matches!(tracked.client, Client::Idle | Client::Open(_)) {
            // Somebody who sees the flow but not its sequence numbers. (During a handshake this can break it.)
            for control in [SYN, ACK] {
                let mut pins = self.flows[flow].pins;
                let segment = Segment {
                    sequence: if control == SYN {
                        FORGED
                    } else {
                        FORGED ^ 0x4000_0000
                    },
                    control: u32::from(control),
                };
                self.route(flow, self.slot, segment, &mut pins);
                let text = say!(
                    self,
                    "forged packet of flow {flow}, SYN: {}",
                    control == SYN
                );
                events.push(self.event(text, |world| world.flows[flow].pins = pins));
            }
        }
        if let Client::Open(_) = tracked.client {
            let text = say!(self, "flow {flow} closes");
            events.push(self.event(text, |world| {
                world.flows[flow].client = Client::Idle;
                world.flows[flow].flying = None;
            }));
        }
        // A pin of a flow that is gone, or one that is not looked at while the slot is Stable.
        if self.scope.expiry && (tracked.client == Client::Idle || self.slot.is_stable()) {
            for kind in Kind::ALL {
                if tracked.pins[kind as usize].is_some_and(|held| !held.is_expired) {
                    let text = say!(self, "{} pin of flow {flow} expires", kind.as_str());
                    events.push(self.event(text, |world| {
                        if let Some(held) = &mut world.flows[flow].pins[kind as usize] {
                            held.is_expired = true;
                        }
                    }));
                }
            }
        }
    }

    fn route(
        &self,
        flow: usize,
        slot: Slot,
        segment: Segment,
        pins: &mut [Option<Held>; 3],
    ) -> u16 {
        // A Stable slot asks nobody.
        if slot.is_stable() {
            return slot.current;
        }
        let view = View {
            pins: RefCell::new(*pins),
            world: self,
        };
        let backend = pin::route(&view, slot, &IDLE, &key(flow), segment);
        *pins = view.pins.into_inner();
        backend
    }

    /// A packet of the client itself reaches a backend, by a slot that was read now or before.
    fn deliver(&self, flow: usize, is_syn: bool, slot: Slot, text: &str) -> Event {
        let mut after = self.clone();
        let segment = Segment {
            sequence: if is_syn { OWN } else { OWN + 1 },
            control: u32::from(if is_syn { SYN } else { ACK }),
        };
        let mut pins = self.flows[flow].pins;
        let backend = self.route(flow, slot, segment, &mut pins);
        let tracked = &mut after.flows[flow];
        tracked.pins = pins;
        tracked.is_heard |= slot == self.slot;
        let mut is_violation = false;
        match &mut tracked.client {
            Client::Handshake(half) if is_syn && self.is_alive(backend) => *half |= bit(backend),
            Client::Answered(own) | Client::Open(own) if !is_syn => {
                is_violation = *own != backend;
                tracked.client = Client::Open(backend);
            }
            // A SYN that comes late does no harm by itself.
            _ => {}
        }
        Event {
            text: say!(self, "{text} goes to {backend}"),
            after,
            is_violation,
        }
    }

    fn daemon_events(&self, events: &mut Vec<Event>) {
        let candidates = (1..=BACKENDS).filter(|id| self.is_alive(*id));
        for wanted in candidates.chain([NOBODY]).filter(|id| *id != self.wanted) {
            events.push(self.event(say!(self, "{wanted} is wanted"), |world| {
                world.wanted = wanted;
            }));
        }
        for backend in (1..=BACKENDS).filter(|id| self.is_alive(*id)) {
            events.push(self.event(say!(self, "{backend} dies"), |world| world.kill(backend)));
        }
        for elapsed_ms in [0, 1] {
            if elapsed_ms == 0 || self.may_time_pass() {
                self.swap(elapsed_ms, events);
            }
        }
        self.scan_events(events);
        if self.scan.is_some() || self.flows.iter().any(|flow| flow.is_heard) {
            events.push(self.event(say!(self, "the daemon restarts"), |world| {
                world.scan = None;
                for flow in &mut world.flows {
                    flow.is_heard = false;
                }
            }));
        }
    }

    fn kill(&mut self, backend: u16) {
        self.dead |= bit(backend);
        if self.wanted == backend {
            self.wanted = (1..=BACKENDS)
                .find(|id| self.is_alive(*id))
                .unwrap_or(NOBODY);
        }
        for flow in &mut self.flows {
            match flow.client {
                Client::Handshake(half) => flow.client = Client::Handshake(half & !bit(backend)),
                // Its own backend died: this may break.
                Client::Answered(own) | Client::Open(own) if own == backend => {
                    flow.client = Client::Idle;
                    flow.flying = None;
                }
                Client::Idle | Client::Answered(_) | Client::Open(_) => {}
            }
        }
    }

    /// Whether the slot's state may have lasted its time: those who are not silent for so long have been heard.
    fn may_time_pass(&self) -> bool {
        let state = self.slot.state();
        let is_excused = match state {
            State::Holding => self.scope.broken == Some(Broken::ShortHold),
            State::Moving => self.scope.broken == Some(Broken::ShortWindow),
            State::Stable | State::Settling => return false,
        };
        is_excused
            || self.flows.iter().all(|flow| match flow.client {
                Client::Idle | Client::Handshake(0) => true,
                Client::Handshake(_) | Client::Answered(_) => flow.is_heard,
                Client::Open(_) => flow.is_heard || state == State::Holding,
            })
    }

    fn swap(&self, elapsed_ms: u32, events: &mut Vec<Event>) {
        let is_alive = |id| self.is_alive(id);
        let mut slot = slots::next(self.slot, elapsed_ms, self.wanted, &is_alive, &TIMES);
        if self.scope.broken == Some(Broken::NoHold)
            && slot.state() == State::Holding
            && self.wanted != slot.current
        {
            slot = Slot::moving(self.wanted, slot.current);
        }
        if slot != self.slot {
            events.push(self.event(say!(self, "swap to {slot:?}"), |world| world.set_slot(slot)));
        }
    }

    fn set_slot(&mut self, slot: Slot) {
        if !slots::is_same_state(self.slot, slot) {
            for flow in &mut self.flows {
                flow.is_heard = false;
            }
            if let Some(scan) = &mut self.scan {
                scan.is_same = false;
            }
        }
        self.slot = slot;
    }

    fn scan_events(&self, events: &mut Vec<Event>) {
        let flows = self.scope.flows;
        let places = (3 * flows) as u8;
        let is_settling = self.slot.state() == State::Settling;
        let Some(scan) = self.scan else {
            if self.scope.broken == Some(Broken::NoScan) && is_settling {
                let slot = Slot::stable(self.slot.current);
                events.push(self.event(say!(self, "Stable unseen"), |world| world.set_slot(slot)));
            } else if is_settling {
                events.push(self.event(say!(self, "a scan begins"), |world| {
                    world.scan = Some(Scan {
                        position: 0,
                        read: None,
                        is_foreign: false,
                        is_same: true,
                    });
                }));
            }
            return;
        };
        let is_backwards = self.scope.broken == Some(Broken::ScanBackwards);
        let place = |position: u8| {
            let position = usize::from(if is_backwards {
                places - 1 - position
            } else {
                position
            });
            (Kind::ALL[position / flows], position % flows)
        };
        if let Some(read) = scan.read {
            let (kind, flow) = place(scan.position - 1);
            // Without this pin, another one of the flow would count.
            let is_in_doubt = self.scope.broken != Some(Broken::LonelyJudgement)
                && self.flows[flow].pins.iter().flatten().any(|other| {
                    other.backend != self.slot.current
                        && self.is_alive(other.backend)
                        && !other.is_expired
                });
            let useless = read.is_expired
                || !self.is_alive(read.backend)
                || (read.backend == self.slot.current && !is_in_doubt);
            let may =
                is_settling && (scan.is_same || self.scope.broken == Some(Broken::LateDeletion));
            let text = say!(self, "{} pin of flow {flow} is judged", kind.as_str());
            events.push(self.event(text, |world| {
                if may && useless {
                    world.flows[flow].pins[kind as usize] = None;
                }
                world.scan = Some(Scan {
                    read: None,
                    is_foreign: scan.is_foreign || !(may && useless),
                    ..scan
                });
            }));
        } else if scan.position < places {
            let (kind, flow) = place(scan.position);
            let read = self.flows[flow].pins[kind as usize];
            events.push(self.event(say!(self, "the scan goes on"), |world| {
                world.scan = Some(Scan {
                    position: scan.position + 1,
                    read,
                    ..scan
                });
            }));
        } else {
            events.push(self.event(say!(self, "the scan ends"), |world| {
                world.scan = None;
                if is_settling && scan.is_same && !scan.is_foreign {
                    world.set_slot(Slot::stable(world.slot.current));
                }
            }));
        }
    }
}

/// Packs numbers of a few bits each.
struct Packer(u128);

impl Packer {
    fn put(&mut self, value: usize, bits: u32) {
        assert!(value >> bits == 0, "{value} in {bits} bits");
        self.0 = self.0 << bits | value as u128;
    }

    fn slot(&mut self, slot: Slot) {
        self.put(usize::from(slot.current), 2);
        self.put(
            match slot.previous {
                HOLDING => 4,
                SETTLING => 5,
                id => usize::from(id),
            },
            3,
        );
    }

    fn held(&mut self, held: Option<Held>) {
        self.put(held.map_or(0, |held| usize::from(held.backend)), 2);
        self.put(usize::from(held.is_some_and(|held| held.is_forged)), 1);
        self.put(usize::from(held.is_some_and(|held| held.is_expired)), 1);
    }
}

impl World {
    /// The world under other names of its backends and flows.
    fn renamed(&self, names: [u16; 4], swap_flows: bool) -> Self {
        let name = |id: u16| names.get(usize::from(id)).copied().unwrap_or(id);
        let mask = |mask: u8| {
            (1..=BACKENDS)
                .filter(|id| mask & bit(*id) != 0)
                .fold(0, |mask, id| mask | bit(name(id)))
        };
        let slot = |slot: Slot| Slot {
            current: name(slot.current),
            previous: name(slot.previous),
        };
        let held = |held: Held| Held {
            backend: name(held.backend),
            ..held
        };
        let mut flows = self.flows.map(|flow| Tracked {
            client: match flow.client {
                Client::Idle => Client::Idle,
                Client::Handshake(half) => Client::Handshake(mask(half)),
                Client::Answered(id) => Client::Answered(name(id)),
                Client::Open(id) => Client::Open(name(id)),
            },
            pins: flow.pins.map(|pin| pin.map(held)),
            flying: flow.flying.map(|flying| Flying {
                slot: slot(flying.slot),
                ..flying
            }),
            is_heard: flow.is_heard,
        });
        if swap_flows {
            flows.reverse();
        }
        Self {
            slot: slot(self.slot),
            wanted: name(self.wanted),
            dead: mask(self.dead),
            flows,
            scan: self.scan.map(|scan| Scan {
                read: scan.read.map(held),
                ..scan
            }),
            scope: self.scope,
        }
    }

    fn pack(&self) -> u128 {
        let mut packer = Packer(0);
        packer.slot(self.slot);
        packer.put(usize::from(self.wanted), 2);
        packer.put(usize::from(self.dead), 3);
        for flow in &self.flows {
            packer.put(
                match flow.client {
                    Client::Idle => 0,
                    Client::Open(id) => usize::from(id),
                    Client::Handshake(half) => 4 + usize::from(half),
                    Client::Answered(id) => 11 + usize::from(id),
                },
                4,
            );
            for pin in flow.pins {
                packer.held(pin);
            }
            packer.put(flow.flying.map_or(0, |f| 1 + usize::from(f.is_syn)), 2);
            packer.slot(flow.flying.map_or(Slot::default(), |f| f.slot));
            packer.put(usize::from(flow.is_heard), 1);
        }
        packer.put(
            self.scan.map_or(0, |scan| 1 + usize::from(scan.position)),
            3,
        );
        packer.held(self.scan.and_then(|scan| scan.read));
        packer.put(usize::from(self.scan.is_some_and(|s| s.is_foreign)), 1);
        packer.put(usize::from(self.scan.is_some_and(|s| s.is_same)), 1);
        packer.0
    }

    /// Equal for worlds that differ only in the names of backends and flows.
    pub(crate) fn fingerprint(&self) -> u128 {
        const NAMES: [[u16; 4]; 6] = [
            [0, 1, 2, 3],
            [0, 1, 3, 2],
            [0, 2, 1, 3],
            [0, 2, 3, 1],
            [0, 3, 1, 2],
            [0, 3, 2, 1],
        ];
        // A scan takes the flows in an order.
        let swaps: &[bool] = if self.scope.flows < 2 || self.scan.is_some() {
            &[false]
        } else {
            &[false, true]
        };
        let all = NAMES
            .iter()
            .flat_map(|names| swaps.iter().map(|swap| self.renamed(*names, *swap).pack()));
        all.min().unwrap()
    }
}
