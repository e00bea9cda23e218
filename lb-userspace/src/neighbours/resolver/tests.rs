use super::*;

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

/// A resolver that watches one backend to which the kernel has this route.
fn resolver(route: Result<Hop, Problem>) -> Resolver {
    let mut resolver = Resolver::default();
    resolver.watch([backend()].into());
    resolver.learn(links(), [(backend(), route)].into(), &[]);
    resolver
}

fn on_link() -> Resolver {
    resolver(Ok((2, backend())))
}

fn reroute(resolver: &mut Resolver, route: Result<Hop, Problem>) {
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
    reroute(&mut resolver, Ok((2, router)));
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
    let mut resolver = resolver(Ok((3, backend())));
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
