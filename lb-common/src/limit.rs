//! Rate limits of VIPs: in total, and for each source, by the [`crate::gcra`].
//!
//! A VIP without limits never gets here. One with limits pays for a clock read (a cheap one, unless a burst is very short), and for one
//! lookup of the source ([`source`]) where sources are limited. Limits of sources are judged first, so that what a heavy source sends in vain is not
//! taken from what all share.
//!
//! The limit of a whole VIP is one TAT for all CPUs, which take credit from it in batches: the word is contended once
//! a batch, and not by packets that are over the limit, which only read it.

pub mod source;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Address,
    gcra::{Limit, Ticks, ticks},
    vip::flags,
};

pub use source::{Source, SourceKey};

/// What is limited.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Kind {
    /// Packets of the VIP.
    Packets = 0,
    /// Bytes of its frames, as received, without the FCS.
    Bytes = 1,
    /// TCP SYNs.
    NewConnections = 2,
    /// Packets of each source prefix.
    PacketsPerSource = 3,
    /// TCP SYNs of each source prefix.
    NewConnectionsPerSource = 4,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Self; 5] = [
        Self::Packets,
        Self::Bytes,
        Self::NewConnections,
        Self::PacketsPerSource,
        Self::NewConnectionsPerSource,
    ];

    /// How many kinds hold for a VIP as a whole; they come first.
    pub const TOTALS: usize = 3;

    /// Name in the configuration, metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::NewConnections => "new_connections",
            Self::PacketsPerSource => "packets_per_source",
            Self::NewConnectionsPerSource => "new_connections_per_source",
        }
    }

    /// Whether each source has a limit of its own.
    #[must_use]
    pub const fn is_per_source(self) -> bool {
        matches!(self, Self::PacketsPerSource | Self::NewConnectionsPerSource)
    }

    /// Whether only TCP SYNs count.
    #[must_use]
    pub const fn is_of_connections(self) -> bool {
        matches!(self, Self::NewConnections | Self::NewConnectionsPerSource)
    }
}

/// What became of a packet at a limit.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Judgement {
    /// Within the limit.
    Allowed = 0,
    /// Over it, and thrown away.
    Dropped = 1,
    /// Over it, and only counted.
    Observed = 2,
}

impl Judgement {
    /// Every judgement, by number.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Dropped, Self::Observed];

    /// Name in metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Dropped => "dropped",
            Self::Observed => "observed",
        }
    }
}

/// One limit of a VIP. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Rate {
    /// Time that one packet, byte or connection takes at the rate; 0 where there is no limit of this kind.
    pub interval: Ticks,
    /// Time that the burst takes at the rate, at most [`crate::gcra::MAX_DEPTH`].
    pub depth: Ticks,
    /// Of a limit in total: how much credit a CPU takes at a time, at most the depth.
    pub batch: Ticks,
    /// [`rate_flags`].
    pub flags: u64,
}

/// Facts about a [`Rate`].
pub mod rate_flags {
    /// What is over the limit is counted and goes on.
    pub const OBSERVE: u64 = 1;
    /// The VIP's limits are held by the precise clock; set in all of its rates, or in none. The coarse clock costs nothing and is as
    /// of the kernel's last tick, 1 to 10 ms ago: a burst may be shorter or longer by what comes in a tick, and no rate changes
    /// unless the burst is as short as that.
    pub const PRECISE: u64 = 2;
    /// No limit of the VIP is one of sources. This and the next: as [`PRECISE`], in all of its rates or in none, by [`super::Limits::told`].
    pub const ONLY_TOTALS: u64 = 4;
    /// No limit of the VIP is one in total.
    pub const ONLY_SOURCES: u64 = 8;
    /// Sources of the VIP may have limits of their own. In all of its rates or in none.
    pub const OWN_RATES: u64 = 16;
}

/// The limits of a VIP. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Limits {
    /// The limits, by [`Kind`].
    pub rates: [Rate; Kind::ALL.len()],
    /// Which bits of an IPv6 source tell one from another.
    pub mask_v6: Address,
    /// Which bits of an IPv4 source, in its mapped form, tell one from another.
    pub mask_v4: Address,
}

/// A limit of one source alone; with an interval of 0 it has what every source has. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct OwnRate {
    /// As in [`Rate`].
    pub interval: Ticks,
    /// As in [`Rate`].
    pub depth: Ticks,
}

/// The limits that the fleet gives a source for itself, where it gives it some. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct OwnRates {
    /// Of packets.
    pub packets: OwnRate,
    /// Of TCP SYNs.
    pub connections: OwnRate,
}

/// How many sources may have limits of their own: more than are ever given some, old ones and new ones at the same moment.
pub const MAX_OWN_RATES: usize = 4096;

/// What a CPU knows of the limits of a VIP. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Share {
    /// Credit that it has taken and not used, by [`Kind`].
    pub credit: [Ticks; Kind::TOTALS],
    /// Packets, by [`Kind`] and [`Judgement`].
    pub judged: [[u64; Judgement::ALL.len()]; Kind::ALL.len()],
    /// Bytes that [`Kind::Bytes`] judged, let through or not.
    pub bytes: u64,
}

/// The TATs of a VIP's limits in total, by [`Kind`]: a cache line, so that two VIPs do not contend.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Totals {
    /// By [`Kind`]; the others are unused.
    pub tats: [Ticks; 8],
}

const _: () = assert!(size_of::<Totals>() == 64);

/// A TAT that several CPUs may change.
pub trait Tat {
    /// What it is.
    fn load(&self) -> Ticks;
    /// Makes it `next` if it is `seen`; else tells what it is.
    ///
    /// # Errors
    /// What it is instead.
    fn exchange(&self, seen: Ticks, next: Ticks) -> Result<(), Ticks>;
    /// Adds to it, whatever it is.
    fn add(&self, cost: Ticks);
}

/// What is known of a source, in the place that it has.
pub trait Known {
    /// How its TATs are changed.
    type Tat: Tat;
    /// Its TAT of packets, or of connections.
    fn tat(&self, kind: Kind) -> Self::Tat;
    /// Counts a packet.
    fn count(&self, is_syn: bool, is_over: bool);
}

/// The maps of the limits.
pub trait LimitTables {
    /// How TATs are changed.
    type Tat: Tat;
    /// Where a source is kept.
    type Known: Known;
    /// ns of the monotonic clock.
    fn precise_ns(&self) -> u64;
    /// The same as of the kernel's last tick.
    fn coarse_ns(&self) -> u64;
    /// A VIP's limits.
    fn limits(&self, vip: u32) -> Option<&Limits>;
    /// What is known of a source; it begins `now` where nothing is. `None` where other CPUs took its place at the same moment.
    fn source(&self, key: &SourceKey, now: Ticks) -> Option<Self::Known>;
    /// What the fleet gives a source for itself; asked of VIPs with [`rate_flags::OWN_RATES`].
    fn own_rates(&self, key: &SourceKey) -> Option<&OwnRates>;
    /// The TAT of a limit in total.
    fn total(&self, vip: u32, kind: Kind) -> Option<Self::Tat>;
    /// This CPU's credit of a limit in total.
    fn credit(&self, vip: u32, kind: Kind) -> Ticks;
    /// Sets [`Self::credit`].
    fn set_credit(&self, vip: u32, kind: Kind, credit: Ticks);
    /// Counts what became of a packet at a limit.
    fn count_judged(&self, vip: u32, kind: Kind, judgement: Judgement);
    /// Counts bytes that a limit of bytes judges.
    fn count_bytes(&self, vip: u32, bytes: u64);
}

/// A packet as limits see it.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Who sent it.
    pub source: Address,
    /// Length of its frame, in bytes, without the FCS.
    pub bytes: u32,
    /// Whether it asks for a new connection.
    pub is_syn: bool,
}

/// How often a TAT that others change at the same moment is tried. Beyond that the packet passes, and is paid for all the
/// same.
const TRIES: usize = 4;

/// What a VIP with limits of these kinds asks of the pipeline ([`flags`]).
#[must_use]
pub fn vip_flags(kinds: impl IntoIterator<Item = Kind>) -> u32 {
    let flag = |kind: Kind| {
        if kind.is_of_connections() {
            flags::SYN_LIMITS
        } else {
            flags::LIMITS
        }
    };
    kinds.into_iter().fold(0, |all, kind| all | flag(kind))
}

/// Whether a packet is within the limits of its VIP, which it then is paid for in. `guards` are the VIP's [`vip_flags`], without
/// those that do not concern this packet.
///
/// What no limit counts costs nothing.
#[inline(always)]
pub fn admits<T: LimitTables>(tables: &T, vip: u32, guards: u32, sent: &Sent) -> bool {
    if guards & (flags::LIMITS | flags::SYN_LIMITS) == 0 {
        return true;
    }
    let Some(limits) = tables.limits(vip) else {
        return true;
    };
    let facts = limits.facts();
    let now = ticks(if facts & rate_flags::PRECISE == 0 {
        tables.coarse_ns()
    } else {
        tables.precise_ns()
    });
    (facts & rate_flags::ONLY_TOTALS != 0 || of_source(tables, limits, vip, sent, now))
        && (facts & rate_flags::ONLY_SOURCES != 0 || in_total(tables, limits, vip, sent, now))
}

#[inline(always)]
fn of_source<T: LimitTables>(
    tables: &T,
    limits: &Limits,
    vip: u32,
    sent: &Sent,
    now: Ticks,
) -> bool {
    let [.., packets, connections] = &limits.rates;
    let connections = Some(connections).filter(|rate| sent.is_syn && rate.interval != 0);
    if packets.interval == 0 && connections.is_none() {
        return true;
    }
    let key = limits.key(sent.source, vip);
    // Without a place for one more source, limits in total hold.
    let Some(known) = tables.source(&key, now) else {
        return true;
    };
    let own = if limits.facts() & rate_flags::OWN_RATES == 0 {
        None
    } else {
        tables.own_rates(&key)
    };
    let mut is_over = false;
    if packets.interval != 0 {
        let kind = Kind::PacketsPerSource;
        if within(&known.tat(kind), packets, own.map(|own| &own.packets), now) {
            tables.count_judged(vip, kind, Judgement::Allowed);
        } else if packets.lets_over(tables, vip, kind) {
            is_over = true;
        } else {
            known.count(sent.is_syn, true);
            return false;
        }
    }
    if let Some(connections) = connections {
        let kind = Kind::NewConnectionsPerSource;
        if within(
            &known.tat(kind),
            connections,
            own.map(|own| &own.connections),
            now,
        ) {
            tables.count_judged(vip, kind, Judgement::Allowed);
        } else if connections.lets_over(tables, vip, kind) {
            is_over = true;
        } else {
            known.count(true, true);
            return false;
        }
    }
    known.count(sent.is_syn, is_over);
    true
}

/// Whether a packet is within a limit of its source, by the source's own rate if it has one.
#[inline(always)]
fn within<T: Tat>(tat: &T, rate: &Rate, own: Option<&OwnRate>, now: Ticks) -> bool {
    match own {
        Some(own) if own.interval != 0 => spend(tat, own.depth, now, own.interval),
        _ => spend(tat, rate.depth, now, rate.interval),
    }
}

#[inline(always)]
fn in_total<T: LimitTables>(
    tables: &T,
    limits: &Limits,
    vip: u32,
    sent: &Sent,
    now: Ticks,
) -> bool {
    let [packets, bytes, connections, ..] = &limits.rates;
    let counts_connection = sent.is_syn && connections.interval != 0;
    let len = u64::from(sent.bytes);
    if bytes.interval != 0 {
        tables.count_bytes(vip, len);
    }
    (packets.interval == 0 || total(tables, packets, (vip, Kind::Packets), now, packets.interval))
        && (bytes.interval == 0
            || total(
                tables,
                bytes,
                (vip, Kind::Bytes),
                now,
                bytes.interval.wrapping_mul(len),
            ))
        && (!counts_connection
            || total(
                tables,
                connections,
                (vip, Kind::NewConnections),
                now,
                connections.interval,
            ))
}

/// Judges by a limit in total.
#[inline(always)]
fn total<T: LimitTables>(
    tables: &T,
    rate: &Rate,
    (vip, kind): (u32, Kind),
    now: Ticks,
    cost: Ticks,
) -> bool {
    let credit = tables.credit(vip, kind);
    let is_within = if credit >= cost {
        tables.set_credit(vip, kind, credit.wrapping_sub(cost));
        true
    } else if let Some(tat) = tables.total(vip, kind) {
        // What is left of the last batch counts, so that no credit gets lost.
        let lacking = cost.wrapping_sub(credit);
        if spend(&tat, rate.depth, now, lacking.wrapping_add(rate.batch)) {
            tables.set_credit(vip, kind, rate.batch);
            true
        } else if rate.batch != 0 && spend(&tat, rate.depth, now, lacking) {
            tables.set_credit(vip, kind, 0);
            true
        } else {
            false
        }
    } else {
        true
    };
    if is_within {
        tables.count_judged(vip, kind, Judgement::Allowed);
        true
    } else {
        rate.lets_over(tables, vip, kind)
    }
}

impl Rate {
    /// Counts a packet that is over the limit, and tells whether it goes on. A function of its own, so that what is within pays
    /// nothing for it.
    #[inline(never)]
    fn lets_over<T: LimitTables>(&self, tables: &T, vip: u32, kind: Kind) -> bool {
        let is_observed = self.flags & rate_flags::OBSERVE != 0;
        let judgement = if is_observed {
            Judgement::Observed
        } else {
            Judgement::Dropped
        };
        tables.count_judged(vip, kind, judgement);
        is_observed
    }
}

/// Pays from a TAT, if it bears that.
#[inline(always)]
fn spend<T: Tat>(tat: &T, depth: Ticks, now: Ticks, cost: Ticks) -> bool {
    let seen = tat.load();
    let Some(next) = (Limit { depth }).admit(seen, now, cost) else {
        return false;
    };
    match tat.exchange(seen, next) {
        Ok(()) => true,
        Err(seen) => spend_again(tat, depth, now, cost, seen),
    }
}

/// Pays from a TAT that somebody else has just changed to `seen`. A function of its own, for it is rare.
#[inline(never)]
fn spend_again<T: Tat>(tat: &T, depth: Ticks, now: Ticks, cost: Ticks, mut seen: Ticks) -> bool {
    for _ in 1..TRIES {
        let Some(next) = (Limit { depth }).admit(seen, now, cost) else {
            return false;
        };
        match tat.exchange(seen, next) {
            Ok(()) => return true,
            Err(other) => seen = other,
        }
    }
    tat.add(cost);
    true
}

impl Limits {
    /// What [`rate_flags`] say of all of them.
    #[inline(always)]
    const fn facts(&self) -> u64 {
        let [first, ..] = &self.rates;
        first.flags
    }

    /// These limits, and that packets need not ask for those that are not there.
    #[must_use]
    pub fn told(mut self) -> Self {
        let has = |is_per_source| {
            let kinds = Kind::ALL.into_iter();
            kinds
                .filter(|kind| kind.is_per_source() == is_per_source)
                .any(|kind| self.rate(kind).interval != 0)
        };
        let fact = match (has(true), has(false)) {
            (false, true) => rate_flags::ONLY_TOTALS,
            (true, false) => rate_flags::ONLY_SOURCES,
            _ => 0,
        };
        for rate in &mut self.rates {
            rate.flags |= fact;
        }
        self
    }

    /// What a source of a VIP is known by.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self, source: Address, vip: u32) -> SourceKey {
        let mask = if source.is_v4() {
            &self.mask_v4
        } else {
            &self.mask_v6
        };
        SourceKey {
            prefix: Address {
                high: source.high & mask.high,
                low: source.low & mask.low,
            },
            vip: vip as u64,
        }
    }

    /// The limit of a kind; its interval is 0 where there is none.
    #[must_use]
    pub const fn rate(&self, kind: Kind) -> &Rate {
        let [
            packets,
            bytes,
            connections,
            per_source,
            connections_per_source,
        ] = &self.rates;
        match kind {
            Kind::Packets => packets,
            Kind::Bytes => bytes,
            Kind::NewConnections => connections,
            Kind::PacketsPerSource => per_source,
            Kind::NewConnectionsPerSource => connections_per_source,
        }
    }
}

#[cfg(test)]
mod tests;
