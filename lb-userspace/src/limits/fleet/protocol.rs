//! What a node asks for and what it enforces. No I/O and no clock: every call is told the time, on a clock that
//! only goes forward, from any moment on.
//!
//! A turn goes: [`Node::observe`] what came, [`Node::request`], and [`Node::reply`] if there is an answer. Around
//! them [`Node::publish`] tells what to enforce, at the latest at [`Node::next_change`].

mod demand;
mod lease;
mod population;
mod timing;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use lease::Lease;
use population::Population;
pub use timing::Timing;

use super::{
    FleetLimit, Key, Origin, Scope, Share, Shares,
    wire::{Ask, Nonsense, Reply, Request},
};

/// So many limits of a scope are asked for in a turn, if there are that many; more take several turns.
const MOST_IN_A_TURN: u32 = 64;

/// In a fleet of at most so many nodes. What a turn of all nodes costs Redis grows with the square of their number:
/// beyond, limits take more turns instead.
const FEW_NODES: u32 = 16;

/// However many nodes there are.
const LEAST_IN_A_TURN: u32 = 2;

/// New limits are asked for at once, up to so many asks in all.
const MOST_ASKS: usize = 192;

/// What the data plane tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Cells that came since any fixed moment, let through or not, of each limit.
    pub offered: HashMap<Key, u64>,
    /// The newest [`Shares::generation`] that the data plane enforces whole; 0 for none.
    pub applied: u64,
}

/// A node's part in the protocol.
#[derive(Debug)]
pub struct Node {
    timing: Timing,
    id: u64,
    sequence: u64,
    serial: u64,
    turn: u64,
    population: Population,
    limits: BTreeMap<Key, Lease>,
    /// The request that may still be answered, and when it was made.
    outstanding: Option<(Request, Duration)>,
    published: Shares,
}

impl Node {
    /// A node without limits.
    ///
    /// `id` is drawn at random by whoever starts it, under 2^48, and never used again: so two nodes of one name, or
    /// one that starts again, are never taken for each other. `nodes` is how many the fleet was last known to have.
    #[must_use]
    pub fn new(timing: Timing, id: u64, nodes: u32) -> Self {
        Self {
            timing,
            id,
            sequence: 0,
            serial: 0,
            turn: 0,
            population: Population::new(nodes),
            limits: BTreeMap::new(),
            outstanding: None,
            published: Shares::default(),
        }
    }

    /// Keeps these limits and no others. Leases of those that stay go on.
    pub fn want(&mut self, limits: &[FleetLimit]) {
        let mut old = std::mem::take(&mut self.limits);
        for limit in limits {
            let lease = match old.remove(&limit.key) {
                Some(mut lease) => {
                    lease.change(limit);
                    lease
                }
                None => Lease::new(limit),
            };
            self.limits.insert(limit.key.clone(), lease);
        }
    }

    /// Takes what came, and what is enforced.
    pub fn observe(&mut self, now: Duration, reading: &Reading) {
        let every = self.every(now);
        for (key, lease) in &mut self.limits {
            let turns = every.of(lease.scope());
            let window = self.timing.window(lease.limit(), turns);
            let offered = reading.offered.get(key).copied();
            lease.observe(now, offered, window, reading.applied);
        }
    }

    /// What to ask now; `None` if nothing is due. An earlier request that is not answered yet no longer can be.
    pub fn request(&mut self, now: Duration) -> Option<Request> {
        self.outstanding = None;
        self.turn += 1;
        let every = self.every(now);
        let nodes = self.population.nodes(now);
        let mut asks = Vec::new();
        for scope in [Scope::Vip, Scope::Source] {
            let turns = every.of(scope);
            let limits = self.limits.iter_mut();
            let limits = limits.filter(|(_, lease)| lease.scope() == scope);
            for (place, (key, lease)) in (0..).zip(limits) {
                let is_due = (self.turn + place).is_multiple_of(u64::from(turns));
                if !(is_due || lease.is_fresh()) || asks.len() >= MOST_ASKS {
                    continue;
                }
                let standing = lease.standing(now, nodes);
                asks.push(Ask {
                    key: key.clone(),
                    limit: lease.limit(),
                    want: lease.want(nodes),
                    held: lease.held(standing.rate),
                    has: standing.rate,
                    is_lease: standing.origin == Origin::Lease,
                    lease: self.timing.lease(turns),
                });
                lease.asked();
            }
        }
        if asks.is_empty() {
            return None;
        }
        self.sequence += 1;
        let most = every.vip.max(every.source);
        let request = Request {
            node: self.id,
            sequence: self.sequence,
            serial: self.serial,
            lease: self.timing.lease(1),
            gap: self.timing.gap(),
            learn: self.timing.learn(most),
            keep: self.timing.keep(most),
            asks,
        };
        self.outstanding = Some((request.clone(), now));
        Some(request)
    }

    /// Takes the script's answer to the last request.
    ///
    /// # Errors
    /// It is none; then it is as if nothing had come.
    pub fn reply(&mut self, now: Duration, values: &[i64]) -> Result<Reply, Nonsense> {
        let (request, sent) = self.outstanding.take().ok_or(Nonsense::Overtaken)?;
        let reply = request.read(values)?;
        self.serial = self.serial.max(reply.serial);
        self.population.note(now, reply.live, reply.is_learning);
        for (ask, answer) in request.asks.iter().zip(&reply.answers) {
            if let Some(lease) = self.limits.get_mut(&ask.key) {
                // Redis counts from later on: there the lease ends last.
                let until = sent + ask.lease.saturating_sub(self.timing.margin());
                lease.take(*answer, until, ask.lease);
            }
        }
        Ok(reply)
    }

    /// What to enforce from now on, if that is something else than before.
    pub fn publish(&mut self, now: Duration) -> Option<Shares> {
        let nodes = self.population.nodes(now);
        let shares = self.limits.iter_mut();
        let shares: BTreeMap<Key, Share> = shares
            .map(|(key, lease)| (key.clone(), lease.standing(now, nodes)))
            .collect();
        if self.published.generation > 0
            && self.published.nodes == nodes
            && self.published.shares == shares
        {
            return None;
        }
        let generation = self.published.generation + 1;
        for (key, lease) in &mut self.limits {
            if let Some(share) = shares.get(key) {
                lease.published(generation, share.rate);
            }
        }
        self.published = Shares {
            generation,
            nodes,
            shares,
        };
        Some(self.published.clone())
    }

    /// When what is to be enforced changes without an answer.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        self.limits.values().filter_map(Lease::ends).min()
    }

    /// What was published last.
    #[must_use]
    pub const fn published(&self) -> &Shares {
        &self.published
    }

    /// How many turns the limits of each scope take, all in all.
    fn every(&self, now: Duration) -> Every {
        let nodes = self.population.nodes(now).max(FEW_NODES);
        let most = (MOST_IN_A_TURN * FEW_NODES * FEW_NODES) / nodes.saturating_mul(nodes);
        let most = most.max(LEAST_IN_A_TURN);
        let turns = |scope| {
            let limits = self.limits.values();
            let count = limits.filter(|lease| lease.scope() == scope).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            count.div_ceil(most).max(1)
        };
        Every {
            vip: turns(Scope::Vip),
            source: turns(Scope::Source),
        }
    }
}

/// In how many turns every limit of a scope is asked for once.
#[derive(Clone, Copy)]
struct Every {
    vip: u32,
    source: u32,
}

impl Every {
    const fn of(self, scope: Scope) -> u32 {
        match scope {
            Scope::Vip => self.vip,
            Scope::Source => self.source,
        }
    }
}

#[cfg(test)]
mod tests;
