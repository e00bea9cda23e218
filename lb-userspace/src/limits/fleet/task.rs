//! The task: asks every period, and publishes what to enforce.

use std::{
    future::Future,
    hash::{BuildHasher as _, RandomState},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    FleetLimit, Origin, Shares,
    protocol::{Node, Reading, Timing},
    redis::{Error, Redis},
};
use crate::config::Endpoint;

/// How the fleet is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub endpoint: Endpoint,
    /// The fleet's name: nodes of one name share their limits.
    pub fleet: String,
    /// From one request to the next.
    pub period: Duration,
    /// How long an answer may take; at most the period.
    pub timeout: Duration,
    /// How many nodes the fleet was last known to have, if anybody remembers; else 1. It counts if Redis is away from
    /// the beginning.
    pub nodes: u32,
}

/// Reads the data plane.
pub trait Meter: Send + Sync + 'static {
    /// What came, and which shares are enforced. Should take much less than a period.
    fn read(&self) -> impl Future<Output = Reading> + Send;
}

/// What is known of the fleet, for people and metrics.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the last request was answered. `false` also where there are no limits, and nobody asks.
    pub is_connected: bool,
    /// Why the last request was not answered.
    pub error: Option<Error>,
    /// When the last answer came.
    pub answered: Option<Instant>,
    /// How long the last answer took.
    pub round_trip: Option<Duration>,
    /// Whether Redis is waiting for all nodes to tell their leases: then no share grows.
    pub is_learning: bool,
    /// How many nodes were alive in the last answer; 0 before the first.
    pub live: u32,
    /// How many nodes the fallback counts with.
    pub nodes: u32,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests that were not, by [`Error::CLASSES`].
    pub failures: [u64; Error::CLASSES.len()],
    /// How many limits there are.
    pub limits: usize,
    /// How many of them have a lease now.
    pub leased: usize,
}

/// The task that leases shares. It ends when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    limits: watch::Sender<Vec<FleetLimit>>,
    /// What to enforce.
    pub shares: watch::Receiver<Arc<Shares>>,
    /// What is known.
    pub status: watch::Receiver<Arc<Status>>,
}

impl Fleet {
    /// Starts the task, without limits.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    #[must_use]
    pub fn start(settings: Settings, meter: impl Meter) -> Self {
        let (limits, wanted) = watch::channel(Vec::new());
        let (task, shares, status) = Task::new(settings, meter, wanted);
        tokio::spawn(task.run());
        Self {
            limits,
            shares,
            status,
        }
    }

    /// Keeps these limits and no others. Shares of all of them follow at once; leases of those that stay go on.
    pub fn want(&self, limits: Vec<FleetLimit>) {
        self.limits.send_if_modified(|wanted| {
            let is_new = *wanted != limits;
            *wanted = limits;
            is_new
        });
    }
}

/// How often it is said why there is no answer.
const COMPLAINT: Duration = Duration::from_secs(10);

type Reads = Pin<Box<dyn Future<Output = Reading> + Send>>;

/// The client comes back with what it was answered, and how long that took.
type Exchange = Pin<Box<dyn Future<Output = (Redis, Result<Vec<i64>, Error>, Duration)> + Send>>;

struct Task<M> {
    meter: Arc<M>,
    wanted: watch::Receiver<Vec<FleetLimit>>,
    shares: watch::Sender<Arc<Shares>>,
    status: watch::Sender<Arc<Status>>,
    node: Node,
    period: Duration,
    /// The moment that the node's time counts from.
    epoch: Instant,
    /// `None` while it is out on an exchange.
    redis: Option<Redis>,
    known: Status,
    /// Not before this moment is another reason told.
    quiet: Instant,
    /// Whether a reason was told since the last answer.
    is_told: bool,
}

impl<M: Meter> Task<M> {
    fn new(
        settings: Settings,
        meter: M,
        wanted: watch::Receiver<Vec<FleetLimit>>,
    ) -> (
        Self,
        watch::Receiver<Arc<Shares>>,
        watch::Receiver<Arc<Status>>,
    ) {
        let Settings {
            endpoint,
            fleet,
            period,
            timeout,
            nodes,
        } = settings;
        let (shares, shares_receiver) = watch::channel(Arc::default());
        let (status, status_receiver) = watch::channel(Arc::default());
        // Under 2^48, as the protocol has it.
        let id = RandomState::new().hash_one(()) >> 16;
        let task = Self {
            meter: Arc::new(meter),
            wanted,
            shares,
            status,
            node: Node::new(Timing { period }, id, nodes),
            period,
            epoch: Instant::now(),
            redis: Some(Redis::new(endpoint, fleet, timeout.min(period))),
            known: Status::default(),
            quiet: Instant::now(),
            is_told: false,
        };
        (task, shares_receiver, status_receiver)
    }

    async fn run(mut self) {
        let mut turns = interval_at(Instant::now(), self.period);
        // Requests that are late make no burst.
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reads, mut exchange) = (None::<Reads>, None::<Exchange>);
        loop {
            let next = self.node.next_change().map(|next| self.epoch + next);
            let is_idle = reads.is_none() && exchange.is_none() && !self.wanted.borrow().is_empty();
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => {
                        let limits = self.wanted.borrow_and_update().clone();
                        self.node.want(&limits);
                    }
                    Err(_closed) => return,
                },
                () = sleep_until(next.unwrap_or(self.epoch)), if next.is_some() => {}
                _ = turns.tick(), if is_idle => {
                    let meter = Arc::clone(&self.meter);
                    reads = Some(Box::pin(async move { meter.read().await }));
                }
                reading = finished(&mut reads) => exchange = self.ask(&reading),
                (redis, result, took) = finished(&mut exchange) => {
                    self.redis = Some(redis);
                    self.take(result, took);
                }
            }
            self.publish();
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn ask(&mut self, reading: &Reading) -> Option<Exchange> {
        let now = self.now();
        self.node.observe(now, reading);
        let request = self.node.request(now)?;
        let mut redis = self.redis.take()?;
        Some(Box::pin(async move {
            let sent = Instant::now();
            let result = redis.call(&request).await;
            (redis, result, sent.elapsed())
        }))
    }

    fn take(&mut self, result: Result<Vec<i64>, Error>, took: Duration) {
        let now = self.now();
        let reply = result.and_then(|values| Ok(self.node.reply(now, &values)?));
        let known = &mut self.known;
        match reply {
            Ok(reply) => {
                if std::mem::take(&mut self.is_told) || known.answers == 0 {
                    tracing::info!(nodes = reply.live, "fleet limits: Redis answers");
                }
                known.error = None;
                known.is_connected = true;
                known.answered = Some(Instant::now());
                known.round_trip = Some(took);
                known.is_learning = reply.is_learning;
                known.live = reply.live;
                known.answers += 1;
            }
            Err(error) => {
                let class = error.class();
                let is_other = known
                    .error
                    .as_ref()
                    .is_none_or(|last| last.class() != class);
                if (is_other || !self.is_told) && Instant::now() >= self.quiet {
                    tracing::warn!(class, %error, "fleet limits: no answer of Redis; without one, this node keeps to its even share");
                    self.quiet = Instant::now() + COMPLAINT;
                    self.is_told = true;
                }
                let classes = Error::CLASSES.iter().zip(&mut known.failures);
                for (_, count) in classes.filter(|(name, _)| **name == class) {
                    *count += 1;
                }
                known.is_connected = false;
                known.error = Some(error);
            }
        }
    }

    fn publish(&mut self) {
        if let Some(shares) = self.node.publish(self.now()) {
            let leases = shares.shares.values();
            let leases = leases.filter(|share| share.origin == Origin::Lease);
            self.known.leased = leases.count();
            self.known.limits = shares.shares.len();
            self.known.nodes = shares.nodes;
            self.shares.send_replace(Arc::new(shares));
        }
        self.status.send_replace(Arc::new(self.known.clone()));
    }
}

/// Waits for a future if there is one, which is then gone.
async fn finished<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    let Some(running) = future else {
        return std::future::pending().await;
    };
    let result = running.as_mut().await;
    *future = None;
    result
}
