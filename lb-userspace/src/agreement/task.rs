//! The task that brings the others' reports here, turn by turn.

use std::{collections::BTreeSet, future::Future, net::SocketAddr, sync::Arc};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Heard, PERIOD, Report,
    compare::{Summary, summary},
    peers::Peers,
    roster::Roster,
};
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

/// What came of the last turn.
#[derive(Debug)]
pub(crate) struct View {
    /// What is known of the others.
    pub(crate) heard: Arc<Heard>,
    /// How they stood to this node.
    pub(crate) summary: Summary,
}

impl View {
    fn new(own: &Report, heard: Heard) -> Self {
        Self {
            summary: summary(own, &heard, Instant::now()),
            heard: Arc::new(heard),
        }
    }
}

/// The running task; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What came of the last turn.
    pub(crate) view: watch::Receiver<View>,
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
        // Nobody is heard yet: what this node has does not matter.
        let (sender, view) = watch::channel(View::new(&Report::default(), others.heard()));
        let task = tokio::spawn(run(others, own, sender)).abort_handle();
        Self { view, task }
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

async fn run(mut others: Others, own: impl Own, view: watch::Sender<View>) {
    let mut turns = interval(PERIOD);
    // Turns that are late make no burst.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        // Peers do not wait for a daemon that is busy with its maps.
        if let Others::Peers(peers) = &mut others {
            peers.turn().await;
        }
        let Some(report) = own.report().await else {
            return;
        };
        if let Others::Roster(roster) = &mut others {
            roster.turn(&report).await;
        }
        view.send_replace(View::new(&report, others.heard()));
    }
}
