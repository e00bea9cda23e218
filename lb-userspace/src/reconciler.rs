//! The one task that owns the data plane: it makes the maps what the configuration and the network want, and
//! answers commands. No map needs a lock.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use lb_common::tables::Counters;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    api::{BackendStatus, Command, Detached, InterfaceStatus, ReasonStatus, Status, VipStatus},
    config::Config,
    dataplane::{DataPlane, apply::apply},
    model::{
        ids::Ids,
        mac_text,
        next_hop::Port,
        plan::Held,
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
            tracing::info!(
                vips = vips.len(),
                backends = backends.len(),
                "adopted what an earlier daemon left"
            );
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
        let addresses: BTreeSet<IpAddr> = backends
            .filter(|b| b.mac.is_none())
            .map(|b| b.address)
            .collect();
        self.neighbours.watch(addresses.clone());
        let known = |snapshot: &Arc<Snapshot>| {
            let is_known = |address| {
                snapshot
                    .next_hops
                    .get(address)
                    .is_some_and(|hop| hop.mac_destination.is_some())
            };
            addresses.iter().all(is_known)
        };
        match timeout(RESOLUTION_PATIENCE, self.snapshots.wait_for(known)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => anyhow::bail!("the task that watches neighbours has ended"),
            Err(_) => tracing::warn!(
                "some backends' MAC addresses are not known yet: `weir status` names them"
            ),
        }
        self.reconcile("start")?;
        self.generation = 1;
        Ok(())
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
        let inputs = Inputs {
            config: &self.config,
            keys: &self.keys,
            ports: &ports,
            next_hops: &snapshot.next_hops,
        };
        let wanted = Wanted::new(&inputs, &self.held, &mut self.ids)?;
        apply(
            &mut self.plane,
            &mut self.held,
            &wanted,
            &mut self.ids,
            cause,
        )?;
        self.wanted = Some(wanted);
        Ok(())
    }

    fn ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        let port = |name: &String| {
            let (ifindex, link) = snapshot.links.iter().find(|(_, link)| link.name == *name)?;
            Some(Port {
                ifindex: *ifindex,
                mac: link.mac?,
            })
        };
        self.config
            .node
            .interfaces
            .iter()
            .filter_map(port)
            .collect()
    }

    fn status(&self) -> Status {
        let snapshot = self.snapshots.borrow();
        let mut problems: Vec<String> = self.failure.iter().cloned().collect();
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
            .zip(&self.config.vips);
        let vips = vips
            .map(|(vip, config)| {
                let backends =
                    vip.backends
                        .iter()
                        .zip(&config.backends)
                        .map(|(backend, config)| {
                            backend_status(
                                backend,
                                config,
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

fn vip_status(
    vip: &WantedVip,
    config: &crate::config::Vip,
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
    config: &crate::config::Backend,
    count: Counters,
) -> BackendStatus {
    let resolved = backend.entry.is_resolved();
    BackendStatus {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
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
