//! The lab, and what tshark tells of a capture made in it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::ensure;
use etherparse::PacketBuilder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xtask::{
    lab::{Lab, Plan, Topology, VIP_V4, Weir, WeirConfig, eventually},
    traffic::client,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const PLAN: Plan = Plan {
    near: 3,
    far: 0,
    routed: 0,
};

/// A lab in which weir balances.
pub(crate) struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    pub(crate) weir: Weir,
    pub(crate) topology: Topology,
    pub(crate) lab: Lab,
}

/// A packet in a capture, as tshark tells it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) interface: String,
    pub(crate) ethernet: String,
    /// Destinations of the IP headers, the outer one first.
    pub(crate) ip: String,
    pub(crate) time: String,
    pub(crate) length: u32,
    /// `came` or `left`.
    pub(crate) which: String,
    /// What the comment tells.
    pub(crate) told: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn told(&self, key: &str) -> &str {
        self.told.get(key).map_or("", String::as_str)
    }
}

impl Run {
    pub(crate) fn start(forward: &'static str, plan: &Plan) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, plan).unwrap();
        let mut config = WeirConfig::for_topology(&topology, &[]);
        config.forward = forward;
        if forward != "l2" {
            for backend in &topology.backends {
                let pins = lab
                    .bpffs()
                    .join(format!("decap-{}", backend.namespace.host()));
                topology.decapsulate(backend, &pins).unwrap();
            }
        }
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            lab,
        }
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.weir.ask(&["status", "-o", "json"]).unwrap()).unwrap()
    }

    pub(crate) fn counted(&self, reason: &str) -> u64 {
        let status = self.weir.status().unwrap();
        let counts = status.reasons.iter().filter(|count| count.reason == reason);
        counts.map(|count| count.packets).sum()
    }

    /// Who answers so many requests; none may fail.
    pub(crate) fn answering(&self, requests: u32) -> Vec<String> {
        let options = client::Options::new(Topology::http(VIP_V4), requests);
        let fetch = || client::fetch(&options);
        let summary = self.topology.client.namespace.inside(fetch).unwrap();
        assert_eq!(summary.failed, 0, "{:?}", summary.errors);
        summary.by_backend.into_keys().collect()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.lab.folder().join(name)
    }

    /// Starts a command of weir's against the daemon.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let socket = self.weir.socket().display().to_string();
        let mut command = self
            .weir
            .command(&[arguments, &["--socket", &socket]].concat());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Starts a capture, and waits until packets are watched.
    pub(crate) fn capture(&self, name: &str, arguments: &[&str]) -> Child {
        let file = self.file(name).display().to_string();
        let child = self.spawn(&[&["capture", "-w", &file], arguments].concat());
        self.observed(1);
        child
    }

    /// Waits until so many watch.
    pub(crate) fn observed(&self, watchers: u64) {
        eventually(&format!("{watchers} watchers"), PATIENCE, || {
            let observed = self.status()["observed"].clone();
            ensure!(
                observed["watchers"] == watchers && observed["active"] == (watchers > 0),
                "{observed}"
            );
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// What tshark reads in a capture.
    pub(crate) fn read(&self, name: &str) -> Vec<Seen> {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.file(name));
        command.args(["-n", "-T", "fields", "-E", "separator=|"]);
        for field in [
            "frame.interface_name",
            "eth.dst",
            "ip.dst",
            "frame.time_epoch",
            "frame.len",
            "frame.comment",
        ] {
            command.args(["-e", field]);
        }
        let output = command.output().expect("tshark: `cargo xtask setup`");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(seen).collect()
    }

    pub(crate) fn mac(&self, backend: &str) -> String {
        let address: IpAddr = backend.parse().unwrap();
        let host = self
            .topology
            .backends
            .iter()
            .find(|host| host.v4 == address);
        mac(host.unwrap().nic.mac_bytes().unwrap())
    }

    /// Frames of a flow to the VIP that is no flow of any server's: each is forwarded.
    pub(crate) fn datagram(&self, port: u16) -> Vec<u8> {
        let (client, lb) = (&self.topology.client, &self.topology.lb);
        let (IpAddr::V4(from), IpAddr::V4(to)) = (client.v4, VIP_V4) else {
            panic!("IPv4 addresses")
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(client.nic.mac_bytes().unwrap(), lb.nic.mac_bytes().unwrap())
            .ipv4(from.octets(), to.octets(), 64)
            .tcp(port, Topology::http(VIP_V4).port(), 1, 65_535)
            .ack(1)
            .write(&mut frame, b"")
            .unwrap();
        frame
    }
}

fn seen(line: &str) -> Seen {
    let fields: Vec<_> = line.split('|').collect();
    let [interface, ethernet, ip, time, length, comment] = fields[..] else {
        panic!("{line}")
    };
    let told = comment.strip_prefix("weir: ").unwrap();
    let (which, told) = told.split_once("; ").unwrap();
    let told = told.split(' ').map(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned())
    });
    Seen {
        interface: interface.to_owned(),
        ethernet: ethernet.to_owned(),
        ip: ip.to_owned(),
        time: time.to_owned(),
        length: length.parse().unwrap(),
        which: which.to_owned(),
        told: told.collect(),
    }
}

pub(crate) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

pub(crate) fn done(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    output
}

/// `N packets captured, M skipped`.
pub(crate) fn tally(output: &Output) -> (u64, u64) {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .find(|line| line.contains("packets captured"))
        .unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<u64> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}
