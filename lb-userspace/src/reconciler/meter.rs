//! How often the maps were made what they should be, and how long that took.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// The metric of how often.
pub(crate) const RECONCILES: &str = "weir_reconciles_total";

/// What [`RECONCILES`] tells.
pub(crate) const RECONCILES_HELP: &str = "How often the daemon made the maps what they should be, by result: ok or failed. Starts at 0 with the daemon.";

/// The metric of how long.
pub(crate) const DURATIONS: &str = "weir_reconcile_duration_seconds";

/// What [`DURATIONS`] tells.
pub(crate) const DURATIONS_HELP: &str = "How long it took to make the maps what they should be, the kernel's waits for packets that read old tables included. Starts at 0 with the daemon.";

/// Counts and times.
#[derive(Debug)]
pub(crate) struct Meter {
    reconciles: IntCounterVec,
    durations: Histogram,
}

impl Meter {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// The metrics are not Prometheus': a defect.
    pub(crate) fn new() -> prometheus::Result<Self> {
        const BUCKETS: [f64; 13] = [
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        ];
        let reconciles = IntCounterVec::new(Opts::new(RECONCILES, RECONCILES_HELP), &["result"])?;
        for result in ["ok", "failed"] {
            reconciles.with_label_values(&[result]).reset();
        }
        let durations = HistogramOpts::new(DURATIONS, DURATIONS_HELP).buckets(BUCKETS.to_vec());
        Ok(Self {
            reconciles,
            durations: Histogram::with_opts(durations)?,
        })
    }

    /// Counts one.
    pub(super) fn note(&self, took: Duration, is_done: bool) {
        let result = if is_done { "ok" } else { "failed" };
        self.reconciles.with_label_values(&[result]).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// Has a registry tell them.
    ///
    /// # Errors
    /// It tells them already: a defect.
    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.reconciles.clone()))?;
        registry.register(Box::new(self.durations.clone()))
    }
}
