use super::{
    super::testing::{balancer, config, level, of},
    *,
};
use crate::doctor::finding::Level::{Fail, Note, Ok as Fine, Warn};

const L2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11));

fn checked(change: impl FnOnce(&mut Balancer)) -> Vec<Finding> {
    let mut facts = balancer();
    change(&mut facts);
    check(&facts, &config())
}

fn hop(facts: &mut Balancer) -> &mut NextHop {
    facts.ways.next_hops.get_mut(&L2).unwrap()
}

#[test]
fn good_ways_are_all_right() {
    let findings = checked(|_| {});
    assert!(findings.iter().all(|f| f.level == Fine), "{findings:?}");
    assert_eq!(of(&findings, "next-hop").len(), 3);
    assert_eq!(of(&findings, "mtu").len(), 1);
    assert!(of(&findings, "redirect").is_empty());
}

#[test]
fn every_problem_of_a_way_fails_with_a_remedy() {
    let (gateway, interface) = (L2, "eth0".to_owned());
    let problems = [
        Problem::NoRoute("network is unreachable".to_owned()),
        Problem::NotEthernet {
            interface: interface.clone(),
        },
        Problem::Vlan {
            interface: interface.clone(),
        },
        Problem::Unresolved {
            gateway,
            interface: interface.clone(),
        },
        Problem::Refused {
            gateway,
            interface: interface.clone(),
            error: "full".to_owned(),
        },
        Problem::Silent { gateway, interface },
    ];
    for problem in problems {
        let findings = checked(|facts| {
            facts.ways.problems.insert(L2, problem.clone());
        });
        let found = of(&findings, "next-hop");
        let found = found.iter().find(|f| f.subject == "10.0.0.11").unwrap();
        assert_eq!((found.level, &found.what), (Fail, &problem.to_string()));
        assert!(
            found.remedy.is_some() || !found.commands.is_empty(),
            "{problem}"
        );
    }
}

#[test]
fn this_node_itself_needs_no_way() {
    let findings = checked(|facts| {
        facts.ways.problems.insert(L2, Problem::Local);
        facts.ways.next_hops.remove(&L2);
    });
    let found = of(&findings, "next-hop");
    let found = found.iter().find(|f| f.subject == "10.0.0.11").unwrap();
    assert_eq!(found.level, Fine);
}

#[test]
fn a_configured_mac_address_needs_no_route() {
    let target = Target {
        address: L2,
        forward: ForwardMode::L2,
        has_mac: true,
    };
    let mut facts = balancer();
    facts
        .ways
        .problems
        .insert(L2, Problem::NoRoute("x".to_owned()));
    facts.ways.next_hops.remove(&L2);
    assert_eq!(way(&target, &facts).level, Fine);
    let target = Target {
        has_mac: false,
        ..target
    };
    assert_eq!(way(&target, &facts).level, Fail);
}

#[test]
fn l2_does_not_go_through_a_router() {
    let findings = checked(|facts| hop(facts).gateway = "10.0.0.254".parse().unwrap());
    assert_eq!(level(&findings, "next-hop"), Fail);
    // Encapsulated packets do.
    let findings = checked(|facts| {
        let tunnelled = "10.0.0.12".parse().unwrap();
        let hop = facts.ways.next_hops.get_mut(&tunnelled).unwrap();
        hop.gateway = "10.0.0.254".parse().unwrap();
    });
    assert_eq!(level(&findings, "next-hop"), Fine);
}

#[test]
fn outer_headers_want_room() {
    let narrow = |facts: &mut Balancer| {
        for hop in facts.ways.next_hops.values_mut() {
            hop.mtu = 1500;
        }
    };
    let findings = checked(|facts| {
        narrow(facts);
        facts.net.nics.get_mut("eth0").unwrap().mtu = 1500;
    });
    assert_eq!(level(&findings, "mtu"), Warn);
    // GUE over IPv6 takes the most.
    assert_eq!(
        of(&findings, "mtu")[0].commands,
        ["ip link set dev eth0 mtu 1548"]
    );
    let by_route = checked(narrow);
    assert_eq!(level(&by_route, "mtu"), Warn);
    assert!(of(&by_route, "mtu")[0].commands.is_empty());
}

#[test]
fn what_is_redirected_must_be_sent() {
    let leave_by = |can: Option<bool>| {
        let findings = checked(|facts| {
            let mut other = super::super::testing::nic();
            (other.name, other.index) = ("eth1".to_owned(), 3);
            other.can = can.map(|transmit| crate::doctor::facts::XdpFeatures {
                transmit,
                basic: true,
                scatter: true,
            });
            facts.net.nics.insert("eth1".to_owned(), other);
            hop(facts).ifindex = 3;
        });
        level(&findings, "redirect")
    };
    assert_eq!(
        [Some(true), Some(false), None].map(leave_by),
        [Fine, Fail, Note]
    );
}
