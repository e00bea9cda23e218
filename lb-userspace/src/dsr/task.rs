//! The task that makes, mends and removes the way.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Made, make, names::Names, remove};

/// How long after an attempt to make it another is made.
const RETRY: Duration = Duration::from_secs(10);

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Make it, if it is not made.
    Make,
    /// What was made with this interface is of no use any more.
    Mend(u32),
    /// Remove all of it.
    Remove(oneshot::Sender<()>),
}

/// How the way is.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nobody has asked for it.
    Nothing,
    /// Probes can go it.
    Made(Arc<Made>),
    /// They cannot, and this is why; it is tried again.
    Failed(String),
}

pub(super) struct Task {
    pin_path: PathBuf,
    names: Names,
    commands: mpsc::UnboundedReceiver<Command>,
    state: watch::Sender<State>,
    /// Before this moment it is not made again.
    rest: Option<Instant>,
}

impl Task {
    pub(super) fn new(
        pin_path: PathBuf,
        names: Names,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> (Self, watch::Receiver<State>) {
        let (state, receiver) = watch::channel(State::Nothing);
        let task = Self {
            pin_path,
            names,
            commands,
            state,
            rest: None,
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Make => {
                    if !matches!(*self.state.borrow(), State::Made(_)) {
                        self.make().await;
                    }
                }
                Command::Mend(ifindex) => {
                    let is_held = match &*self.state.borrow() {
                        State::Made(made) => made.ifindex == ifindex,
                        State::Failed(_) => true,
                        State::Nothing => false,
                    };
                    if is_held {
                        self.make().await;
                    }
                }
                Command::Remove(done) => {
                    self.remove().await;
                    // Whoever asked may be gone.
                    done.send(()).ok();
                }
            }
        }
    }

    async fn make(&mut self) {
        let now = Instant::now();
        if self.rest.is_some_and(|rest| now < rest) {
            return;
        }
        self.rest = Some(now + RETRY);
        let state = match make(self.pin_path.clone(), self.names.clone()).await {
            Ok(made) => State::Made(Arc::new(made)),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the way of dsr health checks cannot be made");
                State::Failed(error)
            }
        };
        self.state.send_replace(state);
    }

    async fn remove(&mut self) {
        // The programs first, which probes under way may hold for a moment.
        self.state.send_replace(State::Nothing);
        self.rest = None;
        match remove(&self.pin_path).await {
            Ok(true) => tracing::info!("the way of dsr health checks is removed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "tidying up"),
        }
    }
}
