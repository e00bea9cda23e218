//! The daemon with the capabilities that the Kubernetes manifests give it, and no others.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;
use xtask::{
    lab::{Lab, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig},
    traffic::client,
    workspace,
};

/// `BPF`, `NET_ADMIN`, `NET_RAW` and `PERFMON`, as `/proc/PID/status` has them.
const FOUR: &str = "000000c000003000";

#[test]
fn four_capabilities_are_enough() {
    let lab = Lab::new().unwrap();
    let topology = Topology::build(&lab, &Plan::default()).unwrap();
    let set = "-all,+bpf,+net_admin,+net_raw,+perfmon";
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set={set} --inh-caps={set} {} \"$@\"\n",
        workspace::weir_binary().unwrap().display()
    );
    let path = lab.write("weir-of-a-pod", &script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let config = WeirConfig::for_topology(&topology, &[]);
    let mut weir = Weir::start_binary(path, &lab, &topology.lb.namespace, &config, &[])
        .unwrap_or_else(|error| panic!("{error:#}"));
    let effective = || {
        let status = fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("CapEff:"));
        line.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(effective(), FOUR);
    serves(&topology);
    // What an earlier daemon left is found by its pins.
    weir.end_by(Signal::KILL).unwrap();
    serves(&topology);
    weir.restart().unwrap_or_else(|error| panic!("{error:#}"));
    weir.reload().unwrap_or_else(|error| panic!("{error:#}"));
    serves(&topology);
    let status = weir.status().unwrap();
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    let mode = status
        .interfaces
        .first()
        .and_then(|one| one.mode.as_deref());
    assert_eq!(mode, Some("native"));
}

fn serves(topology: &Topology) {
    for vip in [VIP_V4, VIP_V6] {
        let options = client::Options::new(Topology::http(vip), 30);
        let fetch = || client::fetch(&options);
        let summary = topology.client.namespace.inside(fetch).unwrap();
        assert_eq!(summary.failed, 0, "{vip}: {:?}", summary.errors);
    }
}
