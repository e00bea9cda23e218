//! Who owns the maps: the kernel (in BPF) or the test (on the host).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    access::PrefixKey,
    backend::Backend,
    flow::HashKeys,
    fragment::FragmentKey,
    limit::LimitTables,
    noted::Noted,
    pin::{Idle, Pins},
    pipeline::Outcome,
    slot::SlotTable,
    vip::VipTable,
};

/// How many reasons the counters have room for.
pub const MAX_REASONS: usize = 64;

/// How many counters of reasons there are: each reason has one for frames that leave by another interface.
pub const REASON_COUNTERS: usize = 2 * MAX_REASONS;

/// How many other nodes of the fleet are known by their MAC addresses.
pub const MAX_PEERS: usize = 4096;

/// How many interfaces frames can leave by.
pub const MAX_PORTS: usize = 256;

const _: () = assert!(crate::reason::Reason::COUNT <= MAX_REASONS);

/// The pipeline's later steps, as programs of their own: indexes of the map `STEPS`.
pub mod step {
    /// [`crate::pipeline::unusual`].
    pub const UNUSUAL: u32 = 0;
    /// [`crate::pipeline::message`].
    pub const MESSAGE: u32 = 1;
    /// [`crate::pipeline::answer`].
    pub const ANSWER: u32 = 2;
    /// [`crate::pipeline::pins`].
    pub const PINS: u32 = 3;
    /// [`crate::pipeline::guard`].
    pub const GUARD: u32 = 4;
    /// Tells who watches what became of a packet: the observing program alone has it ([`crate::observe`]).
    pub const OBSERVED: u32 = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// Settings of the node that packets need. Host order.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Node {
    /// Keys of the flow hash.
    pub hash_keys: HashKeys,
    /// Time between two messages of a kind ([`Limited`]) that a CPU answers or forwards at the limit, in ns.
    pub icmp_interval_ns: u64,
    /// How far a CPU may run ahead of that rate, in ns.
    pub icmp_tolerance_ns: u64,
    /// Time between two pins that a CPU makes in [`crate::pin::Kind::Old`] at the limit, in ns.
    pub pin_interval_ns: u64,
    /// How far a CPU may run ahead of that rate, in ns.
    pub pin_tolerance_ns: u64,
}

impl Node {
    /// Messages that one CPU answers or forwards in a second, of each kind ([`Limited`]).
    pub const ICMP_PER_SECOND: u64 = 1000;

    /// How many of them may come at once.
    pub const ICMP_BURST: u64 = 1000;

    /// Flows that one CPU pins to the owner before, in a second; the others are forwarded there without a pin until
    /// their next packet. Ten million flows are pinned in the usual window by a CPU alone.
    pub const PINS_PER_SECOND: u64 = 20_000;

    /// How many of them may come at once.
    pub const PIN_BURST: u64 = 20_000;

    /// A node with these keys, and the usual limits.
    #[must_use]
    pub const fn new(hash_keys: HashKeys) -> Self {
        const ICMP_NS: u64 = 1_000_000_000 / Node::ICMP_PER_SECOND;
        const PIN_NS: u64 = 1_000_000_000 / Node::PINS_PER_SECOND;
        Self {
            hash_keys,
            icmp_interval_ns: ICMP_NS,
            icmp_tolerance_ns: ICMP_NS * (Self::ICMP_BURST - 1),
            pin_interval_ns: PIN_NS,
            pin_tolerance_ns: PIN_NS * (Self::PIN_BURST - 1),
        }
    }
}

/// An interface that frames come by or leave by.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

/// What is counted for a VIP or a backend: frames forwarded, and frames left to this node itself as a backend. Host
/// order; one value a CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Counters {
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
    /// TCP SYNs among those frames.
    pub new_connections: u64,
    /// Zero: keeps two values from sharing more than one cache line.
    pub reserved: u64,
}

impl Counters {
    /// Counts one forwarded frame.
    #[inline(always)]
    pub const fn add(&mut self, bytes: u64, is_syn: bool) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
        if is_syn {
            self.new_connections = self.new_connections.wrapping_add(1);
        }
    }
}

/// How many reasons to drop a VIP's counters have room for.
pub const MAX_DROPS: usize = 16;

const _: () = assert!(crate::reason::Reason::DROPS.len() <= MAX_DROPS);

/// Frames for a VIP that were dropped, by [`crate::reason::Reason::drop_index`]. Host order; one value a CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Drops {
    /// By index.
    pub packets: [u64; MAX_DROPS],
}

impl Drops {
    /// Counts one frame.
    #[inline(always)]
    pub fn add(&mut self, index: u32) {
        // The mask is what the kernel's verifier understands.
        if let Some(packets) = self.packets.get_mut(index as usize & (MAX_DROPS - 1)) {
            *packets = packets.wrapping_add(1);
        }
    }
}

/// What is limited, each with a budget of its own: a flood of pings must not silence the answers that announce a VIP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Limited {
    /// ICMP messages that are answered, sent or forwarded.
    Icmp = 0,
    /// Answers to ARP requests and neighbour solicitations.
    Neighbour = 1,
    /// Pins of [`crate::pin::Kind::Old`].
    Pin = 2,
}

impl Limited {
    /// How many budgets there are.
    pub const COUNT: usize = 3;
}

/// How a packet is to be answered. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Answer {
    /// The VIP's id.
    pub vip: u32,
    /// The largest IP packet that can be encapsulated, in bytes; 0 for a probe of traceroute.
    pub mtu: u32,
}

/// What is counted of the pins of a [`crate::pin::Kind`]. Host order; one value a CPU.
///
/// The kernel does not tell what it evicts: it is what was made, less what was removed and what is there.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct PinCounters {
    /// Pins made.
    pub made: u64,
    /// Pins removed by packets: promoted, expired, or naming a dead backend.
    pub removed: u64,
    /// Pins that the map refused.
    pub failed: u64,
    /// Pins that were not made because the CPU's budget was spent.
    pub over_budget: u64,
}

/// What a tracer is told of a packet: an [`Outcome`] as plain old data. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Traced {
    /// Number of the reason.
    pub reason: u32,
    /// The VIP's id, or [`crate::pipeline::NO_VIP`].
    pub vip: u32,
    /// The slot, or [`crate::pipeline::NO_SLOT`].
    pub slot: u32,
    /// The backend's id, or [`crate::slot::NOBODY`].
    pub backend: u32,
}

impl Traced {
    /// What became of a packet.
    #[must_use]
    #[inline(always)]
    pub const fn new(outcome: &Outcome) -> Self {
        Self {
            reason: outcome.reason as u32,
            vip: outcome.vip,
            slot: outcome.slot,
            backend: outcome.backend as u32,
        }
    }
}

/// The maps that the pipeline reads and counts in.
pub trait Tables: Pins + LimitTables {
    /// Keys of the flow hash.
    fn hash_keys(&self) -> Option<&HashKeys>;
    /// All VIPs.
    fn vips(&self) -> Option<&VipTable>;
    /// The lookup table of a VIP.
    fn slots(&self, vip: u32) -> Option<&SlotTable>;
    /// A backend by its id.
    fn backend(&self, id: u16) -> Option<&Backend>;
    /// Whether frames can be sent out of another interface.
    fn has_port(&self, ifindex: u32) -> bool;
    /// An interface's own facts.
    fn interface(&self, ifindex: u32) -> Option<&Interface>;
    /// Whether a MAC address is that of another node of the fleet. As a key it is followed by two zeros.
    fn is_peer(&self, mac: &[u8; 8]) -> bool;
    /// The backend that the fragments of a packet follow.
    fn fragment(&self, key: &FragmentKey) -> Option<u16>;
    /// Lets the later fragments of a packet follow its first.
    fn pin_fragment(&self, key: &FragmentKey, backend: u16);
    /// Whether one more message may be answered or forwarded now ([`Node::icmp_interval_ns`]).
    fn admits(&self, what: Limited) -> bool;
    /// Notes for the next step how the packet is to be answered.
    fn set_answer(&self, answer: &Answer);
    /// What [`Self::set_answer`] noted.
    fn answer(&self) -> Option<Answer>;
    /// How long a VIP's flows may be silent.
    fn idle(&self, vip: u32) -> Option<&Idle>;
    /// Notes a packet for the step that goes on with it.
    fn note(&self, noted: &Noted);
    /// What [`Self::note`] noted.
    fn noted(&self) -> Option<Noted>;
    /// What is to be looked up among the blocks for a VIP's packets ([`crate::access::blocks`]).
    fn blocks(&self, vip: u32) -> u32;
    /// What is to be looked up in the access lists for a VIP's packets ([`crate::access::lists`]).
    fn lists(&self, vip: u32) -> u32;
    /// The verdict ([`crate::access::verdict`]) of the longest blocked prefix that a key lies in; 0 for none.
    fn blocked(&self, key: &PrefixKey) -> u32;
    /// The verdict of the longest listed prefix that a key lies in; 0 for none.
    fn listed(&self, key: &PrefixKey) -> u32;
    /// Counts a packet on which a list has decided, by [`crate::access::List::counter`].
    fn count_access(&self, counter: u32);
    /// Counts a forwarded frame for its VIP and its backend.
    fn count_forwarded(&self, vip: u32, backend: u16, bytes: u64, is_syn: bool);
    /// Counts a frame for a VIP that is dropped, by [`crate::reason::Reason::drop_index`].
    fn count_drop(&self, vip: u32, index: u32);
    /// Counts a frame under its reason, and tells a tracer of it.
    fn count_outcome(&self, outcome: &Outcome);
}
