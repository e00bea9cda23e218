//! From everything that was read of the cluster to what this node serves and what one node writes. Pure: the same objects
//! give the same, in whatever order they came and however often they are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    endpoints::{Endpoints, of_nodes},
    objects::{Ingress, Key, Service, World},
    pools::{Book, adopt, assign, statuses},
    served::{Made, Part, Texts},
    told::{Reason, Told},
    vip_pool::PoolStatus,
};
use crate::config::Kubernetes;

/// What follows from a world.
#[derive(Default)]
pub struct Outcome {
    /// The VIPs, by name.
    pub made: Vec<Made>,
    /// Statuses of Services that should be others.
    pub statuses: Vec<StatusPatch>,
    /// Statuses of pools that should be others.
    pub pools: Vec<(String, PoolStatus)>,
    /// What is to be told of Services, each thing once.
    pub told: BTreeSet<Told>,
    /// Addresses of the other nodes, where this one is of the cluster: they may balance what this one serves.
    pub peers: BTreeSet<IpAddr>,
}

/// A Service's status as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusPatch {
    /// Whose.
    pub service: Key,
    /// The version of the Service that this follows from: of any other it may be wrong.
    pub version: String,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
}

/// Whether a Service is weir's.
#[must_use]
pub fn is_ours(service: &Service, settings: &Kubernetes) -> bool {
    service.is_balanced
        && match &service.class {
            Some(class) => *class == settings.class,
            None => settings.is_classless,
        }
}

/// What follows from a world. `file` has the addresses of the configuration's own VIPs.
#[must_use]
pub fn follow(
    world: &World,
    settings: &Kubernetes,
    file: &BTreeSet<IpAddr>,
    texts: &mut Texts,
) -> Outcome {
    texts.turn();
    let of_file = file
        .iter()
        .map(|a| (*a, "the address of a VIP of weir's configuration"));
    let of_nodes = of_nodes(world)
        .into_iter()
        .map(|a| (a, "a node's own address"));
    let foreign: BTreeMap<IpAddr, &'static str> = of_nodes.chain(of_file).collect();
    let ours = world
        .services
        .iter()
        .filter(|(_, service)| is_ours(service, settings));
    let mut services: Vec<(&Key, &Service)> = ours.collect();
    services.sort_by_key(|(key, service)| (service.created, *key));

    let mut told = Vec::new();
    let mut book = adopt(&services, &foreign, &mut told);
    let made = serve(world, &services, &book, texts, &mut told);
    assign(world, &services, &foreign, &mut book, &mut told);

    let held = |service: &Service| {
        let parsed = service
            .ingress
            .iter()
            .filter_map(|i| i.ip.parse::<IpAddr>().ok());
        parsed.collect::<Vec<_>>()
    };
    let mut patches = Vec::new();
    let mut used: BTreeSet<IpAddr> = book
        .has
        .values()
        .flat_map(|has| has.values().copied())
        .collect();
    for (key, service) in &services {
        let ingress = ingress(key, service, &book);
        used.extend(ingress.iter().filter_map(|i| i.ip.parse::<IpAddr>().ok()));
        if ingress != service.ingress {
            patches.push(StatusPatch {
                service: (*key).clone(),
                version: service.version.clone(),
                ingress,
            });
        }
    }
    // What weir wrote of a Service that is not its own any more is taken back; nothing else of such a one is touched.
    for (key, service) in &world.services {
        if !is_ours(service, settings) && service.is_written && !held(service).is_empty() {
            patches.push(StatusPatch {
                service: key.clone(),
                version: service.version.clone(),
                ingress: Vec::new(),
            });
        }
    }
    let pools = statuses(world, &foreign, &used).into_iter();
    let pools = pools.filter(|(name, status)| {
        world
            .pools
            .get(name)
            .is_some_and(|pool| pool.status != *status)
    });
    Outcome {
        made,
        statuses: patches,
        pools: pools.collect(),
        told: told.into_iter().collect(),
        peers: peers(world, &settings.node),
    }
}

/// The addresses of the nodes beside this one; none where this one is no node of the cluster.
fn peers(world: &World, own: &str) -> BTreeSet<IpAddr> {
    if !world.nodes.contains_key(own) {
        return BTreeSet::new();
    }
    let others = world.nodes.iter().filter(|(name, _)| *name != own);
    others
        .flat_map(|(_, node)| node.addresses.iter().copied())
        .collect()
}

/// The VIPs of the addresses that statuses have: what is only assigned is served once it is written, by all nodes alike.
fn serve(
    world: &World,
    services: &[(&Key, &Service)],
    book: &Book<'_>,
    texts: &mut Texts,
    told: &mut Vec<Told>,
) -> Vec<Made> {
    let endpoints = Endpoints::of(world);
    let mut made = Vec::new();
    for of in services {
        let (key, service) = *of;
        let forward = texts.forward(service);
        for port in service
            .ports
            .iter()
            .filter(|port| !is_balanced(&port.protocol))
        {
            let text = format!(
                "port {}/{} is not served: weir balances TCP and UDP",
                port.port, port.protocol
            );
            told.push(Told::warning(*of, Reason::UnsupportedProtocol, text));
        }
        for (family, address) in book.has.get(key).into_iter().flatten() {
            let ports = service
                .ports
                .iter()
                .filter(|port| is_balanced(&port.protocol));
            for port in ports {
                let shares = endpoints.shares(*of, port, *family, forward);
                let part = Part {
                    of: *of,
                    port,
                    address: *address,
                    shares,
                };
                made.extend(texts.make(&part, told));
            }
        }
    }
    made.sort_by(|a, b| a.served.name.cmp(&b.served.name));
    made
}

fn is_balanced(protocol: &str) -> bool {
    matches!(protocol, "TCP" | "UDP")
}

/// What a Service's status should say: the address of each family, in the Service's order. Where a family has none to serve, what the
/// status has of it stays: it may be a quarrel that somebody is about to end.
fn ingress(key: &Key, service: &Service, book: &Book<'_>) -> Vec<Ingress> {
    let has = book.has.get(key);
    let mut all = Vec::new();
    for family in &service.families {
        let ip = has.and_then(|has| has.get(family)).map(ToString::to_string);
        let kept = || {
            let mut old = service.ingress.iter();
            let is_of = |ingress: &&Ingress| {
                let address = ingress.ip.parse::<IpAddr>();
                address.is_ok_and(|a| super::objects::Family::of(a) == *family)
            };
            old.find(is_of).map(|ingress| ingress.ip.clone())
        };
        let Some(ip) = ip.or_else(kept) else {
            continue;
        };
        let ports = service.ports.iter().map(|port| {
            let error = !is_balanced(&port.protocol);
            let error = error.then(|| format!("weir.dev/{}", Reason::UnsupportedProtocol.as_str()));
            (port.port, port.protocol.clone(), error)
        });
        all.push(Ingress {
            ip,
            mode: Some("VIP".to_owned()),
            ports: ports.collect(),
        });
    }
    all
}
