//! weir end to end: real HTTP and UDP through the real program, in network namespaces.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{fs, net::IpAddr, time::Duration};

use etherparse::PacketBuilder;
use xtask::{
    lab::{Lab, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually, leftovers, until},
    traffic::{
        client::{self, Summary},
        udp,
    },
};

const PATIENCE: Duration = Duration::from_secs(10);
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// A lab in which weir balances.
struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    topology: Topology,
    lab: Lab,
}

impl Run {
    fn start(plan: &Plan, weights: &[u32]) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, plan).unwrap();
        let config = WeirConfig::for_topology(&topology, weights);
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            lab,
        }
    }

    fn fetch(&self, vip: IpAddr, requests: u32) -> Summary {
        let options = client::Options::new(Topology::http(vip), requests);
        self.topology
            .client
            .namespace
            .inside(|| client::fetch(&options))
            .unwrap()
    }

    /// Asserts that all requests are answered, and none past a backend.
    fn assert_serves(&self, vip: IpAddr, requests: u32) -> Summary {
        let summary = self.fetch(vip, requests);
        assert_eq!(
            (summary.failed, summary.answered()),
            (0, requests),
            "{vip}: {:?}",
            summary.errors
        );
        assert_eq!(
            self.topology.sent_by_lb(vip).unwrap(),
            0,
            "answers from {vip} passed the load balancer"
        );
        summary
    }
}

#[test]
fn http_is_shared_by_weight_and_answered_directly() {
    let weights = [100, 100, 200];
    let run = Run::start(&Plan::default(), &weights);
    for vip in VIPS {
        let summary = run.assert_serves(vip, 3000);
        for (name, weight) in run.topology.backend_names().iter().zip(weights) {
            let (wanted, got) = (f64::from(weight) / 4.0, summary.share(name));
            assert!(
                (wanted - got).abs() <= 5.0,
                "{vip}: {name} took {got:.1}%, {wanted:.1}% are its weight"
            );
        }
    }
    // What the program counts is what the switch saw.
    eventually("the counters to agree", PATIENCE, || {
        let status = run.weir.status()?;
        let mut on_the_wire = 0;
        for (vip, name) in [(VIP_V4, "web-v4"), (VIP_V6, "web-v6")] {
            let seen = run.topology.sent_by_lb(run.topology.client.address(vip))?;
            let counted = status.vip(name)?;
            anyhow::ensure!(
                counted.packets == seen,
                "{name}: {} counted, {seen} on the wire",
                counted.packets
            );
            anyhow::ensure!(
                counted.new_connections >= 3000,
                "{} new connections",
                counted.new_connections
            );
            let of_backends: u64 = counted.backends.iter().map(|backend| backend.packets).sum();
            anyhow::ensure!(
                of_backends == counted.packets,
                "backends {of_backends}, VIP {}",
                counted.packets
            );
            on_the_wire += seen;
        }
        anyhow::ensure!(
            status.forwarded() == on_the_wire,
            "{} by reason, {on_the_wire} on the wire",
            status.forwarded()
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn udp_echo_comes_back_from_the_vip() {
    let run = Run::start(&Plan::default(), &[]);
    for vip in VIPS {
        let echoes = run
            .topology
            .client
            .namespace
            .inside(|| udp::echoes(Topology::udp(vip), 300));
        let echoes = echoes.unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        assert_eq!(echoes.values().sum::<u32>(), 300);
        assert_eq!(
            echoes.keys().cloned().collect::<Vec<_>>(),
            run.topology.backend_names()
        );
        assert_eq!(run.topology.sent_by_lb(vip).unwrap(), 0);
    }
}

#[test]
fn what_is_for_no_vip_reaches_the_load_balancer_itself() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        &[],
    );
    // The daemon's host answers on a port of its own, through the attached program.
    let lb = run.topology.lb.v4;
    let listener = run
        .topology
        .lb
        .namespace
        .inside(|| Ok(std::net::TcpListener::bind((lb, 8080))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || Ok(std::net::TcpStream::connect_timeout(&address, PATIENCE)?);
    run.topology.client.namespace.inside(connect).unwrap();
}

#[test]
fn forwarding_outlives_the_daemon_which_takes_over_again() {
    let mut run = Run::start(&Plan::default(), &[]);
    run.assert_serves(VIP_V4, 200);
    let before = run.slots_by_backend();

    let status = run.weir.terminate().unwrap();
    assert!(status.success(), "after SIGTERM weir ended with {status}");
    for vip in VIPS {
        run.assert_serves(vip, 200);
    }
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    for vip in VIPS {
        run.assert_serves(vip, 200);
    }
    assert_eq!(
        run.slots_by_backend(),
        before,
        "the same backends own the same number of slots"
    );
}

#[test]
fn on_exit_detach_takes_the_program_off() {
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
    let config = WeirConfig {
        on_exit: "detach",
        ..WeirConfig::for_topology(&topology, &[])
    };
    let mut weir = Weir::start(&lab, &topology.lb.namespace, &config)
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(weir.xdp_on("eth0").unwrap());
    weir.terminate().unwrap();
    until("the program to be off", PATIENCE, || {
        Ok(!weir.xdp_on("eth0")?)
    })
    .unwrap();
}

#[test]
fn detach_takes_the_program_off_and_removes_the_pins() {
    let mut run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        &[],
    );
    run.assert_serves(VIP_V4, 10);
    assert!(run.weir.xdp_on("eth0").unwrap());
    assert!(
        fs::read_dir(run.weir.pin_path()).unwrap().next().is_some(),
        "a running weir pins its maps"
    );

    run.weir.terminate().unwrap();
    assert!(
        run.weir.xdp_on("eth0").unwrap(),
        "SIGTERM leaves the program forwarding"
    );
    run.weir
        .detach()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!run.weir.xdp_on("eth0").unwrap());
    let pins = fs::read_dir(run.weir.pin_path())
        .map(|pins| pins.flatten().map(|pin| pin.path()).collect::<Vec<_>>());
    assert_eq!(pins.unwrap_or_default(), Vec::<std::path::PathBuf>::new());
    assert_eq!(
        run.fetch(VIP_V4, 1).answered(),
        0,
        "nobody forwards any more"
    );
}

#[test]
fn a_backend_behind_another_interface_is_reached_by_redirect() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 1,
            routed: 0,
        },
        &[],
    );
    for vip in VIPS {
        let summary = run.assert_serves(vip, 400);
        assert_eq!(
            summary.by_backend.keys().cloned().collect::<Vec<_>>(),
            run.topology.backend_names()
        );
    }
    let status = run.weir.status().unwrap();
    for verdict in ["tx", "redirect"] {
        let packets: u64 = status
            .reasons
            .iter()
            .filter(|r| r.verdict == verdict)
            .map(|r| r.packets)
            .sum();
        assert!(packets > 0, "no packet by {verdict}: {:?}", status.reasons);
    }
}

/// What `weir trace` says of a packet against the running maps is what the packet would meet, and leaves no trace.
#[test]
fn a_trace_against_the_running_daemon_tells_the_way_and_counts_nothing() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 1,
            routed: 0,
        },
        &[],
    );
    let before = run.weir.status().unwrap();
    for (vip, name) in [(VIP_V4, "web-v4"), (VIP_V6, "web-v6")] {
        let [near, far] = [0, 1].map(|index| run.topology.backends[index].address(vip));
        // By default packets come by the first interface.
        for (arguments, ways) in [
            (&[][..], [(near, "tx"), (far, "redirect")]),
            (&["--interface", "eth1"], [(near, "redirect"), (far, "tx")]),
        ] {
            let told = run.trace(vip, arguments);
            assert_eq!(told.len(), 16);
            for line in &told {
                assert_eq!(
                    (line["reason"].as_str(), line["vip"].as_str()),
                    (Some("forwarded"), Some(name)),
                    "{line}"
                );
            }
            for (backend, verdict) in ways {
                let mut of_backend = told
                    .iter()
                    .filter(|line| line["backend"] == backend.to_string())
                    .peekable();
                assert!(
                    of_backend.peek().is_some(),
                    "no flow for {backend}: {told:?}"
                );
                assert!(
                    of_backend.all(|line| line["verdict"] == verdict),
                    "{backend}: {told:?}"
                );
            }
        }
    }
    let after = run.weir.status().unwrap();
    for name in ["web-v4", "web-v6"] {
        assert_eq!(
            after.vip(name).unwrap().packets,
            before.vip(name).unwrap().packets
        );
    }
}

#[test]
fn two_balancers_at_once_do_not_collide() {
    let runs = [&[1, 0][..], &[0, 1][..]].map(|weights| {
        Run::start(
            &Plan {
                near: 2,
                far: 0,
                routed: 0,
            },
            weights,
        )
    });
    for (run, owner) in runs.iter().zip(["backend-1", "backend-2"]) {
        let summary = run.assert_serves(VIP_V4, 50);
        assert_eq!(summary.by_backend.keys().collect::<Vec<_>>(), [owner]);
    }
}

#[test]
fn nothing_is_left_of_a_lab_with_weir_in_it() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        &[],
    );
    let id = run.lab.id().clone();
    assert!(
        leftovers(&id)
            .unwrap()
            .iter()
            .any(|left| left.contains("weir run"))
    );
    drop(run);
    assert_eq!(leftovers(&id).unwrap(), Vec::<String>::new());
}

impl Run {
    /// Returns how many slots each backend of the web VIP owns.
    fn slots_by_backend(&self) -> Vec<(IpAddr, u32)> {
        let status = self.weir.status().unwrap();
        let vip = status.vip("web-v4").unwrap();
        vip.backends
            .iter()
            .map(|backend| (backend.address, backend.slots))
            .collect()
    }

    /// Traces the first segments of 16 connections to a VIP, against the running daemon.
    fn trace(&self, vip: IpAddr, arguments: &[&str]) -> Vec<serde_json::Value> {
        let [socket, pins] =
            [self.weir.socket(), self.weir.pin_path()].map(|path| path.display().to_string());
        let mut command = vec![
            "trace",
            "-o",
            "json",
            "--socket",
            &socket,
            "--pin-path",
            &pins,
        ];
        command.extend(arguments);
        let packets: Vec<_> = (40_000..40_016)
            .map(|port| syn(self.topology.client.address(vip), port, vip))
            .collect();
        for packet in &packets {
            command.extend(["--packet-hex", packet]);
        }
        let told = self
            .weir
            .cli(&command)
            .unwrap_or_else(|error| panic!("{error:#}"));
        told.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// The first segment of a connection to a VIP's web server, in hexadecimal.
fn syn(from: IpAddr, port: u16, vip: IpAddr) -> String {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let network = match (from, vip) {
        (IpAddr::V4(from), IpAddr::V4(vip)) => link.ipv4(from.octets(), vip.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(vip)) => link.ipv6(from.octets(), vip.octets(), 64),
        _ => panic!("{from} and {vip} are of two families"),
    };
    let mut frame = Vec::new();
    network
        .tcp(port, Topology::http(vip).port(), 1, 65_535)
        .syn()
        .write(&mut frame, &[])
        .unwrap();
    format!("{frame:02x?}").replace(['[', ']', ',', ' '], "")
}
