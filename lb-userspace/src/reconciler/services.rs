//! VIPs of Services beside those of the configuration. They are no generation of their own: a cluster's rollouts must not
//! make an operator's change stale.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Desired, Reconciler,
    change::{knows, resolved},
};
use crate::{
    announce::Owned,
    api::{KubernetesStatus, What},
    config::Config,
    dataplane::DataPlane,
    model::services::Services,
};

/// Services whose nodes have been looked for in the network.
pub(super) struct Looked {
    turn: u64,
    services: Services,
    reply: oneshot::Sender<Result<(), String>>,
}

/// The way from and to the task that follows the cluster.
pub(super) struct Cluster {
    /// How often Services were to be served.
    turn: u64,
    looked: (mpsc::Sender<Looked>, mpsc::Receiver<Looked>),
    /// The addresses of the configuration's own VIPs.
    addresses: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    /// Whether this node takes a share of the Services' addresses to announce.
    willing: watch::Sender<bool>,
    status: Option<watch::Receiver<KubernetesStatus>>,
}

impl Cluster {
    pub(super) fn new(file: &Config) -> Self {
        Self {
            turn: 0,
            looked: mpsc::channel(1),
            addresses: watch::channel(addresses(file)).0,
            willing: watch::channel(false).0,
            status: None,
        }
    }

    /// Services that can be put in force now.
    pub(super) async fn next(&mut self) -> Looked {
        match self.looked.1.recv().await {
            Some(looked) => looked,
            // The sender lives beside the receiver, so this never is.
            None => std::future::pending().await,
        }
    }

    /// How the node stands with its cluster.
    pub(super) fn status(&self) -> Option<KubernetesStatus> {
        Some(self.status.as_ref()?.borrow().clone())
    }

    /// Tells of the addresses of another configuration.
    pub(super) fn follow(&self, file: &Config) {
        tell(&self.addresses, addresses(file));
    }

    /// Tells whether this node takes a share of the Services' addresses to announce.
    pub(super) fn is_willing(&self, is_willing: bool) {
        tell(&self.willing, is_willing);
    }
}

/// Tells something, if it is something else than before.
fn tell<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|known| {
        let is_other = *known != new;
        *known = new;
        is_other
    });
}

fn addresses(file: &Config) -> Arc<BTreeSet<IpAddr>> {
    Arc::new(file.vips.iter().map(|vip| vip.address).collect())
}

impl<D: DataPlane> Reconciler<D> {
    /// Serves these from the start on. How the task that follows the cluster stands is told by `status`, what this node owns by
    /// `owned`; what is returned tells it of the addresses of the configuration's own VIPs, and whether this node is willing to announce
    /// Services.
    #[cfg_attr(
        not(feature = "kubernetes"),
        expect(dead_code, reason = "nobody follows a cluster")
    )]
    pub(crate) fn begin_with(
        &mut self,
        services: Services,
        (status, owned): (watch::Receiver<KubernetesStatus>, watch::Receiver<Owned>),
    ) -> (
        watch::Receiver<Arc<BTreeSet<IpAddr>>>,
        watch::Receiver<bool>,
    ) {
        self.desired = self.desired.with_services(services);
        self.cluster.status = Some(status);
        self.segments.owned_by(owned);
        (
            self.cluster.addresses.subscribe(),
            self.cluster.willing.subscribe(),
        )
    }

    /// Serves other VIPs of Services, once the network has been asked for nodes that are new.
    pub(super) fn serve(&mut self, services: Services, reply: oneshot::Sender<Result<(), String>>) {
        self.cluster.turn += 1;
        let turn = self.cluster.turn;
        let next = self.desired.with_services(services.clone());
        let mut watched = self.watched(&next);
        let new: BTreeSet<_> = {
            let snapshot = self.snapshots.borrow();
            let backends = self.watched_backends(&next).into_iter();
            backends
                .filter(|address| !knows(&snapshot, address))
                .collect()
        };
        let looked = Looked {
            turn,
            services,
            reply,
        };
        if new.is_empty() {
            self.put_in_force(looked);
            return;
        }
        watched.extend(self.watched(&self.desired));
        self.neighbours.watch(watched);
        let snapshots = self.snapshots.clone();
        let sender = self.cluster.looked.0.clone();
        tokio::spawn(async move {
            // Nodes without a MAC address are named in the status; that nobody watches is found by `run`.
            resolved(snapshots, &new).await.ok();
            // An error says that the daemon ends.
            sender.send(looked).await.ok();
        });
    }

    /// Puts VIPs of Services in force.
    pub(super) fn put_in_force(&mut self, looked: Looked) {
        let Looked {
            turn,
            services,
            reply,
        } = looked;
        if turn != self.cluster.turn {
            // Whoever asked may have given up waiting, here and below.
            drop(reply.send(Err("others were to be served meanwhile".to_owned())));
            return;
        }
        let before = names(&self.desired);
        let next = self.desired.with_services(services);
        let result = self.adopt(next, "kubernetes");
        self.watch();
        if result.is_ok() {
            self.follow_fleet();
            let after = names(&self.desired);
            let added: Vec<_> = after.difference(&before).cloned().collect();
            let removed: Vec<_> = before.difference(&after).cloned().collect();
            tracing::info!(vips = after.len(), ?added, ?removed, "Services followed");
            if !added.is_empty() || !removed.is_empty() {
                self.events.tell(What::Services { added, removed });
            }
            self.tell_changes();
        }
        drop(reply.send(result.map_err(|refusal| refusal.to_string())));
    }
}

/// The names of the VIPs that are Services'.
fn names(desired: &Desired) -> BTreeSet<String> {
    // The configuration's own come first.
    let all = desired.file().vips.iter().skip(desired.read().vips.len());
    all.map(|vip| vip.name.clone()).collect()
}
