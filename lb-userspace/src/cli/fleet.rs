//! `weir fleet`

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use comfy_table::Cell;

use super::{Outcome, change::converse, output, status::Form, table};
use crate::{
    api::{Agreement, By, NodeAgreement, NodeState, TableOf, VipDifference, client::Client},
    config::DEFAULT_API_SOCKET,
};

const EXAMPLES: &str = "\
Examples:
  weir fleet                             the nodes, and the VIPs whose tables are not the same on all
  weir fleet -o json | jq '.vips[] | {vip, tables}'
  weir fleet && weir drain-node --wait   take this node out only while others do as it does

Nodes hear of each other every 2 s, by Redis or by asking each other's metrics listeners:

  [fleet]
  peers = [\"10.0.0.2:9407\", \"10.0.0.3:9407\"]

A difference that lasts is one of configurations, seeds, commands or health (docs/fleet.md); one that passes is a change
on its way.

Exit codes: 0 there are other nodes, and all agree; 1 failed, or nodes are not compared; 2 usage;
3 degraded: some node differs, is unreachable or not compared, Redis does not answer, or no other
node is heard of: a node alone agrees with nobody";

/// Show whether the nodes of the fleet have the same tables, and where they differ
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Args {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_API_SOCKET)]
    socket: PathBuf,
    /// Form of the output; field names of json are stable
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let agreement = converse(Client::new(&args.socket).agreement())??;
    output::listing(args.output, &agreement, || text(&agreement))?;
    Ok(if is_agreed(&agreement) {
        Outcome::Done
    } else {
        Outcome::Degraded
    })
}

fn is_agreed(agreement: &Agreement) -> bool {
    let agrees = |node: &NodeAgreement| matches!(node.state, NodeState::This | NodeState::Agrees);
    // A node alone agrees with nobody: whoever goes on to drain it wants to know that others are there.
    let is_alone = agreement.nodes.len() < 2;
    let is_whole = agreement.error.is_none() && agreement.more_nodes == 0;
    is_whole && !is_alone && agreement.nodes.iter().all(agrees)
}

fn text(agreement: &Agreement) -> String {
    let mut text = format!("{}\n", nodes(agreement).trim_fmt());
    // Writing to a string cannot fail, here and below.
    if let Some(error) = &agreement.error {
        writeln!(text, "problem: Redis: {error}").ok();
    } else if agreement.nodes.len() == 1 {
        let help = match agreement.by {
            By::Redis => "no other node writes into this Redis for this fleet",
            By::Peers => "no peer is another node than this one",
        };
        writeln!(text, "problem: {help}").ok();
    }
    if agreement.more_nodes > 0 {
        let more = agreement.more_nodes;
        writeln!(
            text,
            "problem: {more} more in Redis: only 64 others are compared"
        )
        .ok();
    }
    for node in &agreement.nodes {
        if let Some(error) = &node.error {
            writeln!(text, "problem: {}: {error}", node.node).ok();
        }
    }
    for vip in &agreement.vips {
        write!(text, "\n{}", difference(vip)).ok();
    }
    if agreement.more_vips {
        writeln!(text, "\nmore VIPs differ than are shown").ok();
    }
    text
}

fn nodes(agreement: &Agreement) -> comfy_table::Table {
    let mut shown = table::table(&["NODE", "STATE", "VERSION", "GENERATION", "HEARD"], 3);
    for node in &agreement.nodes {
        let heard = match (node.state, node.seconds_since_report) {
            (NodeState::This, _) => String::new(),
            (_, Some(seconds)) => format!("{seconds:.0} s ago"),
            (_, None) => "never".to_owned(),
        };
        let generation = node.generation.map(|generation| generation.to_string());
        shown.add_row([
            Cell::new(&node.node),
            Cell::new(node.state.as_str()),
            Cell::new(node.version.as_deref().unwrap_or("-")),
            table::number(generation.unwrap_or_else(|| "-".to_owned())),
            table::number(heard),
        ]);
    }
    shown
}

/// Who has which table of a VIP, a line for each table.
fn difference(vip: &VipDifference) -> String {
    let dialled = match vip.port {
        0 => format!("{} (every port)", vip.address),
        port => SocketAddr::new(vip.address, port).to_string(),
    };
    let moving = if vip.moving { " while slots move" } else { "" };
    let head = format!("VIP {}: tables differ{moving}", vip.vip);
    let protocol = vip.protocol.as_str();
    let mut text = format!("{}\n  {protocol} {dialled}\n", table::fit(&head));
    let mut affinities = vip.tables.iter().filter_map(|table| table.affinity);
    let first = affinities.next();
    let is_one_affinity = affinities.all(|affinity| Some(affinity) == first);
    for TableOf {
        table_digest,
        affinity,
        nodes,
    } in &vip.tables
    {
        let has = match (table_digest, affinity) {
            (Some(digest), Some(affinity)) if !is_one_affinity => {
                format!("table {digest}, affinity {}", affinity.as_str())
            }
            (Some(digest), _) => format!("table {digest}"),
            (None, _) => "no such VIP".to_owned(),
        };
        let line = format!("  {has}: {}", nodes.join(", "));
        writeln!(text, "{}", table::fit(&line)).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Affinity, Protocol};

    fn node(name: &str, state: NodeState) -> NodeAgreement {
        NodeAgreement {
            node: name.to_owned(),
            address: None,
            state,
            version: Some("0.1.0".to_owned()),
            generation: Some(12),
            seconds_since_report: Some(1.4),
            error: None,
        }
    }

    fn table_of(digest: Option<&str>, affinity: Affinity, nodes: &[&str]) -> TableOf {
        TableOf {
            table_digest: digest.map(str::to_owned),
            affinity: digest.map(|_| affinity),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        }
    }

    fn agreement() -> Agreement {
        Agreement {
            by: By::Peers,
            error: None,
            nodes: vec![
                node("lb-1", NodeState::This),
                node("lb-2", NodeState::Agrees),
            ],
            more_nodes: 0,
            vips: Vec::new(),
            more_vips: false,
        }
    }

    #[test]
    fn nodes_that_agree_are_a_table_and_no_more() {
        let agreement = agreement();
        assert!(is_agreed(&agreement));
        assert_eq!(
            text(&agreement),
            "NODE STATE  VERSION GENERATION   HEARD\n\
             lb-1 this   0.1.0           12\n\
             lb-2 agrees 0.1.0           12 1 s ago\n"
        );
    }

    #[test]
    fn who_differs_in_which_vip_is_told_within_80_columns() {
        let mut agreement = agreement();
        agreement.nodes.push(node("lb-3", NodeState::Differs));
        agreement.nodes.push(NodeAgreement {
            version: None,
            generation: None,
            seconds_since_report: None,
            error: Some("connect: connection refused".to_owned()),
            ..node("[2001:db8::4]:9407", NodeState::Unreachable)
        });
        let difference = |vip: &str, moving, tables| VipDifference {
            vip: vip.to_owned(),
            address: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            port: 443,
            protocol: Protocol::Tcp,
            moving,
            tables,
        };
        let many: Vec<_> = (1..40).map(|number| format!("lb-{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        agreement.vips = vec![
            difference(
                "web",
                true,
                vec![
                    table_of(Some("0badcaf0"), Affinity::Flow, &many),
                    table_of(Some("0badcaf1"), Affinity::Flow, &["lb-3"]),
                    table_of(None, Affinity::Flow, &["lb-4"]),
                ],
            ),
            difference(
                "dns",
                false,
                vec![
                    table_of(Some("0badcaf0"), Affinity::Flow, &["lb-1", "lb-2"]),
                    table_of(Some("0badcaf0"), Affinity::Source, &["lb-3"]),
                ],
            ),
        ];
        assert!(!is_agreed(&agreement));
        let shown = text(&agreement);
        for part in [
            "[2001:db8::4]:9407 unreachable -                -   never\n",
            "problem: [2001:db8::4]:9407: connect: connection refused\n",
            "\nVIP web: tables differ while slots move\n  tcp [2001:db8:1111:2222:3333:4444:5555:6666]:443\n",
            "\nVIP dns: tables differ\n",
            "  table 0badcaf1: lb-3\n  no such VIP: lb-4\n",
            "  table 0badcaf0, affinity flow: lb-1, lb-2\n  table 0badcaf0, affinity source: lb-3\n",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn a_redis_that_is_away_or_empty_is_told() {
        let mut agreement = agreement();
        agreement.by = By::Redis;
        agreement.nodes.truncate(1);
        assert!(!is_agreed(&agreement));
        assert!(text(&agreement).contains("\nproblem: no other node writes into this Redis"));
        agreement.error = Some("no answer within 1s".to_owned());
        assert!(!is_agreed(&agreement));
        assert!(text(&agreement).ends_with("\nproblem: Redis: no answer within 1s\n"));
    }

    #[test]
    fn a_node_alone_agrees_with_nobody() {
        let mut agreement = agreement();
        agreement.nodes.truncate(1);
        assert!(!is_agreed(&agreement));
        assert!(text(&agreement).ends_with("\nproblem: no peer is another node than this one\n"));
    }

    #[test]
    fn what_is_left_out_is_told() {
        let mut agreement = agreement();
        agreement.by = By::Redis;
        agreement.more_nodes = 36;
        assert!(!is_agreed(&agreement));
        let shown = text(&agreement);
        let problem = "\nproblem: 36 more in Redis: only 64 others are compared\n";
        assert!(shown.ends_with(problem), "{shown}");
        agreement.more_vips = true;
        let shown = text(&agreement);
        assert!(
            shown.ends_with("\n\nmore VIPs differ than are shown\n"),
            "{shown}"
        );
    }
}
