//! What the service manager is told of the daemon (`sd_notify(3)`), where one has started it.
//!
//! Nothing here keeps a daemon from its work: a message that cannot be sent is told in the log.

use std::{
    future,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

/// It forwards, with what it was told to; also the end of a reload.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] must follow, whatever becomes of it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // Later systemds want the time in the same message.
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
    }
}

/// The daemon ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The signs of life that the service manager wants (`WatchdogSec=`): without them it starts the daemon anew.
///
/// They come from the task that owns the data plane, between two pieces of its work: if it hangs, they end, whatever the
/// other tasks still answer.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// From one sign to the next; `None` where nobody wants them.
    period: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the environment wants it.
    pub(crate) fn wanted() -> Self {
        // A third of the patience: one that comes late is no reason to end a daemon.
        Self {
            period: sd_notify::watchdog_enabled().map(|patience| patience / 3),
            next: Instant::now(),
        }
    }

    /// Waits until the next sign is due; for ever where nobody wants one.
    pub(crate) async fn due(&self) {
        match self.period {
            Some(_) => tokio::time::sleep_until(self.next.into()).await,
            None => future::pending().await,
        }
    }

    /// Gives a sign.
    pub(crate) fn ping(&mut self) {
        tell(&[NotifyState::Watchdog]);
        self.next = Instant::now() + self.period.unwrap_or_default();
    }
}
