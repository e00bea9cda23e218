//! Whether the nodes of a fleet have the same tables (docs/fleet.md).
//!
//! Every node makes a [`Report`] of itself: of each VIP what decides which backend a flow goes to. `task` brings the
//! others' here, by `roster`, which is in Redis, or by asking `peers` at their metrics listeners. [`compare()`] holds
//! them against this node's own, pure. Nothing is done about a difference but to tell it: no packet, table or readiness
//! depends on what others say. So reports are compared where they come in, or where somebody asks, and never by the task
//! that owns the data plane; and whatever others tell, what is read and kept of it is bounded.

mod compare;
mod peers;
mod report;
mod roster;
mod task;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

pub use compare::{
    Agreement, AgreementStatus, NodeAgreement, NodeCounts, NodeState, TableOf, VipAgreement,
    VipDifference, compare,
};
pub use report::{Malformed, Report, VipReport};
pub use roster::{READING as REPORT_SCRIPT, SCRIPT as ROSTER_SCRIPT};
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

/// How many VIPs that only other nodes have are told at most: they may tell what they like.
const MOST_FOREIGN: usize = 128;

/// In how many VIPs it is told at most who has which table. Of this node's own this leaves room for three times as many as
/// of others'.
const MOST_TOLD: usize = 4 * MOST_FOREIGN;

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
    /// How many more there are in Redis, of which nothing is read.
    pub more: u64,
}

/// What an [`Agreement`] is made of.
#[derive(Clone, Debug)]
pub struct AgreementBasis {
    /// This node's report.
    pub own: Report,
    /// What is known of the others.
    pub heard: Arc<Heard>,
}

impl AgreementBasis {
    /// Whether the nodes agree now.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        compare(&self.own, &self.heard, Instant::now())
    }
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
            more: 0,
        }
    }
}
