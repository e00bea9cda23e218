//! A node with its maps in host memory, from a configuration to packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use etherparse::PacketBuilder;
use lb_common::{
    packet::{HEADROOM, HostPacket},
    pipeline::{self, Outcome},
    reason::Reason,
};
use lb_userspace::{
    config::{
        Affinity, Announce, Announcing, Backend, Config, EncapSource, Fleet, Flows, ForwardMode,
        Limits, Lists, Node, OnExit, Protocol, Secret, TableAlgorithm, Vip, XdpMode,
    },
    dataplane::{apply::apply, memory::Memory},
    model::{
        ids::Ids,
        next_hop::{NextHop, Port, Vlans},
        plan::{Held, Step, plan},
        seed::Keys,
        slots::Settled,
        wanted::{Inputs, Standing, Wanted},
    },
};

pub(crate) const PORT: Port = Port {
    ifindex: 2,
    mac: [2, 0, 0, 0, 0, 1],
};
pub(crate) const WEB4: &str = "203.0.113.10";
pub(crate) const WEB6: &str = "2001:db8::10";
/// A node with its maps in memory.
pub(crate) struct Lab {
    pub(crate) config: Config,
    pub(crate) ports: Vec<Port>,
    pub(crate) next_hops: BTreeMap<IpAddr, NextHop>,
    pub(crate) memory: Memory,
    pub(crate) held: Held,
    pub(crate) ids: Ids,
    pub(crate) standing: Standing,
}

impl Lab {
    /// Every backend of the VIPs is reached over [`PORT`] and has its [`mac`].
    pub(crate) fn new(vips: Vec<Vip>) -> Self {
        let backends = vips.iter().flat_map(|vip| &vip.backends);
        let next_hops = backends.map(|backend| {
            let host = match backend.address {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => v6.octets()[15],
            };
            let hop = NextHop {
                ifindex: PORT.ifindex,
                mac_source: PORT.mac,
                mac_destination: Some(mac(host - 10)),
                gateway: backend.address,
                mtu: 1500,
                vlans: Vlans::default(),
            };
            (backend.address, hop)
        });
        Self {
            next_hops: next_hops.collect(),
            config: config(vips),
            ports: vec![PORT],
            memory: Memory::default(),
            held: Held::default(),
            ids: Ids::default(),
            standing: Standing::default(),
        }
    }

    pub(crate) fn wanted(&mut self) -> Wanted {
        let keys = Keys::derive(self.config.node.seed.expose());
        let inputs = Inputs {
            config: &self.config,
            keys: &keys,
            ports: &self.ports,
            next_hops: &self.next_hops,
            locals: &BTreeSet::new(),
            standing: &self.standing,
            cpus: 1,
        };
        Wanted::new(&inputs, &self.held, &mut self.ids).unwrap()
    }

    pub(crate) fn apply(&mut self) -> anyhow::Result<usize> {
        let wanted = self.wanted();
        apply(
            &mut self.memory,
            &mut self.held,
            &wanted,
            &mut self.ids,
            "test",
        )
    }

    /// Lets time pass and scans find nothing, until every slot is Stable and nobody is leaving.
    pub(crate) fn settle(&mut self) {
        const HOUR_MS: u32 = 3_600_000;
        for _ in 0..5 {
            self.standing.now_ms += HOUR_MS;
            self.standing.settled = Some(Arc::new(Settled {
                began_ms: self.standing.now_ms - 1,
                ..Settled::default()
            }));
            self.apply().unwrap();
        }
        self.standing.unnamed = self.wanted().leaving.keys().copied().collect();
        self.apply().unwrap();
        self.standing.unnamed.clear();
        self.standing.settled = None;
    }

    pub(crate) fn steps(&mut self) -> String {
        let wanted = self.wanted();
        let names: Vec<_> = plan(&self.held, &wanted).iter().map(name).collect();
        names.join(" ")
    }

    /// Sends a frame; tells its reason, and the host that its MAC address now names.
    pub(crate) fn send(&self, client: &str, vip: &str, port: u16) -> (Reason, Option<u8>) {
        let (outcome, frame) = run(&self.memory, &frame(client, vip, port));
        let host = (frame[5] >= 0x10).then(|| frame[5] - 0x10);
        (outcome.reason, host)
    }
}

/// Runs the pipeline: what became of the frame, and how it left.
pub(crate) fn run(tables: &Memory, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0; HEADROOM + frame.len()];
    let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
    let outcome = pipeline::run(&mut packet, tables, PORT.ifindex);
    (outcome, packet.bytes().to_vec())
}

pub(crate) const fn name(step: &Step) -> &'static str {
    match step {
        Step::Node(_) => "node",
        Step::Port(_) => "port",
        Step::Interface(..) => "interface",
        Step::Peer(_) => "peer",
        Step::ClearPeer(_) => "clear-peer",
        Step::NewBackend(_) => "new-backend",
        Step::NewVip(_) => "new-vip",
        Step::Backend(..) => "backend",
        Step::Idle(..) => "idle",
        Step::Limits(..) => "limits",
        Step::Table(..) => "table",
        Step::Vips(_) => "vips",
        Step::Block(_) => "block",
        Step::BlockScopes(..) => "block-scopes",
        Step::Unblock(_) => "unblock",
        Step::ClearInterface(_) => "clear-interface",
        Step::ClearLimits(_) => "clear-limits",
        Step::ClearTable(_) => "clear-table",
        Step::ClearBackend(..) => "clear-backend",
    }
}

/// MAC address of the backend 10.0.0.(10 + host).
pub(crate) const fn mac(host: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, 0x10 + host]
}

pub(crate) fn web(address: &str, backends: &[(u8, u16)]) -> Vip {
    let backend = |&(host, weight): &(u8, u16)| Backend {
        address: IpAddr::from([10, 0, 0, 10 + host]),
        weight,
        forward: ForwardMode::L2,
        mac: None,
    };
    Vip {
        name: format!("web-{address}"),
        address: address.parse().unwrap(),
        port: 443,
        protocol: Protocol::Tcp,
        table: TableAlgorithm::Maglev,
        affinity: Affinity::Flow,
        announce: Announce::None,
        min_healthy: 1,
        announce_at_start: true,
        flows: Flows::usual(Protocol::Tcp),
        access: Lists::default(),
        health: None,
        limits: Limits::default(),
        backends: backends.iter().map(backend).collect(),
    }
}

pub(crate) fn config(vips: Vec<Vip>) -> Config {
    Config {
        access: Lists::default(),
        node: Node {
            name: "lb-1".to_owned(),
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Auto,
            seed: Secret::new("fleet-secret".to_owned()),
            pin_path: PathBuf::from("/sys/fs/bpf/weir"),
            api_socket: PathBuf::from("/run/weir/weir.sock"),
            metrics_listen: ([127, 0, 0, 1], 9407).into(),
            on_exit: OnExit::Keep,
            encap_source: EncapSource {
                v4: Some([10, 0, 0, 1].into()),
                v6: Some("2001:db8::1".parse().unwrap()),
            },
            gue_port: 6080,
            max_pins: 65_536,
            max_sources: 65_536,
            peers: BTreeSet::new(),
            state_file: PathBuf::from("/var/lib/weir/state.json"),
            api_group: None,
            api_admin_group: None,
        },
        redis: None,
        fleet: Fleet::default(),
        kubernetes: None,
        announce: Announcing::default(),
        vips,
    }
}

/// A SYN to port 443 of the VIP.
pub(crate) fn frame(client: &str, vip: &str, port: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 9, 9, 9, 9, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match (client.parse().unwrap(), vip.parse().unwrap()) {
        (IpAddr::V4(c), IpAddr::V4(v)) => ethernet.ipv4(c.octets(), v.octets(), 64),
        (IpAddr::V6(c), IpAddr::V6(v)) => ethernet.ipv6(c.octets(), v.octets(), 64),
        _ => panic!("{client} and {vip} are of two families"),
    };
    let mut frame = Vec::new();
    ip.tcp(1024 + port, 443, 7, 65_535)
        .syn()
        .write(&mut frame, b"")
        .unwrap();
    frame
}
