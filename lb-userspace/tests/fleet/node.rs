//! A node on a real Redis, with a made-up data plane that applies at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lb_userspace::{
    config::Endpoint,
    limits::fleet::{
        FleetLimit, Key, Origin, Rate, Scope, Share,
        protocol::Reading,
        redis::Error,
        task::{Fleet, Meter, Settings, Status},
    },
};

pub(crate) const LIMIT: Rate = Rate::per_second(100_000);

/// Long, so that a busy machine does not look like a slow Redis.
pub(crate) const PERIOD: Duration = Duration::from_millis(300);

const KEY: &str = "web/packets";

/// Longer than anything takes that is to happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is in force on all nodes of a test, and the largest sums that ever were.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    shares: HashMap<usize, Share>,
    pub(crate) most_leased: u64,
    pub(crate) most: u64,
}

impl Ledger {
    fn note(&mut self, node: usize, share: Share) {
        self.shares.insert(node, share);
        let sum = |leases: bool| {
            let shares = self.shares.values();
            let shares = shares.filter(|share| !leases || share.origin == Origin::Lease);
            shares.map(|share| share.rate.thousandths()).sum::<u64>()
        };
        (self.most_leased, self.most) =
            (self.most_leased.max(sum(true)), self.most.max(sum(false)));
    }
}

/// Cells that come at a steady rate.
struct Load {
    rate: AtomicU64,
    counted: Mutex<(Instant, f64)>,
    applied: AtomicU64,
}

struct Counters(Arc<Load>);

impl Meter for Counters {
    async fn read(&self) -> Reading {
        let load = &self.0;
        let mut counted = load.counted.lock().unwrap();
        let now = Instant::now();
        let rate = u32::try_from(load.rate.load(Ordering::SeqCst)).unwrap();
        counted.1 += f64::from(rate) * (now - counted.0).as_secs_f64();
        counted.0 = now;
        #[expect(clippy::cast_sign_loss, reason = "cells only come")]
        let offered = counted.1 as u64;
        Reading {
            offered: [(Key::from(KEY), offered)].into(),
            applied: load.applied.load(Ordering::SeqCst),
        }
    }
}

pub(crate) struct Node {
    pub(crate) fleet: Fleet,
    load: Arc<Load>,
}

impl Node {
    /// Starts one; `index` is its place in the ledger.
    pub(crate) fn start(endpoint: Endpoint, index: usize, ledger: &Arc<Mutex<Ledger>>) -> Self {
        let load = Arc::new(Load {
            rate: AtomicU64::new(0),
            counted: Mutex::new((Instant::now(), 0.0)),
            applied: AtomicU64::new(0),
        });
        let settings = Settings {
            endpoint,
            fleet: "edge".to_owned(),
            period: PERIOD,
            timeout: PERIOD / 2,
            nodes: 4,
        };
        let fleet = Fleet::start(settings, Counters(Arc::clone(&load)));
        fleet.want(vec![FleetLimit {
            key: Key::from(KEY),
            scope: Scope::Vip,
            rate: LIMIT,
            burst: 1000,
            largest: 1,
        }]);
        let (mut shares, plane, ledger) =
            (fleet.shares.clone(), Arc::clone(&load), Arc::clone(ledger));
        tokio::spawn(async move {
            while shares.changed().await.is_ok() {
                let shares = shares.borrow_and_update().clone();
                if let Some(share) = shares.shares.get(KEY) {
                    ledger.lock().unwrap().note(index, *share);
                }
                plane.applied.store(shares.generation, Ordering::SeqCst);
            }
            ledger.lock().unwrap().shares.remove(&index);
        });
        Self { fleet, load }
    }

    /// Lets so much come from now on, in parts of the limit.
    pub(crate) fn load(&self, parts: u64) {
        let rate = LIMIT.thousandths() / 1000 * parts;
        self.load.rate.store(rate, Ordering::SeqCst);
    }

    /// What it enforces now.
    pub(crate) fn share(&self) -> Option<Share> {
        self.fleet.shares.borrow().shares.get(KEY).copied()
    }

    /// What it enforces now, in percent of the limit, if that is a lease.
    pub(crate) fn leased(&self) -> Option<u64> {
        let share = self.share().filter(|share| share.origin == Origin::Lease)?;
        Some(share.rate.thousandths() * 100 / LIMIT.thousandths())
    }

    /// Whether it goes without Redis, on so many percent of the limit.
    pub(crate) fn falls_back_to(&self, percent: u64) -> bool {
        self.share().is_some_and(|share| {
            let part = share.rate.thousandths() * 100 / LIMIT.thousandths();
            share.origin == Origin::Fallback && part == percent
        })
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.fleet.status.borrow().clone()
    }

    /// Waits for an error of a class.
    pub(crate) async fn fails(&self, class: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.error() != Some(class) {
            assert!(Instant::now() < deadline, "{:?}", self.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The class of its last error.
    pub(crate) fn error(&self) -> Option<&'static str> {
        self.status().error.as_ref().map(Error::class)
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (place, what) = (std::panic::Location::caller(), what.to_owned());
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{place}: not {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
