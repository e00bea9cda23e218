//! The lab itself, without weir: does what the other tests stand on hold?
//!
//! The kernel's own router stands in for the load balancer where packets must be forwarded.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use xtask::{
    lab::{Lab, LabId, Plan, Topology, VIP_V4, VIP_V6, leftovers, until},
    traffic::{client, udp},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the kernel of the load balancer's host route the VIPs to one backend.
fn route_by_the_kernel(topology: &Topology) {
    let (lb, backend) = (&topology.lb.namespace, &topology.backends[1]);
    for (key, value) in [
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/eth0/send_redirects", "0"),
    ] {
        lb.sysctl(&format!("net/{key}"), value).unwrap();
    }
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        lb.sysctl(key, "1").unwrap();
    }
    for vip in [VIP_V4, VIP_V6] {
        lb.ip(&format!("route add {vip} via {}", backend.address(vip)))
            .unwrap();
    }
}

#[test]
fn a_backend_answers_the_client_past_the_load_balancer() {
    let lab = Lab::new().unwrap();
    let topology = Topology::build(&lab, &Plan::default()).unwrap();
    route_by_the_kernel(&topology);
    for vip in [VIP_V4, VIP_V6] {
        let options = client::Options::new(Topology::http(vip), 100);
        let summary = topology
            .client
            .namespace
            .inside(|| client::fetch(&options))
            .unwrap();
        assert_eq!(
            (summary.failed, summary.answered()),
            (0, 100),
            "{:?}",
            summary.errors
        );
        assert_eq!(summary.by_backend.keys().collect::<Vec<_>>(), ["backend-2"]);

        let echoes = topology
            .client
            .namespace
            .inside(|| udp::echoes(Topology::udp(vip), 10))
            .unwrap();
        assert_eq!(
            echoes.into_iter().collect::<Vec<_>>(),
            [("backend-2".to_owned(), 10)]
        );

        // A request takes at least SYN, request, and FIN.
        assert!(topology.sent_by_lb(topology.client.address(vip)).unwrap() > 300);
        assert_eq!(topology.sent_by_lb(vip).unwrap(), 0);
    }
}

#[test]
fn the_observer_notices_an_answer_from_the_load_balancer() {
    let lab = Lab::new().unwrap();
    let topology = Topology::build(
        &lab,
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
    )
    .unwrap();
    for vip in [VIP_V4, VIP_V6] {
        let client = topology.client.address(vip);
        let (length, flag) = if vip.is_ipv4() {
            (32, "")
        } else {
            (128, "nodad")
        };
        topology
            .lb
            .namespace
            .ip(&format!("address add {vip}/{length} dev lo {flag}"))
            .unwrap();
        topology
            .lb
            .namespace
            .inside(|| {
                Ok(UdpSocket::bind((vip, 80))?.send_to(b"as if from a backend", (client, 4000))?)
            })
            .unwrap();
        until("the observer to count it", PATIENCE, || {
            Ok(topology.sent_by_lb(vip)? == 1)
        })
        .unwrap();
    }
}

#[test]
fn two_labs_at_once_do_not_collide() {
    let (one, two) = (Lab::new().unwrap(), Lab::new().unwrap());
    let topologies = [&one, &two].map(|lab| {
        Topology::build(
            lab,
            &Plan {
                near: 2,
                far: 1,
                routed: 0,
            },
        )
        .unwrap()
    });
    for topology in &topologies {
        route_by_the_kernel(topology);
    }
    for topology in &topologies {
        let options = client::Options::new(Topology::http(VIP_V4), 20);
        let summary = topology
            .client
            .namespace
            .inside(|| client::fetch(&options))
            .unwrap();
        assert_eq!(summary.answered(), 20, "{:?}", summary.errors);
    }
    let id = one.id().clone();
    drop(one);
    assert_eq!(leftovers(&id).unwrap(), Vec::<String>::new());
    // The other one still stands.
    let options = client::Options::new(Topology::http(VIP_V6), 20);
    let summary = topologies[1]
        .client
        .namespace
        .inside(|| client::fetch(&options))
        .unwrap();
    assert_eq!(summary.answered(), 20, "{:?}", summary.errors);
}

#[test]
fn nothing_is_left_of_a_lab_that_ended() {
    let lab = Lab::new().unwrap();
    let id = lab.id().clone();
    let topology = Topology::build(&lab, &Plan::default()).unwrap();
    let before = leftovers(&id).unwrap();
    for kind in ["namespace ", "mount ", "folder ", "process "] {
        assert!(
            before.iter().any(|left| left.starts_with(kind)),
            "no {kind}in {before:?}"
        );
    }
    drop((topology, lab));
    assert_eq!(leftovers(&id).unwrap(), Vec::<String>::new());
}

#[test]
fn nothing_is_left_of_a_run_that_a_signal_ended() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (mut holder, id) = hold();
        end(&mut holder, signal);
        assert_eq!(
            leftovers(&id).unwrap(),
            Vec::<String>::new(),
            "after {signal:?}"
        );
    }
}

#[test]
fn the_next_lab_removes_what_a_killed_run_left() {
    let (mut holder, id) = hold();
    end(&mut holder, Signal::KILL);
    // Another test's lab may have swept already, so only the outcome can be told for certain.
    let _lab = Lab::new().unwrap();
    until("the sweep to be over", PATIENCE, || {
        Ok(leftovers(&id)?.is_empty())
    })
    .unwrap();
}

#[test]
fn a_living_run_is_not_swept() {
    let (mut holder, id) = hold();
    let before = leftovers(&id).unwrap();
    drop(Lab::new().unwrap());
    assert_eq!(leftovers(&id).unwrap(), before);
    end(&mut holder, Signal::TERM);
}

/// Starts another process with a lab of its own.
fn hold() -> (Child, LabId) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let mut child = command
        .arg("lab-hold")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let id = line
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("the holder said {line:?}"));
    (child, id)
}

fn end(child: &mut Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
    until("the holder to end", PATIENCE, || {
        Ok(child.try_wait()?.is_some())
    })
    .unwrap();
}
