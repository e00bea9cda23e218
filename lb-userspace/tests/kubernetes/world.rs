//! Small clusters, and what follows from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_userspace::{
    config::{Config, Reader, Vip},
    kubernetes::{
        model::{self, Outcome},
        objects::{Endpoint, Family, Ingress, Key, Node, Pool, Port, Service, Slice, World},
        pools::cidr,
        served::Texts,
        told::Reason,
    },
};

pub(crate) fn config(more: &str) -> Config {
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\nseed = \"x\"\nencap_source = [\"10.0.0.1\"]\n[kubernetes]\nnode = \"lb-1\"\n{more}"
    );
    Config::parse(&text, "weir.toml").unwrap()
}

/// What follows, under a configuration of `more` keys.
pub(crate) fn follow_under(world: &World, more: &str, file: &[&str]) -> Outcome {
    let config = config(more);
    let settings = config.kubernetes.clone().unwrap();
    let mut texts = Texts::new(Reader::new(&config), settings.clone());
    let file: BTreeSet<IpAddr> = file.iter().map(|text| text.parse().unwrap()).collect();
    model::follow(world, &settings, &file, &mut texts)
}

pub(crate) fn follow(world: &World) -> Outcome {
    follow_under(world, "", &[])
}

/// The world in which everything that follows has been written.
pub(crate) fn written(mut world: World, outcome: &Outcome) -> World {
    for patch in &outcome.statuses {
        let service = world.services.get_mut(&patch.service).unwrap();
        service.ingress.clone_from(&patch.ingress);
        service.is_written = !patch.ingress.is_empty();
    }
    for (name, status) in &outcome.pools {
        world.pools.get_mut(name).unwrap().status = status.clone();
    }
    world
}

/// What follows once everything has been written.
pub(crate) fn settled(world: World) -> (World, Outcome) {
    let outcome = follow(&world);
    let world = written(world, &outcome);
    let outcome = follow(&world);
    (world, outcome)
}

pub(crate) fn key(name: &str) -> Key {
    Key {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn port(name: &str, port: u16) -> Port {
    Port {
        name: name.to_owned(),
        port,
        protocol: "TCP".to_owned(),
    }
}

pub(crate) fn service(created: i64) -> Service {
    Service {
        uid: format!("uid-{created}"),
        version: created.to_string(),
        created,
        is_balanced: true,
        class: Some("weir.dev/xdp".to_owned()),
        ports: vec![port("http", 80)],
        families: vec![Family::V4],
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        ..Service::default()
    }
}

pub(crate) fn with(mut service: Service, annotations: &[(&str, &str)]) -> Service {
    for (key, value) in annotations {
        service
            .annotations
            .insert((*key).to_owned(), (*value).to_owned());
    }
    service
}

pub(crate) fn having(mut service: Service, ip: &str) -> Service {
    let ports = service
        .ports
        .iter()
        .map(|p| (p.port, p.protocol.clone(), None));
    service.ingress.push(Ingress {
        ip: ip.to_owned(),
        mode: Some("VIP".to_owned()),
        ports: ports.collect(),
    });
    service
}

pub(crate) fn node(addresses: &[&str]) -> Node {
    Node {
        uid: None,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        is_excluded: false,
        is_ready: true,
    }
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Is {
    Ready,
    Draining,
    Gone,
}

pub(crate) fn endpoint(address: &str, node: &str, is: Is) -> Endpoint {
    Endpoint {
        address: address.to_owned(),
        node: (!node.is_empty()).then(|| node.to_owned()),
        is_ready: is == Is::Ready,
        is_draining: is == Is::Draining,
    }
}

pub(crate) fn slice(service: &str, endpoints: Vec<Endpoint>) -> Slice {
    Slice {
        service: key(service),
        family: Family::V4,
        ports: vec![("http".to_owned(), "TCP".to_owned())],
        endpoints,
    }
}

pub(crate) fn pool(prefix: &str) -> Pool {
    Pool {
        ranges: vec![cidr(prefix, false).unwrap()],
        is_automatic: true,
        ..Pool::default()
    }
}

/// One Service `web` at 203.0.113.1, three nodes 10.0.0.11 to 13, and its endpoints.
pub(crate) fn cluster(service: Service, endpoints: Vec<Endpoint>) -> World {
    let mut world = World::default();
    world
        .services
        .insert(key("web"), having(service, "203.0.113.1"));
    world.slices.insert(key("web-1"), slice("web", endpoints));
    for index in 1..=3 {
        let address = format!("10.0.0.{}", 10 + index);
        world.nodes.insert(format!("n{index}"), node(&[&address]));
    }
    world
        .pools
        .insert("main".to_owned(), pool("203.0.113.0/28"));
    world
}

/// The backends of a VIP, as `address=weight`.
pub(crate) fn shares(outcome: &Outcome, name: &str) -> Vec<String> {
    let vip = vip(outcome, name);
    let backends = vip
        .backends
        .iter()
        .map(|b| format!("{}={}", b.address, b.weight));
    backends.collect()
}

pub(crate) fn vip<'o>(outcome: &'o Outcome, name: &str) -> &'o Vip {
    let made = outcome.made.iter().find(|made| made.served.name == name);
    &made.unwrap_or_else(|| panic!("there is no VIP {name}")).vip
}

pub(crate) fn names(outcome: &Outcome) -> Vec<&str> {
    outcome
        .made
        .iter()
        .map(|made| made.served.name.as_str())
        .collect()
}

/// What is told of a Service, as reason and text.
pub(crate) fn told<'o>(outcome: &'o Outcome, name: &str) -> Vec<(Reason, &'o str)> {
    let of = outcome.told.iter().filter(|told| told.service == key(name));
    of.map(|told| (told.reason, told.text.as_str())).collect()
}

/// The addresses that a Service's status should have, where it should be another.
pub(crate) fn patched(outcome: &Outcome, name: &str) -> Option<Vec<String>> {
    let patch = outcome
        .statuses
        .iter()
        .find(|patch| patch.service == key(name))?;
    Some(
        patch
            .ingress
            .iter()
            .map(|ingress| ingress.ip.clone())
            .collect(),
    )
}
