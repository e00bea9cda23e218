//! The task that keeps the kernel's table what it should be: a route for every address that is announced, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::kernel::{Event, Place, Routes};

/// How long after a failure another attempt is made.
const RETRY: Duration = Duration::from_secs(1);

/// The least time between two looks for what somebody else has changed: against somebody who goes on and on.
const REST: Duration = Duration::from_millis(100);

/// How long the end of a daemon waits for its routes to be gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is done to a route.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Op {
    /// It is made, because its address is announced from now on.
    Announce,
    /// It is taken away, because its address is not announced any more.
    Withdraw,
    /// It is put back, because somebody else took it away.
    Restore,
}

impl Op {
    pub(crate) const ALL: [Self; 3] = [Self::Announce, Self::Withdraw, Self::Restore];

    /// Name in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Withdraw => "withdraw",
            Self::Restore => "restore",
        }
    }
}

/// How the table is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Report {
    /// Whether the table has been looked at once.
    pub(crate) is_looked_at: bool,
    /// The addresses that have a route.
    pub(crate) present: BTreeSet<IpAddr>,
    /// What the kernel has against those that should have one, or should not.
    pub(crate) refused: BTreeMap<IpAddr, String>,
    /// Why the table cannot be looked at.
    pub(crate) failure: Option<String>,
    /// How often each was done, and how often the kernel refused it.
    pub(crate) counts: BTreeMap<Op, [u64; 2]>,
}

/// The way to the task. The routes stay when this is dropped.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// `None` until the first decision: till then nothing is taken away.
    wanted: watch::Sender<Option<BTreeSet<IpAddr>>>,
    report: watch::Receiver<Arc<Report>>,
    task: Option<AbortHandle>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Publisher {
    /// Starts the task in the network namespace of the runtime's threads, and looks at what an earlier daemon has left.
    pub(crate) async fn start(place: Place) -> Self {
        let (wanted, receiver) = watch::channel(None);
        let (sender, mut report) = watch::channel(Arc::default());
        let task = Task {
            place,
            wanted: receiver,
            report: sender,
            told: Report::default(),
        };
        let task = tokio::spawn(task.run()).abort_handle();
        // That the kernel does not answer is in the report.
        let looked = report.wait_for(|report| report.is_looked_at || report.failure.is_some());
        timeout(PATIENCE, looked).await.ok();
        Self {
            wanted,
            report,
            task: Some(task),
        }
    }

    /// One that publishes nothing.
    pub(crate) fn idle() -> Self {
        Self {
            wanted: watch::channel(None).0,
            report: watch::channel(Arc::default()).1,
            task: None,
        }
    }

    /// Publishes these addresses and no others.
    pub(crate) fn want(&self, addresses: BTreeSet<IpAddr>) {
        self.wanted.send_if_modified(|wanted| {
            let is_new = wanted.as_ref() != Some(&addresses);
            *wanted = Some(addresses);
            is_new
        });
    }

    /// How the table is.
    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report.borrow())
    }

    /// Waits until the report is another.
    pub(crate) async fn changed(&mut self) {
        if self.report.changed().await.is_err() {
            // Nobody publishes anything.
            std::future::pending::<()>().await;
        }
    }

    /// Takes all routes away for good, and waits for that.
    pub(crate) async fn withdraw(mut self) {
        self.clear().await;
    }

    /// Takes all routes away, and waits for that; others may be wanted later.
    pub(crate) async fn clear(&mut self) {
        self.want(BTreeSet::new());
        if self.task.is_none() {
            return;
        }
        let gone = self
            .report
            .wait_for(|report| report.present.is_empty() && report.failure.is_none());
        if !matches!(timeout(PATIENCE, gone).await, Ok(Ok(_))) {
            tracing::error!("the routes of VIPs could not be withdrawn in time");
        }
    }
}

struct Task {
    place: Place,
    wanted: watch::Receiver<Option<BTreeSet<IpAddr>>>,
    report: watch::Sender<Arc<Report>>,
    told: Report,
}

/// The sockets of a session.
struct Session {
    routes: Routes,
    events: BoxStream<'static, Event>,
    listening: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Session {
    fn open(place: Place) -> io::Result<Self> {
        // Listening comes first: what happens after the look is told.
        let (events, listening) = Routes::watch(place)?;
        Ok(Self {
            routes: Routes::open(place)?,
            events,
            listening,
        })
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let ended = match Session::open(self.place) {
                Ok(session) => self.keep(session).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else {
                return;
            };
            tracing::error!(%error, table = self.place.table, "the routes of VIPs cannot be kept; tried again");
            self.told.failure = Some(error.to_string());
            self.tell();
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Keeps the table until a socket breaks; or until nobody wants anything any more, which is no error.
    async fn keep(&mut self, mut session: Session) -> io::Result<()> {
        // At once, for the first look.
        let mut look_at = Some(Instant::now());
        let mut rest = Instant::now();
        loop {
            tokio::select! {
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.follow(&session.routes, &BTreeSet::new()).await;
                }
                event = session.events.next() => {
                    let mut event = event;
                    let mut is_news = false;
                    while let Some(told) = event {
                        is_news |= self.is_news(told);
                        event = match session.events.next().now_or_never() {
                            Some(next) => Some(next.ok_or(io::ErrorKind::BrokenPipe)?),
                            None => break,
                        };
                    }
                    if event.is_none() {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                    if is_news && look_at.is_none() {
                        look_at = Some(rest.max(Instant::now()));
                    }
                }
                () = sleep_until(look_at.unwrap_or(rest)), if look_at.is_some() => {
                    let found = session.routes.list().await?;
                    let before = std::mem::replace(&mut self.told.present, found);
                    self.told.is_looked_at = true;
                    self.told.failure = None;
                    self.follow(&session.routes, &before).await;
                    rest = Instant::now() + REST;
                    look_at = None;
                }
            }
            if !self.told.refused.is_empty() && look_at.is_none() {
                look_at = Some(Instant::now() + RETRY);
            }
        }
    }

    /// Whether an event is not of this task's own making.
    fn is_news(&self, event: Event) -> bool {
        match event {
            Event::New(address) => !self.told.present.contains(&address),
            Event::Gone(address) => self.told.present.contains(&address),
            Event::Lost => true,
        }
    }

    /// Makes the table what is wanted. Routes that were there `before` and are not any more were taken away by somebody else.
    async fn follow(&mut self, routes: &Routes, before: &BTreeSet<IpAddr>) {
        let Some(wanted) = self.wanted.borrow_and_update().clone() else {
            self.tell();
            return;
        };
        self.told.refused.clear();
        let stale: Vec<_> = self.told.present.difference(&wanted).copied().collect();
        for address in stale {
            let result = routes.remove(address).await;
            if self.note(Op::Withdraw, address, result) {
                self.told.present.remove(&address);
            }
        }
        let absent: Vec<_> = wanted.difference(&self.told.present).copied().collect();
        for address in absent {
            let op = if before.contains(&address) {
                tracing::warn!(%address, table = self.place.table, "somebody took the route of a VIP away; it is put back");
                Op::Restore
            } else {
                Op::Announce
            };
            let result = routes.add(address).await;
            if self.note(op, address, result) {
                self.told.present.insert(address);
            }
        }
        self.tell();
    }

    /// Counts what became of an operation; returns whether it was done.
    fn note(&mut self, op: Op, address: IpAddr, result: io::Result<()>) -> bool {
        let [done, failed] = self.told.counts.entry(op).or_default();
        let table = self.place.table;
        match result {
            Ok(()) => {
                *done += 1;
                tracing::info!(%address, table, op = op.as_str(), "route of a VIP");
                true
            }
            Err(error) => {
                *failed += 1;
                tracing::error!(%address, table, op = op.as_str(), %error, "route of a VIP; tried again");
                self.told.refused.insert(address, error.to_string());
                false
            }
        }
    }

    fn tell(&self) {
        self.report.send_if_modified(|report| {
            let is_new = **report != self.told;
            *report = Arc::new(self.told.clone());
            is_new
        });
    }
}
