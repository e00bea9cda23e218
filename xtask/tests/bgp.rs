//! Routes of VIPs: a fleet behind a router with real BGP speakers, and the life of the routes on one node.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests, and tell what they measure"
)]

use std::{net::IpAddr, time::Duration};

use rustix::process::Signal;
use xtask::{
    fleet::{self, Options},
    lab::{Lab, Plan, Process, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, until},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// `cargo xtask fleet`, shortened: the whole of it has more connections, and withdraws more often.
#[test]
fn a_fleet_behind_bgp_breaks_no_connection() {
    let options = Options {
        connections: 300,
        rounds: 3,
        built: true,
    };
    let findings = fleet::show(&options).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{findings}");
    let complaints = findings.complaints();
    assert!(
        complaints.is_empty(),
        "{findings}\n{}",
        complaints.join("\n")
    );
}

/// One node with routes, and nobody who reads them.
struct Node {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    topology: Topology,
    _lab: Lab,
}

impl Node {
    fn start(sections: &'static str) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, &Plan::default()).unwrap();
        let config = WeirConfig {
            announce: "announce = \"route\"\n",
            more: sections.to_owned(),
            ..WeirConfig::for_topology(&topology, &[])
        };
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            _lab: lab,
        }
    }

    fn ip(&self, words: &str) -> String {
        self.topology.lb.namespace.ip(words).unwrap()
    }

    /// The addresses that the table has routes for.
    fn routes(&self) -> Vec<IpAddr> {
        // A table that nobody has put anything into does not exist.
        let show = |family: &str| {
            let words = format!("{family} route show table 4077");
            let shown = self.topology.lb.namespace.ip(&words);
            shown.unwrap_or_default()
        };
        let text = show("-4") + &show("-6");
        let routes = text.lines().map(|line| {
            assert!(
                line.starts_with("blackhole ") && line.contains(" proto 201 "),
                "{line}"
            );
            let address = line.split_whitespace().nth(1);
            address.unwrap().parse().unwrap()
        });
        routes.collect()
    }

    fn wait_for_routes(&self, wanted: &[IpAddr]) {
        let result = until(&format!("routes for {wanted:?}"), PATIENCE, || {
            Ok(self.routes() == wanted)
        });
        result.unwrap_or_else(|error| panic!("{error:#}, there are {:?}", self.routes()));
    }

    /// Everything that happens to routes from now on.
    fn monitor(&self) -> Process {
        let host = &self.topology.lb.namespace;
        let mut command = host.command("ip");
        command.args(["monitor", "route"]);
        Process::start(host, &format!("monitor-{}", self.weir.pid()), &mut command).unwrap()
    }

    fn watchdog(&self, name: &str) -> Process {
        let config = self.weir.config().to_string_lossy().into_owned();
        let mut command = self.weir.command(&["watchdog", "--config", &config]);
        Process::start(&self.topology.lb.namespace, name, &mut command).unwrap()
    }

    /// The sum of a metric's samples, a whole number.
    fn counted(&self, metric: &str) -> String {
        let metrics = self.weir.metrics().unwrap();
        format!("{:.0}", metrics.sum(metric, &[]).unwrap_or_default())
    }
}

const BOTH: [IpAddr; 2] = [VIP_V4, VIP_V6];

#[test]
fn routes_outlive_their_daemon_for_a_while_and_follow_a_new_one() {
    let mut node = Node::start("\n[announce]\nhold_down = \"1s\"\ndead_daemon_hold = \"4s\"\n");
    node.wait_for_routes(&BOTH);

    // Somebody takes one away: it is put back.
    node.ip("route del blackhole 203.0.113.10 table 4077 proto 201");
    node.wait_for_routes(&BOTH);

    // A restart withdraws nothing, and removes what is no VIP's.
    let mut monitor = node.monitor();
    node.weir.end_by(Signal::KILL).unwrap();
    node.ip("route add blackhole 203.0.113.99 table 4077 proto 201");
    node.ip("route add blackhole 203.0.113.98 table 4077 proto 99");
    node.ip("route del blackhole 203.0.113.98 table 4077 proto 99");
    node.weir.restart().unwrap();
    node.wait_for_routes(&BOTH);
    monitor.end_by(Signal::TERM, PATIENCE).unwrap();
    let told = std::fs::read_to_string(monitor.log()).unwrap();
    let mut lines = told.lines().filter(|line| line.contains("proto 201"));
    assert!(
        lines.all(|line| line.contains("203.0.113.99")),
        "a restart has changed the routes of VIPs: {told}"
    );

    // The daemon is gone for good: the watchdog waits, then withdraws.
    let mut watchdog = node.watchdog("watchdog");
    node.weir.end_by(Signal::KILL).unwrap();
    assert_eq!(node.routes(), BOTH);
    assert!(node.weir.xdp_on("eth0").unwrap());
    node.wait_for_routes(&[]);
    assert!(
        node.weir.xdp_on("eth0").unwrap(),
        "the program forwards what still comes"
    );

    // A new daemon announces at once.
    node.weir.restart().unwrap();
    node.wait_for_routes(&BOTH);
    watchdog.end_by(Signal::TERM, PATIENCE).unwrap();

    // Without a daemon, what takes the program off takes the routes, too.
    node.weir.end_by(Signal::KILL).unwrap();
    node.weir.detach().unwrap();
    assert_eq!(node.routes(), [] as [IpAddr; 0]);
}

#[test]
fn without_a_program_the_watchdog_waits_for_nothing() {
    let mut node = Node::start("\n[announce]\ndead_daemon_hold = \"off\"\n");
    node.wait_for_routes(&BOTH);
    node.weir.end_by(Signal::KILL).unwrap();
    // The pins go without weir, as by somebody who cleans up by hand.
    let links = node.weir.pins_in_force().unwrap().join("links");
    let _watchdog = node.watchdog("watchdog");
    assert_eq!(node.routes(), BOTH);
    std::fs::remove_file(links.join("eth0")).unwrap();
    node.wait_for_routes(&[]);
}

#[test]
fn a_drained_node_announces_nothing_until_it_is_undrained() {
    let mut node = Node::start("");
    node.wait_for_routes(&BOTH);
    let said = node
        .weir
        .ask(&["drain-node", "--wait", "--quiet", "1s", "-o", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said.unwrap()).unwrap();
    assert_eq!(said.get("changed"), Some(&true.into()), "{said}");
    assert_eq!(said.get("quiet"), Some(&true.into()), "{said}");
    assert_eq!(node.routes(), [] as [IpAddr; 0]);
    let status = node.weir.status().unwrap();
    assert!(status.drained);
    let announce = status.vip("web-v4").unwrap().announce.clone().unwrap();
    assert_eq!(
        (
            announce.announced,
            announce.wanted,
            announce.reason.as_str()
        ),
        (false, false, "drained")
    );
    assert_eq!(node.counted("weir_node_drained"), "1");
    assert_eq!(node.counted("weir_vip_announced"), "0");

    // Over a restart.
    assert!(node.weir.terminate().unwrap().success());
    node.weir.restart().unwrap();
    assert!(node.weir.status().unwrap().drained);
    assert_eq!(node.routes(), [] as [IpAddr; 0]);

    // And back at once, whatever the hold-down.
    node.weir.ask(&["undrain-node"]).unwrap();
    node.wait_for_routes(&BOTH);
    let said = node.weir.ask(&["undrain-node", "-o", "json"]).unwrap();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said.get("changed"), Some(&false.into()), "{said}");
    // Two VIPs to each address.
    until("both to be told as announced", PATIENCE, || {
        Ok(node.counted("weir_vip_announced") == "4")
    })
    .unwrap();
}

#[test]
fn a_daemon_that_is_told_to_end_withdraws_first_if_it_is_to() {
    let mut node = Node::start("\n[announce]\nwithdraw_delay = \"3s\"\n");
    node.wait_for_routes(&BOTH);
    node.weir.signal(Signal::TERM).unwrap();
    node.wait_for_routes(&[]);
    // It goes on serving meanwhile.
    let announce = node
        .weir
        .status()
        .unwrap()
        .vip("web-v4")
        .unwrap()
        .announce
        .clone();
    assert_eq!(announce.unwrap().reason, "drained");
    assert!(node.weir.terminate().unwrap().success());
    assert!(node.weir.xdp_on("eth0").unwrap());
    node.weir.restart().unwrap();
    node.wait_for_routes(&BOTH);
    // With a daemon, it takes its routes away before its program.
    node.weir.detach().unwrap();
    assert_eq!(node.routes(), [] as [IpAddr; 0]);
}
