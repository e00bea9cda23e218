//! What holds of every cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_userspace::kubernetes::{
    model::Outcome,
    objects::{Endpoint, Family, Key, Node, Service, World},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::world::*;

const NODES: [&str; 4] = ["n1", "n2", "n3", ""];

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (
        0_u8..6,
        select(&NODES[..]),
        select(&[Is::Ready, Is::Draining, Is::Gone][..]),
    );
    let one = one.prop_map(|(host, node, is)| endpoint(&format!("10.1.0.{host}"), node, is));
    vec(one, 0..8)
}

fn a_service() -> impl Strategy<Value = Service> {
    let about = (
        0_i64..4,
        any::<bool>(),
        select(&[80_u16, 443][..]),
        0_u8..3,
        0_u8..4,
        0_u8..6,
    );
    about.prop_map(|(created, is_local, number, sharing, selector, class)| {
        let mut service = service(created);
        service.is_local = is_local;
        service.ports = vec![port("http", number)];
        if sharing > 0 {
            service = with(
                service,
                &[("sharing-key", ["", "a", "b"][usize::from(sharing)])],
            );
        }
        service
            .selector
            .insert("app".to_owned(), format!("{}", selector / 2));
        if class == 0 {
            service.class = Some("example.com/other".to_owned());
        }
        service
    })
}

/// Addresses that statuses have and that are asked for, as last bytes.
fn addresses() -> impl Strategy<Value = (Option<u8>, Option<u8>)> {
    (
        proptest::option::of(0_u8..8),
        proptest::option::weighted(0.2, 0_u8..8),
    )
}

fn a_node() -> impl Strategy<Value = Node> {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.8)).prop_map(|(is_excluded, is_ready)| {
        Node {
            is_excluded,
            is_ready,
            ..Node::default()
        }
    })
}

prop_compose! {
    fn a_world()(
        services in vec((a_service(), addresses(), endpoints(), endpoints()), 0..7),
        nodes in vec(a_node(), 3),
        pools in vec(select(&["203.0.113.0/30", "203.0.113.4/31", "203.0.113.0/29"][..]), 0..3),
    ) -> World {
        let mut world = World::default();
        for (index, (mut service, (has, asks), first, second)) in services.into_iter().enumerate() {
            let name = format!("s{index}");
            if let Some(last) = has {
                service = having(service, &format!("203.0.113.{last}"));
            }
            if let Some(last) = asks {
                service = with(service, &[("addresses", &format!("203.0.113.{last}"))]);
            }
            world.services.insert(key(&name), service);
            world.slices.insert(key(&format!("{name}-1")), slice(&name, first));
            world.slices.insert(key(&format!("{name}-2")), slice(&name, second));
        }
        for (index, mut node) in nodes.into_iter().enumerate() {
            node.addresses.insert(format!("10.0.0.{}", 11 + index).parse().unwrap());
            world.nodes.insert(format!("n{}", index + 1), node);
        }
        for (index, prefix) in pools.into_iter().enumerate() {
            world.pools.insert(format!("p{index}"), pool(prefix));
        }
        world
    }
}

/// Who is served at which address.
fn holders<'w>(world: &'w World, outcome: &Outcome) -> BTreeMap<IpAddr, BTreeSet<&'w Key>> {
    let mut holders: BTreeMap<IpAddr, BTreeSet<&Key>> = BTreeMap::new();
    for made in &outcome.made {
        let of = world
            .services
            .keys()
            .find(|key| key.to_string() == made.served.service);
        holders
            .entry(made.vip.address)
            .or_default()
            .insert(of.unwrap());
    }
    holders
}

fn may_share(a: &Service, b: &Service) -> bool {
    let key = |service: &Service| service.annotations.get("sharing-key").cloned();
    let is_one_key = key(a).is_some() && key(a) == key(b);
    let has = |port| b.ports.iter().any(|other| other == port);
    let are_cluster = !a.is_local && !b.is_local;
    let are_one = a.selector == b.selector && a.is_local == b.is_local;
    is_one_key && !a.ports.iter().any(has) && (are_cluster || are_one)
}

/// Which endpoints of a Service, merged, are ready, with their nodes.
fn ready(world: &World, name: &Key) -> Vec<Option<String>> {
    let mut merged: BTreeMap<&str, (bool, Option<String>)> = BTreeMap::new();
    for slice in world.slices.values().filter(|slice| slice.service == *name) {
        for endpoint in &slice.endpoints {
            let known = merged.entry(&endpoint.address).or_default();
            known.0 |= endpoint.is_ready;
            known.1 = match (known.1.take(), endpoint.node.clone()) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }
    let ready = merged.into_values().filter(|(is_ready, _)| *is_ready);
    ready.map(|(_, node)| node).collect()
}

fn eligible(world: &World) -> BTreeMap<&str, &Node> {
    let all = world.nodes.iter().filter(|(_, node)| !node.is_excluded);
    let is_known = all.clone().any(|(_, node)| node.is_ready);
    let of = all.filter(|(_, node)| node.is_ready || !is_known);
    of.map(|(name, node)| (name.as_str(), node)).collect()
}

/// Which VIPs, with which backends.
fn shown(outcome: &Outcome) -> Vec<String> {
    outcome
        .made
        .iter()
        .map(|made| made.served.text.clone())
        .collect()
}

/// Which addresses the statuses have.
fn statuses(world: &World) -> BTreeMap<&Key, Vec<&str>> {
    let of = |service: &'_ Service| service.ingress.len();
    let services = world.services.iter().filter(|(_, service)| of(service) > 0);
    services
        .map(|(key, service)| (key, service.ingress.iter().map(|i| i.ip.as_str()).collect()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_services_share_an_address_against_the_rules(world in a_world()) {
        let outcome = follow(&world);
        let (after, later) = settled(world.clone());
        for (world, outcome) in [(&world, &outcome), (&after, &later)] {
            for (address, keys) in holders(world, outcome) {
                let pairs = keys.iter().flat_map(|a| keys.iter().map(move |b| (*a, *b)));
                for (a, b) in pairs.filter(|(a, b)| a < b) {
                    prop_assert!(
                        may_share(&world.services[a], &world.services[b]),
                        "{a} and {b} have {address}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_ready_endpoint_goes_without_traffic(world in a_world()) {
        let outcome = follow(&world);
        let eligible = eligible(&world);
        for made in &outcome.made {
            let (name, service) = world
                .services
                .iter()
                .find(|(key, _)| key.to_string() == made.served.service)
                .unwrap();
            let weight = |node: &str| {
                let address = eligible[node].addresses.first().unwrap();
                let backend = made.vip.backends.iter().find(|b| b.address == *address);
                backend.map_or(0, |backend| backend.weight)
            };
            let ready = ready(&world, name);
            if service.is_local {
                for node in ready.iter().flatten().filter(|node| eligible.contains_key(node.as_str())) {
                    let count = ready.iter().filter(|other| other.as_ref() == Some(node)).count();
                    prop_assert_eq!(usize::from(weight(node)), count);
                }
            } else if !ready.is_empty() && !eligible.is_empty() {
                // Any node leads to any endpoint.
                prop_assert!(made.vip.backends.iter().any(|backend| backend.weight > 0));
            }
            for backend in &made.vip.backends {
                let is_eligible = eligible.values().any(|node| node.addresses.contains(&backend.address));
                prop_assert!(is_eligible, "{} should be left out", backend.address);
            }
        }
    }

    #[test]
    fn order_and_names_of_slices_change_nothing((world, seed) in (a_world(), any::<u64>())) {
        let mut other = world.clone();
        other.slices.clear();
        let mut random = fastrand::Rng::with_seed(seed);
        for (index, slice) in world.slices.values().enumerate() {
            let mut slice = slice.clone();
            random.shuffle(&mut slice.endpoints);
            let mut name = key(&format!("{}-{index}", random.u32(..)));
            name.namespace.clone_from(&slice.service.namespace);
            other.slices.insert(name, slice);
        }
        let (a, b) = (follow(&world), follow(&other));
        prop_assert_eq!(shown(&a), shown(&b));
        prop_assert_eq!(a.statuses, b.statuses);
        prop_assert_eq!(a.told, b.told);
    }

    #[test]
    fn what_is_written_needs_no_writing_again(world in a_world()) {
        let (world, outcome) = settled(world);
        // A request may wait for an address that its holder gives up in the same turn.
        let (world, outcome) = if outcome.statuses.is_empty() { (world, outcome) } else { settled(world) };
        prop_assert_eq!(&outcome.statuses, &vec![]);
        prop_assert!(outcome.pools.is_empty());
        prop_assert_eq!(shown(&outcome), shown(&follow(&world)));
    }

    #[test]
    fn addresses_stay_whatever_else_comes_and_goes((world, more) in (a_world(), a_world())) {
        let (mut world, _) = settled(world);
        for service in world.services.values_mut() {
            service.annotations.remove("addresses");
        }
        let (world, outcome) = settled(world);
        let served = holders(&world, &outcome);
        let before = statuses(&world);
        let mut other = world.clone();
        other.pools = more.pools;
        other.nodes = more.nodes;
        other.slices = more.slices;
        for (index, mut service) in more.services.into_values().enumerate() {
            service.created += 100;
            service.ingress.clear();
            other.services.insert(key(&format!("new{index}")), service);
        }
        let (after, outcome) = settled(other);
        for (key, addresses) in before {
            let has: Vec<_> = after.services[key].ingress.iter().map(|i| i.ip.as_str()).collect();
            prop_assert_eq!(has, addresses, "{}", key);
        }
        let now = holders(&after, &outcome);
        for (address, keys) in served {
            prop_assert!(now[&address].is_superset(&keys.into_iter().collect()), "{}", address);
        }
    }

    #[test]
    fn everything_that_can_have_an_address_has_one(world in a_world()) {
        let (world, outcome) = settled(world);
        for (name, service) in &world.services {
            let is_ours = service.class.as_deref() == Some("weir.dev/xdp");
            let is_told = outcome.told.iter().any(|told| told.service == *name);
            let is_served = outcome.made.iter().any(|made| made.served.service == name.to_string());
            prop_assert!(!is_ours || is_served || is_told, "{} is neither served nor told of", name);
            prop_assert!(is_ours || !is_served);
            prop_assert_eq!(service.families.clone(), vec![Family::V4]);
        }
    }
}
