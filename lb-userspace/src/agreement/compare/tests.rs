use std::{sync::Arc, time::Duration};

use super::{super::Node, *};

const STALE: Duration = Duration::from_secs(7);

fn vip(name: &str, port: u16, digest: &str) -> VipReport {
    VipReport {
        name: name.to_owned(),
        address: "203.0.113.10".parse().unwrap(),
        port,
        protocol: Protocol::Tcp,
        affinity: Affinity::Flow,
        table_digest: digest.to_owned(),
        stable: true,
    }
}

fn report(number: u8, vips: &[VipReport]) -> Report {
    Report {
        node: format!("lb-{number}"),
        instance: format!("{number:016x}"),
        version: "0.1.0".to_owned(),
        generation: u64::from(number),
        vips: vips.to_vec(),
    }
}

fn node(report: Report, heard: Instant) -> Node {
    Node {
        heard: Some(heard),
        report: Some(Arc::new(report)),
        ..Node::default()
    }
}

fn heard(nodes: Vec<Node>) -> Heard {
    Heard {
        nodes,
        ..Heard::nobody(By::Redis)
    }
}

fn states(agreement: &Agreement) -> Vec<(&str, NodeState)> {
    let nodes = agreement.nodes.iter();
    nodes.map(|node| (node.node.as_str(), node.state)).collect()
}

/// Digests by the nodes that have them.
fn tables(difference: &VipDifference) -> Vec<(Option<&str>, Vec<&str>)> {
    let tables = difference.tables.iter().map(|table| {
        let nodes = table.nodes.iter().map(String::as_str).collect();
        (table.table_digest.as_deref(), nodes)
    });
    tables.collect()
}

#[test]
fn nodes_with_equal_tables_agree_whatever_else_they_tell() {
    let now = Instant::now();
    let vips = [vip("dns", 53, "00000001"), vip("web", 443, "00000002")];
    let mut other = report(2, &vips);
    other.vips[1].name = "www".to_owned();
    other.vips[1].stable = false;
    let own = report(1, &vips);
    let known = heard(vec![node(report(3, &vips), now), node(other, now)]);
    let agreement = compare(&own, &known, now);
    assert_eq!(
        states(&agreement),
        [
            ("lb-1", NodeState::This),
            ("lb-2", NodeState::Agrees),
            ("lb-3", NodeState::Agrees)
        ]
    );
    assert_eq!(agreement.vips, []);
    let counts = summary(&own, &known, now).status(now);
    assert_eq!((counts.nodes.agrees, counts.vips.len()), (2, 0));
    // Nobody else: nothing differs.
    assert_eq!(compare(&own, &heard(vec![]), now).nodes.len(), 1);
}

#[test]
fn a_difference_names_the_vip_and_who_has_which_table() {
    let now = Instant::now();
    let own = report(
        1,
        &[vip("dns", 53, "00000001"), vip("web", 443, "00000002")],
    );
    let other = report(
        2,
        &[vip("dns", 53, "00000001"), vip("web", 443, "0badcaf0")],
    );
    let mut lacks = report(
        3,
        &[vip("new", 80, "00000003"), vip("web", 443, "00000002")],
    );
    lacks.vips[0].stable = false;
    let known = heard(vec![node(other, now), node(lacks, now)]);
    let agreement = compare(&own, &known, now);
    assert_eq!(
        states(&agreement),
        [
            ("lb-1", NodeState::This),
            ("lb-2", NodeState::Differs),
            ("lb-3", NodeState::Differs)
        ]
    );
    let told: Vec<_> = agreement
        .vips
        .iter()
        .map(|vip| (vip.vip.as_str(), vip.port, vip.moving, tables(vip)))
        .collect();
    assert_eq!(
        told,
        [
            (
                "dns",
                53,
                false,
                vec![
                    (Some("00000001"), vec!["lb-1", "lb-2"]),
                    (None, vec!["lb-3"])
                ]
            ),
            (
                "new",
                80,
                true,
                vec![
                    (None, vec!["lb-1", "lb-2"]),
                    (Some("00000003"), vec!["lb-3"])
                ]
            ),
            (
                "web",
                443,
                false,
                vec![
                    (Some("00000002"), vec!["lb-1", "lb-3"]),
                    (Some("0badcaf0"), vec!["lb-2"])
                ]
            ),
        ]
    );
    let counts = summary(&own, &known, now).status(now);
    let counted: Vec<_> = counts
        .vips
        .iter()
        .map(|vip| (vip.vip.as_str(), vip.nodes))
        .collect();
    assert_eq!(counted, [("dns", 1), ("new", 1), ("web", 1)]);
    assert_eq!(
        counts.nodes,
        NodeCounts {
            differs: 2,
            ..NodeCounts::default()
        }
    );
}

#[test]
fn equal_tables_that_are_looked_up_by_another_hash_differ() {
    let now = Instant::now();
    let own = report(1, &[vip("web", 443, "00000002")]);
    let mut other = report(2, &[vip("web", 443, "00000002")]);
    other.vips[0].affinity = Affinity::Source;
    let agreement = compare(&own, &heard(vec![node(other, now)]), now);
    let affinities: Vec<_> = agreement.vips[0]
        .tables
        .iter()
        .map(|table| table.affinity)
        .collect();
    assert_eq!(affinities, [Some(Affinity::Flow), Some(Affinity::Source)]);
}

#[test]
fn who_is_silent_is_unreachable_and_differs_in_nothing() {
    let now = Instant::now() + 2 * STALE;
    let own = report(1, &[vip("web", 443, "00000002")]);
    let old = node(report(2, &[vip("web", 443, "0badcaf0")]), now - STALE);
    let never = Node {
        called: "10.0.0.3:9407".to_owned(),
        address: Some("10.0.0.3:9407".parse().unwrap()),
        error: Some("connect: connection refused".to_owned()),
        ..Node::default()
    };
    let known = heard(vec![old, never]);
    let agreement = compare(&own, &known, now);
    assert_eq!(
        states(&agreement),
        [
            ("lb-1", NodeState::This),
            ("10.0.0.3:9407", NodeState::Unreachable),
            ("lb-2", NodeState::Unreachable)
        ]
    );
    assert_eq!(agreement.nodes[1].seconds_since_report, None);
    assert_eq!(agreement.nodes[2].seconds_since_report, Some(7.0));
    assert_eq!(agreement.nodes[2].generation, Some(2));
    assert_eq!(agreement.vips, []);
    let counts = summary(&own, &known, now).status(now);
    assert_eq!(counts.nodes.unreachable, 2);
}

#[test]
fn a_node_that_hears_itself_is_no_other() {
    let now = Instant::now();
    let own = report(1, &[vip("web", 443, "00000002")]);
    // Another of the same name is.
    let twin = Report {
        instance: "00000000000000ff".to_owned(),
        ..own.clone()
    };
    let known = heard(vec![node(own.clone(), now), node(twin, now)]);
    let agreement = compare(&own, &known, now);
    assert_eq!(
        states(&agreement),
        [("lb-1", NodeState::This), ("lb-1", NodeState::Agrees)]
    );
}

#[test]
fn what_a_status_tells_of_a_turn_grows_old() {
    let now = Instant::now();
    let own = report(1, &[vip("web", 443, "00000002")]);
    let nodes = vec![
        node(report(2, &own.vips), now),
        node(report(3, &[vip("web", 443, "0badcaf0")]), now),
    ];
    let summary = summary(&own, &heard(nodes), now);
    let told = summary.status(now + Duration::from_secs(5));
    assert_eq!((told.nodes.agrees, told.nodes.differs), (1, 1));
    assert_eq!(told.vips.len(), 1);
    let told = summary.status(now + STALE);
    assert_eq!(told.nodes.unreachable, 2);
    assert_eq!(told.vips, []);
}

/// A liar, or many, cannot make the daemon tell more than so much.
#[test]
fn of_vips_that_only_others_have_no_more_than_some_are_told() {
    let now = Instant::now();
    let ports = |from: u16, vips: u16, digest: &str| -> Vec<_> {
        let ports = from..from + vips;
        ports.map(|port| vip("x", port, digest)).collect()
    };
    // This node's come last in the order, behind what 50 others tell.
    let own = report(1, &ports(60_000, 4_096, "00000001"));
    let liars = (0..50).map(|number| {
        let mut vips = ports(1 + u16::from(number) * 1_000, 1_000, "0badcaf0");
        vips.extend(ports(60_000, 3_000, "0badcaf0"));
        node(report(number + 2, &vips), now)
    });
    let known = heard(liars.collect());
    let agreement = compare(&own, &known, now);
    assert!(agreement.more_vips);
    assert_eq!(agreement.vips.len(), MOST_TOLD);
    let is_own = |vip: &&VipDifference| vip.port >= 60_000;
    let own_told = agreement.vips.iter().filter(is_own).count();
    assert_eq!(own_told, MOST_TOLD - MOST_FOREIGN);
    // The last ones are as true as the first.
    let last = agreement.vips.last().unwrap();
    let of_last = tables(last);
    let of_last: Vec<_> = of_last
        .iter()
        .map(|(digest, nodes)| (*digest, nodes.len()))
        .collect();
    assert_eq!(of_last, [(Some("00000001"), 1), (Some("0badcaf0"), 50)]);
    // Of each of this node's VIPs it is counted.
    let counts = summary(&own, &known, now).status(now);
    assert_eq!(counts.vips.len(), MOST_FOREIGN + 4_096);
    assert!(
        counts
            .vips
            .iter()
            .skip(MOST_FOREIGN)
            .all(|vip| vip.nodes == 50)
    );
}

#[test]
fn as_many_as_are_told_are_not_more() {
    let now = Instant::now();
    let vips: Vec<_> = (1..=128).map(|port| vip("x", port, "0badcaf0")).collect();
    let own = report(1, &[vip("web", 443, "00000002")]);
    let other = Report {
        vips: [vips, own.vips.clone()].concat(),
        ..report(2, &[])
    };
    let agreement = compare(&own, &heard(vec![node(other.clone(), now)]), now);
    assert_eq!(agreement.vips.len(), MOST_FOREIGN);
    assert!(!agreement.more_vips);
    // Behind this node's last one, too, one more is told to be there.
    let mut more = other;
    more.vips.push(vip("x", 444, "0badcaf0"));
    let agreement = compare(&own, &heard(vec![node(more, now)]), now);
    assert_eq!(agreement.vips.len(), MOST_FOREIGN);
    assert!(agreement.more_vips);
}
