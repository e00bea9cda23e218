//! The one task that owns the data plane: it makes the maps what the configuration and the network want, and
//! answers commands. No map needs a lock.

mod agreement;
mod announce;
mod attachments;
mod blocks;
mod change;
mod desired;
mod ebb;
mod fleet;
mod known;
mod lists;
pub(crate) mod meter;
mod observers;
mod origin;
mod segments;
mod services;
mod standing;
mod status;
mod sweep;
mod told;
mod watched;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use tokio::sync::{mpsc, watch};

use crate::{
    announce::on,
    api::{Actor, Command, Detached, Events, FlowsBasis, PlanBasis},
    config::{Config, OnExit},
    dataplane::{DataPlane, apply::apply},
    dsr::ProbePath,
    health::{self, Forwarding, Health, Verdict},
    lists::{watch::Watcher, writer::Writer},
    model::{
        ids::Ids,
        ip_address,
        plan::Held,
        preview::Basis,
        services::Services,
        slots::{Settled, Slots, earlier},
        wanted::{Inputs, Wanted},
    },
    neighbours::{Neighbours, Snapshot},
    service_manager::Watchdog,
    state::StateFile,
};
use agreement::FleetAgreement;
use announce::Announcements;
use attachments::Attachments;
use change::Prepared;
use desired::Desired;
use ebb::Ebb;
use fleet::FleetLimits;
use known::Known;
use meter::Meter;
use observers::Observers;
use origin::Origin;
use segments::Segments;
use services::Cluster;
use standing::{Keeper, checks};
use sweep::{Message, Sweeper, milliseconds};
use told::Told;

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
    attachments: Attachments,
    segments: Segments,
    generation: u64,
    failure: Option<String>,
    state: StateFile,
    /// What of the past could not be read.
    lost: Option<String>,
    /// Why the state is not kept.
    unsaved: Option<String>,
    origin: Origin,
    events: Events,
    told: Told,
    meter: Meter,
    /// Configurations whose backends have been looked for.
    prepared: (mpsc::Sender<Prepared>, mpsc::Receiver<Prepared>),
    health: Health,
    /// The way of health checks through the forwarding path.
    probe_path: Arc<ProbePath>,
    checked: watch::Receiver<Arc<health::Snapshot>>,
    /// Writes the access lists.
    lists: Writer,
    /// Watches their files.
    files: Watcher,
    refused_files: lists::Refused,
    keeper: Keeper,
    sweeper: Sweeper,
    known: Known,
    ebb: Ebb,
    /// Leaving backends that nothing names any more.
    unnamed: BTreeSet<u16>,
    /// What a scan has shown that has just ended.
    settled: Option<Arc<Settled>>,
    /// Limits that the whole fleet keeps.
    fleet: FleetLimits,
    /// Whether the fleet has the same tables.
    agreement: FleetAgreement,
    /// Who watches packets.
    observers: Box<Observers>,
    /// The cluster whose Services are served.
    cluster: Cluster,
    announcements: Announcements,
    /// Wants to hear from this task that it lives.
    watchdog: Watchdog,
    /// When something changes by time alone.
    wake: Option<Instant>,
}

/// What becomes of commands from before the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Past {
    /// They hold until they are undone.
    Kept,
    /// They are gone, and so is what else the state file told, but for the generation.
    Forgotten,
}

/// Why the reconciler ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The program is to be taken off; whoever asked waits for the answer.
    Detach(tokio::sync::oneshot::Sender<Result<Detached, String>>),
    /// Nobody can send commands any more.
    Abandoned,
    /// What is announced has been withdrawn or handed over ([`Reconciler::leave`]).
    Left,
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
        past: Past,
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
        let keeper = plane.leaving()?.map_or_else(Keeper::default, |leaving| {
            Keeper::adopt(&leaving, Instant::now(), plane.now_ns())
        });
        let mut slots = Vec::with_capacity(vips.len());
        for vip in &vips {
            if let Some(table) = plane.table(vip.id)? {
                let since = plane.since(vip.id)?;
                slots.push((vip.id, Slots::adopt(table, since, now_ms)));
            }
        }
        let mut held = Held::adopt(&vips, &backends, slots);
        held.adopt_interfaces(plane.interfaces()?);
        held.adopt_peers(plane.peers()?);
        held.adopt_blocks(plane.block_keys()?, plane.block_scopes()?);
        let lists = Writer::start(plane.list_plane()?)?;
        let probe_path = Arc::new(ProbePath::new(&config.node.pin_path));
        let (health, checked) = Health::start_over(Arc::clone(&probe_path) as Arc<dyn Forwarding>)
            .context("starting the health checks")?;
        let state_file = StateFile::new(&config.node.state_file);
        let (state, lost) = match past {
            Past::Kept => state_file.load(),
            Past::Forgotten => (state_file.forget(), None),
        };
        for (name, value) in state.overrides.iter() {
            tracing::info!(
                vip = name.vip,
                backend = %name.backend,
                drained = value.is_drained,
                weight = value.weight,
                "changed by an earlier command, until it is undone"
            );
        }
        for (address, on) in state.announce.iter() {
            tracing::info!(%address, on, "announcement set by an earlier command");
        }
        Ok(Self {
            cluster: Cluster::new(&config),
            desired: Desired::new(
                config,
                Services::default(),
                state.overrides,
                Arc::new(state.blocks),
                state.node_drained,
                state.announce,
            ),
            ids: Ids::adopt(&vips, &backends),
            held,
            plane,
            wanted: None,
            neighbours,
            snapshots,
            attachments: Attachments::default(),
            segments: Segments::start(),
            generation: state.generation,
            failure: None,
            state: state_file,
            lost,
            unsaved: None,
            origin: Origin::new(file),
            events: Events::new(),
            told: Told::default(),
            meter: Meter::new().context("counting what the daemon does")?,
            prepared: mpsc::channel(1),
            health,
            probe_path,
            checked,
            lists,
            files: Watcher::start(),
            refused_files: lists::Refused::default(),
            keeper,
            sweeper: Sweeper::default(),
            known: Known::default(),
            ebb: Ebb::default(),
            unnamed: BTreeSet::new(),
            settled: None,
            fleet: FleetLimits::of(state.fleet_nodes),
            agreement: FleetAgreement::new(),
            observers: Box::default(),
            announcements: Announcements::default(),
            watchdog: Watchdog::wanted(),
            wake: None,
        })
    }

    /// What is measured of the daemon's own work, for the metrics.
    ///
    /// # Errors
    /// Two of the metrics are of one name: a defect.
    pub(crate) fn measured(&self) -> prometheus::Result<prometheus::Registry> {
        let registry = prometheus::Registry::new();
        registry.register(Box::new(self.health.durations().clone()))?;
        self.meter.register(&registry)?;
        Ok(registry)
    }

    /// The data plane.
    pub(crate) fn plane(&mut self) -> &mut D {
        &mut self.plane
    }

    /// Fills the maps, once the backends' MAC addresses are known or the patience is over, and attaches the program.
    ///
    /// # Errors
    /// Where the configuration does not fit into the maps, the kernel refuses to write one, or the program could be
    /// attached to no interface at all.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        // What a killed daemon left leads into nothing now.
        self.probe_path.remove().await;
        let addresses = self.desired.watched();
        self.neighbours.watch(self.watched(&self.desired));
        if !change::resolved(self.snapshots.clone(), &addresses).await? {
            tracing::warn!(
                "some backends' MAC addresses are not known yet: `weir status` names them"
            );
        }
        self.adopt_verdicts().await?;
        self.expire_blocks();
        self.load_lists().await?;
        self.reconcile("start")?;
        self.tell_changes();
        self.announce();
        if !self.attachments.is_any() {
            let names = self.interfaces().iter();
            let problems = names.filter_map(|name| self.attachments.problem(name));
            anyhow::bail!("{}", problems.collect::<Vec<_>>().join("; "));
        }
        self.generation += 1;
        self.save_state();
        Ok(())
    }

    /// What the end of the daemon does to the data plane.
    pub(crate) const fn on_exit(&self) -> OnExit {
        self.desired.file().node.on_exit
    }

    /// Takes away what only a running daemon needs. The routes of VIPs stay.
    pub(crate) async fn end(mut self) {
        self.disown();
        self.end_watches();
        self.probe_path.remove().await;
    }

    /// Gives the data plane and the neighbours up, for when weir leaves for good.
    pub(crate) async fn release(self) {
        // Before the program goes: a route to a node that balances nothing leads into nothing.
        self.announcements.into_routes().withdraw().await;
        self.probe_path.remove().await;
        drop(self.plane);
        self.neighbours.release().await;
    }

    /// Follows the network and answers commands until told to end.
    pub(crate) async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        loop {
            let announce_at = self.announcements.wake;
            let ends = self.ends();
            tokio::select! {
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        // Nothing that follows would turn them off.
                        self.disown();
                        self.failure = Some("the network is no longer watched: restart the daemon".to_owned());
                        return self.only_answer(commands).await;
                    }
                    self.follow("network");
                }
                // The sender lives in this task, so there always is another.
                Some(prepared) = self.prepared.1.recv() => self.go_on(prepared),
                looked = self.cluster.next() => self.put_in_force(looked),
                command = commands.recv() => match command {
                    Some(command) => if let Some(end) = self.answer(command) { return end },
                    None => return End::Abandoned,
                },
                // Where the maps cannot follow, they are tried again in time.
                () = self.segments.other_owner(), if self.failure.is_none() => self.follow("owner"),
                Ok(()) = self.checked.changed() => self.follow("health"),
                turn = self.fleet.next() => self.lease(turn),
                () = until(self.wake) => {
                    self.expire_blocks();
                    self.follow("time");
                }
                () = self.announcements.changed() => {}
                () = until(announce_at) => self.announce(),
                () = until(ends) => return End::Left,
                reread = self.files.next() => self.reread(reread),
                message = self.sweeper.next() => self.sweep(message),
                turn = self.observers.next() => self.turn_observers(turn),
                () = self.watchdog.due() => self.watchdog.ping(),
            }
        }
    }

    /// Makes the maps what they should be after something that nobody waits for.
    fn follow(&mut self, cause: &str) {
        self.failure = match self.reconcile(cause) {
            Ok(()) => {
                self.tell_changes();
                None
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, cause, "the maps cannot follow");
                // Not at once again, and not never.
                self.wake = Some(Instant::now() + RETRY);
                Some(error)
            }
        };
        // Also where the maps could not follow: a VIP without backends is none the better for that.
        self.announce();
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
        let quiet = self.wanted.iter().flat_map(Wanted::quiet);
        // A counter that cannot be read is told of with the status.
        let frames =
            quiet.filter_map(|id| Some((id, self.plane.backend_counters(id).ok()?.packets)));
        self.ebb.note(frames, Instant::now());
        self.unnamed = findings.unnamed;
        self.settled = Some(Arc::new(findings.settled));
        self.follow("scan");
        self.unnamed.clear();
        self.settled = None;
    }

    /// Gives the health checks what an earlier daemon knew, and waits until they have taken it.
    async fn adopt_verdicts(&mut self) -> anyhow::Result<()> {
        // Where a dead one came back under another id, or is dead for one VIP alone, the living one counts.
        let mut alive: BTreeMap<IpAddr, bool> = BTreeMap::new();
        for (_, entry) in self.held.backends() {
            *alive.entry(ip_address(entry.address)).or_default() |= entry.is_alive();
        }
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

    /// Without a word to the watchdog: a new daemon is what mends it.
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
            Command::Serve(services, reply) => {
                self.serve(services, reply);
                None
            }
            Command::Blocks(sender) => {
                drop(sender.send(self.block_list()));
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
            Command::FlowsBasis(sender) => {
                let basis = self.flows_basis().map_err(|error| format!("{error:#}"));
                drop(sender.send(basis));
                None
            }
            Command::LimitsBasis(sender) => {
                let basis = self.limits_basis().map_err(|error| format!("{error:#}"));
                drop(sender.send(basis));
                None
            }
            Command::FleetReading(sender) => {
                self.answer_reading(sender);
                None
            }
            Command::FleetReport(sender) => {
                drop(sender.send(self.fleet_report()));
                None
            }
            Command::Agreement(sender) => {
                drop(sender.send(self.agreement()));
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
            Command::Watch(wanted, reply) => {
                self.watch_packets(wanted, reply);
                None
            }
            Command::Detach(sender) => Some(End::Detach(sender)),
        }
    }

    /// Makes the maps what they should be. `cause` is for the log.
    fn reconcile(&mut self, cause: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let result = self.follow_all(cause);
        self.meter.note(began.elapsed(), result.is_ok());
        result
    }

    fn follow_all(&mut self, cause: &str) -> anyhow::Result<()> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let ports = self.ports(&snapshot);
        self.held
            .retain_ports(|ifindex| snapshot.links.contains_key(&ifindex));
        let next_hops = watched::usable(&snapshot);
        let locals = watched::locals(&snapshot);
        let health = Arc::clone(&self.checked.borrow_and_update());
        let now = Instant::now();
        let mut standing = self.keeper.stand(
            &self.desired.config,
            &health,
            (self.wanted.as_ref(), &self.ids),
            now,
            milliseconds(&self.plane),
        );
        standing.unnamed.clone_from(&self.unnamed);
        standing.settled.clone_from(&self.settled);
        standing.parts = self.fleet.parts();
        standing.blocks = Arc::clone(self.desired.blocks());
        let announcements = self.stands();
        standing.silent = on::silent(&announcements);
        let inputs = Inputs {
            config: &self.desired.config,
            keys: &self.desired.keys,
            ports: &ports,
            next_hops: &next_hops,
            locals: &locals,
            standing: &standing,
            cpus: self.plane.cpus(),
        };
        let wanted = Wanted::new(&inputs, &self.held, &mut self.ids)?;
        self.keeper.follow(&wanted, now);
        if self.keeper.is_unnoted() {
            let note = self.keeper.note(now, self.plane.now_ns());
            self.plane.set_leaving(note.as_deref())?;
            self.keeper.noted();
        }
        apply(
            &mut self.plane,
            &mut self.held,
            &wanted,
            &mut self.ids,
            cause,
        )?;
        self.probe_path
            .follow(standing::ids(&self.desired.config, &wanted));
        // Packets come when the maps are filled, not before.
        let told = self.attachments.follow(
            &self.desired.config.node.interfaces,
            self.desired.config.node.xdp_mode,
            &snapshot.links,
            &mut self.plane,
        )?;
        for what in told {
            self.events.tell(what);
        }
        self.follow_announcements(announcements, &snapshot);
        let scan = self.sweeper.begin(&mut self.plane, &self.held, &wanted)?;
        self.lists.want(wanted.listed.clone());
        let times = [
            self.keeper.wake,
            scan,
            self.deadline(&wanted),
            self.block_deadline(),
        ];
        self.wake = times.into_iter().flatten().min();
        if let Some(before) = self.wanted.replace(wanted) {
            self.tell_next_hops(&before);
            self.follow_leaving(&before);
        }
        self.follow_names();
        Ok(())
    }

    /// The names of the interfaces that packets are to come by.
    fn interfaces(&self) -> &[String] {
        &self.desired.config.node.interfaces
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

    /// What a listing of the flows is made of.
    fn flows_basis(&self) -> anyhow::Result<FlowsBasis> {
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        Ok(FlowsBasis {
            scan: self.plane.scan()?,
            held: self.held.clone(),
            names: vips.map(|vip| (vip.entry.id, vip.name.clone())).collect(),
            now_ns: self.plane.now_ns(),
        })
    }

    /// What a new configuration is held against.
    fn basis(&self) -> Basis {
        Basis {
            file: self.desired.file().clone(),
            services: self.desired.services().clone(),
            overrides: self.desired.overrides().clone(),
            held: self.held.clone(),
            ids: self.ids.clone(),
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

#[cfg(test)]
mod tests;
