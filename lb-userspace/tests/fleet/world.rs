//! A fleet in simulated time: nodes that run the real protocol, a network that delays and loses, a Redis that dies,
//! forgets and whose clock jumps, and packets as a fluid. A step is a millisecond.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use lb_userspace::limits::fleet::{
    FleetLimit, Key, Origin, Rate, Scope, Shares,
    protocol::{Node, Reading, Timing},
    wire::Request,
};

use crate::twin::Twin;

/// What the fleet may let through, in cells per second.
pub(crate) const LIMIT: u64 = 100_000;

/// At once: 20 ms of the limit.
pub(crate) const BURST: u64 = LIMIT / 50;

const KEY: &str = "web/packets";

/// How the world around the nodes behaves; may be changed at any time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Share of requests that are lost, and of replies.
    pub(crate) loss: f64,
    /// One way through the network, at least and at most, in milliseconds.
    pub(crate) delay: (u64, u64),
    /// From publishing shares to having them in the data plane, at most, in milliseconds.
    pub(crate) apply: u64,
    /// Whether Redis answers.
    pub(crate) is_redis_up: bool,
    /// How far Redis's clock is ahead of ours, in microseconds.
    pub(crate) clock: i64,
}

struct Host {
    node: Node,
    phase: u64,
    is_alive: bool,
    is_connected: bool,
    /// What comes here, in cells per second.
    load: f64,
    offered: f64,
    /// Time that was not used for cells, in seconds: GCRA's tolerance.
    credit: f64,
    /// What is in force: thousandths of cells per second, and whether it is a lease.
    rate: f64,
    is_lease: bool,
    applied: u64,
    /// Shares on their way into the data plane, with when they get there.
    coming: Vec<(u64, Shares)>,
    /// The reply on its way, with when it comes and to which request.
    reply: Option<(u64, u64, Vec<i64>)>,
    /// The last request, and until when its reply counts.
    sequence: u64,
    timeout: u64,
    /// For how many milliseconds it has had less than an even share, although that much came; the longest such time.
    short: u64,
    longest: u64,
}

/// What happened in a millisecond.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    /// Cells that came.
    pub(crate) offered: f64,
    /// Cells that were let through.
    pub(crate) admitted: f64,
    /// The sum of all leases in force, in cells per second.
    pub(crate) leased: f64,
    /// The sum of all that is in force, in cells per second.
    pub(crate) enforced: f64,
}

pub(crate) struct World {
    pub(crate) conditions: Conditions,
    pub(crate) redis: Twin,
    pub(crate) history: Vec<Moment>,
    timing: Timing,
    hosts: Vec<Host>,
    /// Requests on their way, with when they get there and who waits.
    requests: BTreeMap<(u64, usize), Request>,
    rng: Rng,
    now: u64,
}

impl World {
    pub(crate) fn new(nodes: usize, seed: u64) -> Self {
        let mut world = Self {
            conditions: Conditions {
                loss: 0.0,
                delay: (0, 2),
                apply: 5,
                is_redis_up: true,
                clock: 0,
            },
            redis: Twin::default(),
            history: Vec::new(),
            timing: Timing {
                period: Duration::from_millis(100),
            },
            hosts: Vec::new(),
            requests: BTreeMap::new(),
            rng: Rng::with_seed(seed),
            now: 0,
        };
        for _ in 0..nodes {
            world.join(u32::try_from(nodes).unwrap());
        }
        world
    }

    /// Adds a node that takes the fleet for so large.
    pub(crate) fn join(&mut self, known: u32) -> usize {
        let id = self.rng.u64(..1 << 48);
        let mut node = Node::new(self.timing, id, known);
        node.want(&[FleetLimit {
            key: Key::from(KEY),
            scope: Scope::Vip,
            rate: Rate::per_second(LIMIT),
            burst: BURST,
            largest: 1,
        }]);
        self.hosts.push(Host {
            node,
            phase: self.rng.u64(..100),
            is_alive: true,
            is_connected: true,
            load: 0.0,
            offered: 0.0,
            credit: 0.0,
            rate: 0.0,
            is_lease: false,
            applied: 0,
            coming: Vec::new(),
            reply: None,
            sequence: 0,
            timeout: 0,
            short: 0,
            longest: 0,
        });
        self.hosts.len() - 1
    }

    /// A node and its packets are gone.
    pub(crate) fn kill(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        (host.is_alive, host.load) = (false, 0.0);
    }

    /// Whether a node reaches Redis.
    pub(crate) fn connect(&mut self, node: usize, is_connected: bool) {
        self.hosts[node].is_connected = is_connected;
    }

    /// What comes to each node, in parts of the limit. Nodes beyond the list get nothing.
    pub(crate) fn load(&mut self, parts: &[f64]) {
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let limit = LIMIT as f64;
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.load = parts.get(index).copied().unwrap_or(0.0) * limit;
        }
    }

    /// The longest time, in milliseconds since the last call, that a node had less than an even share although that
    /// much came to it.
    pub(crate) fn short(&mut self) -> u64 {
        let hosts = self.hosts.iter_mut();
        let longest = hosts.map(|host| std::mem::take(&mut host.longest)).max();
        longest.unwrap_or(0)
    }

    /// How many milliseconds have passed.
    pub(crate) fn now(&self) -> usize {
        self.history.len()
    }

    pub(crate) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += 1;
        self.answer();
        let mut moment = Moment::default();
        let alive = self.hosts.iter().filter(|host| host.is_alive).count();
        for index in 0..self.hosts.len() {
            if self.hosts[index].is_alive {
                self.control(index);
                self.hosts[index].pass(&mut moment, alive);
            }
        }
        self.history.push(moment);
    }

    /// Redis does what has come to it.
    fn answer(&mut self) {
        let later = self.requests.split_off(&(self.now + 1, 0));
        let due = std::mem::replace(&mut self.requests, later);
        for ((_, index), request) in due {
            if !self.conditions.is_redis_up {
                continue;
            }
            // A clock of the real size, so that microseconds have the digits that they have.
            let clock = 1_800_000_000_000_000 + self.now * 1000;
            let clock = clock.saturating_add_signed(self.conditions.clock);
            let values = self.redis.call(clock, &request);
            let is_lost = self.is_lost(index);
            let comes = self.now + self.delay();
            let host = &mut self.hosts[index];
            // Whoever asked again listens no more.
            if !is_lost && request.sequence == host.sequence {
                host.reply = Some((comes, request.sequence, values));
            }
        }
    }

    fn is_lost(&mut self, index: usize) -> bool {
        self.rng.f64() < self.conditions.loss || !self.hosts[index].is_connected
    }

    fn delay(&mut self) -> u64 {
        let (least, most) = self.conditions.delay;
        self.rng.u64(least..=most)
    }

    /// A node's daemon.
    fn control(&mut self, index: usize) {
        let now = Duration::from_millis(self.now);
        let period = u64::try_from(self.timing.period.as_millis()).unwrap();
        let host = &mut self.hosts[index];
        // The first at once.
        let is_turn = self.now % period == host.phase || host.sequence == 0;
        let mut is_new = host.node.next_change().is_some_and(|at| at <= now);
        is_new |= host.applied == 0 && host.coming.is_empty();
        if let Some((at, ..)) = &host.reply
            && *at <= self.now
            && let Some((_, sequence, values)) = host.reply.take()
            && self.now < host.timeout
            && sequence == host.sequence
        {
            // An overtaken request is as good as none.
            is_new |= host.node.reply(now, &values).is_ok();
        }
        if is_turn {
            #[expect(clippy::cast_sign_loss, reason = "cells only come")]
            let offered = host.offered as u64;
            let reading = Reading {
                offered: [(Key::from(KEY), offered)].into(),
                applied: host.applied,
            };
            host.node.observe(now, &reading);
            let request = host.node.request(now).unwrap();
            host.timeout = self.now + period / 2;
            host.reply = None;
            host.sequence = request.sequence;
            let is_lost = self.is_lost(index);
            let mut at = self.now + self.delay();
            while self.requests.contains_key(&(at, index)) {
                at += 1;
            }
            if !is_lost {
                self.requests.insert((at, index), request);
            }
            is_new = true;
        }
        let host = &mut self.hosts[index];
        if is_new && let Some(shares) = host.node.publish(now) {
            let last = host.coming.last().map_or(0, |(at, _)| *at);
            let at = self.now + self.rng.u64(0..=self.conditions.apply);
            host.coming.push((at.max(last), shares));
        }
        while let Some((at, shares)) = host.coming.first()
            && *at <= self.now
        {
            let share = shares.shares[KEY];
            host.rate = share.rate.as_f64();
            host.is_lease = share.origin == Origin::Lease;
            host.applied = shares.generation;
            host.coming.remove(0);
        }
    }
}

impl Host {
    /// A millisecond of packets.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn pass(&mut self, moment: &mut Moment, alive: usize) {
        let tolerance = BURST as f64 / LIMIT as f64;
        let even = LIMIT as f64 / alive as f64;
        let is_short = self.load >= even && self.rate < even * 0.95;
        self.short = if is_short { self.short + 1 } else { 0 };
        self.longest = self.longest.max(self.short);
        self.credit = (self.credit + 0.001).min(tolerance);
        let offered = self.load / 1000.0;
        let admitted = offered.min(self.credit * self.rate);
        if admitted > 0.0 {
            self.credit -= admitted / self.rate;
        }
        self.offered += offered;
        moment.offered += offered;
        moment.admitted += admitted;
        moment.enforced += self.rate;
        if self.is_lease {
            moment.leased += self.rate;
        }
    }
}
