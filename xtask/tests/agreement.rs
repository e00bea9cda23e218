//! Three nodes that compare their tables: by asking each other, and through a real Redis.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests, and what was measured is printed"
)]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use xtask::{
    lab::{Host, Lab, Observer, Plan, Topology, Weir, WeirConfig, eventually},
    limits::start_redis,
};

/// A node is unreachable after 6 s, and asked every 2 s.
const PATIENCE: Duration = Duration::from_secs(30);

const NODES: usize = 3;

/// The VIPs of IPv4 and IPv6, by address and port.
const VIPS: [&str; 4] = ["web-v4", "echo-v4", "web-v6", "echo-v6"];

struct Fleet {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weirs: Vec<Weir>,
    others: Vec<(Host, Observer)>,
    addresses: Vec<SocketAddr>,
    /// What `[fleet]` or `[redis]` say, on all nodes.
    sections: String,
    topology: Topology,
    lab: Lab,
}

/// What `weir fleet` says, and its exit code.
struct Said {
    code: Option<i32>,
    text: String,
    json: Value,
}

#[test]
fn nodes_that_ask_each_other_tell_who_differs_in_which_vip() {
    let mut fleet = Fleet::new();
    let addresses: Vec<_> = fleet.addresses.iter().map(ToString::to_string).collect();
    // All of them have the same list, and find themselves in it.
    fleet.start(&format!("[fleet]\npeers = {addresses:?}\n"));
    fleet.comes_to("all agree", 0, ["agrees", "agrees"]);
    let said = fleet.fleet(0).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert_eq!(said.json["by"], "peers");
    assert_eq!(said.json["nodes"][1]["address"], addresses[1].as_str());

    fleet.differ_and_agree_again();

    // A change of the list is taken up like any other.
    let two = format!("[fleet]\npeers = {:?}\n", &addresses[..2]);
    fleet.weirs[0]
        .rewrite(&fleet.lab, &fleet.config(0, &[], &two))
        .unwrap();
    fleet.weirs[0].reload().unwrap();
    fleet.comes_to("one peer is left", 0, ["agrees"]);

    // A node that is killed forwards on, and is not heard of.
    fleet.weirs[1].end_by(Signal::KILL).unwrap();
    fleet.comes_to("lb-2 is killed", 0, ["unreachable"]);
    fleet.comes_to("lb-2 is killed", 2, ["agrees", "unreachable"]);
    let said = fleet.fleet(2).unwrap();
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(
        said.text
            .contains("problem: lb-2: connect: connection refused"),
        "{}",
        said.text
    );
    assert_eq!(said.json["vips"], Value::Array(vec![]));
    let status = fleet.weirs[2].ask_degraded(&["status"]).unwrap();
    assert!(status.contains(", ready\n"), "{status}");
    assert!(
        status.contains("other nodes of the fleet (`weir fleet`): 1 unreachable\n"),
        "{status}"
    );
    fleet.weirs[1].restart().unwrap();
    fleet.comes_to("lb-2 is back", 2, ["agrees", "agrees"]);
}

#[test]
fn nodes_tell_each_other_through_redis() {
    let mut fleet = Fleet::new();
    let host = fleet
        .topology
        .another_host(&fleet.lab, "redis", 9)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let address = SocketAddr::new(host.v4, 6379);
    let redis = start_redis(&host, address).unwrap();
    fleet.start(&format!(
        "[redis]\nurl = \"redis://{address}\"\nfleet = \"lab\"\n"
    ));
    fleet.comes_to("all agree", 0, ["agrees", "agrees"]);
    assert_eq!(
        fleet.metric(0, "weir_fleet_reports_connected", &[]),
        Some(1.0)
    );

    fleet.differ_and_agree_again();

    // Another start of a node is the same node.
    fleet.weirs[1].terminate().unwrap();
    fleet.weirs[1].restart().unwrap();
    let generation = fleet.weirs[1].status().unwrap().generation;
    eventually("lb-1 to hear of lb-2's new start", PATIENCE, || {
        let said = fleet.fleet(0)?;
        ensure!(
            said.json["nodes"][1]["generation"] == generation,
            "{}",
            said.text
        );
        Ok(())
    })
    .unwrap();
    fleet.comes_to("lb-2 has started again", 0, ["agrees", "agrees"]);

    redis.signal(Signal::KILL).unwrap();
    fleet.comes_to("Redis is killed", 0, ["unreachable", "unreachable"]);
    let said = fleet.fleet(0).unwrap();
    assert_eq!(said.code, Some(3), "{}", said.text);
    assert!(said.text.contains("problem: Redis: no "), "{}", said.text);
    assert!(!said.text.contains(&address.to_string()), "{}", said.text);
    assert_eq!(
        fleet.metric(0, "weir_fleet_reports_connected", &[]),
        Some(0.0)
    );
    assert!(fleet.weirs[0].status().unwrap().ready);

    let _redis = start_redis(&host, address).unwrap();
    fleet.comes_to("Redis is back", 0, ["agrees", "agrees"]);
    assert_eq!(fleet.fleet(0).unwrap().code, Some(0));
}

#[test]
fn a_node_without_peers_says_how_to_name_them() {
    let mut fleet = Fleet::new();
    let config = fleet.config(0, &[], "");
    fleet.launch(0, &config);
    let weir = &fleet.weirs[0];
    let output = weir.output(&["fleet", "--socket", weir.socket().to_str().unwrap()]);
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("peers = [\"10.0.0.2:9407\"]"), "{said}");
    let metrics = fleet.weirs[0].metrics().unwrap();
    assert!(!metrics.text().contains("weir_fleet_nodes"));
}

impl Fleet {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let plan = Plan {
            near: 2,
            ..Plan::default()
        };
        let topology = Topology::build(&lab, &plan).unwrap_or_else(|error| panic!("{error:#}"));
        let others: Vec<_> = (1..NODES)
            .map(|after| {
                let after = u8::try_from(after).unwrap();
                topology.another_lb(&lab, after).unwrap()
            })
            .collect();
        let hosts = std::iter::once(&topology.lb).chain(others.iter().map(|(host, _)| host));
        let addresses = hosts.map(|host| SocketAddr::new(host.v4, 9407)).collect();
        Self {
            weirs: Vec::new(),
            addresses,
            others,
            sections: String::new(),
            topology,
            lab,
        }
    }

    fn config(&self, node: usize, weights: &[u32], sections: &str) -> WeirConfig {
        WeirConfig {
            node: format!("lb-{}", node + 1),
            metrics: self.addresses[node],
            more: format!("\n{sections}"),
            ..WeirConfig::for_topology(&self.topology, weights)
        }
    }

    fn launch(&mut self, node: usize, config: &WeirConfig) {
        let host = match node.checked_sub(1) {
            None => &self.topology.lb,
            Some(other) => &self.others[other].0,
        };
        let weir = Weir::start(&self.lab, &host.namespace, config);
        self.weirs
            .push(weir.unwrap_or_else(|error| panic!("{error:#}")));
    }

    fn start(&mut self, sections: &str) {
        sections.clone_into(&mut self.sections);
        for node in 0..NODES {
            let config = self.config(node, &[], sections);
            self.launch(node, &config);
        }
    }

    /// Gives the last node other weights, for as long as it takes the first one to tell.
    fn differ_and_agree_again(&self) {
        let last = NODES - 1;
        let weir = &self.weirs[last];
        let other = self.config(last, &[100, 50], &self.sections);
        weir.rewrite(&self.lab, &other).unwrap();
        weir.reload().unwrap();
        let said = self.comes_to("lb-3 has other weights", 0, ["agrees", "differs"]);
        assert_eq!(said.code, Some(3), "{}", said.text);
        let vips = said.json["vips"].as_array().unwrap();
        let names: Vec<_> = vips
            .iter()
            .map(|vip| vip["vip"].as_str().unwrap())
            .collect();
        assert_eq!(names, VIPS);
        for vip in vips {
            let tables = vip["tables"].as_array().unwrap();
            let nodes: Vec<_> = tables.iter().map(|table| &table["nodes"]).collect();
            assert_eq!(
                nodes,
                [
                    &serde_json::json!(["lb-1", "lb-2"]),
                    &serde_json::json!(["lb-3"])
                ]
            );
            assert_eq!(vip["moving"], true, "{vip}");
            assert_eq!(
                self.metric(
                    0,
                    "weir_fleet_vip_nodes_differing",
                    &[("vip", vip["vip"].as_str().unwrap())]
                ),
                Some(1.0)
            );
        }
        assert!(
            said.text
                .contains("\nVIP web-v4: tables differ while slots move\n  tcp "),
            "{}",
            said.text
        );
        assert!(
            said.text.lines().all(|line| line.chars().count() <= 80),
            "{}",
            said.text
        );
        assert_eq!(
            self.metric(0, "weir_fleet_nodes", &[("state", "differs")]),
            Some(1.0)
        );
        let status = self.weirs[0].ask(&["status"]).unwrap();
        assert!(
            status.contains("other nodes of the fleet (`weir fleet`): 1 differs in web-v4, "),
            "{status}"
        );
        // To the one that is another, all others are.
        self.comes_to("the others are others", last, ["differs", "differs"]);

        weir.rewrite(&self.lab, &self.config(last, &[], &self.sections))
            .unwrap();
        weir.reload().unwrap();
        self.comes_to("lb-3 has the same weights again", 0, ["agrees", "agrees"]);
        assert_eq!(self.fleet(0).unwrap().code, Some(0));
        assert_eq!(
            self.metric(0, "weir_fleet_vip_nodes_differing", &[]),
            Some(0.0)
        );
    }

    /// Waits until the other nodes stand so, as a node sees it.
    fn comes_to<const OTHERS: usize>(
        &self,
        after: &str,
        node: usize,
        states: [&str; OTHERS],
    ) -> Said {
        let began = Instant::now();
        let said = eventually(after, PATIENCE, || {
            let said = self.fleet(node)?;
            let nodes = said.json["nodes"].as_array().context("no nodes")?;
            let others: Vec<_> = nodes.iter().skip(1).map(|node| &node["state"]).collect();
            ensure!(others == states, "{}", said.text);
            ensure!(
                said.json["error"].is_null() || states.contains(&"unreachable"),
                "{}",
                said.text
            );
            Ok(said)
        });
        println!(
            "{after}: lb-{} knows after {} ms",
            node + 1,
            began.elapsed().as_millis()
        );
        said.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What `weir fleet` says on a node.
    fn fleet(&self, node: usize) -> Result<Said> {
        let weir = &self.weirs[node];
        let socket = weir.socket();
        let socket = socket.to_str().context("a path of letters")?;
        // The json first: what is waited for in it holds in the text, which is younger.
        let json = weir.output(&["fleet", "-o", "json", "--socket", socket])?;
        let text = weir.output(&["fleet", "--socket", socket])?;
        let said = String::from_utf8_lossy(&json.stderr);
        ensure!(matches!(json.status.code(), Some(0 | 3)), "{said}");
        Ok(Said {
            code: text.status.code(),
            text: String::from_utf8(text.stdout)?,
            json: serde_json::from_slice(&json.stdout)?,
        })
    }

    fn metric(&self, node: usize, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.weirs[node].metrics().unwrap().sum(name, labels)
    }
}
