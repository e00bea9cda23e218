//! The way from the servers to the task that owns the data plane.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Detached, Status};

/// How many commands wait before a sender does.
const QUEUE: usize = 16;

/// What the task that owns the data plane is asked.
#[derive(Debug)]
pub enum Command {
    /// Tell the state.
    Status(oneshot::Sender<Status>),
    /// Take the program off, remove every pin, answer, and end the daemon.
    Detach(oneshot::Sender<Result<Detached, String>>),
}

/// Sends [`Command`]s to the task that owns the data plane.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The task has ended.
    #[error("the daemon is ending")]
    Gone,
    /// The task did not answer in time.
    #[error("the daemon's task did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The task tried, and could not.
    #[error("{0}")]
    Refused(String),
}

impl Handle {
    /// A handle, and the end that the task receives commands from.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks for the state.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn status(&self, patience: Duration) -> Result<Status, HandleError> {
        self.ask(Command::Status, patience).await
    }

    /// Asks the daemon to take the program off and to end.
    ///
    /// # Errors
    /// The task has ended, does not answer within `patience`, or the kernel refused.
    pub async fn detach(&self, patience: Duration) -> Result<Detached, HandleError> {
        let answer = self.ask(Command::Detach, patience).await?;
        answer.map_err(HandleError::Refused)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
        patience: Duration,
    ) -> Result<T, HandleError> {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.0.send(command(sender)).await.ok()?;
            receiver.await.ok()
        };
        match timeout(patience, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(HandleError::Gone),
            Err(_) => Err(HandleError::Timeout(patience)),
        }
    }
}
