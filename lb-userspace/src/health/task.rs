//! The task: begins probes when they are due, counts what they come to, and publishes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus::HistogramVec;
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{Check, Failure, Snapshot, State, Verdict, schedule::Schedule, verdict::Standing};

/// Probes under way at a time; each takes a file descriptor. At this bound, probes are late.
const MOST_PROBES: usize = 4096;

/// Verdicts that change together come in one snapshot. A snapshot of 10,000 checks takes about a millisecond.
const SPACING: Duration = Duration::from_millis(5);

/// Verdicts may change by the thousand; so many in one snapshot are told one by one.
const LINES: usize = 20;

/// How often it is said that probes cannot be made.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Makes probes.
pub(super) trait Prober: Send + Sync + 'static {
    /// Asks once. The timeout is not its affair: it is dropped then.
    fn probe(&self, check: &Check) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Names a check while it is watched; never used again.
type Key = u64;

/// A check that is watched: its one next turn is either in the queue or under way.
struct Watched {
    check: Arc<Check>,
    schedule: Schedule,
    /// `None` for the first probe, which does not wait for its turn.
    turn: Option<u64>,
    standing: Standing,
    under_way: Option<AbortHandle>,
}

/// What a probe came to, and how long it took.
type Ended = (Result<(), Failure>, Duration);

pub(super) struct Task<P> {
    commands: mpsc::UnboundedReceiver<BTreeMap<Check, Verdict>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    prober: Arc<P>,
    durations: HistogramVec,
    /// The moment that all schedules count from.
    epoch: Instant,
    /// What makes this node's schedules its own.
    node: u64,
    next_key: Key,
    keys: BTreeMap<Arc<Check>, Key>,
    watched: HashMap<Key, Watched>,
    /// What is due next. Keys of checks that are no longer watched mean nothing.
    queue: BinaryHeap<Reverse<(Instant, Key)>>,
    probes: JoinSet<Ended>,
    under_way: HashMap<Id, Key>,
    states: BTreeMap<Arc<Check>, State>,
    /// Checks whose verdicts have changed since the last snapshot.
    changed: Vec<Arc<Check>>,
    /// Not before this moment is another snapshot published.
    rest: Instant,
    /// Probes that could not be made since that was last said, and when it may be said again.
    not_asked: u64,
    quiet: Instant,
}

impl<P: Prober> Task<P> {
    pub(super) fn new(
        commands: mpsc::UnboundedReceiver<BTreeMap<Check, Verdict>>,
        prober: Arc<P>,
        durations: HistogramVec,
    ) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let (snapshots, receiver) = watch::channel(Arc::default());
        let now = Instant::now();
        let task = Self {
            commands,
            snapshots,
            prober,
            durations,
            epoch: now,
            node: RandomState::new().hash_one(()),
            next_key: 0,
            keys: BTreeMap::new(),
            watched: HashMap::new(),
            queue: BinaryHeap::new(),
            probes: JoinSet::new(),
            under_way: HashMap::new(),
            states: BTreeMap::new(),
            changed: Vec::new(),
            rest: now,
            not_asked: 0,
            quiet: now,
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        loop {
            self.begin_due();
            let next = self.queue.peek().map(|Reverse((due, _))| *due);
            let next = next.filter(|_| self.probes.len() < MOST_PROBES);
            let is_changed = !self.changed.is_empty();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(checks) => self.watch(checks),
                    None => return,
                },
                Some(ended) = self.probes.join_next_with_id() => self.take_all(ended),
                () = sleep_until(self.rest), if is_changed => self.publish(),
                () = sleep_until(next.unwrap_or(self.epoch)), if next.is_some() => {}
            }
            if !self.changed.is_empty() && Instant::now() >= self.rest {
                self.publish();
            }
        }
    }

    fn watch(&mut self, mut checks: BTreeMap<Check, Verdict>) {
        let mut left = Vec::new();
        for (check, key) in std::mem::take(&mut self.keys) {
            if checks.remove(&check).is_some() {
                self.keys.insert(check, key);
                continue;
            }
            if let Some(Watched { under_way, .. }) = self.watched.remove(&key) {
                under_way.inspect(AbortHandle::abort);
            }
            left.extend(self.states.remove(&check).map(|state| (check, state)));
        }
        for (check, verdict) in checks {
            self.add(Arc::new(check), verdict, &left);
        }
        self.queue
            .retain(|Reverse((_, key))| self.watched.contains_key(key));
        self.publish();
    }

    /// Adds a check; `left` are those, in their order, that are not watched any more.
    fn add(&mut self, check: Arc<Check>, verdict: Verdict, left: &[(Arc<Check>, State)]) {
        let mut state = State {
            verdict,
            since: SystemTime::now(),
            reason: None,
            flaps: 0,
            record: Arc::default(),
        };
        // Checks are in the order of what they ask first, then of how often.
        let asked = (check.target, &check.probe);
        let at = left.partition_point(|(other, _)| (other.target, &other.probe) < asked);
        if let Some((_, before)) = left.get(at).filter(|(other, _)| check.asks_the_same(other))
            && verdict == Verdict::Unknown
        {
            state = State {
                record: Arc::default(),
                ..before.clone()
            };
        }
        let schedule = Schedule::new(&check, self.node);
        let key = self.next_key;
        self.next_key += 1;
        let watched = Watched {
            check: Arc::clone(&check),
            schedule,
            turn: None,
            standing: Standing::new(state.verdict),
            under_way: None,
        };
        self.queue
            .push(Reverse((Instant::now() + schedule.first(), key)));
        self.watched.insert(key, watched);
        self.keys.insert(Arc::clone(&check), key);
        self.states.insert(check, state);
    }

    /// Begins the probes that are due, as far as there is room.
    fn begin_due(&mut self) {
        let now = Instant::now();
        while self.probes.len() < MOST_PROBES
            && let Some(Reverse((due, key))) = self.queue.peek().copied()
            && due <= now
        {
            self.queue.pop();
            let Some(watched) = self.watched.get_mut(&key) else {
                continue;
            };
            let check = Arc::clone(&watched.check);
            let prober = Arc::clone(&self.prober);
            let handle = self.probes.spawn(async move {
                let began = Instant::now();
                let result = timeout(check.timeout, prober.probe(&check)).await;
                let result = result.unwrap_or(Err(Failure::TimedOut(check.timeout)));
                (result, began.elapsed())
            });
            self.under_way.insert(handle.id(), key);
            watched.under_way = Some(handle);
        }
    }

    /// Takes what a probe came to, and all that ended meanwhile.
    fn take_all(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let mut next = Some(ended);
        while let Some(ended) = next {
            self.take(ended);
            next = self.probes.try_join_next_with_id();
        }
    }

    fn take(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (id, (result, latency)) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let failure = Failure::NotAsked(format!("a defect of weir: {error}"));
                (error.id(), (Err(failure), Duration::ZERO))
            }
        };
        let key = self.under_way.remove(&id);
        let Some((key, watched)) = key.and_then(|key| Some((key, self.watched.get_mut(&key)?)))
        else {
            // Not watched any more.
            return;
        };
        watched.under_way = None;
        let now = Instant::now();
        let at = now - self.epoch;
        let turn = match watched.turn {
            None => watched
                .schedule
                .turn_after_first(at.saturating_sub(latency)),
            Some(turn) => watched.schedule.turn_after(turn, at),
        };
        watched.turn = Some(turn);
        let due = self.epoch + watched.schedule.due(turn);
        self.queue.push(Reverse((due, key)));

        let check = &watched.check;
        let Some(state) = self.states.get_mut(check) else {
            return;
        };
        if let Err(Failure::NotAsked(error)) = &result {
            self.not_asked += 1;
            if now >= self.quiet {
                let probes = std::mem::take(&mut self.not_asked);
                tracing::warn!(backend = %check.target, probes, "health checks cannot be made: {error}");
                self.quiet = now + COMPLAINT;
            }
        } else {
            watched.standing = watched.standing.after(result.is_ok(), check);
            let durations = self.durations.with_label_values(&[check.probe.as_str()]);
            durations.observe(latency.as_secs_f64());
        }
        state
            .record
            .note(&result, watched.standing.in_a_row, latency);
        let verdict = watched.standing.verdict;
        if verdict != state.verdict {
            state.flaps += u64::from(state.verdict != Verdict::Unknown);
            state.verdict = verdict;
            state.since = SystemTime::now();
            state.reason = result.err().map(|error| error.to_string().into());
            self.changed.push(Arc::clone(check));
        }
    }

    fn publish(&mut self) {
        log_changes(&self.changed, &self.states);
        self.changed.clear();
        let states = self.states.clone();
        self.snapshots.send_replace(Arc::new(Snapshot { states }));
        self.rest = Instant::now() + SPACING;
    }
}

fn log_changes(changed: &[Arc<Check>], states: &BTreeMap<Arc<Check>, State>) {
    let known = changed
        .iter()
        .filter_map(|check| Some((check, states.get(check)?)));
    for (check, state) in known.take(LINES) {
        let (backend, probe) = (check.target, check.probe.as_str());
        match &state.reason {
            Some(reason) => tracing::warn!(%backend, probe, %reason, "backend failed"),
            // So begin all that are well.
            None if state.flaps == 0 => tracing::debug!(%backend, probe, "backend is healthy"),
            None => tracing::info!(%backend, probe, "backend is healthy"),
        }
    }
    if changed.len() > LINES {
        let verdicts = changed.len();
        tracing::info!(verdicts, "many backends failed or came back at once");
    }
}

#[cfg(test)]
mod tests;
