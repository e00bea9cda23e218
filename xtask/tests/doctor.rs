//! `weir doctor` end to end: hosts with which something is really wrong, mended by the very commands that it prints.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{collections::BTreeSet, net::IpAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use xtask::{
    lab::{
        Bird, Host, Lab, Namespace, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually,
        example,
    },
    traffic::client,
    workspace,
};

/// Looks at a balancer load its program, which takes seconds on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const ONE: Plan = Plan {
    near: 1,
    far: 0,
    routed: 0,
};

/// What `weir doctor -o json` tells.
#[derive(Debug, Deserialize)]
struct Report {
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
    level: String,
    subject: String,
    what: String,
    commands: Vec<String>,
}

impl Report {
    /// The findings that are to be mended.
    fn ills(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| matches!(finding.level.as_str(), "warn" | "fail"))
    }

    /// Their checks.
    fn checks(&self) -> BTreeSet<&str> {
        self.ills().map(|finding| finding.check.as_str()).collect()
    }
}

/// Runs `weir doctor` in a host; its exit code must fit what it says.
fn doctor(host: &Namespace, arguments: &[&str]) -> Result<Report> {
    let mut command = host.command(workspace::weir_binary()?);
    command.args(["doctor", "-o", "json"]).args(arguments);
    let output = command.stdin(Stdio::null()).output()?;
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        matches!(code, Some(0 | 3)),
        "weir doctor ended with {code:?}: {said}"
    );
    let report: Report = serde_json::from_slice(&output.stdout)?;
    let is_well = report.ills().next().is_none();
    ensure!(
        is_well == (code == Some(0)),
        "it ended with {code:?}: {report:?}"
    );
    Ok(report)
}

/// Runs what a report says, as somebody would who copies it into a shell.
fn mend(host: &Namespace, report: &Report) -> Result<()> {
    let weir = workspace::weir_binary()?;
    let beside = weir.parent().unwrap_or(Path::new("/")).display();
    for finding in report.ills() {
        ensure!(!finding.commands.is_empty(), "no command for {finding:?}");
        for command in &finding.commands {
            let script = format!("PATH={beside}:$PATH:/usr/sbin:/sbin\n{command}");
            host.run("sh", ["-e", "-c", &script])
                .with_context(|| format!("mend {} of {}", finding.check, finding.subject))?;
        }
    }
    Ok(())
}

/// Asserts that what is found is just `expected`, and that doctor is content once its own commands have run.
fn find_and_mend(host: &Namespace, arguments: &[&str], expected: &[&str]) {
    let report = doctor(host, arguments).unwrap_or_else(|error| panic!("{error:#}"));
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!(report.checks(), expected, "{report:#?}");
    mend(host, &report).unwrap_or_else(|error| panic!("{error:#}"));
    // Neighbours that a change of the link has forgotten take a moment.
    let content = eventually("doctor to be content", PATIENCE, || {
        let after = doctor(host, arguments)?;
        match after.ills().next() {
            Some(ill) => bail!("still ill: {ill:?}"),
            None => Ok(()),
        }
    });
    content.unwrap_or_else(|error| panic!("{error:#}"));
}

fn topology(lab: &Lab) -> Topology {
    Topology::build(lab, &ONE).unwrap_or_else(|error| panic!("{error:#}"))
}

fn backend(topology: &Topology) -> &Host {
    topology.backends.first().unwrap()
}

#[test]
fn a_backend_with_every_setting_wrong_is_mended() {
    let lab = Lab::new().unwrap();
    let topology = topology(&lab);
    let host = &backend(&topology).namespace;
    let vips = [VIP_V4, VIP_V6].map(|vip| Topology::http(vip).to_string());
    let udp = format!("{}/udp", Topology::udp(VIP_V4));
    let [v4, v6] = &vips;
    let arguments = ["--backend", "--vip", v4, "--vip", v6, "--vip", &udp];
    // The lab itself is set up well.
    let report = doctor(host, &arguments).unwrap();
    assert_eq!(report.checks(), BTreeSet::new(), "{report:#?}");

    for (key, value) in [
        ("net/ipv4/conf/all/arp_ignore", "0"),
        ("net/ipv4/conf/all/arp_announce", "0"),
        ("net/ipv4/conf/eth0/rp_filter", "1"),
        ("net/ipv6/conf/eth0/disable_ipv6", "1"),
    ] {
        host.sysctl(key, value).unwrap();
    }
    host.ip(&format!("address del {VIP_V4}/32 dev lo")).unwrap();
    host.ip(&format!("address add {VIP_V4}/24 dev eth0"))
        .unwrap();
    host.ip(&format!("address del {VIP_V6}/128 dev lo"))
        .unwrap();
    find_and_mend(
        host,
        &arguments,
        &[
            "vip-address",
            "arp-ignore",
            "arp-announce",
            "rp-filter",
            "ipv6",
        ],
    );
    let shown = host.ip("-br address show dev lo").unwrap();
    for vip in [VIP_V4, VIP_V6] {
        assert!(shown.contains(&vip.to_string()), "{shown}");
    }
    // What nobody serves is found as well; no command starts a server.
    let report = doctor(host, &["--backend", "--vip", &format!("{VIP_V4}:81")]).unwrap();
    assert_eq!(report.checks(), ["listening"].into());
}

/// Requests through the tunnel are answered only once both hosts are mended.
#[test]
fn tunnels_work_once_both_ends_are_mended() {
    let lab = Lab::new().unwrap();
    let topology = topology(&lab);
    let mut config = WeirConfig::for_topology(&topology, &[]);
    config.forward = "gue";
    let balancer = &topology.lb.namespace;
    let mut weir = Weir::start(&lab, balancer, &config).unwrap_or_else(|error| panic!("{error:#}"));
    let file = weir.config().display().to_string();
    let options = client::Options::new(Topology::http(VIP_V4), 5);
    let client = &topology.client.namespace;
    let fetch = || client.inside(|| client::fetch(&options)).unwrap();
    let before = fetch();
    assert_eq!(before.answered(), 0, "{before:?}");

    // The balancer's own MTU leaves no room for outer headers.
    find_and_mend(balancer, &["--config", &file], &["mtu"]);
    // The backend's neither, and nothing takes those headers off.
    let pins = lab.bpffs().join("decap").display().to_string();
    let arguments = ["--backend", "--config", &file, "--decap-pin-path", &pins];
    let host = &backend(&topology).namespace;
    find_and_mend(host, &arguments, &["mtu", "decap"]);
    let after = fetch();
    assert_eq!((after.failed, after.answered()), (0, 5), "{after:?}");

    // Settings that leave the balancer out are found, and mended without losing what they had.
    let binary = workspace::weir_binary().unwrap().display().to_string();
    let attach =
        format!("{binary} decap attach --interface eth0 --from 192.0.2.0/24 --pin-path {pins}");
    host.run("sh", ["-c", &attach]).unwrap();
    find_and_mend(host, &arguments, &["decap"]);
    let after = fetch();
    assert_eq!((after.failed, after.answered()), (0, 5), "{after:?}");

    // A program that forwards without its daemon.
    weir.end_by(Signal::KILL).unwrap();
    let report = doctor(balancer, &["--config", &file]).unwrap();
    assert_eq!(report.checks(), ["daemon"].into(), "{report:#?}");
    weir.restart().unwrap_or_else(|error| panic!("{error:#}"));
    let report = doctor(balancer, &["--config", &file]).unwrap();
    assert_eq!(report.checks(), BTreeSet::new(), "{report:#?}");
}

/// A configuration without a daemon.
fn write_config(lab: &Lab, backend: IpAddr) -> String {
    let folder = lab.folder();
    let folder = folder.display();
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\nseed = \"a seed of the lab's own\"\n\
         pin_path = \"{folder}/bpf/doctor\"\napi_socket = \"{folder}/doctor.sock\"\n\
         state_file = \"{folder}/doctor.json\"\nmetrics_listen = \"127.0.0.1:9407\"\n\
         [[vip]]\nname = \"web\"\naddress = \"{VIP_V4}\"\nport = 80\nprotocol = \"tcp\"\n\
         health = {{ type = \"tcp\" }}\n[[vip.backend]]\naddress = \"{backend}\"\n"
    );
    let path = lab.write("doctor.toml", &text).unwrap();
    path.display().to_string()
}

#[test]
fn a_balancer_is_examined_before_weir_runs_on_it() {
    let lab = Lab::new().unwrap();
    let topology = topology(&lab);
    let host = &topology.lb.namespace;
    let file = write_config(&lab, backend(&topology).v4);
    let arguments = ["--config", &file];
    let report = doctor(host, &arguments).unwrap();
    assert_eq!(report.checks(), BTreeSet::new(), "{report:#?}");

    // Somebody else's program, a VIP of its own.
    let _other = topology.lb.nic.record().unwrap();
    host.ip(&format!("address add {VIP_V4}/32 dev lo")).unwrap();
    find_and_mend(host, &arguments, &["xdp", "vip-local"]);

    host.ip("link set eth0 down").unwrap();
    let report = doctor(host, &arguments).unwrap();
    for check in ["link", "next-hop", "health"] {
        assert!(report.checks().contains(check), "{check} in {report:#?}");
    }
    host.ip("link set eth0 up").unwrap();

    // A backend that is away: no command here brings it back.
    let server = &backend(&topology).namespace;
    server.ip("link set eth0 down").unwrap();
    host.ip("neigh flush dev eth0").unwrap();
    let report = doctor(host, &arguments).unwrap();
    assert_eq!(
        report.checks(),
        ["next-hop", "health"].into(),
        "{report:#?}"
    );
    server.ip("link set eth0 up").unwrap();
    let content = eventually("the backend to be seen", PATIENCE, || {
        let report = doctor(host, &arguments)?;
        ensure!(report.checks().is_empty(), "{report:?}");
        Ok(())
    });
    content.unwrap_or_else(|error| panic!("{error:#}"));
}

/// The speaker of a node, which may export these prefixes of IPv4.
fn speaker(lab: &Lab, topology: &Topology, router: &Host, exported: &str) -> Bird {
    let node = &topology.lb;
    let text = example(&[
        ("LOCAL4", node.v4.to_string()),
        ("LOCAL6", node.v6.to_string()),
        ("ROUTER4", router.v4.to_string()),
        ("ROUTER6", router.v6.to_string()),
        ("VIPS4", exported.to_owned()),
    ]);
    Bird::start(lab, &node.namespace, "node-bird", &text.unwrap()).unwrap()
}

/// A router that takes what the node tells it.
fn router_bird(lab: &Lab, topology: &Topology, router: &Host) -> Bird {
    let session = |family: &str, here: IpAddr, there: IpAddr| {
        format!(
            "protocol bgp node_{family} {{ local {here} as 65000; neighbor {there} as 65001; bfd on; connect retry time 1;\n\
             \x20 {family} {{ import all; export none; }}; }}\n"
        )
    };
    let node = &topology.lb;
    let text = format!(
        "router id {};\nlog stderr all;\nprotocol device {{ }}\n\
         protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}\n{}{}",
        router.v4,
        session("ipv4", router.v4, node.v4),
        session("ipv6", router.v6, node.v6),
    );
    Bird::start(lab, &router.namespace, "router-bird", &text).unwrap()
}

/// Waits until doctor finds just these ills of a check: how bad each is, and words of it.
fn comes_to(host: &Namespace, arguments: &[&str], check: &str, expected: &[(&str, &str)]) {
    let found = eventually(&format!("{check} to be {expected:?}"), PATIENCE, || {
        let report = doctor(host, arguments)?;
        let ills: Vec<_> = report.ills().collect();
        let fits = |(ill, (level, words)): (&&Finding, &(&str, &str))| {
            ill.check == check && ill.level == *level && ill.what.contains(words)
        };
        ensure!(
            ills.len() == expected.len() && ills.iter().zip(expected).all(fits),
            "{ills:#?}"
        );
        Ok(())
    });
    found.unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_node_whose_routes_nobody_tells_is_found_out() {
    let lab = Lab::new().unwrap();
    let topology = topology(&lab);
    let router = topology.another_host(&lab, "router", 98).unwrap();
    let config = WeirConfig {
        announce: "announce = \"route\"\n",
        ..WeirConfig::for_topology(&topology, &[])
    };
    let host = &topology.lb.namespace;
    let weir = Weir::start(&lab, host, &config).unwrap_or_else(|error| panic!("{error:#}"));
    let file = weir.config().display().to_string();
    let arguments = ["--config", &file];
    let nobody = "neither BIRD nor FRR";
    comes_to(host, &arguments, "bgp", &[("warn", nobody)]);

    // A rule that leads to the table; what doctor prints takes it away.
    let _other = router_bird(&lab, &topology, &router);
    let mut bird = speaker(&lab, &topology, &router, "[ 203.0.113.0/24{32,32} ]");
    comes_to(host, &arguments, "bgp", &[]);
    host.ip("rule add priority 100 table 4077").unwrap();
    host.ip("-6 rule add priority 200 table 4077").unwrap();
    find_and_mend(host, &arguments, &["route-rule"]);

    // A speaker that keeps IPv4 to itself, as by a filter with other prefixes.
    bird.process.end_by(Signal::TERM, PATIENCE).unwrap();
    let mut bird = speaker(&lab, &topology, &router, "[ 198.51.100.0/24{32,32} ]");
    let kept = "tells no neighbour of 203.0.113.10, which";
    comes_to(host, &arguments, "bgp", &[("fail", kept)]);
    bird.process.end_by(Signal::TERM, PATIENCE).unwrap();
}
