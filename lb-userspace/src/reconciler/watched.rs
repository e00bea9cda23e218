//! Whom network and health checks watch, and what the network says of the ways to them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Desired, Reconciler, standing::checks};
use crate::{
    api::What,
    dataplane::DataPlane,
    health::Verdict,
    model::{ip_address, next_hop::Port, wanted::Wanted},
    neighbours::{NextHop, Problem, Snapshot},
};

impl<D: DataPlane> Reconciler<D> {
    /// Whoever leaves keeps next hop and health checks until it is gone.
    pub(super) fn follow_leaving(&mut self, before: &Wanted) {
        let is_same = self
            .wanted
            .as_ref()
            .is_some_and(|wanted| wanted.leaving.keys().eq(before.leaving.keys()));
        if !is_same {
            self.watch();
        }
    }

    /// Has network and health checks watch whom the configuration has, and whoever is leaving.
    pub(super) fn watch(&self) {
        self.neighbours.watch(self.watched(&self.desired));
        let checks = checks(&self.desired.config, self.wanted.as_ref(), |_| {
            Verdict::Unknown
        });
        self.health.watch(checks);
    }

    /// Whose way the network must tell: a configuration's backends and peers, and the leaving backends.
    pub(super) fn watched(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        let mut watched = self.watched_backends(desired);
        watched.extend(&desired.config.node.peers);
        watched
    }

    /// The same without peers, whom nothing waits for.
    pub(super) fn watched_backends(&self, desired: &Desired) -> BTreeSet<IpAddr> {
        let mut watched = desired.watched();
        let leaving = self
            .wanted
            .iter()
            .flat_map(|wanted| wanted.leaving.values());
        watched.extend(leaving.map(|entry| ip_address(entry.address)));
        watched
    }

    /// Tells of the backends whose next hop has become known.
    pub(super) fn tell_next_hops(&self, before: &Wanted) {
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

    pub(super) fn ports(&self, snapshot: &Snapshot) -> Vec<Port> {
        let port = |name: &String| {
            let (ifindex, link) = snapshot.links.iter().find(|(_, link)| link.name == *name)?;
            Some(Port {
                ifindex: *ifindex,
                mac: link.mac?,
            })
        };
        self.interfaces().iter().filter_map(port).collect()
    }
}

/// The next hops whose interface exists. The network keeps the last way to a backend; the data plane does too, and knows
/// that frames leave by no interface that has gone.
pub(super) fn usable(snapshot: &Snapshot) -> Cow<'_, BTreeMap<IpAddr, NextHop>> {
    let exists = |hop: &NextHop| snapshot.links.contains_key(&hop.ifindex);
    if snapshot.next_hops.values().all(exists) {
        return Cow::Borrowed(&snapshot.next_hops);
    }
    let hops = snapshot.next_hops.iter().filter(|(_, hop)| exists(hop));
    Cow::Owned(hops.map(|(address, hop)| (*address, *hop)).collect())
}

/// The watched addresses that are this node's own.
pub(super) fn locals(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let problems = snapshot.problems.iter();
    let own = problems.filter(|(_, problem)| **problem == Problem::Local);
    own.map(|(address, _)| *address).collect()
}
