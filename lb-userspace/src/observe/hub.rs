//! From the ring to those who watch.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use lb_common::observe::{MAX_WATCHES, Record, Told};
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};
use zerocopy::FromBytes as _;

use super::{Names, Wanted};
use crate::dataplane::Records;

/// How often the ring is looked into. Nothing wakes the task sooner: to be woken costs the packets time.
const LOOK: Duration = Duration::from_millis(20);

/// What a reader may be behind, in bytes; more is skipped.
const KEPT: usize = 16 * 1024 * 1024;

/// A record with the bytes that follow it.
pub(crate) type Bytes = Arc<[u8]>;

/// Where records are handed on.
pub(crate) struct Hub {
    sinks: Mutex<[Option<Sink>; MAX_WATCHES]>,
    /// What the program has counted for each watcher, in all its life.
    told: Mutex<[Told; MAX_WATCHES]>,
    /// Records that readers were too slow for.
    lost: AtomicU64,
    names: Mutex<Arc<Names>>,
    is_active: watch::Sender<bool>,
}

/// One who watches.
struct Sink {
    records: mpsc::Sender<Bytes>,
    counts: Arc<Counts>,
    /// What is older was for whoever watched before.
    since_ns: u64,
    /// What had been counted then.
    before: Told,
}

/// What a watcher does not get.
#[derive(Default)]
struct Counts {
    /// Beyond its rate, or the ring was full.
    skipped: AtomicU64,
    /// It was too slow.
    lost: AtomicU64,
}

/// What has been captured and skipped since the daemon began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    pub(crate) captured: u64,
    pub(crate) skipped: u64,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            sinks: Mutex::default(),
            told: Mutex::default(),
            lost: AtomicU64::default(),
            names: Mutex::default(),
            is_active: watch::Sender::new(false),
        }
    }

    /// Makes a place for a watcher. `ended` is told when it has gone.
    pub(crate) fn open(
        self: &Arc<Self>,
        watcher: usize,
        wanted: &Wanted,
        now_ns: u64,
        ended: mpsc::UnboundedSender<usize>,
    ) -> Subscription {
        let each = size_of::<Record>().saturating_add(2 * wanted.saved as usize);
        let (records, receiver) = mpsc::channel((KEPT / each).clamp(256, 32_768));
        let counts = Arc::new(Counts::default());
        let before = lock(&self.told).get(watcher).copied().unwrap_or_default();
        if let Some(sink) = lock(&self.sinks).get_mut(watcher) {
            *sink = Some(Sink {
                records,
                counts: Arc::clone(&counts),
                since_ns: now_ns,
                before,
            });
        }
        self.is_active.send_replace(true);
        Subscription {
            records: receiver,
            wall: Wall::now(),
            counts,
            hub: Arc::clone(self),
            watcher,
            ended,
        }
    }

    /// Takes a watcher's place away.
    pub(crate) fn close(&self, watcher: usize) {
        let mut sinks = lock(&self.sinks);
        if let Some(sink) = sinks.get_mut(watcher) {
            *sink = None;
        }
        let is_active = sinks.iter().any(Option::is_some);
        self.is_active.send_replace(is_active);
    }

    /// Whether anybody watches.
    pub(crate) fn is_active(&self) -> bool {
        *self.is_active.borrow()
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        lock(&self.sinks).iter().flatten().count()
    }

    /// What has been captured and skipped since the daemon began.
    pub(crate) fn totals(&self) -> Totals {
        let told = lock(&self.told);
        let add = |sum: Totals, told: &Told| Totals {
            captured: sum.captured.wrapping_add(told.told),
            skipped: sum.skipped.wrapping_add(missed(told)),
        };
        let sum = told.iter().fold(Totals::default(), add);
        let lost = self.lost.load(Ordering::Relaxed);
        Totals {
            captured: sum.captured.wrapping_sub(lost),
            skipped: sum.skipped.wrapping_add(lost),
        }
    }

    pub(crate) fn set_names(&self, names: Names) {
        *lock(&self.names) = Arc::new(names);
    }

    /// Hands on what the ring holds.
    fn look(&self, records: &mut dyn Records) {
        let sinks = lock(&self.sinks);
        records.drain(&mut |bytes| self.hand_on(&sinks, bytes));
        let mut all = lock(&self.told);
        for (watcher, (held, sink)) in all.iter_mut().zip(sinks.iter()).enumerate() {
            match records.told(watcher) {
                Ok(told) => *held = told,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "what was skipped is not known");
                }
            }
            if let Some(sink) = sink {
                let skipped = missed(held).wrapping_sub(missed(&sink.before));
                sink.counts.skipped.store(skipped, Ordering::Relaxed);
            }
        }
    }

    fn hand_on(&self, sinks: &[Option<Sink>; MAX_WATCHES], bytes: &[u8]) {
        let Ok((record, _)) = Record::read_from_prefix(bytes) else {
            return;
        };
        let mut shared: Option<Bytes> = None;
        for (watcher, sink) in sinks.iter().enumerate() {
            let Some(sink) = sink.as_ref().filter(|sink| {
                record.watchers & (1 << watcher) != 0 && record.time_ns >= sink.since_ns
            }) else {
                continue;
            };
            let bytes = shared.get_or_insert_with(|| Bytes::from(bytes));
            // Whoever has gone is told of elsewhere.
            if let Err(mpsc::error::TrySendError::Full(_)) =
                sink.records.try_send(Arc::clone(bytes))
            {
                sink.counts.lost.fetch_add(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

const fn missed(told: &Told) -> u64 {
    told.over_rate.wrapping_add(told.ring_full)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that looks into the ring. It ends with the value.
pub(crate) struct Reader(JoinHandle<()>);

impl Reader {
    pub(crate) fn start(mut records: Box<dyn Records>, hub: Arc<Hub>) -> Self {
        Self(tokio::spawn(async move {
            let mut active = hub.is_active.subscribe();
            while active.wait_for(|is_active| *is_active).await.is_ok() {
                let mut is_last = false;
                while !is_last {
                    sleep(LOOK).await;
                    is_last = !hub.is_active();
                    hub.look(&mut *records);
                }
            }
        }))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What one watcher is told. Dropping it ends its watch.
pub struct Subscription {
    records: mpsc::Receiver<Bytes>,
    wall: Wall,
    counts: Arc<Counts>,
    hub: Arc<Hub>,
    watcher: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Subscription {
    /// The next records, up to `most`; `None` once the daemon ends.
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<Bytes>> {
        let mut taken = Vec::new();
        let count = self.records.recv_many(&mut taken, most).await;
        (count > 0).then_some(taken)
    }

    /// How many packets were not told: beyond the rate, or too fast for ring or reader.
    pub(crate) fn skipped(&self) -> u64 {
        let skipped = self.counts.skipped.load(Ordering::Relaxed);
        skipped.wrapping_add(self.counts.lost.load(Ordering::Relaxed))
    }

    /// What numbers stand for now.
    pub(crate) fn names(&self) -> Arc<Names> {
        Arc::clone(&lock(&self.hub.names))
    }

    /// The clock on the wall, as it was when the watch began.
    pub(crate) const fn wall(&self) -> Wall {
        self.wall
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let watcher = self.watcher;
        f.debug_struct("Subscription")
            .field("watcher", &watcher)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // An error says that the daemon ends, and with it all watches.
        self.ended.send(self.watcher).ok();
    }
}

/// How far the clock on the wall is ahead of `CLOCK_MONOTONIC`, in ns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wall(u64);

impl Wall {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall = wall.unwrap_or_default().as_nanos() as u64;
        Self(wall.wrapping_sub(monotonic_ns()))
    }

    /// A time of packets in ns since the Unix epoch.
    pub(crate) const fn unix_ns(self, time_ns: u64) -> u64 {
        self.0.wrapping_add(time_ns)
    }

    /// Now, in ns since the Unix epoch.
    pub(crate) fn unix_now_ns(self) -> u64 {
        self.unix_ns(monotonic_ns())
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let ns = |value: i64| u64::try_from(value).unwrap_or_default();
    ns(now.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(ns(now.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::CaptureFilter;
    use zerocopy::IntoBytes as _;

    /// Records and counts that a test makes.
    #[derive(Default)]
    struct Made {
        records: Vec<Record>,
        told: [Told; MAX_WATCHES],
    }

    impl Records for Made {
        fn drain(&mut self, take: &mut dyn FnMut(&[u8])) {
            for record in self.records.drain(..) {
                take(record.as_bytes());
            }
        }

        fn told(&self, watcher: usize) -> anyhow::Result<Told> {
            Ok(self.told[watcher])
        }
    }

    fn record(time_ns: u64, watchers: u32) -> Record {
        Record {
            time_ns,
            watchers,
            ..Record::default()
        }
    }

    #[tokio::test]
    async fn each_gets_what_is_its_own_and_newer_than_its_watch() {
        let hub = Arc::new(Hub::new());
        let (ended, mut gone) = mpsc::unbounded_channel();
        let wanted = CaptureFilter::default().wanted().unwrap();
        let mut first = hub.open(0, &wanted, 100, ended.clone());
        let mut second = hub.open(5, &wanted, 200, ended);
        assert!(hub.is_active() && hub.watchers() == 2);
        let mut made = Made {
            records: vec![record(99, 1), record(100, 1 | 1 << 5), record(200, 1 << 5)],
            ..Made::default()
        };
        made.told[0] = Told {
            told: 1,
            over_rate: 3,
            ring_full: 4,
            reserved: 0,
        };
        hub.look(&mut made);
        assert_eq!(first.next(9).await.unwrap().len(), 1);
        assert_eq!(second.next(9).await.unwrap().len(), 1);
        assert_eq!((first.skipped(), second.skipped()), (7, 0));
        drop(first);
        assert_eq!(gone.recv().await, Some(0));
        hub.close(0);
        assert!(hub.is_active());
        // The next in this place is not told of what the one before has missed.
        let (ended, _gone) = mpsc::unbounded_channel();
        let third = hub.open(0, &wanted, 300, ended);
        hub.look(&mut made);
        assert_eq!(third.skipped(), 0);
        hub.close(0);
        hub.close(5);
        assert!(!hub.is_active());
        assert_eq!(second.next(9).await, None, "its place is gone");
        let totals = Totals {
            captured: 1,
            skipped: 7,
        };
        assert_eq!(hub.totals(), totals);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_records_and_holds_nobody_up() {
        let hub = Arc::new(Hub::new());
        let (ended, _gone) = mpsc::unbounded_channel();
        let wanted = Wanted {
            saved: u32::MAX / 4,
            ..CaptureFilter::default().wanted().unwrap()
        };
        let mut slow = hub.open(1, &wanted, 0, ended);
        let mut made = Made {
            records: vec![record(1, 2); 1000],
            ..Made::default()
        };
        hub.look(&mut made);
        assert_eq!(slow.skipped(), 1000 - 256);
        assert_eq!(slow.next(1000).await.unwrap().len(), 256);
    }
}
