//! Tells segments where addresses are, unasked: gratuitous ARP (request and reply, RFC 5227), unsolicited neighbour
//! advertisements (RFC 4861, section 7.2.6). Whoever knows the address learns its new place from them; whoever does not know it
//! keeps silent.
//!
//! Frames leave untagged, by every interface that has the program and a carrier. Three times fast, then again and again: a switch may
//! have lost the first, and a part of the network may have come back since.

mod frame;
mod schedule;
mod socket;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep_until};

use schedule::Schedule;
use socket::Sender;

/// How many addresses are told of at once, and how soon after them the next: a node with thousands must not flood its segments.
const BATCH: usize = 64;
const PACE: Duration = Duration::from_millis(10);

/// What is to be told, and where.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Interfaces, by the kernel's number.
    pub interfaces: BTreeMap<u32, Interface>,
    /// Addresses, each with a number that is another one whenever it is to be told fast again.
    pub addresses: BTreeMap<IpAddr, u64>,
}

/// An interface.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address: what is told.
    pub mac: [u8; 6],
    /// How often it has got a carrier so far; `None` where it has none now.
    pub carrier: Option<u32>,
}

/// The task that tells. It ends when this is dropped.
#[derive(Debug)]
pub struct Announcer {
    wanted: watch::Sender<Wanted>,
    problem: watch::Receiver<Option<String>>,
}

impl Announcer {
    /// Starts the task, with nothing to tell. Its socket is of the network namespace of whoever runs it.
    ///
    /// # Panics
    /// Outside a tokio runtime with time.
    #[must_use]
    pub fn start() -> Self {
        let (wanted, receiver) = watch::channel(Wanted::default());
        let (sender, problem) = watch::channel(None);
        tokio::spawn(run(receiver, sender));
        Self { wanted, problem }
    }

    /// Tells this from now on, and nothing else.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|known| {
            let is_other = *known != wanted;
            *known = wanted;
            is_other
        });
    }

    /// Why nothing can be told, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }
}

async fn run(mut wanted: watch::Receiver<Wanted>, problem: watch::Sender<Option<String>>) {
    let mut schedule = Schedule::default();
    let mut sender = Sender::default();
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                schedule.want(&wanted.borrow_and_update(), Instant::now());
                sender.forget();
            }
            () = until(schedule.next()) => {
                for due in schedule.take(Instant::now(), BATCH) {
                    let sent = sender.tell(&due.interface, due.address);
                    if sent.is_err() {
                        schedule.failed(&due, Instant::now());
                    }
                    report(&problem, sent.err());
                }
                tokio::time::sleep(PACE).await;
            }
        }
    }
}

/// Logs what is new of a problem, and keeps it for the status.
fn report(problem: &watch::Sender<Option<String>>, now: Option<socket::Failed>) {
    let now = now.map(|failed| format!("{failed}: neighbours ask, and are answered, but are not told of VIPs that have moved here"));
    problem.send_if_modified(|known| {
        let is_other = *known != now;
        if is_other {
            if let Some(problem) = &now {
                tracing::error!(problem, "VIPs cannot be announced");
            } else {
                tracing::info!("VIPs are announced again");
            }
        }
        *known = now;
        is_other
    });
}

/// Waits until a time; for ever, where there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
