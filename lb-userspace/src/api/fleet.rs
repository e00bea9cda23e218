//! What a status tells of limits that the whole fleet keeps (docs/fleet-limits.md).

use serde::{Deserialize, Serialize};

use crate::limits::fleet::{Shares, redis::Error, task};

/// How this node stands with the fleet.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FleetStatus {
    /// The fleet's name.
    pub fleet: String,
    /// Whether Redis answered the last request.
    pub connected: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// How long ago the last answer came, in seconds; `null` before the first.
    pub seconds_since_answer: Option<f64>,
    /// How long the last answer took, in seconds.
    pub round_trip_seconds: Option<f64>,
    /// How many nodes were alive in the last answer.
    pub live_nodes: u32,
    /// How many nodes this one counts with where Redis is away.
    pub assumed_nodes: u32,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests that were not, by the class of the error.
    pub failures: Vec<FailureCount>,
    /// What this node may let through, by limit.
    pub shares: Vec<ShareStatus>,
}

/// Requests that failed for one reason.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FailureCount {
    /// The class of the error.
    pub class: String,
    /// How many.
    pub requests: u64,
}

/// This node's part of a limit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ShareStatus {
    /// The limit: VIP and kind.
    pub limit: String,
    /// Packets, bytes or connections that this node may let through, a second.
    pub per_second: f64,
    /// How many of them at once.
    pub burst: u64,
    /// `lease`, or `fallback`: the limit divided by the nodes that were last known to live.
    pub origin: String,
}

impl FleetStatus {
    /// What is known at this moment.
    #[must_use]
    pub fn new(fleet: &str, status: &task::Status, shares: &Shares) -> Self {
        let failures = Error::CLASSES.iter().zip(status.failures);
        let shares = shares.shares.iter().map(|(key, share)| ShareStatus {
            limit: key.to_string(),
            per_second: share.rate.as_f64(),
            burst: share.burst,
            origin: share.origin.as_str().to_owned(),
        });
        Self {
            fleet: fleet.to_owned(),
            connected: status.is_connected,
            error: status.error.as_ref().map(ToString::to_string),
            seconds_since_answer: status.answered.map(|at| at.elapsed().as_secs_f64()),
            round_trip_seconds: status.round_trip.map(|took| took.as_secs_f64()),
            live_nodes: status.live,
            assumed_nodes: status.nodes.max(1),
            answers: status.answers,
            failures: failures
                .map(|(class, requests)| FailureCount {
                    class: (*class).to_owned(),
                    requests,
                })
                .collect(),
            shares: shares.collect(),
        }
    }

    /// What an operator should know.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let error = self.error.as_ref().filter(|_| !self.connected)?;
        Some(format!(
            "limits of the fleet {}: Redis is away ({error}): this node keeps to an even share of {} nodes",
            self.fleet, self.assumed_nodes
        ))
    }
}
