//! The task: looks at everything when something changed, at neighbours one by one, and publishes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    Problem, Snapshot,
    kernel::{Events, Kernel, describe},
    message::{self, Hop, Neighbour},
    resolver::{Effect, Resolver},
};

/// Without any event everything is looked at this often: a net under what might be missed.
const SAFETY: Duration = Duration::from_secs(30);

/// Changes come in bursts; one look serves a burst.
const SETTLE: Duration = Duration::from_millis(20);

/// A look takes at most one part in so many of the time, whatever a routing daemon does to its tables.
const SPACING: u32 = 10;

/// How soon broken sockets are opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Watch(BTreeSet<IpAddr>),
    Look(oneshot::Sender<()>),
    Release(oneshot::Sender<()>),
}

pub(super) struct Task {
    commands: mpsc::UnboundedReceiver<Command>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    kernel: Kernel,
    events: Events,
    resolver: Resolver,
    /// Not before this moment do events cause another look.
    rest: Instant,
    due: Instant,
}

impl Task {
    pub(super) async fn new(
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> io::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let (kernel, events) = Kernel::open()?;
        let mut resolver = Resolver::default();
        resolver.learn(kernel.links().await?, [].into(), &[]);
        let (snapshots, receiver) = watch::channel(Arc::new(resolver.snapshot()));
        let now = Instant::now();
        let task = Self {
            commands,
            snapshots,
            kernel,
            events,
            resolver,
            rest: now,
            due: now + SAFETY,
        };
        Ok((task, receiver))
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Watch(addresses)) => {
                        self.resolver.watch(addresses);
                        self.due = Instant::now();
                    }
                    Some(Command::Look(done)) => {
                        self.look().await;
                        // Whoever asked may be gone, which is no matter; so below.
                        done.send(()).ok();
                    }
                    Some(Command::Release(done)) => {
                        self.resolver.watch(BTreeSet::new());
                        self.look().await;
                        done.send(()).ok();
                        return;
                    }
                    None => return,
                },
                event = self.events.next() => self.take(event),
                () = sleep_until(self.due) => self.look().await,
            }
        }
    }

    /// Takes an event and all that came with it, then publishes once.
    fn take(&mut self, event: Option<NetlinkMessage<RouteNetlinkMessage>>) {
        let Some(event) = event else {
            return self.reopen();
        };
        let mut publish = self.note(event);
        while let Some(Some(event)) = self.events.next().now_or_never() {
            publish |= self.note(event);
        }
        if publish {
            self.publish();
        }
    }

    /// Takes one event; tells whether the snapshot may have changed.
    fn note(&mut self, event: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        match event.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                message::neighbour(&message)
                    .is_some_and(|n| self.resolver.note(&n) == Effect::Publish)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                // Flushed: the kernel must be asked to manage it again.
                if message::neighbour(&message).is_some_and(|n| self.resolver.leads_over(n.hop)) {
                    self.look_soon();
                }
                false
            }
            NetlinkPayload::Overrun(_) => {
                tracing::debug!("netlink events were lost");
                self.look_soon();
                false
            }
            // Links, addresses, routes, rules: what leads where may have changed.
            _ => {
                self.look_soon();
                false
            }
        }
    }

    fn look_soon(&mut self) {
        let at = (Instant::now() + SETTLE).max(self.rest);
        self.due = self.due.min(at);
    }

    /// Looks at everything, has the kernel manage what is needed and no more, and publishes.
    async fn look(&mut self) {
        let began = Instant::now();
        let looked = self.ask().await;
        let ended = Instant::now();
        self.rest = ended + ended.duration_since(began) * SPACING;
        self.due = ended + SAFETY;
        match looked {
            Ok(()) => self.publish(),
            Err(error) => {
                tracing::warn!(%error, "ask the kernel for routes and neighbours");
                self.reopen();
            }
        }
    }

    async fn ask(&mut self) -> io::Result<()> {
        let links = self.kernel.links().await?;
        let routes = self.kernel.routes(self.resolver.watched()).await?;
        let neighbours = self.kernel.neighbours().await?;
        self.resolver.learn(links, routes, &neighbours);
        let refused = manage(&self.kernel, &self.resolver, &neighbours).await;
        self.resolver.refuse(refused);
        Ok(())
    }

    fn publish(&mut self) {
        let snapshot = self.resolver.snapshot();
        self.snapshots.send_if_modified(|held| {
            let changed = **held != snapshot;
            if changed {
                log_changes(held, &snapshot);
                *held = Arc::new(snapshot);
            }
            changed
        });
    }

    /// The sockets broke: new ones, and everything is looked at again.
    fn reopen(&mut self) {
        match Kernel::open() {
            Ok((kernel, events)) => (self.kernel, self.events) = (kernel, events),
            Err(error) => tracing::warn!(%error, "open netlink sockets"),
        }
        self.due = Instant::now() + REOPEN;
    }
}

/// Has the kernel keep those neighbours resolved that ways lead over, and no others on weir's account.
///
/// Returns those that the kernel refused, with its answers.
async fn manage(
    kernel: &Kernel,
    resolver: &Resolver,
    neighbours: &[Neighbour],
) -> BTreeMap<Hop, String> {
    let wanted: BTreeSet<Hop> = resolver.hops().collect();
    for hop @ (ifindex, address) in neighbours.iter().filter(|n| n.ours).map(|n| n.hop) {
        if !wanted.contains(&hop)
            && let Err(error) = kernel.give_up(hop).await
        {
            tracing::debug!(ifindex, %address, %error, "give up a neighbour");
        }
    }
    let kept = neighbours.iter().filter(|n| n.kept).map(|n| n.hop);
    let kept: BTreeSet<Hop> = kept.collect();
    let mut refused = BTreeMap::new();
    for &hop in wanted.difference(&kept) {
        if let Err(error) = kernel.manage(hop).await {
            refused.insert(hop, describe(&error));
        }
    }
    refused
}

/// A snapshot may change in thousands of places at once; so many are told one by one.
const LINES: usize = 20;

fn log_changes(from: &Snapshot, to: &Snapshot) {
    let hops = to.next_hops.iter();
    let hops: Vec<_> = hops
        .filter(|(address, hop)| from.next_hops.get(address) != Some(hop))
        .collect();
    for (address, hop) in hops.iter().take(LINES) {
        let mac = hop
            .mac_destination
            .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        let (gateway, ifindex) = (hop.gateway, hop.ifindex);
        tracing::info!(%address, %gateway, ifindex, mac, "next hop");
    }
    let problems = to.problems.iter();
    let problems: Vec<_> = problems
        .filter(|(address, problem)| from.problems.get(address) != Some(problem))
        .collect();
    for (address, problem) in problems.iter().take(LINES) {
        // Each way begins so, for a moment.
        if matches!(problem, Problem::Unresolved { .. }) {
            tracing::debug!(%address, "{problem}");
        } else {
            tracing::warn!(%address, "{problem}");
        }
    }
    if hops.len().max(problems.len()) > LINES {
        let (next_hops, problems) = (hops.len(), problems.len());
        tracing::info!(next_hops, problems, "many ways to backends changed at once");
    }
}
