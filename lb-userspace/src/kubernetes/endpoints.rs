//! Which nodes serve a port of a Service, and how much of it: kube-proxy's rules, seen from outside of the nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::objects::{Endpoint, Family, Key, Node, Port, Service, Slice, World};
use crate::config::ForwardMode;

/// The weight of nodes that are to take equal shares.
const EQUAL: u16 = 100;

/// Slices and nodes, in the order in which they are looked for.
pub struct Endpoints<'w> {
    slices: BTreeMap<(&'w Key, Family), Vec<&'w Slice>>,
    nodes: BTreeMap<&'w str, &'w Node>,
}

impl<'w> Endpoints<'w> {
    /// What a world has of them.
    #[must_use]
    pub fn of(world: &'w World) -> Self {
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in world.slices.values() {
            slices
                .entry((&slice.service, slice.family))
                .or_default()
                .push(slice);
        }
        let eligible = world.nodes.iter().filter(|(_, node)| !node.is_excluded);
        // Where no node at all is ready it is the cluster that does not know: all are taken, as where all fail their checks.
        let is_known = eligible.clone().any(|(_, node)| node.is_ready);
        let nodes = eligible.filter(|(_, node)| node.is_ready || !is_known);
        Self {
            slices,
            nodes: nodes.map(|(name, node)| (name.as_str(), node)).collect(),
        }
    }

    /// The nodes that serve a port at an address of a family, with their weights; 0 for those that only drain.
    #[must_use]
    pub fn shares(
        &self,
        (key, service): (&Key, &Service),
        port: &Port,
        family: Family,
        forward: ForwardMode,
    ) -> BTreeMap<IpAddr, u16> {
        let address = |node: &Node| node_address(node, family, forward);
        let eligible: BTreeMap<&str, IpAddr> = self
            .nodes
            .iter()
            .filter_map(|(name, node)| Some((*name, address(node)?)))
            .collect();
        let endpoints = self.endpoints(key, port, family);
        let on_nodes = |wanted: fn(&Endpoint) -> bool| {
            let mut count: BTreeMap<IpAddr, u16> = BTreeMap::new();
            let of = endpoints.values().filter(|endpoint| wanted(endpoint));
            for endpoint in of {
                let node = endpoint.node.as_deref();
                if let Some(address) = node.and_then(|node| eligible.get(node)) {
                    let count = count.entry(*address).or_default();
                    *count = count.saturating_add(1);
                }
            }
            count
        };
        let (ready, draining) = (
            on_nodes(|endpoint| endpoint.is_ready),
            on_nodes(|endpoint| endpoint.is_draining && !endpoint.is_ready),
        );
        let is_ready_anywhere = endpoints.values().any(|endpoint| endpoint.is_ready);
        if service.is_local {
            // A node takes what is its own alone, so only endpoints on nodes that count are any.
            let takes = if ready.is_empty() { &draining } else { &ready };
            let mut shares: BTreeMap<_, _> = draining.keys().map(|address| (*address, 0)).collect();
            shares.extend(takes);
            return shares;
        }
        // Any node leads to any endpoint: those that have some of their own come first, since a hop is saved.
        let takes = if is_ready_anywhere { &ready } else { &draining };
        let is_any = is_ready_anywhere || endpoints.values().any(|endpoint| endpoint.is_draining);
        if takes.is_empty() && is_any {
            return eligible.values().map(|address| (*address, EQUAL)).collect();
        }
        let mut shares: BTreeMap<_, _> = draining.keys().map(|address| (*address, 0)).collect();
        shares.extend(takes.keys().map(|address| (*address, EQUAL)));
        shares
    }

    /// The endpoints of a port by address. One that is in two slices for a moment counts once, as the better of the two.
    fn endpoints(&self, key: &Key, port: &Port, family: Family) -> BTreeMap<&'w str, Endpoint> {
        let mut merged: BTreeMap<&str, Endpoint> = BTreeMap::new();
        let slices = self.slices.get(&(key, family)).into_iter().flatten();
        let has_port = |slice: &&&Slice| {
            let mut ports = slice.ports.iter();
            ports.any(|(name, protocol)| *name == port.name && *protocol == port.protocol)
        };
        for endpoint in slices.filter(has_port).flat_map(|slice| &slice.endpoints) {
            let known = merged
                .entry(&endpoint.address)
                .or_insert_with(|| endpoint.clone());
            known.is_ready |= endpoint.is_ready;
            known.is_draining |= endpoint.is_draining;
            // Whichever came first: of two nodes the one with the lesser name, and some node before none.
            known.node = match (known.node.take(), &endpoint.node) {
                (Some(known), Some(other)) => Some(known.min(other.clone())),
                (known, other) => known.or_else(|| other.clone()),
            };
        }
        merged
    }
}

/// A node's address of the VIP's family; where it has none, the other where the way of packets can carry that.
fn node_address(node: &Node, family: Family, forward: ForwardMode) -> Option<IpAddr> {
    let of = |family| node.addresses.iter().find(|a| Family::of(**a) == family);
    let other = match (forward, family) {
        (ForwardMode::Gue | ForwardMode::Ipip, Family::V4) => of(Family::V6),
        (ForwardMode::Gue, Family::V6) => of(Family::V4),
        (ForwardMode::L2, _) | (ForwardMode::Ipip, Family::V6) => None,
    };
    of(family).or(other).copied()
}

/// Addresses that belong to nodes, and so to no Service.
#[must_use]
pub fn of_nodes(world: &World) -> BTreeSet<IpAddr> {
    let nodes = world.nodes.values();
    nodes
        .flat_map(|node| node.addresses.iter().copied())
        .collect()
}
