//! The rules, one by one.

use lb_userspace::{
    config::{Affinity, ForwardMode, TableAlgorithm, health::Probe},
    kubernetes::{
        objects::{Family, Slice, World},
        told::Reason,
    },
};

use crate::world::*;

const WEB: &str = "default.web.80-tcp";

fn local() -> lb_userspace::kubernetes::objects::Service {
    let mut service = service(1);
    service.is_local = true;
    service
}

#[test]
fn a_local_service_weighs_nodes_by_their_ready_endpoints() {
    let world = cluster(
        local(),
        vec![
            endpoint("10.1.1.1", "n1", Is::Ready),
            endpoint("10.1.1.2", "n1", Is::Ready),
            endpoint("10.1.2.1", "n2", Is::Ready),
            endpoint("10.1.3.1", "n3", Is::Draining),
        ],
    );
    assert_eq!(
        shares(&follow(&world), WEB),
        ["10.0.0.11=2", "10.0.0.12=1", "10.0.0.13=0"]
    );
}

#[test]
fn draining_endpoints_take_new_flows_only_where_nothing_is_ready() {
    for service in [local(), service(1)] {
        let weight = if service.is_local { 1 } else { 100 };
        let world = cluster(
            service,
            vec![
                endpoint("10.1.1.1", "n1", Is::Draining),
                endpoint("10.1.2.1", "n2", Is::Gone),
            ],
        );
        assert_eq!(
            shares(&follow(&world), WEB),
            [format!("10.0.0.11={weight}")]
        );
    }
}

#[test]
fn a_cluster_service_takes_the_nodes_that_hold_endpoints_alike() {
    let world = cluster(
        service(1),
        vec![
            endpoint("10.1.1.1", "n1", Is::Ready),
            endpoint("10.1.1.2", "n1", Is::Ready),
            endpoint("10.1.2.1", "n2", Is::Ready),
            endpoint("10.1.3.1", "n3", Is::Draining),
        ],
    );
    assert_eq!(
        shares(&follow(&world), WEB),
        ["10.0.0.11=100", "10.0.0.12=100", "10.0.0.13=0"]
    );
}

#[test]
fn endpoints_that_no_eligible_node_holds_are_reached_through_any() {
    let mut world = cluster(
        service(1),
        vec![
            endpoint("192.0.2.7", "", Is::Ready),
            endpoint("10.1.3.1", "n3", Is::Ready),
        ],
    );
    world.nodes.get_mut("n3").unwrap().is_excluded = true;
    assert_eq!(
        shares(&follow(&world), WEB),
        ["10.0.0.11=100", "10.0.0.12=100"]
    );
    // A node takes only its own for a Service that is local.
    world.services.get_mut(&key("web")).unwrap().is_local = true;
    assert!(shares(&follow(&world), WEB).is_empty());
}

#[test]
fn excluded_nodes_and_those_that_are_not_ready_are_left_out() {
    let all = || {
        let on = |index: u8| endpoint(&format!("10.1.{index}.1"), &format!("n{index}"), Is::Ready);
        (1..=3).map(on).collect::<Vec<_>>()
    };
    let mut world = cluster(service(1), all());
    world.nodes.get_mut("n1").unwrap().is_excluded = true;
    world.nodes.get_mut("n2").unwrap().is_ready = false;
    assert_eq!(shares(&follow(&world), WEB), ["10.0.0.13=100"]);
    // Where none is ready it is the cluster that does not know.
    for node in world.nodes.values_mut() {
        node.is_ready = false;
    }
    assert_eq!(
        shares(&follow(&world), WEB),
        ["10.0.0.12=100", "10.0.0.13=100"]
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_as_the_better_of_the_two() {
    let mut world = cluster(local(), vec![endpoint("10.1.1.1", "n1", Is::Gone)]);
    let second = slice("web", vec![endpoint("10.1.1.1", "n1", Is::Ready)]);
    world.slices.insert(key("web-2"), second.clone());
    assert_eq!(shares(&follow(&world), WEB), ["10.0.0.11=1"]);
    // A slice without the port, or of another family, has nothing to say.
    let other = |slice: Slice| {
        let mut world = cluster(local(), vec![endpoint("10.1.1.1", "n1", Is::Gone)]);
        world.slices.insert(key("web-2"), slice);
        shares(&follow(&world), WEB)
    };
    let mut unnamed = second.clone();
    unnamed.ports[0].0 = "metrics".to_owned();
    assert!(other(unnamed).is_empty());
    let mut six = second;
    six.family = Family::V6;
    assert!(other(six).is_empty());
}

#[test]
fn another_class_or_none_is_never_touched() {
    for class in [Some("example.com/other".to_owned()), None] {
        let mut world = cluster(service(1), vec![endpoint("10.1.1.1", "n1", Is::Ready)]);
        world.services.get_mut(&key("web")).unwrap().class = class.clone();
        let outcome = follow(&world);
        assert!(outcome.made.is_empty() && outcome.statuses.is_empty() && outcome.told.is_empty());
        let taken = follow_under(&world, "classless = true", &[]);
        assert_eq!(taken.made.len(), usize::from(class.is_none()));
    }
}

#[test]
fn what_weir_wrote_is_taken_back_when_the_service_is_no_longer_its_own() {
    let mut world = cluster(service(1), Vec::new());
    let web = world.services.get_mut(&key("web")).unwrap();
    web.is_balanced = false;
    web.is_written = true;
    let outcome = follow(&world);
    assert_eq!(patched(&outcome, "web"), Some(Vec::new()));
    assert!(outcome.made.is_empty());
    assert!(follow(&written(world, &outcome)).statuses.is_empty());
}

#[test]
fn affinity_sources_and_both_families_are_the_services_own() {
    let mut web = service(1);
    web.is_sticky = true;
    web.families = vec![Family::V4, Family::V6];
    web.sources = vec!["198.51.100.0/24".to_owned(), "192.0.2.1/32".to_owned()];
    let mut world = cluster(web, vec![endpoint("10.1.1.1", "n1", Is::Ready)]);
    let web = world.services.get_mut(&key("web")).unwrap();
    *web = having(web.clone(), "2001:db8::1");
    let mut six = slice("web", vec![endpoint("fd00::1", "n2", Is::Ready)]);
    six.family = Family::V6;
    world.slices.insert(key("web-6"), six);
    world
        .nodes
        .insert("n2".to_owned(), node(&["10.0.0.12", "2001:db8:1::12"]));
    let outcome = follow(&world);
    assert_eq!(names(&outcome), [WEB, "default.web.80-tcp-v6"]);
    let four = vip(&outcome, WEB);
    assert_eq!(four.affinity, Affinity::Source);
    assert_eq!(four.access.allow.len(), 2);
    // Whoever names sources of one family alone means nobody of the other.
    let six = vip(&outcome, "default.web.80-tcp-v6");
    assert!(six.access.allow.is_empty());
    assert_eq!(six.access.deny.prefixes[0].to_string(), "::/0");
    assert_eq!(
        shares(&outcome, "default.web.80-tcp-v6"),
        ["2001:db8:1::12=100"]
    );
}

#[test]
fn nodes_are_checked_where_kube_proxy_answers() {
    let world = |port| {
        let mut service = local();
        service.health_port = port;
        cluster(service, vec![endpoint("10.1.1.1", "n1", Is::Ready)])
    };
    let health = vip(&follow(&world(32_000)), WEB).health.clone().unwrap();
    assert_eq!(health.port, 32_000);
    let Probe::Http(http) = &health.probe else {
        panic!("{health:?}");
    };
    assert_eq!(http.path, "/healthz");
    assert!(vip(&follow(&world(0)), WEB).health.is_none());
    let more = "health = { proxy_port = 10256, fall = 7 }";
    let health = vip(&follow_under(&world(0), more, &[]), WEB)
        .health
        .clone()
        .unwrap();
    assert_eq!((health.port, health.fall), (10_256, 7));
}

#[test]
fn annotations_are_the_keys_of_a_vip() {
    let annotations = [
        ("table", "ring"),
        ("forward", "ipip"),
        ("slow-start", "30s"),
        ("limit.packets-per-source", "500/s"),
        ("limit.burst", "50"),
        ("health.type", "tcp"),
        ("health.port", "8080"),
        ("deny", "192.0.2.0/24, 198.51.100.7"),
    ];
    let world = cluster(
        with(service(1), &annotations),
        vec![endpoint("10.1.1.1", "n1", Is::Ready)],
    );
    let outcome = follow(&world);
    assert!(outcome.told.is_empty(), "{:?}", outcome.told);
    let vip = vip(&outcome, WEB);
    assert_eq!(vip.table, TableAlgorithm::Ring);
    assert_eq!(vip.backends[0].forward, ForwardMode::Ipip);
    assert_eq!(vip.limits.by_kind.len(), 1);
    assert_eq!(vip.health.as_ref().unwrap().port, 8080);
    assert_eq!(vip.access.deny.len(), 2);
    assert_eq!(vip.flows.slow_start.unwrap().as_secs(), 30);
}

#[test]
fn a_wrong_annotation_is_told_and_does_not_take_the_service_off() {
    for (annotation, wanted) in [
        (
            ("table", "rnig"),
            "annotation weir.dev/table is not heeded: found \"rnig\", wanted",
        ),
        (("colour", "red"), "annotation weir.dev/colour is unknown"),
        (("port", "81"), "annotation weir.dev/port is unknown"),
        (
            ("limit.packets", "many"),
            "annotation weir.dev/limit.packets is not heeded",
        ),
        (
            ("limit.burst", "50"),
            "annotation weir.dev/limit.burst is not heeded",
        ),
        (
            ("deny", "everybody"),
            "annotation weir.dev/deny is not heeded",
        ),
        (
            ("health.type", "ping"),
            "annotation weir.dev/health.type is not heeded",
        ),
        (
            ("health.path", "/x"),
            "annotation weir.dev/health.path is not heeded",
        ),
    ] {
        let right = ("slow-start", "30s");
        let world = cluster(
            with(service(1), &[annotation, right]),
            vec![endpoint("10.1.1.1", "n1", Is::Ready)],
        );
        let outcome = follow(&world);
        let told = told(&outcome, "web");
        assert_eq!(told.len(), 1, "{annotation:?}: {told:?}");
        assert_eq!(told[0].0, Reason::InvalidAnnotation);
        assert!(told[0].1.starts_with(wanted), "{told:?}");
        assert!(
            vip(&outcome, WEB).flows.slow_start.is_some(),
            "{annotation:?}"
        );
        assert_eq!(shares(&outcome, WEB), ["10.0.0.11=100"]);
    }
}

#[test]
fn what_the_node_cannot_do_is_told() {
    // Its configuration has no IPv6 source of outer headers.
    let mut world = World::default();
    let mut web = with(service(1), &[("forward", "gue")]);
    web.families = vec![Family::V6];
    world
        .services
        .insert(key("web"), having(web, "2001:db8::1"));
    let mut six = slice("web", vec![endpoint("fd00::1", "n1", Is::Ready)]);
    six.family = Family::V6;
    world.slices.insert(key("web-6"), six);
    world
        .nodes
        .insert("n1".to_owned(), node(&["2001:db8:1::1"]));
    let outcome = follow(&world);
    let told = told(&outcome, "web");
    assert!(told[0].1.contains("encap_source"), "{told:?}");
    // Without the annotation it can.
    assert_eq!(names(&outcome), ["default.web.80-tcp-v6"]);
}

#[test]
fn ports_of_other_protocols_are_told_and_marked() {
    let mut web = service(1);
    web.ports[0].protocol = "SCTP".to_owned();
    web.ports.push(port("https", 443));
    let mut world = cluster(web, Vec::new());
    world.services.get_mut(&key("web")).unwrap().ingress.clear();
    let (world, outcome) = settled(world);
    assert_eq!(names(&outcome), ["default.web.443-tcp"]);
    assert_eq!(told(&outcome, "web")[0].0, Reason::UnsupportedProtocol);
    let ports = &world.services[&key("web")].ingress[0].ports;
    assert_eq!(ports[0].2.as_deref(), Some("weir.dev/UnsupportedProtocol"));
    assert_eq!(ports[1].2, None);
}

#[test]
fn names_fit_whatever_the_services_are_called() {
    let long = "a".repeat(63);
    let mut world = cluster(service(1), Vec::new());
    for namespace in [long.clone(), format!("{}b", &long[..62])] {
        let key = lb_userspace::kubernetes::objects::Key {
            namespace,
            name: long.clone(),
        };
        let index = world.services.len();
        let address = format!("203.0.113.{}", index + 1);
        world.services.insert(key, having(service(2), &address));
    }
    let outcome = follow(&world);
    let names = names(&outcome);
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
    assert_ne!(names[0], names[1]);
}

#[test]
fn addresses_are_given_in_order_kept_and_never_moved() {
    let mut world = World::default();
    world.pools.insert("a".to_owned(), pool("203.0.113.0/31"));
    for index in 1..=3 {
        world
            .services
            .insert(key(&format!("s{index}")), service(10 - index));
    }
    let (world, outcome) = settled(world);
    // By age: s3 is the oldest.
    let has = |world: &World, name: &str| {
        world.services[&key(name)]
            .ingress
            .first()
            .map(|i| i.ip.clone())
    };
    assert_eq!(has(&world, "s3").as_deref(), Some("203.0.113.0"));
    assert_eq!(has(&world, "s2").as_deref(), Some("203.0.113.1"));
    assert_eq!(has(&world, "s1"), None);
    let said = told(&outcome, "s1");
    assert_eq!(said[0].0, Reason::PoolExhausted);
    assert!(said[0].1.contains("rule free"), "{said:?}");
    assert!(outcome.statuses.is_empty() && outcome.pools.is_empty());
    assert_eq!(world.pools["a"].status.used, 2);
    assert_eq!(world.pools["a"].status.free, 0);
    // The pool goes: nobody moves. One that comes gives to whoever has none.
    let mut world = world;
    world.pools.clear();
    world.pools.insert("b".to_owned(), pool("198.51.100.0/30"));
    let (world, outcome) = settled(world);
    assert_eq!(has(&world, "s3").as_deref(), Some("203.0.113.0"));
    assert_eq!(has(&world, "s1").as_deref(), Some("198.51.100.0"));
    assert_eq!(outcome.made.len(), 3);
}

#[test]
fn requests_are_honoured_or_refused_with_the_rule() {
    let mut world = World::default();
    let mut quiet = pool("203.0.113.0/28");
    quiet.is_automatic = false;
    world.pools.insert("quiet".to_owned(), quiet);
    let asks = |text: &str| with(service(1), &[("addresses", text)]);
    world.services.insert(key("good"), asks("203.0.113.5"));
    world.services.insert(key("outside"), asks("192.0.2.1"));
    world.services.insert(key("word"), asks("mine"));
    world.services.insert(key("family"), asks("2001:db8::1"));
    world.services.insert(key("none"), service(1));
    let mut old = service(1);
    old.requested = Some("203.0.113.6".to_owned());
    world.services.insert(key("old"), old);
    world.services.insert(
        key("later"),
        with(service(2), &[("addresses", "203.0.113.5")]),
    );
    world.nodes.insert("n1".to_owned(), node(&["203.0.113.9"]));
    world.services.insert(key("node"), asks("203.0.113.9"));
    world.services.insert(key("file"), asks("203.0.113.8"));
    let outcome = follow_under(&world, "", &["203.0.113.8"]);
    assert_eq!(patched(&outcome, "good").unwrap(), ["203.0.113.5"]);
    assert_eq!(patched(&outcome, "old").unwrap(), ["203.0.113.6"]);
    for (name, reason, text) in [
        (
            "outside",
            Reason::AddressNotInPool,
            "192.0.2.1 is refused: rule pool: no VipPool has it",
        ),
        ("word", Reason::InvalidAddresses, "\"mine\" is no address"),
        (
            "family",
            Reason::InvalidAddresses,
            "spec.ipFamilies does not have",
        ),
        ("none", Reason::NoPool, "rule autoAssign"),
        (
            "later",
            Reason::AddressInUse,
            "rule sharing-key: Service default/good has it",
        ),
        (
            "node",
            Reason::AddressInUse,
            "rule foreign: it is a node's own address",
        ),
        (
            "file",
            Reason::AddressInUse,
            "rule foreign: it is the address of a VIP of weir's configuration",
        ),
    ] {
        let said = told(&outcome, name);
        let is_told = said
            .iter()
            .any(|(of, said)| *of == reason && said.contains(text));
        assert!(is_told, "{name}: {said:?}");
        assert_eq!(patched(&outcome, name), None, "{name}");
    }
}

#[test]
fn asking_for_another_address_moves_to_it_and_a_refusal_moves_nothing() {
    let ask = |text: &str| {
        let world = cluster(with(service(1), &[("addresses", text)]), Vec::new());
        patched(&follow(&world), "web")
    };
    assert_eq!(ask("203.0.113.7"), Some(vec!["203.0.113.7".to_owned()]));
    assert_eq!(ask("192.0.2.7"), None);
    assert_eq!(ask("203.0.113.1"), None);
}

#[test]
fn pools_are_for_whom_they_select() {
    let mut world = World::default();
    let mut a = pool("203.0.113.0/28");
    a.selector
        .match_labels
        .insert("tier".to_owned(), "front".to_owned());
    world.pools.insert("a".to_owned(), a);
    let mut b = pool("198.51.100.0/28");
    b.namespaces.insert("other".to_owned());
    world.pools.insert("b".to_owned(), b);
    let mut front = service(1);
    front.labels.insert("tier".to_owned(), "front".to_owned());
    world.services.insert(key("front"), front);
    world.services.insert(key("back"), service(1));
    world.services.insert(
        key("asks"),
        with(service(1), &[("addresses", "198.51.100.3")]),
    );
    world
        .services
        .insert(key("named"), with(service(1), &[("pool", "b")]));
    let outcome = follow(&world);
    assert_eq!(patched(&outcome, "front").unwrap(), ["203.0.113.0"]);
    assert_eq!(told(&outcome, "back")[0].0, Reason::NoPool);
    assert!(
        told(&outcome, "asks")[0]
            .1
            .contains("rule namespaces: pool b")
    );
    assert!(told(&outcome, "named")[0].1.contains("VipPool b"));
}

#[test]
fn one_address_is_shared_where_the_rules_allow_it() {
    let shared = |created: i64, number: u16, is_local: bool| {
        let mut service = with(service(created), &[("sharing-key", "edge")]);
        service.ports = vec![port("http", number)];
        service.is_local = is_local;
        service
    };
    let mut world = World::default();
    world.pools.insert("a".to_owned(), pool("203.0.113.0/28"));
    world.services.insert(key("a"), shared(1, 80, false));
    world.services.insert(key("b"), shared(2, 443, false));
    world.services.insert(key("c"), shared(3, 443, false));
    let (world, outcome) = settled(world);
    let has = |name: &str| world.services[&key(name)].ingress[0].ip.clone();
    assert_eq!(
        (has("a"), has("b")),
        ("203.0.113.0".to_owned(), "203.0.113.0".to_owned())
    );
    // Its port is taken: another address.
    assert_eq!(has("c"), "203.0.113.1");
    assert_eq!(outcome.made.len(), 3);
    // Two policies, and then other pods.
    let mut mixed = world.clone();
    mixed.services.get_mut(&key("b")).unwrap().is_local = true;
    let outcome = follow(&mixed);
    assert!(
        told(&outcome, "b")[0]
            .1
            .contains("rule externalTrafficPolicy"),
        "{:?}",
        outcome.told
    );
    assert!(!names(&outcome).contains(&"default.b.443-tcp"));
    assert_eq!(patched(&outcome, "b"), None);
    mixed.services.get_mut(&key("a")).unwrap().is_local = true;
    assert!(names(&follow(&mixed)).contains(&"default.b.443-tcp"));
    mixed.services.get_mut(&key("a")).unwrap().selector.clear();
    assert!(!names(&follow(&mixed)).contains(&"default.b.443-tcp"));
}

#[test]
fn a_status_that_breaks_a_rule_is_not_served_and_not_moved() {
    let mut world = cluster(service(1), Vec::new());
    world
        .services
        .insert(key("thief"), having(service(2), "203.0.113.1"));
    let outcome = follow_under(&world, "", &[]);
    assert_eq!(names(&outcome), [WEB]);
    assert!(told(&outcome, "thief")[0].1.contains("rule sharing-key"));
    assert_eq!(patched(&outcome, "thief"), None);
    let outcome = follow_under(&world, "", &["203.0.113.1"]);
    assert!(outcome.made.is_empty());
    assert!(told(&outcome, "web")[0].1.contains("rule foreign"));
}

#[test]
fn pools_tell_what_is_wrong_with_them() {
    let mut world = World::default();
    let mut a = pool("203.0.113.0/28");
    a.wrong.push("\"x\" is no CIDR".to_owned());
    world.pools.insert("a".to_owned(), a);
    world.pools.insert("b".to_owned(), pool("203.0.113.8/29"));
    world.pools.insert("c".to_owned(), pool("2001:db8::/32"));
    let (world, _) = settled(world);
    let status = |name: &str| &world.pools[name].status;
    assert_eq!(
        status("a").conflicts,
        [
            "\"x\" is no CIDR",
            "has 203.0.113.8 to 203.0.113.15 together with pool b"
        ]
    );
    assert_eq!((status("b").free, status("b").used), (8, 0));
    assert_eq!(status("c").free, 1 << 53);
    assert!(status("c").conflicts.is_empty());
}
