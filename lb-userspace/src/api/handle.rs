//! The way from the servers to the task that owns the data plane.

use std::{path::PathBuf, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

use super::{
    BlockList, Changed, Detached, Event, FlowsBasis, LimitsBasis, PlanBasis, Refusal, Request,
    Status,
};
use crate::{
    agreement::{Agreement, AgreementBasis, Report},
    limits::fleet::protocol::Reading,
    model::services::Services,
    observe::{Subscription, Wanted},
};

/// How many commands wait before a sender does.
const QUEUE: usize = 16;

/// What the task that owns the data plane is asked.
#[derive(Debug)]
pub enum Command {
    /// Tell the state.
    Status(oneshot::Sender<Status>),
    /// Tell the generation.
    Generation(oneshot::Sender<u64>),
    /// Tell what is blocked.
    Blocks(oneshot::Sender<BlockList>),
    /// Change what is wanted.
    Change(Request, oneshot::Sender<Result<Changed, Refusal>>),
    /// Serve these VIPs of Services beside those of the configuration. The answer says why that cannot be.
    Serve(Services, oneshot::Sender<Result<(), String>>),
    /// Tell what a new configuration is to be held against.
    PlanBasis(oneshot::Sender<PlanBasis>),
    /// The file that the daemon was started with was read again and is not valid.
    ReloadFailed(PathBuf, Refusal),
    /// Tell what a listing of the flows is made of.
    FlowsBasis(oneshot::Sender<Result<FlowsBasis, String>>),
    /// Tell what is known of the limits.
    LimitsBasis(oneshot::Sender<Result<LimitsBasis, String>>),
    /// Tell what came of what the fleet limits.
    FleetReading(oneshot::Sender<Reading>),
    /// Tell what other nodes of the fleet may know of this one.
    FleetReport(oneshot::Sender<Report>),
    /// Tell what the nodes of the fleet have, to compare it; `None` where nodes are not compared.
    Agreement(oneshot::Sender<Option<AgreementBasis>>),
    /// Tell the events from now on.
    Events(oneshot::Sender<broadcast::Receiver<Event>>),
    /// Let somebody watch packets.
    Watch(Wanted, oneshot::Sender<Result<Subscription, Refusal>>),
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

    /// Asks for the generation.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn generation(&self, patience: Duration) -> Result<u64, HandleError> {
        self.ask(Command::Generation, patience).await
    }

    /// Asks what is blocked.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn blocks(&self, patience: Duration) -> Result<BlockList, HandleError> {
        self.ask(Command::Blocks, patience).await
    }

    /// Asks the daemon to take the program off and to end.
    ///
    /// # Errors
    /// The task has ended, does not answer within `patience`, or the kernel refused.
    pub async fn detach(&self, patience: Duration) -> Result<Detached, HandleError> {
        let answer = self.ask(Command::Detach, patience).await?;
        answer.map_err(HandleError::Refused)
    }

    /// Asks for a change. `Ok` has what became of it.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`: the change may be made all the same.
    pub async fn change(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<Result<Changed, Refusal>, HandleError> {
        self.ask(|answer| Command::Change(request, answer), patience)
            .await
    }

    /// Has VIPs of Services served beside those of the configuration, instead of those before. `Ok` has what became of it.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`: the change may be made all the same.
    pub async fn serve(
        &self,
        services: Services,
        patience: Duration,
    ) -> Result<Result<(), String>, HandleError> {
        self.ask(|answer| Command::Serve(services, answer), patience)
            .await
    }

    /// What a new configuration is to be held against.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn plan_basis(&self, patience: Duration) -> Result<PlanBasis, HandleError> {
        self.ask(Command::PlanBasis, patience).await
    }

    /// What a listing of the flows is made of.
    ///
    /// # Errors
    /// The task has ended, does not answer within `patience`, or the maps cannot be read.
    pub async fn flows_basis(&self, patience: Duration) -> Result<FlowsBasis, HandleError> {
        let answer = self.ask(Command::FlowsBasis, patience).await?;
        answer.map_err(HandleError::Refused)
    }

    /// What is known of the limits.
    ///
    /// # Errors
    /// The task has ended, does not answer within `patience`, or the maps cannot be read.
    pub async fn limits_basis(&self, patience: Duration) -> Result<LimitsBasis, HandleError> {
        let answer = self.ask(Command::LimitsBasis, patience).await?;
        answer.map_err(HandleError::Refused)
    }

    /// The events from now on.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn events(
        &self,
        patience: Duration,
    ) -> Result<broadcast::Receiver<Event>, HandleError> {
        self.ask(Command::Events, patience).await
    }

    /// What other nodes of the fleet may know of this one.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn fleet_report(&self, patience: Duration) -> Result<Report, HandleError> {
        self.ask(Command::FleetReport, patience).await
    }

    /// Whether the fleet has the same tables; `None` where nodes are not compared.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub async fn agreement(&self, patience: Duration) -> Result<Option<Agreement>, HandleError> {
        let basis = self.ask(Command::Agreement, patience).await?;
        // Here, and not in the task that owns the data plane: how long it takes is up to what others tell.
        Ok(basis.map(|basis| basis.agreement()))
    }

    /// Watches packets from now on. `Ok` has what became of it.
    ///
    /// # Errors
    /// The task has ended or does not answer within `patience`.
    pub(crate) async fn watch(
        &self,
        wanted: Wanted,
        patience: Duration,
    ) -> Result<Result<Subscription, Refusal>, HandleError> {
        self.ask(|answer| Command::Watch(wanted, answer), patience)
            .await
    }

    /// Tells that a reload was refused before it came to the task.
    pub(crate) async fn reload_failed(&self, file: PathBuf, refusal: Refusal) {
        let command = Command::ReloadFailed(file, refusal);
        if self.0.send(command).await.is_err() {
            tracing::debug!("the daemon is ending");
        }
    }

    /// What came of what the fleet limits. `None`: the daemon is ending.
    pub(crate) async fn fleet_reading(&self) -> Option<Reading> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Command::FleetReading(sender)).await.ok()?;
        receiver.await.ok()
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
