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
    let counts = summary(&own, &known, now);
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
    let counts = summary(&own, &known, now);
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
    assert_eq!(summary(&own, &known, now).nodes.unreachable, 2);
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
