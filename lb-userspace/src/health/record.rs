//! What the probes of a check came to, readable at any moment: for status and metrics.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus::{HistogramOpts, HistogramVec};

/// How a probe ended that did not pass. Display is for status and the log.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// Nothing, or not all of an answer, in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The wrong answer, or a connection that was refused or broke.
    #[error("{0}")]
    Failed(String),
    /// What it serves at its own address it does not serve for the VIP.
    #[error("does not accept the VIP: {cause}, while {itself} answers as it should")]
    NotForVip {
        /// What came of asking for the VIP.
        cause: Box<Self>,
        /// The backend's own address.
        itself: SocketAddr,
    },
    /// Neither for the VIP nor at its own address does it serve.
    #[error("{cause}; {itself} itself: {itself_cause}")]
    Neither {
        /// What came of asking for the VIP.
        cause: Box<Self>,
        /// The backend's own address.
        itself: SocketAddr,
        /// What came of asking there.
        itself_cause: Box<Self>,
    },
    /// This node lacked what it takes to ask. It says nothing of the backend and changes no verdict.
    #[error("not asked: {0}")]
    NotAsked(String),
}

impl Failure {
    /// A failure to be asked for the VIP, with what the backend said at its own address.
    pub(super) fn beside(self, itself: SocketAddr, answer: Result<(), Self>) -> Self {
        match (self, answer) {
            (Self::NotAsked(error), _) => Self::NotAsked(error),
            (cause, Ok(())) => Self::NotForVip {
                cause: Box::new(cause),
                itself,
            },
            // Of the backend's own address nothing is known, or nothing else.
            (cause, Err(Self::NotAsked(_))) => cause,
            (cause, Err(itself_cause)) if cause == itself_cause => cause,
            (cause, Err(itself_cause)) => Self::Neither {
                cause: Box::new(cause),
                itself,
                itself_cause: Box::new(itself_cause),
            },
        }
    }

    /// What went wrong with the question itself.
    fn cause(&self) -> &Self {
        match self {
            Self::NotForVip { cause, .. } | Self::Neither { cause, .. } => cause.cause(),
            other => other,
        }
    }
}

/// The metric of how long probes take: its name.
pub const DURATIONS: &str = "weir_health_check_duration_seconds";

/// What [`DURATIONS`] tells.
pub const DURATIONS_HELP: &str = "How long health checks took, passed and failed ones, by the type of check. Starts at 0 with the daemon. Absent before the first.";

/// The metric of how long probes take, by the type of check.
///
/// Not by backend: 500 VIPs of 20 backends would be 150,000 series; nor by VIP, which would be 7,500 and not tell
/// which backend is slow. How long each backend's last probe took is a gauge of its own.
pub(super) fn durations() -> prometheus::Result<HistogramVec> {
    const BUCKETS: [f64; 13] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    ];
    let options = HistogramOpts::new(DURATIONS, DURATIONS_HELP);
    HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["check"])
}

/// The results of one check.
#[derive(Debug, Default)]
pub struct Record(Mutex<Results>);

/// The results of one check, at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Results {
    /// Probes that passed.
    pub passed: u64,
    /// Probes that failed otherwise than by the timeout.
    pub failed: u64,
    /// Probes that failed by the timeout.
    pub timed_out: u64,
    /// Probes that could not be made, for reasons of this node.
    pub not_asked: u64,
    /// Probes in a row that ended as the last one did: passed, or failed for whatever reason.
    pub in_a_row: u32,
    /// When the last probe ended.
    pub last_at: Option<SystemTime>,
    /// How long the last probe took that was made.
    pub last_latency: Option<Duration>,
    /// Why the last probe did not pass; `None` if it did.
    pub last_error: Option<Arc<str>>,
}

impl Record {
    /// The results so far.
    #[must_use]
    pub fn read(&self) -> Results {
        self.lock().clone()
    }

    pub(super) fn note(&self, result: &Result<(), Failure>, in_a_row: u32, latency: Duration) {
        let mut results = self.lock();
        let count = match result.as_ref().map_err(Failure::cause) {
            Ok(()) => &mut results.passed,
            Err(Failure::TimedOut(_)) => &mut results.timed_out,
            Err(Failure::NotAsked(_)) => &mut results.not_asked,
            Err(_) => &mut results.failed,
        };
        *count += 1;
        if !matches!(result, Err(Failure::NotAsked(_))) {
            results.last_latency = Some(latency);
        }
        results.in_a_row = in_a_row;
        results.last_at = Some(SystemTime::now());
        results.last_error = result.as_ref().err().map(|error| error.to_string().into());
    }

    fn lock(&self) -> MutexGuard<'_, Results> {
        // Whoever panicked left whole numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
