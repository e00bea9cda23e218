//! Which backends serve: every [`Check`] is made again and again, and its [`Verdict`] published.
//!
//! One task keeps the time of all checks (`schedule`: spread, without bursts), has each probe made as a task of
//! its own (`probe`: a file a protocol), and counts results up to verdicts (`verdict`). It publishes a
//! [`Snapshot`] within milliseconds of a change of verdicts, and only then; what is new with every probe is in
//! the [`Record`]s that the snapshot leads to. It knows nothing of VIPs: [`checks_of`] and [`usable`] are the way
//! to and fro.

mod check;
mod probe;
mod record;
mod schedule;
mod task;
mod usable;
mod verdict;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use prometheus::HistogramVec;
use tokio::sync::{mpsc, watch};

pub use check::{Check, checks_of};
pub use record::{DURATIONS, DURATIONS_HELP, Failure, Record, Results};
use task::Task;
pub use usable::{Usable, usable};
pub use verdict::Verdict;

/// Makes one probe, for a look without a daemon.
///
/// # Errors
/// Why it failed, or could not be made.
pub async fn probe(check: &Check) -> Result<(), Failure> {
    use task::Prober as _;
    probe::Sockets::default().probe(check).await
}

/// What is known of every check that is watched.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The state of each check.
    pub states: BTreeMap<Arc<Check>, State>,
}

impl Snapshot {
    /// The verdict on a check; unknown also where it is not watched.
    #[must_use]
    pub fn verdict(&self, check: &Check) -> Verdict {
        self.states
            .get(check)
            .map_or(Verdict::Unknown, |state| state.verdict)
    }
}

/// What is known of one check.
#[derive(Clone, Debug)]
pub struct State {
    /// Whether the backend serves.
    pub verdict: Verdict,
    /// Since when the verdict stands; where it was given by the caller, since then.
    pub since: SystemTime,
    /// Why the backend failed: the error of the probe that tipped the scales.
    pub reason: Option<Arc<str>>,
    /// How often the verdict went from healthy to failed or back.
    pub flaps: u64,
    /// The results of its probes, always up to date.
    pub record: Arc<Record>,
}

/// The task that makes the checks. It ends when this is dropped.
#[derive(Debug)]
pub struct Health {
    commands: mpsc::UnboundedSender<BTreeMap<Check, Verdict>>,
    durations: HistogramVec,
}

impl Health {
    /// Starts the task, in the network namespace of the runtime's threads, with nothing watched.
    ///
    /// # Errors
    /// The metric of durations is not Prometheus': a defect.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn start() -> prometheus::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        Self::start_with(Arc::new(probe::Sockets::default()))
    }

    fn start_with(
        prober: Arc<impl task::Prober>,
    ) -> prometheus::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let durations = record::durations()?;
        let (task, snapshots) = Task::new(receiver, prober, durations.clone());
        tokio::spawn(task.run());
        let health = Self {
            commands,
            durations,
        };
        Ok((health, snapshots))
    }

    /// Makes these checks and no others. A snapshot with all of them follows.
    ///
    /// A check that runs already goes on as it is. A new one begins with the verdict that is given with it, as after a
    /// restart, which then takes `rise` or `fall` probes to turn; with [`Verdict::Unknown`] it takes over from
    /// a check of before that asked the same at another pace, or else its first probe, within a second, decides.
    pub fn watch(&self, checks: BTreeMap<Check, Verdict>) {
        if self.commands.send(checks).is_err() {
            tracing::error!("the task that makes the health checks is gone");
        }
    }

    /// How long probes take, passed and failed ones, in seconds, by the type of check: [`DURATIONS`].
    #[must_use]
    pub const fn durations(&self) -> &HistogramVec {
        &self.durations
    }
}
