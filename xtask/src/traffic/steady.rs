//! Steady traffic that goes on until it is told to end: HTTP requests over connections of their own, and UDP datagrams that
//! are echoed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{client, udp};

/// HTTP clients, each with one request at a time.
const CLIENTS: u32 = 4;

/// How often each of them asks, and how often a datagram is sent.
const EVERY: Duration = Duration::from_millis(10);

/// What has become of the traffic so far. Any thread may look.
#[derive(Debug, Default)]
pub struct Steady {
    end: AtomicBool,
    http: Counted,
    udp: Counted,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// Requests of one kind.
#[derive(Debug, Default)]
struct Counted {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// The requests of both kinds, once all have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// HTTP requests that were answered.
    pub requests: u64,
    /// Datagrams that were echoed.
    pub datagrams: u64,
    /// Requests and datagrams that were not.
    pub failed: u64,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Steady {
    /// Sends until [`Self::end`], in the network namespace of the calling thread.
    pub fn run(&self, http: SocketAddr, datagrams: SocketAddr) {
        thread::scope(|scope| {
            scope.spawn(|| self.run_http(http));
            self.repeat(&self.udp, || udp::echoes(datagrams, 1).map(drop));
        });
    }

    /// The same without datagrams.
    pub fn run_http(&self, http: SocketAddr) {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| self.repeat(&self.http, || client::ask(http).map(drop)));
            }
        });
    }

    /// Lets the requests under way end and begins no more.
    pub fn end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// How much has been answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.http.answered.load(Ordering::Relaxed) + self.udp.answered.load(Ordering::Relaxed)
    }

    /// What became of all of it.
    #[must_use]
    pub fn total(&self) -> Total {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        Total {
            requests: self.http.answered.load(Ordering::Relaxed),
            datagrams: self.udp.answered.load(Ordering::Relaxed),
            failed: self.http.failed.load(Ordering::Relaxed)
                + self.udp.failed.load(Ordering::Relaxed),
            errors: errors.clone(),
        }
    }

    fn repeat(&self, counted: &Counted, ask: impl Fn() -> Result<()>) {
        let mut next = Instant::now();
        while !self.end.load(Ordering::Relaxed) {
            match ask() {
                Ok(()) => counted.answered.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
                    *errors.entry(format!("{error:#}")).or_default() += 1;
                    counted.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            // At a steady pace, whatever one request took.
            next = (next + EVERY).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}
