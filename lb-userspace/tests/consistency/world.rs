//! One slot, its flows, their pins and the daemon, small enough to be searched to the end.
//!
//! Packets go by [`lb_common::pin::route`] and the slot by [`lb_userspace::model::slots::next`], the product's own
//! functions. Time is left out: a window ends at any moment at which whoever may not be silent for so long has
//! been heard, and a pin expires at any moment at which its flow may be silent.

use std::cell::RefCell;

use lb_common::{
    flow::{Address, Flow},
    pin::{self, Idle, Inserted, Kind, Pin, Pins, Segment, Stamp},
    slot::{HOLDING, NOBODY, SETTLING, Slot, State},
    wire::tcp::flags::{ACK, FIN, RST, SYN},
};
use lb_userspace::model::slots::{self, Times};

/// Flows of the slot, at most.
pub(crate) const FLOWS: usize = 2;

/// What may happen in a search. Together it would be too much to come to an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a kind of event that is in or out"
)]
pub(crate) struct Scope {
    /// How many flows there are.
    pub(crate) flows: usize,
    /// Packets are held up between slot and pins.
    pub(crate) held_up: bool,
    /// Somebody forges packets, of flows that are in no handshake.
    pub(crate) forged: bool,
    /// Pins expire.
    pub(crate) expiry: bool,
    /// FIN is sent; it and RST are forged where anything is.
    pub(crate) fin: bool,
    /// Events are told in words.
    pub(crate) told: bool,
    /// A rule that is broken.
    pub(crate) broken: Option<Broken>,
}

/// Backends: ids 1 to this.
pub(crate) const BACKENDS: u16 = 3;

/// Many steps of the times in a pin.
const NOW_NS: u64 = 1 << 40;
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
    /// Flows are pinned and not marked.
    Unmarked,
}

impl Broken {
    /// Every one.
    pub(crate) const ALL: [Self; 12] = [
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
        Self::Unmarked,
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
    /// FIN was seen.
    is_closed: bool,
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

mod client;
mod daemon;
mod fingerprint;

fn bit(backend: u16) -> u8 {
    1 << (backend - 1)
}

fn key(flow: usize) -> Flow {
    Flow {
        source: Address::from_v4([192, 0, 2, flow as u8]),
        destination: Address::from_v4([203, 0, 113, 1]),
        ports: Flow::ports([1, 1], [0, 80]),
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
            stamp: Stamp::new(if self.is_expired { 0 } else { NOW_NS }),
            initial_sequence: if self.is_forged { FORGED } else { OWN },
            backend: self.backend,
            flags: if self.is_closed { pin::flags::FIN } else { 0 },
        }
    }

    fn new(kind: Kind, pin: &Pin) -> Self {
        Self {
            backend: pin.backend,
            // Only a pin in `syn` is asked.
            is_forged: kind == Kind::Syn && pin.initial_sequence != OWN,
            is_expired: false,
            is_closed: pin.flags != 0,
        }
    }
}

impl Pins for View<'_> {
    fn now_ns(&self) -> u64 {
        NOW_NS
    }

    /// Marks are taken back as soon as they may be, so no more than these are there.
    fn is_marked(&self, _hash: u32) -> bool {
        let pins = self.pins.borrow();
        let is_pinned = |kind: Kind| pins[kind as usize].is_some();
        let is_marked = is_pinned(Kind::Proven) || is_pinned(Kind::Old);
        is_marked && self.world.scope.broken != Some(Broken::Unmarked)
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

    fn insert(&self, kind: Kind, _flow: (&Flow, u32), pin: &Pin, _now_ns: u64) -> Inserted {
        let held = &mut self.pins.borrow_mut()[kind as usize];
        if let Some(held) = held {
            return Inserted::Exists(held.pin());
        }
        *held = Some(Held::new(kind, pin));
        Inserted::New
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
}
