//! The one task that owns the data plane: it makes the maps what the configuration and the network want, and
//! answers commands. No map needs a lock.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    api::{BackendStatus, Command, Detached, InterfaceStatus, ReasonStatus, Status, VipStatus},
    config::Config,
    dataplane::DataPlane,
    model::{
        ids::Ids,
        next_hop::Port,
        plan::{Held, Step, plan},
        seed::Keys,
        wanted::{Inputs, Wanted, WantedBackend, WantedVip},
    },
    neighbours::{Neighbours, Snapshot},
};

/// How long the start waits for the backends' MAC addresses before packets may come.
const RESOLUTION_PATIENCE: Duration = Duration::from_secs(2);

/// Owner of the data plane.
pub(crate) struct Reconciler<D> {
    config: Config,
    keys: Keys,
    plane: D,
    ids: Ids,
    held: Held,
    wanted: Option<Wanted>,
    neighbours: Neighbours,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    interfaces: Vec<InterfaceStatus>,
    generation: u64,
    failure: Option<String>,
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
    /// Takes over what the data plane holds.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub(crate) fn new(
        config: Config,
        plane: D,
        neighbours: Neighbours,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> anyhow::Result<Self> {
        let vips = plane.vips()?;
        let backends = plane.backends()?;
        if !backends.is_empty() {
            tracing::info!(vips = vips.len(), backends = backends.len(), "adopted what an earlier daemon left");
        }
        Ok(Self {
            keys: Keys::derive(config.node.seed.expose()),
            ids: Ids::adopt(&vips, &backends),
            held: Held::adopt(&vips, &backends),
            config,
            plane,
            wanted: None,
            neighbours,
            snapshots,
            interfaces: Vec::new(),
            generation: 0,
            failure: None,
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
        let backends = self.config.vips.iter().flat_map(|vip| &vip.backends);
        let addresses: BTreeSet<IpAddr> = backends.filter(|b| b.mac.is_none()).map(|b| b.address).collect();
        self.neighbours.watch(addresses.clone());
        let known = |snapshot: &Arc<Snapshot>| {
            let is_known = |address| snapshot.next_hops.get(address).is_some_and(|hop| hop.mac_destination.is_some());
            addresses.iter().all(is_known)
        };
        match timeout(RESOLUTION_PATIENCE, self.snapshots.wait_for(known)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => anyhow::bail!("the task that watches neighbours has ended"),
            Err(_) => tracing::warn!("some backends' MAC addresses are not known yet: `weir status` names them"),
        }
        self.reconcile("start")?;
        self.generation = 1;
        Ok(())
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
                    if let Err(error) = self.reconcile("network") {
                        tracing::error!(error = format!("{error:#}"), "the maps cannot follow the network");
                        self.failure = Some(format!("{error:#}"));
                    } else {
                        self.failure = None;
                    }
                }
                command = commands.recv() => match command {
                    Some(command) => if let Some(end) = self.answer(command) { return end },
                    None => return End::Abandoned,
                },
            }
        }
    }

    async fn only_answer(&self, commands: &mut mpsc::Receiver<Command>) -> End {
        while let Some(command) = commands.recv().await {
            if let Some(end) = self.answer(command) {
                return end;
            }
        }
        End::Abandoned
    }

    fn answer(&self, command: Command) -> Option<End> {
        match command {
            Command::Status(sender) => {
                // Whoever asked may have given up waiting.
                drop(sender.send(self.status()));
                None
            }
            Command::Detach(sender) => Some(End::Detach(sender)),
        }
    }

    /// Makes the maps what they should be. `cause` is for the log.
    fn reconcile(&mut self, cause: &str) -> anyhow::Result<()> {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let ports = self.ports(&snapshot);
        let inputs =
            Inputs { config: &self.config, keys: &self.keys, ports: &ports, next_hops: &snapshot.next_hops };
        let wanted = Wanted::new(&inputs, &self.held, &mut self.ids)?;
        for step in plan(&self.held, &wanted) {
            execute(&mut self.plane, &step)?;
            self.held.record(&step);
            log(cause, &step);
        }
        self.held.release(&mut self.ids);
        self.wanted = Some(wanted);
        Ok(())
    }

    fn ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        let port = |name: &String| {
            let (ifindex, link) = snapshot.links.iter().find(|(_, link)| link.name == *name)?;
            Some(Port { ifindex: *ifindex, mac: link.mac? })
        };
        self.config.node.interfaces.iter().filter_map(port).collect()
    }

    fn status(&self) -> Status {
        let snapshot = self.snapshots.borrow();
        let mut problems: Vec<String> = self.failure.iter().cloned().collect();
        problems.extend(snapshot.problems.iter().map(|(address, problem)| format!("{address}: {problem}")));
        let mut counters = |result: anyhow::Result<_>| {
            result.unwrap_or_else(|error| {
                problems.push(format!("{error:#}"));
                Default::default()
            })
        };
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips).zip(&self.config.vips);
        let vips = vips
            .map(|(vip, config)| {
                let backends = vip.backends.iter().zip(&config.backends).map(|(backend, config)| {
                    backend_status(backend, config, counters(self.plane.backend_counters(backend.id)))
                });
                let backends = backends.collect();
                vip_status(vip, config, backends, counters(self.plane.vip_counters(vip.entry.id)))
            })
            .collect();
        let reasons = self.plane.reason_counters().unwrap_or_else(|error| {
            problems.push(format!("{error:#}"));
            Vec::new()
        });
        Status {
            ready: self.generation > 0 && !self.interfaces.is_empty(),
            node: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            interfaces: self.interfaces.clone(),
            vips,
            reasons: ReasonStatus::all(&reasons),
            problems,
        }
    }
}

type Count = lb_common::tables::Counters;

fn vip_status(vip: &WantedVip, config: &crate::config::Vip, backends: Vec<BackendStatus>, count: Count) -> VipStatus {
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

fn backend_status(backend: &WantedBackend, config: &crate::config::Backend, count: Count) -> BackendStatus {
    let resolved = backend.entry.is_resolved();
    let [a, b, c, d, e, f] = backend.entry.mac_destination;
    BackendStatus {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
        forward: config.forward,
        slots: backend.slots,
        resolved,
        mac: resolved.then(|| format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")),
        packets: count.packets,
        bytes: count.bytes,
        new_connections: count.new_connections,
    }
}

fn execute(plane: &mut impl DataPlane, step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Node(node) => plane.set_node(node),
        Step::Port(ifindex) => plane.add_port(*ifindex),
        Step::Backend(id, backend) => plane.set_backend(*id, backend),
        Step::Table(vip, table) => plane.set_table(*vip, &table.slot_table()),
        Step::Vips(vips) => plane.set_vips(&vips.table),
        Step::ClearTable(vip) => plane.clear_table(*vip),
        Step::ClearBackend(id) => plane.set_backend(*id, &lb_common::backend::Backend::default()),
    }
    .context("the kernel refused to change a map")
}

fn log(cause: &str, step: &Step) {
    match step {
        Step::Node(_) => tracing::info!(cause, "node settings written"),
        Step::Port(ifindex) => tracing::info!(cause, ifindex, "port added"),
        Step::Backend(id, backend) => {
            let address = crate::model::ip_address(backend.address);
            let resolved = backend.is_resolved();
            tracing::info!(cause, backend = id, vip = backend.vip, %address, resolved, "backend written");
        }
        Step::Table(vip, table) => tracing::info!(cause, vip, digest = %table.digest(), "lookup table swapped in"),
        Step::Vips(vips) => tracing::info!(cause, vips = vips.entries.len(), "VIPs swapped in"),
        Step::ClearTable(vip) => tracing::info!(cause, vip, "lookup table taken away"),
        Step::ClearBackend(id) => tracing::info!(cause, backend = id, "backend taken away"),
    }
}
