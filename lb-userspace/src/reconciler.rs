//! The one task that owns the data plane: it makes the maps what the configuration and the network want, and
//! answers commands. No map needs a lock.

mod change;
mod desired;
mod origin;
mod standing;
mod sweep;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use lb_common::tables::Counters;
use tokio::sync::{mpsc, watch};

use crate::{
    api::{
        Actor, BackendStatus, Command, Detached, Events, InterfaceStatus, OverrideStatus,
        PlanBasis, ReasonStatus, Status, VipStatus, What,
    },
    config::{self, Config, OnExit},
    dataplane::{DataPlane, apply::apply},
    health::{self, Health, Verdict},
    model::{
        ids::Ids,
        ip_address, mac_text,
        next_hop::Port,
        overrides::Override,
        plan::Held,
        preview::Basis,
        slots::{Settled, Slots, earlier},
        wanted::{Inputs, Wanted, WantedBackend, WantedVip},
    },
    neighbours::{Neighbours, Snapshot},
    state::StateFile,
};
use change::Prepared;
use desired::Desired;
use origin::Origin;
use standing::{Keeper, checks};
use sweep::{Message, Sweeper, milliseconds};

/// How long after a failure the maps are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Owner of the data plane.
pub(crate) struct Reconciler<D> {
    desired: Desired,
    plane: D,
    ids: Ids,
    held: Held,
    wanted: Option<Wanted>,
    neighbours: Neighbours,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    interfaces: Vec<InterfaceStatus>,
    generation: u64,
    failure: Option<String>,
    state: StateFile,
    /// What of the past could not be read.
    lost: Option<String>,
    /// Why the state is not kept.
    unsaved: Option<String>,
    origin: Origin,
    events: Events,
    /// Configurations whose backends have been looked for.
    prepared: (mpsc::Sender<Prepared>, mpsc::Receiver<Prepared>),
    health: Health,
    checked: watch::Receiver<Arc<health::Snapshot>>,
    keeper: Keeper,
    sweeper: Sweeper,
    /// Leaving backends that nothing names any more.
    unnamed: BTreeSet<u16>,
    /// What a scan has shown that has just ended.
    settled: Option<Arc<Settled>>,
    /// When something changes by time alone.
    wake: Option<Instant>,
}

/// Why the reconciler ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The program is to be taken off; whoever asked waits for the answer.
    Detach(tokio::sync::oneshot::Sender<Result<Detached, String>>),
    /// Nobody can send commands any more.
    Abandoned,
}

impl<D: DataPlane> Reconciler<D> {
    /// Takes over what the data plane and the state file hold. `file` is where the configuration is from.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub(crate) fn new(
        config: Config,
        file: &Path,
        plane: D,
        neighbours: Neighbours,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> anyhow::Result<Self> {
        let vips = plane.vips()?;
        let backends = plane.backends()?;
        if !backends.is_empty() {
            tracing::info!(
                vips = vips.len(),
                backends = backends.len(),
                "adopted what an earlier daemon left"
            );
        }
        let now_ms = milliseconds(&plane);
        let mut slots = Vec::with_capacity(vips.len());
        for vip in &vips {
            if let Some(table) = plane.table(vip.id)? {
                let since = plane.since(vip.id)?;
                slots.push((vip.id, Slots::adopt(table, since, now_ms)));
            }
        }
        let (health, checked) = Health::start().context("starting the health checks")?;
        let state_file = StateFile::new(&config.node.state_file);
        let (state, lost) = state_file.load();
        for (name, value) in state.overrides.iter() {
            tracing::info!(
                vip = name.vip,
                backend = %name.backend,
                drained = value.is_drained,
                weight = value.weight,
                "changed by an earlier command, until it is undone"
            );
        }
        Ok(Self {
            desired: Desired::new(config, state.overrides),
            ids: Ids::adopt(&vips, &backends),
            held: Held::adopt(&vips, &backends, slots),
            plane,
            wanted: None,
            neighbours,
            snapshots,
            interfaces: Vec::new(),
            generation: state.generation,
            failure: None,
            state: state_file,
            lost,
            unsaved: None,
            origin: Origin::new(file),
            events: Events::new(),
            prepared: mpsc::channel(1),
            health,
            checked,
            keeper: Keeper::default(),
            sweeper: Sweeper::default(),
            unnamed: BTreeSet::new(),
            settled: None,
            wake: None,
        })
    }

    /// The data plane.
    pub(crate) fn plane(&mut self) -> &mut D {
        &mut self.plane
    }

    /// Tells what [`Status`] says of the interfaces.
    pub(crate) fn set_interfaces(&mut self, interfaces: Vec<InterfaceStatus>) {
        self.interfaces = interfaces;
    }

    /// Fills the maps, once the backends' MAC addresses are known or the patience is over.
    ///
    /// # Errors
    /// Where the configuration does not fit into the maps, or the kernel refuses to write one.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let addresses = self.desired.watched();
        self.neighbours.watch(addresses.clone());
        if !change::resolved(self.snapshots.clone(), &addresses).await? {
            tracing::warn!(
                "some backends' MAC addresses are not known yet: `weir status` names them"
            );
        }
        self.adopt_verdicts().await?;
        self.reconcile("start")?;
        self.generation += 1;
        self.save_state();
        Ok(())
    }

    /// What the end of the daemon does to the data plane.
    pub(crate) const fn on_exit(&self) -> OnExit {
        self.desired.file().node.on_exit
    }

    /// Gives the data plane and the neighbours up, for when weir leaves for good.
    pub(crate) async fn release(self) {
        drop(self.plane);
        self.neighbours.release().await;
    }

    /// Follows the network and answers commands until told to end.
    pub(crate) async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        loop {
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        self.failure = Some("the network is no longer watched: restart the daemon".to_owned());
                        return self.only_answer(commands).await;
                    }
                    self.follow("network");
                }
                // The sender lives in this task, so there always is another.
                Some(prepared) = self.prepared.1.recv() => self.commit(prepared),
                command = commands.recv() => match command {
                    Some(command) => if let Some(end) = self.answer(command) { return end },
                    None => return End::Abandoned,
                },
                Ok(()) = self.checked.changed() => self.follow("health"),
                () = until(self.wake) => self.follow("time"),
                message = self.sweeper.next() => self.sweep(message),
            }
        }
    }

    /// Makes the maps what they should be after something that nobody waits for.
    fn follow(&mut self, cause: &str) {
        self.failure = match self.reconcile(cause) {
            Ok(()) => None,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, cause, "the maps cannot follow");
                // Not at once again, and not never.
                self.wake = Some(Instant::now() + RETRY);
                Some(error)
            }
        };
    }

    /// Goes on with a scan; at its end what has settled becomes Stable, and what nothing names goes.
    fn sweep(&mut self, message: Message) {
        let findings = match self.sweeper.judge(message, &mut self.plane, &self.held) {
            Ok(Some(findings)) => findings,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a scan of the flows was given up; another follows"
                );
                self.follow("time");
                return;
            }
        };
        self.unnamed = findings.unnamed;
        self.settled = Some(Arc::new(findings.settled));
        self.follow("scan");
        self.unnamed.clear();
        self.settled = None;
    }

    /// Gives the health checks what an earlier daemon knew, and waits until they have taken it.
    async fn adopt_verdicts(&mut self) -> anyhow::Result<()> {
        let alive: BTreeMap<IpAddr, bool> = self
            .held
            .backends()
            .map(|(_, entry)| (ip_address(entry.address), entry.is_alive()))
            .collect();
        let checks = checks(&self.desired.config, None, |name| {
            match alive.get(&name.backend) {
                None => Verdict::Unknown,
                Some(true) => Verdict::Healthy,
                Some(false) => Verdict::Failed,
            }
        });
        let wanted: Vec<_> = checks.keys().cloned().collect();
        self.health.watch(checks);
        let taken = self.checked.wait_for(|snapshot| {
            wanted
                .iter()
                .all(|check| snapshot.states.contains_key(check))
        });
        taken
            .await
            .context("the task of the health checks has ended")?;
        Ok(())
    }

    async fn only_answer(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        while let Some(command) = commands.recv().await {
            if let Some(end) = self.answer(command) {
                return end;
            }
        }
        End::Abandoned
    }

    fn answer(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Status(sender) => {
                // Whoever asked may have given up waiting.
                drop(sender.send(self.status()));
                None
            }
            Command::Generation(sender) => {
                sender.send(self.generation).ok();
                None
            }
            Command::Change(request, reply) => {
                self.change(request, reply);
                None
            }
            Command::PlanBasis(sender) => {
                let basis = PlanBasis {
                    generation: self.generation,
                    basis: self.basis(),
                };
                drop(sender.send(basis));
                None
            }
            Command::ReloadFailed(file, refusal) => {
                self.tell_refused(Actor::Hangup, &file, &refusal);
                None
            }
            Command::Events(sender) => {
                drop(sender.send(self.events.subscribe()));
                None
            }
            Command::Detach(sender) => Some(End::Detach(sender)),
        }
    }

    /// Makes the maps what they should be. `cause` is for the log.
    fn reconcile(&mut self, cause: &str) -> anyhow::Result<()> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let ports = self.ports(&snapshot);
        let health = Arc::clone(&self.checked.borrow_and_update());
        let mut standing = self.keeper.stand(
            &self.desired.config,
            &health,
            self.wanted.as_ref(),
            milliseconds(&self.plane),
        );
        standing.unnamed.clone_from(&self.unnamed);
        standing.settled.clone_from(&self.settled);
        let inputs = Inputs {
            config: &self.desired.config,
            keys: &self.desired.keys,
            ports: &ports,
            next_hops: &snapshot.next_hops,
            standing: &standing,
        };
        let wanted = Wanted::new(&inputs, &self.held, &mut self.ids)?;
        apply(
            &mut self.plane,
            &mut self.held,
            &wanted,
            &mut self.ids,
            cause,
        )?;
        let scan = self.sweeper.begin(&self.plane, &self.held, &wanted)?;
        self.wake = [self.keeper.wake, scan, self.deadline(&wanted)]
            .into_iter()
            .flatten()
            .min();
        if let Some(before) = self.wanted.replace(wanted) {
            self.tell_next_hops(&before);
            self.follow_leaving(&before);
        }
        Ok(())
    }

    /// When the next slot changes by time alone.
    fn deadline(&self, wanted: &Wanted) -> Option<Instant> {
        let ends = wanted.vips.iter().filter_map(|vip| {
            let slots = self.held.slots(vip.entry.id)?;
            slots.deadline_ms(&vip.times)
        });
        let end = ends.fold(None, |first, end| earlier(first, Some(end)))?;
        let left = end.wrapping_sub(milliseconds(&self.plane));
        // What is over already counts as a great number.
        let left = if left > u32::MAX / 2 { 0 } else { left };
        // A millisecond more: the clock's own may not have ended.
        Some(Instant::now() + Duration::from_millis(u64::from(left) + 1))
    }

    /// Whoever leaves keeps next hop and health checks until it is gone.
    fn follow_leaving(&mut self, before: &Wanted) {
        let is_same = self
            .wanted
            .as_ref()
            .is_some_and(|wanted| wanted.leaving.keys().eq(before.leaving.keys()));
        if !is_same {
            self.watch();
        }
    }

    /// Has network and health checks watch whom the configuration has, and whoever is leaving.
    fn watch(&self) {
        self.neighbours.watch(self.watched(&self.desired));
        let checks = checks(&self.desired.config, self.wanted.as_ref(), |_| {
            Verdict::Unknown
        });
        self.health.watch(checks);
    }

    /// Backends whose way the network must tell: a configuration's, and the leaving ones.
    fn watched(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        let mut watched = desired.watched();
        let leaving = self
            .wanted
            .iter()
            .flat_map(|wanted| wanted.leaving.values());
        watched.extend(leaving.map(|entry| ip_address(entry.address)));
        watched
    }

    /// What a new configuration is held against.
    fn basis(&self) -> Basis {
        Basis {
            file: self.desired.file().clone(),
            overrides: self.desired.overrides().clone(),
            held: self.held.clone(),
            ids: self.ids.clone(),
        }
    }

    /// Tells of the backends whose next hop has become known.
    fn tell_next_hops(&self, before: &Wanted) {
        let ways = |wanted: &Wanted| -> BTreeMap<u16, bool> {
            let backends = wanted.vips.iter().flat_map(|vip| &vip.backends);
            backends.map(|b| (b.id, b.entry.is_resolved())).collect()
        };
        let before = ways(before);
        for vip in self.wanted.iter().flat_map(|wanted| &wanted.vips) {
            for backend in &vip.backends {
                let resolved = backend.entry.is_resolved();
                if before.get(&backend.id).is_some_and(|was| *was != resolved) {
                    self.events.tell(What::NextHop {
                        vip: vip.name.clone(),
                        backend: backend.address,
                        resolved,
                    });
                }
            }
        }
    }

    fn ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        let port = |name: &String| {
            let (ifindex, link) = snapshot.links.iter().find(|(_, link)| link.name == *name)?;
            Some(Port {
                ifindex: *ifindex,
                mac: link.mac?,
            })
        };
        self.desired
            .config
            .node
            .interfaces
            .iter()
            .filter_map(port)
            .collect()
    }

    fn status(&self) -> Status {
        let snapshot = self.snapshots.borrow();
        let own = [&self.failure, &self.lost, &self.unsaved];
        let mut problems: Vec<String> = own.into_iter().flatten().cloned().collect();
        problems.extend(self.origin.problems());
        problems.extend(self.desired.idle_overrides().map(|(name, _)| {
            format!(
                "{}: changed by command, but VIP {} has no such backend",
                name.backend, name.vip
            )
        }));
        problems.extend(
            snapshot
                .problems
                .iter()
                .map(|(address, problem)| format!("{address}: {problem}")),
        );
        let mut counters = |result: anyhow::Result<_>| {
            result.unwrap_or_else(|error| {
                problems.push(format!("{error:#}"));
                Counters::default()
            })
        };
        let vips = self
            .wanted
            .iter()
            .flat_map(|wanted| &wanted.vips)
            .zip(&self.desired.config.vips)
            .zip(self.desired.backends());
        let vips = vips
            .map(|((vip, config), as_configured)| {
                let backends =
                    vip.backends
                        .iter()
                        .zip(as_configured)
                        .map(|(backend, configured)| {
                            backend_status(
                                backend,
                                configured,
                                counters(self.plane.backend_counters(backend.id)),
                            )
                        });
                let backends = backends.collect();
                vip_status(
                    vip,
                    config,
                    backends,
                    counters(self.plane.vip_counters(vip.entry.id)),
                )
            })
            .collect();
        let reasons = self.plane.reason_counters().unwrap_or_else(|error| {
            problems.push(format!("{error:#}"));
            Vec::new()
        });
        Status {
            ready: self.wanted.is_some() && !self.interfaces.is_empty(),
            node: self.desired.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            config: self.origin.status(),
            interfaces: self.interfaces.clone(),
            vips,
            reasons: ReasonStatus::all(&reasons),
            overrides: OverrideStatus::all(self.desired.overrides(), self.desired.file()),
            problems,
        }
    }
}

/// Waits until a time; for ever, where there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn vip_status(
    vip: &WantedVip,
    config: &config::Vip,
    backends: Vec<BackendStatus>,
    count: Counters,
) -> VipStatus {
    VipStatus {
        id: vip.entry.id,
        name: vip.name.clone(),
        address: config.address,
        port: config.port,
        protocol: config.protocol,
        table: config.table,
        table_digest: vip.table.digest().to_string(),
        packets: count.packets,
        bytes: count.bytes,
        new_connections: count.new_connections,
        backends,
    }
}

fn backend_status(
    backend: &WantedBackend,
    (config, command): (&config::Backend, Override),
    count: Counters,
) -> BackendStatus {
    let resolved = backend.entry.is_resolved();
    BackendStatus {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
        configured_weight: config.weight,
        drained: command.is_drained,
        forward: config.forward,
        slots: backend.slots,
        resolved,
        mac: resolved.then(|| mac_text(backend.entry.mac_destination)),
        mtu: backend.entry.mtu,
        packets: count.packets,
        bytes: count.bytes,
        new_connections: count.new_connections,
    }
}

#[cfg(test)]
mod tests;
