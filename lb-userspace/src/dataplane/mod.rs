//! The maps and programs, behind one trait: in the kernel ([`bpf`]), or in memory for tests.

pub mod apply;
pub mod bpf;
mod flows;
pub mod memory;
mod observe;

use std::time::Duration;

pub use flows::{Remembered, Scan, Visit};
use lb_common::{
    access::{List, PrefixKey},
    backend::Backend,
    flow::Flow,
    fragment::FragmentKey,
    limit::{Judgement, Kind as LimitKind, Limits, OwnRate, Source, SourceKey, source::PER_BLOCK},
    pin::{Idle, Kind, Pin},
    reason::{REDIRECT, Reason, Verdict},
    slot::SlotTable,
    tables::{Counters, Drops, Interface, MAX_REASONS, Node, PinCounters},
    vip::{VipEntry, VipTable},
};
pub use observe::{Load, Observing, Records};

use crate::{
    config::{self, XdpMode},
    model::{
        attached::{AttachMode, Refused, Xdp},
        leaving::Leaving,
        slots::{Since, Slots},
    },
};

/// The maps that packets read, as the reconciler writes them.
///
/// One task owns a data plane, so no map needs a lock. Order of writing: backends, then tables, then
/// VIPs; taking away runs the other way.
pub trait DataPlane: Observing {
    /// Writes the node's settings.
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()>;
    /// Writes a backend, or clears it with `Backend::default()`.
    fn set_backend(&mut self, id: u16, backend: &Backend) -> anyhow::Result<()>;
    /// Builds a VIP's lookup table aside and swaps it in whole. When this returns, no packet reads the old one.
    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()>;
    /// Swaps in several VIPs' tables, each with the note of its times. Returns what became of the first ones: up to a
    /// failure, or of all.
    fn set_tables(&mut self, tables: &[(u32, &Slots)]) -> Vec<anyhow::Result<()>> {
        let mut results = Vec::new();
        for (vip, slots) in tables {
            let result = set_slots(self, *vip, slots);
            let has_failed = result.is_err();
            results.push(result);
            if has_failed {
                break;
            }
        }
        results
    }
    /// The lookup table that a VIP has, be it an earlier daemon's.
    fn table(&self, vip: u32) -> anyhow::Result<Option<Box<SlotTable>>>;
    /// Notes since when the slots of a VIP are in their states; `None` takes the note away.
    fn set_since(&mut self, vip: u32, since: Option<&Since>) -> anyhow::Result<()>;
    /// What [`Self::set_since`] noted, be it by an earlier daemon.
    fn since(&self, vip: u32) -> anyhow::Result<Option<Box<Since>>>;
    /// Notes since when backends take no new flows; `None` takes the note away.
    fn set_leaving(&mut self, leaving: Option<&Leaving>) -> anyhow::Result<()>;
    /// What [`Self::set_leaving`] noted, be it by an earlier daemon.
    fn leaving(&self) -> anyhow::Result<Option<Box<Leaving>>>;
    /// Writes how long a VIP's flows may be silent.
    fn set_idle(&mut self, vip: u32, idle: &Idle) -> anyhow::Result<()>;
    /// Takes a VIP's lookup table away.
    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()>;
    /// Swaps in the table of all VIPs, whole.
    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()>;
    /// Lets frames leave by an interface.
    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()>;
    /// Writes an interface's facts, by its ifindex.
    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()>;
    /// Forgets an interface's facts. No packet comes by it any more.
    fn clear_interface(&mut self, ifindex: u32) -> anyhow::Result<()>;
    /// The interfaces whose facts the maps hold, by ifindex.
    fn interfaces(&self) -> anyhow::Result<Vec<u32>>;
    /// Notes that a MAC address is another node's of the fleet, or that it no longer is.
    fn set_peer(&mut self, mac: [u8; 6], is_one: bool) -> anyhow::Result<()>;
    /// The MAC addresses of other nodes that the maps hold.
    fn peers(&self) -> anyhow::Result<Vec<[u8; 6]>>;
    /// Puts the program on an interface that carries `there` now, or swaps it in where an earlier daemon's is.
    fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
        there: Option<Xdp>,
    ) -> Result<AttachMode, Refused>;
    /// Takes the program off an interface, if it was put there.
    fn take_off(&mut self, interface: &str) -> anyhow::Result<()>;
    /// The kernel's number of the program: of the normal one, whether or not it is in.
    fn program_id(&self) -> anyhow::Result<u32>;
    /// The backends that the maps hold, by id, without empty entries.
    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>>;
    /// The VIPs that the maps hold.
    fn vips(&self) -> anyhow::Result<Vec<VipEntry>>;
    /// A VIP's counters, summed over the CPUs.
    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters>;
    /// Frames for a VIP that were dropped, summed over the CPUs.
    fn vip_drops(&self, vip: u32) -> anyhow::Result<Drops>;
    /// Forgets what was counted under a VIP's id. For an id that is given anew, before packets find it.
    fn clear_vip_counters(&mut self, vip: u32) -> anyhow::Result<()>;
    /// A backend's counters, summed over the CPUs.
    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters>;
    /// Forgets what was counted under a backend's id. For an id that is given anew, before packets find it.
    fn clear_backend_counters(&mut self, id: u16) -> anyhow::Result<()>;
    /// Adds what was counted under a backend's id, which no packet finds any more, to another's: the same backend's. Doing
    /// it again adds nothing.
    fn inherit_counters(&mut self, from: u16, to: u16) -> anyhow::Result<()>;
    /// How often the programs ran; none where the kernel has counted nothing (`kernel.bpf_stats_enabled`).
    fn program_runs(&self) -> anyhow::Result<Vec<ProgramRuns>>;
    /// Frames counted under each reason, summed over the CPUs.
    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>>;
    /// All pins and fragmented packets that the maps remember. They are read while the scan is walked through, by
    /// whatever thread does so.
    fn scan(&self) -> anyhow::Result<Scan>;
    /// A flow's pin.
    fn pin(&self, kind: Kind, flow: &Flow) -> anyhow::Result<Option<Pin>>;
    /// Removes a flow's pin, if it is there.
    fn remove_pin(&mut self, kind: Kind, flow: &Flow) -> anyhow::Result<()>;
    /// Lets the fragments of a packet go, if they are remembered.
    fn remove_fragment(&mut self, key: &FragmentKey) -> anyhow::Result<()>;
    /// Begins to keep marks ([`lb_common::marks`]), with none, where no flow has a pin that would want one. Returns whether it does.
    ///
    /// To be called while no slot changes hands: then no packet marks a flow.
    fn keep_marks(&mut self) -> anyhow::Result<bool>;
    /// Whether marks are kept.
    fn are_marks_kept(&self) -> bool;
    /// What became of the pins of a kind, summed over the CPUs.
    fn pin_counters(&self, kind: Kind) -> anyhow::Result<PinCounters>;
    /// Blocks a prefix.
    fn set_block(&mut self, key: &PrefixKey) -> anyhow::Result<()>;
    /// Lets a prefix send again, if it is blocked.
    fn clear_block(&mut self, key: &PrefixKey) -> anyhow::Result<()>;
    /// The prefixes that are blocked, be it by an earlier daemon.
    fn block_keys(&self) -> anyhow::Result<Vec<PrefixKey>>;
    /// The VIPs for which blocks are looked up, by id.
    fn block_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>>;
    /// Writes what is to be looked up among the blocks for a VIP's packets ([`lb_common::access::blocks`]).
    fn set_block_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()>;
    /// The maps of the configuration's access lists, for the one thread that writes them.
    fn list_plane(&self) -> anyhow::Result<Box<dyn ListPlane>>;
    /// Packets to a VIP on which a list has decided, summed over the CPUs.
    fn access_counter(&self, vip: u32, list: List) -> anyhow::Result<u64>;
    /// How many CPUs may run the program.
    fn cpus(&self) -> usize;
    /// How much fits into the maps whose size is the operator's choice.
    fn sizes(&self) -> Sizes;
    /// Writes a VIP's limits. What was counted and used goes on.
    fn set_limits(&mut self, vip: u32, limits: &Limits) -> anyhow::Result<()>;
    /// Takes a VIP's limits away, with all that was counted and used.
    fn clear_limits(&mut self, vip: u32) -> anyhow::Result<()>;
    /// What is known of a source.
    fn source(&self, key: &SourceKey) -> anyhow::Result<Option<Source>>;
    /// Gives a source limits of its own, or takes them back. They hold while the VIP's limits have
    /// [`OWN_RATES`](lb_common::limit::rate_flags::OWN_RATES).
    fn set_own_rates(
        &mut self,
        key: &SourceKey,
        packets: OwnRate,
        connections: OwnRate,
    ) -> anyhow::Result<()>;
    /// The sources that have limits of their own, be it by an earlier daemon.
    fn own_rate_keys(&self) -> anyhow::Result<Vec<SourceKey>>;
    /// What became of a VIP's packets at its limits, summed over the CPUs.
    fn judged(&self, vip: u32) -> anyhow::Result<Judged>;
    /// The sources of VIPs that limit them, read as [`Self::scan`] is.
    fn scan_sources(&self) -> anyhow::Result<Scan<(SourceKey, Source)>>;
    /// Now, in ns of the clock that pins are stamped with.
    fn now_ns(&self) -> u64;
}

/// The maps of the configuration's access lists. A million prefixes take seconds to write: one thread does nothing else,
/// and nobody else writes them.
pub trait ListPlane: Send {
    /// Gives a prefix a verdict ([`lb_common::access::verdict`]).
    fn set_prefix(&mut self, key: &PrefixKey, verdict: u32) -> anyhow::Result<()>;
    /// Takes a prefix off the lists, if it is there.
    fn clear_prefix(&mut self, key: &PrefixKey) -> anyhow::Result<()>;
    /// Writes which lists are to be looked up for a VIP's packets ([`lb_common::access::lists`]).
    fn set_list_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()>;
    /// The prefixes that the maps hold, with their verdicts.
    fn prefixes(&self) -> anyhow::Result<Vec<(PrefixKey, u32)>>;
    /// The VIPs for which lists are looked up, by id.
    fn list_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>>;
}

/// How many entries fit into the maps whose size is the operator's choice. One that is pinned keeps its size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    /// Pins of each kind.
    pub max_pins: u32,
    /// Sources of VIPs that limit them.
    pub max_sources: u32,
}

impl Sizes {
    /// What the configuration asks for.
    #[must_use]
    pub const fn of(node: &config::Node) -> Self {
        Self {
            max_pins: node.max_pins,
            max_sources: node.max_sources,
        }
        .in_blocks()
    }

    /// With as many sources as there is room for in whole blocks.
    #[must_use]
    pub(crate) const fn in_blocks(mut self) -> Self {
        let block = PER_BLOCK as u32;
        let blocks = self.max_sources.div_ceil(block);
        self.max_sources = match blocks.checked_mul(block) {
            Some(sources) if sources > 0 => sources,
            Some(_) => block,
            None => u32::MAX / block * block,
        };
        self
    }
}

/// How often a program ran since it was loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramRuns {
    /// Its name.
    pub program: String,
    /// How often.
    pub runs: u64,
    /// How long in all, the programs that it went on with included.
    pub time: Duration,
}

/// What became of a VIP's packets at its limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Judged {
    /// Packets by limit and judgement, in the order of [`LimitKind::ALL`] and [`Judgement::ALL`].
    pub packets: [[u64; Judgement::ALL.len()]; LimitKind::ALL.len()],
    /// Bytes that a limit of bytes judged, let through or not.
    pub bytes: u64,
}

impl Judged {
    /// Packets that a limit judged so.
    #[must_use]
    pub fn count(&self, kind: LimitKind, judgement: Judgement) -> u64 {
        let counts = self.packets.get(kind as usize);
        let count = counts.and_then(|counts| counts.get(judgement as usize));
        count.copied().unwrap_or_default()
    }

    /// How much came of what a limit counts, let through or not: packets, bytes or connections.
    #[must_use]
    pub fn offered(&self, kind: LimitKind) -> u64 {
        if kind == LimitKind::Bytes {
            return self.bytes;
        }
        let counts = Judgement::ALL.map(|judgement| self.count(kind, judgement));
        counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }
}

/// Swaps in a VIP's table with the note of its times.
fn set_slots(
    data_plane: &mut (impl DataPlane + ?Sized),
    vip: u32,
    slots: &Slots,
) -> anyhow::Result<()> {
    // The note first: where a slot's time is not known, it starts again.
    if let Some(since) = slots.since() {
        data_plane.set_since(vip, Some(since))?;
    }
    data_plane.set_table(vip, &slots.table())?;
    if slots.since().is_none() {
        data_plane.set_since(vip, None)?;
    }
    Ok(())
}

/// A MAC address as a key of the peers' map.
fn peer_key(mac: [u8; 6]) -> [u8; 8] {
    let mut key = [0; 8];
    for (to, from) in key.iter_mut().zip(mac) {
        *to = from;
    }
    key
}

/// The MAC address of a key.
fn peer_of(key: [u8; 8]) -> [u8; 6] {
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(key) {
        *to = from;
    }
    mac
}

/// Frames counted under one reason and verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReasonCount {
    /// Why frames went where they went.
    pub reason: Reason,
    /// Whether they left by another interface than the one they came by.
    pub is_redirect: bool,
    /// How many.
    pub packets: u64,
}

impl ReasonCount {
    /// Every reason, twice where frames may leave by another interface; `count` gives the frames at an index of
    /// the counters' map.
    fn all(mut count: impl FnMut(u32) -> anyhow::Result<u64>) -> anyhow::Result<Vec<Self>> {
        let mut counts = Vec::new();
        for reason in Reason::ALL.iter().copied() {
            let mut push = |is_redirect, index| -> anyhow::Result<()> {
                counts.push(Self {
                    reason,
                    is_redirect,
                    packets: count(index)?,
                });
                Ok(())
            };
            push(false, reason as u32)?;
            if reason.verdict() == Verdict::Forward {
                push(true, reason as u32 + MAX_REASONS as u32)?;
            }
        }
        Ok(counts)
    }

    /// What became of the frames: `pass`, `drop`, `tx` or `redirect`.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        if self.is_redirect {
            REDIRECT
        } else {
            self.reason.verdict().as_str()
        }
    }
}
