//! One limit for a whole fleet: every node leases a share of it from Redis for a short time, and enforces that
//! share in the data plane, so that no packet waits for Redis (docs/fleet-limits.md).
//!
//! Three layers, each knowing only the one before: [`protocol`] decides, without I/O or a clock, what a node asks
//! for and what it enforces; [`redis`] carries a request to the script and back; [`task`] keeps the time.
//! `promote` picks the sources that get limits of their own.

pub mod promote;
pub mod protocol;
mod rate;
pub mod redis;
pub mod task;

pub mod wire;

use std::{collections::BTreeMap, sync::Arc};

pub use rate::Rate;

/// Names a limit, the same on every node of the fleet: `web/packets`, or `web/packets_per_source/192.0.2.7/32`.
pub type Key = Arc<str>;

/// What a limit counts for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// A whole VIP. Every node of the fleet asks for its share, loaded or not.
    Vip,
    /// One source prefix. Only nodes that see much of it ask for shares of it.
    Source,
}

/// A limit that the fleet is to keep together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FleetLimit {
    /// Its name.
    pub key: Key,
    /// What it counts for.
    pub scope: Scope,
    /// What the whole fleet may let through.
    pub rate: Rate,
    /// How many cells the whole fleet may let through at once.
    pub burst: u64,
    /// How many cells a single packet may be: 1, or the bytes of the largest frame. However small its share, each
    /// node may let so much through at once, or it could let nothing through at all.
    pub largest: u64,
}

/// What a node enforces of one limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// This node's part of the rate.
    pub rate: Rate,
    /// This node's part of the burst, in cells: at least [`FleetLimit::largest`].
    pub burst: u64,
    /// Where it is from.
    pub origin: Origin,
}

impl Share {
    fn new(rate: Rate, limit: &FleetLimit, origin: Origin) -> Self {
        let part = u128::from(limit.burst) * u128::from(rate.thousandths());
        let part = part.div_ceil(u128::from(limit.rate.thousandths().max(1)));
        let burst = u64::try_from(part).unwrap_or(u64::MAX).max(limit.largest);
        Self {
            rate,
            burst,
            origin,
        }
    }
}

/// Where a share is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A lease that has not ended.
    Lease,
    /// The limit divided by the nodes that were last known to live, or less.
    Fallback,
}

impl Origin {
    /// Name in metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Fallback => "fallback",
        }
    }
}

/// What a node enforces of all limits.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shares {
    /// Counts up with every change; [`protocol::Reading::applied`] names it.
    pub generation: u64,
    /// How many nodes the fleet is taken to have: at least one. A source that has no limit of its own is to be held
    /// to its limit divided by this.
    pub nodes: u32,
    /// The share of each limit.
    pub shares: BTreeMap<Key, Share>,
}
