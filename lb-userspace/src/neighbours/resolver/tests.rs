use super::{super::Vlan, *};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FIRST: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SECOND: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn backend() -> IpAddr {
    address("10.0.0.11")
}

fn links() -> BTreeMap<u32, Link> {
    let link = |name: &str, mac| Link {
        name: name.to_owned(),
        mac,
        mtu: 9000,
        vlan: None,
        carrier: Some(1),
        xdp: None,
    };
    [(2, link("eth0", Some(OWN))), (3, link("tun0", None))].into()
}

fn neighbour(hop: Hop, mac: Option<[u8; 6]>, failed: bool) -> Neighbour {
    Neighbour {
        hop,
        mac,
        failed,
        kept: true,
        ours: true,
    }
}

fn over(ifindex: u32, gateway: IpAddr) -> Route {
    Route {
        hop: (ifindex, gateway),
        mtu: None,
    }
}

/// A resolver that watches one backend to which the kernel has this route.
fn resolver(route: Result<Route, Problem>) -> Resolver {
    let mut resolver = Resolver::default();
    resolver.watch([backend()].into());
    resolver.learn(links(), [(backend(), route)].into(), &[]);
    resolver
}

fn on_link() -> Resolver {
    resolver(Ok(over(2, backend())))
}

fn reroute(resolver: &mut Resolver, route: Result<Route, Problem>) {
    resolver.learn(links(), [(backend(), route)].into(), &[]);
}

fn mac(snapshot: &Snapshot) -> Option<[u8; 6]> {
    snapshot.next_hops.get(&backend())?.mac_destination
}

#[test]
fn a_backend_on_the_link_is_its_own_gateway() {
    let mut resolver = on_link();
    assert_eq!(resolver.hops().collect::<Vec<_>>(), [(2, backend())]);
    let snapshot = resolver.snapshot();
    assert_eq!(mac(&snapshot), None);
    assert_eq!(
        snapshot.problems[&backend()].to_string(),
        "10.0.0.11 on eth0 has not answered yet"
    );
    let effect = resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    assert_eq!(effect, Effect::Publish);
    let snapshot = resolver.snapshot();
    let hop = NextHop {
        ifindex: 2,
        mac_source: OWN,
        mac_destination: Some(FIRST),
        gateway: backend(),
        mtu: 9000,
        vlans: Vlans::default(),
    };
    assert_eq!(snapshot.next_hops[&backend()], hop);
    assert!(snapshot.problems.is_empty());
}

#[test]
fn a_neighbour_that_no_way_leads_over_changes_nothing() {
    let mut resolver = on_link();
    let other = neighbour((2, address("10.0.0.99")), Some(FIRST), false);
    assert_eq!(resolver.note(&other), Effect::None);
}

#[test]
fn a_gateway_that_fails_keeps_its_last_mac_address() {
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    resolver.note(&neighbour((2, backend()), None, true));
    let snapshot = resolver.snapshot();
    assert_eq!(mac(&snapshot), Some(FIRST));
    assert!(matches!(
        snapshot.problems[&backend()],
        Problem::Silent { .. }
    ));
    // While it is asked again nothing is known, so nothing changes.
    resolver.note(&neighbour((2, backend()), None, false));
    assert_eq!(resolver.snapshot(), snapshot);
    resolver.note(&neighbour((2, backend()), Some(SECOND), false));
    let snapshot = resolver.snapshot();
    assert_eq!(mac(&snapshot), Some(SECOND));
    assert!(snapshot.problems.is_empty());
}

#[test]
fn a_new_way_is_taken_when_it_is_known() {
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    resolver.snapshot();
    let router = address("10.0.0.1");
    reroute(&mut resolver, Ok(over(2, router)));
    let snapshot = resolver.snapshot();
    assert_eq!(snapshot.next_hops[&backend()].gateway, backend());
    assert!(matches!(
        snapshot.problems[&backend()],
        Problem::Unresolved { gateway, .. } if gateway == router
    ));
    resolver.note(&neighbour((2, router), Some(SECOND), false));
    let snapshot = resolver.snapshot();
    assert_eq!(snapshot.next_hops[&backend()].gateway, router);
    assert_eq!(mac(&snapshot), Some(SECOND));
}

#[test]
fn a_route_that_goes_leaves_the_last_way_and_a_problem() {
    let no_route = || Problem::NoRoute("network is unreachable".to_owned());
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    resolver.snapshot();
    reroute(&mut resolver, Err(no_route()));
    let snapshot = resolver.snapshot();
    assert_eq!(mac(&snapshot), Some(FIRST));
    assert_eq!(snapshot.problems[&backend()], no_route());
    assert_eq!(resolver.hops().count(), 0);
}

#[test]
fn an_address_of_this_node_has_no_way_not_even_the_last() {
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    resolver.snapshot();
    reroute(&mut resolver, Err(Problem::Local));
    let snapshot = resolver.snapshot();
    assert!(snapshot.next_hops.is_empty());
    assert_eq!(snapshot.problems[&backend()], Problem::Local);
}

#[test]
fn an_interface_without_mac_addresses_is_a_problem_and_not_managed() {
    let mut resolver = resolver(Ok(over(3, backend())));
    let snapshot = resolver.snapshot();
    assert!(snapshot.next_hops.is_empty());
    assert_eq!(
        snapshot.problems[&backend()].to_string(),
        "the route leads out of tun0, which is no Ethernet interface"
    );
    assert_eq!(resolver.hops().count(), 0);
}

#[test]
fn a_neighbour_that_the_kernel_refuses_is_told_with_its_answer() {
    let mut resolver = on_link();
    resolver.refuse([((2, backend()), "the table is full".to_owned())].into());
    assert_eq!(
        resolver.snapshot().problems[&backend()].to_string(),
        "the kernel refuses to resolve 10.0.0.11 on eth0: the table is full"
    );
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    assert!(resolver.snapshot().problems.is_empty());
}

#[test]
fn what_is_no_longer_watched_is_forgotten() {
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    resolver.snapshot();
    resolver.watch(BTreeSet::new());
    resolver.learn(links(), BTreeMap::new(), &[]);
    let snapshot = resolver.snapshot();
    assert!(snapshot.next_hops.is_empty() && snapshot.problems.is_empty());
    assert_eq!(resolver.hops().count(), 0);
}

fn hop(links: BTreeMap<u32, Link>, route: Route) -> Result<NextHop, Problem> {
    let mut resolver = Resolver::default();
    resolver.watch([backend()].into());
    resolver.learn(links, [(backend(), Ok(route))].into(), &[]);
    resolver.note(&neighbour(route.hop, Some(FIRST), false));
    let mut snapshot = resolver.snapshot();
    match snapshot.problems.remove(&backend()) {
        Some(problem) => Err(problem),
        None => Ok(snapshot.next_hops[&backend()]),
    }
}

#[test]
fn the_mtu_is_the_smaller_of_links_and_routes() {
    let route = |mtu| Route {
        mtu,
        ..over(2, backend())
    };
    for (mtu, expected) in [(None, 9000), (Some(1400), 1400), (Some(u16::MAX), 9000)] {
        assert_eq!(hop(links(), route(mtu)).unwrap().mtu, expected);
    }
    // A link whose MTU changes leads elsewhere no more than before, but is told.
    let mut resolver = on_link();
    resolver.note(&neighbour((2, backend()), Some(FIRST), false));
    assert_eq!(resolver.snapshot().next_hops[&backend()].mtu, 9000);
    let mut links = links();
    links.get_mut(&2).unwrap().mtu = 1280;
    resolver.learn(links, [(backend(), Ok(route(None)))].into(), &[]);
    let now = resolver.snapshot().next_hops[&backend()];
    assert_eq!((now.mtu, now.mac_destination), (1280, Some(FIRST)));
}

/// `eth0` with a VLAN device on it, one on that, and one on that.
fn vlans(services: [bool; 3]) -> BTreeMap<u32, Link> {
    let mut links = links();
    for (ifindex, lower, id, is_service) in [
        (10, 2, 100, services[0]),
        (11, 10, 200, services[1]),
        (12, 11, 300, services[2]),
    ] {
        let link = Link {
            name: format!("vlan{id}"),
            mac: Some(OWN),
            mtu: 1500,
            vlan: Some(Vlan {
                lower: Some(lower),
                id,
                is_service,
            }),
            carrier: Some(1),
            xdp: None,
        };
        links.insert(ifindex, link);
    }
    links
}

#[test]
fn over_vlan_devices_frames_leave_by_the_lowest_with_the_tags_of_all() {
    let one = hop(vlans([false; 3]), over(10, backend())).unwrap();
    let tags = Vlans {
        count: 1,
        ids: [100, 0],
        is_service: false,
    };
    assert_eq!((one.ifindex, one.vlans, one.mtu), (2, tags, 1500));
    let two = hop(vlans([true, false, false]), over(11, backend())).unwrap();
    let tags = Vlans {
        count: 2,
        ids: [100, 200],
        is_service: true,
    };
    assert_eq!((two.ifindex, two.vlans), (2, tags));
}

#[test]
fn tags_that_cannot_be_written_are_a_problem() {
    let is_refused = |links, ifindex| {
        matches!(
            hop(links, over(ifindex, backend())),
            Err(Problem::Vlan { .. })
        )
    };
    assert!(is_refused(vlans([false; 3]), 12));
    assert!(is_refused(vlans([false, true, false]), 11));
    let mut elsewhere = vlans([false; 3]);
    elsewhere.get_mut(&10).unwrap().vlan = Some(Vlan {
        lower: None,
        id: 100,
        is_service: false,
    });
    assert!(is_refused(elsewhere, 10));
}
