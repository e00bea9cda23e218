//! What a status tells of a backend's health checks. Field names are stable: scripts read them.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::health::{Check, State, Verdict};

/// How a backend does in its health checks.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct HealthStatus {
    /// What is asked: the `type` of the check.
    pub check: String,
    /// The port that is asked.
    pub port: u16,
    /// What the checks have come to.
    pub state: HealthState,
    /// Since when, in UTC (RFC 3339, milliseconds).
    pub since: String,
    /// Why it failed: what came of the check that tipped the scales. `null` where it has not.
    pub reason: Option<String>,
    /// How often it went from healthy to failed or back.
    pub flaps: u64,
    /// Checks in a row that ended as the last one did.
    pub in_a_row: u32,
    /// When the last check ended; `null` before the first.
    pub last_time: Option<String>,
    /// How long the last check took, in seconds.
    pub last_seconds: Option<f64>,
    /// Why the last check did not pass; `null` if it did.
    pub last_error: Option<String>,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed otherwise than by the timeout.
    pub failed: u64,
    /// Checks that failed by the timeout.
    pub timed_out: u64,
    /// Checks that could not be made, for reasons of this node.
    pub not_asked: u64,
}

/// What the checks of a backend have come to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Nothing yet.
    Unknown,
    /// It serves.
    Healthy,
    /// It does not.
    Failed,
}

impl HealthState {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Failed => "failed",
        }
    }
}

impl From<Verdict> for HealthState {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Unknown => Self::Unknown,
            Verdict::Healthy => Self::Healthy,
            Verdict::Failed => Self::Failed,
        }
    }
}

impl HealthStatus {
    /// What is known of a check.
    #[must_use]
    pub fn new(check: &Check, state: &State) -> Self {
        let results = state.record.read();
        Self {
            check: check.probe.as_str().to_owned(),
            port: check.target.port(),
            state: state.verdict.into(),
            since: rfc3339(state.since),
            reason: state.reason.as_deref().map(str::to_owned),
            flaps: state.flaps,
            in_a_row: results.in_a_row,
            last_time: results.last_at.map(rfc3339),
            last_seconds: results.last_latency.map(|latency| latency.as_secs_f64()),
            last_error: results.last_error.as_deref().map(str::to_owned),
            passed: results.passed,
            failed: results.failed,
            timed_out: results.timed_out,
            not_asked: results.not_asked,
        }
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
