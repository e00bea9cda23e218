//! The task that brings the others' reports here, turn by turn.

use std::{collections::BTreeSet, future::Future, net::SocketAddr, sync::Arc};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::{Heard, PERIOD, Report, peers::Peers, roster::Roster};
use crate::config::Endpoint;

/// How the nodes hear of each other.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// By a Redis, under the fleet's name.
    Redis(Endpoint, String),
    /// By asking these peers.
    Peers(BTreeSet<SocketAddr>),
}

/// Tells of this node.
pub(crate) trait Own: Send + 'static {
    /// This node's report; `None` once there is nobody to tell it.
    fn report(&self) -> impl Future<Output = Option<Report>> + Send;
}

/// The running task; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What is known of the others.
    pub(crate) heard: watch::Receiver<Arc<Heard>>,
    task: AbortHandle,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Exchange {
    /// Starts the task.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub(crate) fn start(way: Way, own: impl Own) -> Self {
        let others = Others::new(way);
        let (sender, heard) = watch::channel(Arc::new(others.heard()));
        let task = tokio::spawn(run(others, own, sender)).abort_handle();
        Self { heard, task }
    }
}

enum Others {
    Roster(Box<Roster>),
    Peers(Peers),
}

impl Others {
    fn new(way: Way) -> Self {
        match way {
            Way::Redis(endpoint, fleet) => Self::Roster(Box::new(Roster::new(endpoint, fleet))),
            Way::Peers(addresses) => Self::Peers(Peers::new(addresses)),
        }
    }

    fn heard(&self) -> Heard {
        match self {
            Self::Roster(roster) => roster.heard(),
            Self::Peers(peers) => peers.heard(),
        }
    }
}

async fn run(mut others: Others, own: impl Own, heard: watch::Sender<Arc<Heard>>) {
    let mut turns = interval(PERIOD);
    // Turns that are late make no burst.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match &mut others {
            Others::Roster(roster) => match own.report().await {
                Some(report) => roster.turn(&report).await,
                None => return,
            },
            Others::Peers(peers) => peers.turn().await,
        }
        heard.send_replace(Arc::new(others.heard()));
    }
}
