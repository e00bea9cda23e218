//! Whether the nodes of a fleet have the same tables (docs/fleet.md).
//!
//! Every node makes a [`Report`] of itself: of each VIP what decides which backend a flow goes to. `task` brings the
//! others' here, by `roster`, which is in Redis, or by asking `peers` at their metrics listeners. [`compare()`] holds
//! them against this node's own, pure. Nothing is done about a difference but to tell it: no packet, table or readiness
//! depends on what others say.

mod compare;
mod peers;
mod report;
mod roster;
mod task;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use compare::{
    Agreement, AgreementStatus, NodeAgreement, NodeCounts, NodeState, TableOf, VipAgreement,
    VipDifference, compare, summary,
};
pub use report::{Malformed, Report, VipReport};
pub use roster::SCRIPT as ROSTER_SCRIPT;
pub(crate) use task::{Exchange, Own, Way};

/// From one exchange of reports to the next.
const PERIOD: Duration = Duration::from_secs(2);

/// A node that has not been heard of for so long is unreachable.
const SILENT: Duration = Duration::from_secs(6);

/// How long Redis, or a peer, may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many other nodes are heard by Redis at most; as many as there may be peers.
const MOST_NODES: usize = 64;

/// The largest report that is read, in bytes: with as many VIPs as there can be it is less.
const LARGEST: usize = 2 * 1024 * 1024;

/// How reports are exchanged.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Every node writes its own into Redis, and reads the others' there.
    Redis,
    /// Every node asks its peers.
    Peers,
}

/// What is known of the other nodes.
#[derive(Clone, Debug)]
pub struct Heard {
    /// How they are heard.
    pub by: By,
    /// Why Redis did not answer the last time.
    pub error: Option<String>,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// What is known of another node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// What it is called until it tells its name.
    pub called: String,
    /// Where it is asked; `None` where it writes into Redis.
    pub address: Option<SocketAddr>,
    /// When it last told of itself; `None` where it never did.
    pub heard: Option<Instant>,
    /// Why it did not the last time.
    pub error: Option<String>,
    /// What it told.
    pub report: Option<Arc<Report>>,
}

impl Heard {
    /// Nobody yet.
    #[must_use]
    pub const fn nobody(by: By) -> Self {
        Self {
            by,
            error: None,
            nodes: Vec::new(),
        }
    }
}
