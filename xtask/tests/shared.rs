//! Nodes that balance and serve at once, with tables that differ on purpose: no frame is forwarded twice, none goes round.
#![forbid(unsafe_code)]
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests, and what was measured is printed"
)]

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use xtask::{
    lab::{Host, Lab, Observer, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually},
    traffic::client,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How many nodes there are.
const NODES: u8 = 3;
/// Requests by each node and address family.
const REQUESTS: u32 = 60;
/// Datagrams that come in pieces, by each node and address family.
const LARGE: usize = 16;

struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weirs: Vec<Weir>,
    /// Counts what each node sends on.
    observers: Vec<Observer>,
    /// Counts what the client sends.
    client: Observer,
    topology: Topology,
    lab: Lab,
}

/// What became of the client's packets at all nodes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fates {
    /// Sent on to another node.
    forwarded: u64,
    /// Left to the node's own kernel.
    local: u64,
    /// Left to the kernel, since another node had sent them.
    peer: u64,
}

#[test]
fn by_l2_a_frame_is_forwarded_once_at_most() {
    let run = Run::start("l2");
    for vip in [VIP_V4, VIP_V6] {
        let (sent, fates) = run.ask_all(vip);
        assert!(fates.forwarded > 0 && fates.local > 0, "{fates:?}");
        // Each frame that was sent on came to a node that served it, whatever its own table says.
        assert_eq!(fates.peer, fates.forwarded, "{vip}: {fates:?}");
        println!("{vip}: {sent} frames, {fates:?}");
    }
}

#[test]
fn by_ipip_a_frame_is_forwarded_once_at_most() {
    let run = Run::start("ipip");
    for vip in [VIP_V4, VIP_V6] {
        let (sent, fates) = run.ask_all(vip);
        assert!(fates.forwarded > 0 && fates.local > 0, "{fates:?}");
        // What comes in a tunnel is for no VIP.
        assert_eq!(fates.peer, 0, "{vip}: {fates:?}");
        println!("{vip}: {sent} frames, {fates:?}");
    }
}

/// A node's address on its second interface, for tunnels.
fn inner(node: u8, like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        Ipv4Addr::new(10, 78, 0, node).into()
    } else {
        Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, node.into()).into()
    }
}

impl Run {
    fn start(forward: &'static str) -> Self {
        let lab = Lab::new().unwrap();
        let plan = Plan {
            near: NODES,
            far: 0,
            routed: 0,
        };
        let topology = Topology::build(&lab, &plan).unwrap();
        let mut client = topology.client.nic.observe().unwrap();
        client.watch(topology.client.v4).unwrap();
        client.watch(topology.client.v6).unwrap();
        let mut observers = Vec::new();
        for (node, host) in (1..).zip(&topology.backends) {
            let mut observer = host.nic.observe().unwrap();
            observer.watch(topology.client.v4).unwrap();
            observer.watch(topology.client.v6).unwrap();
            observers.push(observer);
            if forward == "ipip" {
                observers.push(tunnel(&lab, &topology, host, node));
            }
        }
        let mut run = Self {
            weirs: Vec::new(),
            observers,
            client,
            topology,
            lab,
        };
        for node in 1..=NODES {
            let config = run.config(node, forward);
            let host = &run.topology.backends[usize::from(node) - 1];
            let weir = Weir::start(&run.lab, &host.namespace, &config);
            run.weirs
                .push(weir.unwrap_or_else(|error| panic!("{error:#}")));
        }
        let digests: BTreeSet<_> = run
            .weirs
            .iter()
            .map(|weir| {
                weir.status()
                    .unwrap()
                    .vip("web-v4")
                    .unwrap()
                    .table_digest
                    .clone()
            })
            .collect();
        assert_eq!(
            digests.len(),
            usize::from(NODES),
            "the tables should differ"
        );
        run
    }

    /// Each node gives others more than itself; the last one knows nothing of its own serving, and is told of its peers.
    fn config(&self, node: u8, forward: &'static str) -> WeirConfig {
        let weights: Vec<u32> = (1..=NODES)
            .map(|other| {
                if other == node {
                    60
                } else {
                    100 + u32::from(other)
                }
            })
            .collect();
        let mut config = WeirConfig {
            node: format!("node-{node}"),
            forward,
            encap_source: [VIP_V4, VIP_V6].map(|like| inner(node, like)).to_vec(),
            ..WeirConfig::for_topology(&self.topology, &weights)
        };
        for vip in &mut config.vips {
            if forward == "ipip" {
                for (other, backend) in (1..).zip(&mut vip.backends) {
                    backend.address = inner(other, vip.address);
                }
            }
            if node == NODES {
                vip.backends.pop();
            }
        }
        if forward == "l2" {
            config.encap_source = Vec::new();
        }
        if node == NODES {
            let others = self.topology.backends.iter().take(usize::from(NODES) - 1);
            let others: Vec<_> = others
                .flat_map(|host| [host.v4.to_string(), host.v6.to_string()])
                .collect();
            config.more = format!("peers = {others:?}\n");
        }
        config
    }

    /// Has every node answer for a VIP. Returns what the client sent, and what became of it.
    fn ask_all(&self, vip: IpAddr) -> (u64, Fates) {
        let before = (self.sent(vip), self.fates(), self.seen(vip));
        let mut names = BTreeSet::new();
        for host in &self.topology.backends {
            let via = host.address(vip);
            let client = &self.topology.client.namespace;
            // Room for outer headers: what comes in pieces cannot be told to be smaller.
            client
                .ip(&format!("route replace {vip} via {via} dev eth0 mtu 1400"))
                .unwrap();
            let options = client::Options::new(Topology::http(vip), REQUESTS);
            let summary = client.inside(|| client::fetch(&options)).unwrap();
            assert_eq!(summary.failed, 0, "by {via}: {:?}", summary.errors);
            names.extend(summary.by_backend.into_keys());
            client
                .inside(|| (0..LARGE).try_for_each(|_| echo_large(Topology::udp(vip))))
                .unwrap_or_else(|error| panic!("by {via}: {error:#}"));
        }
        assert_eq!(names.len(), usize::from(NODES), "{names:?}");
        // The last frames of a connection may be on their way still.
        let all = eventually("every frame to be accounted for", PATIENCE, || {
            let sent = self.sent(vip) - before.0;
            let now = self.fates();
            let fates = Fates {
                forwarded: now.forwarded - before.1.forwarded,
                local: now.local - before.1.local,
                peer: now.peer - before.1.peer,
            };
            let seen = self.seen(vip) - before.2;
            ensure!(seen == fates.forwarded, "{seen} seen, {fates:?}");
            // Neighbour discovery has the client's address, too; of IPv4 nothing else is sent.
            let once = fates.forwarded + fates.local;
            ensure!(
                if vip.is_ipv4() {
                    once == sent
                } else {
                    once <= sent
                },
                "{sent} sent, {fates:?}"
            );
            Ok((sent, fates))
        });
        all.unwrap_or_else(|error| panic!("{vip}: {error:#}"))
    }

    fn sent(&self, vip: IpAddr) -> u64 {
        self.client.seen(self.topology.client.address(vip)).unwrap()
    }

    /// How many of the client's frames, or of the nodes' tunnels, have left nodes.
    fn seen(&self, vip: IpAddr) -> u64 {
        let client = self.topology.client.address(vip);
        let tunnels = (1..=NODES).map(|node| inner(node, vip));
        let sources: Vec<_> = std::iter::once(client).chain(tunnels).collect();
        let seen = self.observers.iter().flat_map(|observer| {
            // One that does not watch a source sees nothing of it.
            sources
                .iter()
                .filter_map(|source| observer.seen(*source).ok())
        });
        seen.sum()
    }

    fn fates(&self) -> Fates {
        let mut fates = Fates::default();
        for weir in &self.weirs {
            for reason in weir.status().unwrap().reasons {
                match reason.reason.as_str() {
                    "forwarded" | "fragment_orphan" => fates.forwarded += reason.packets,
                    "local" => fates.local += reason.packets,
                    "peer" => fates.peer += reason.packets,
                    _ => {}
                }
            }
        }
        fates
    }
}

/// Gives a node a second interface, on which tunnels end: one XDP program an interface is all that there can be, and this
/// kernel has no tunnels of its own. Returns what counts the tunnels that begin there.
fn tunnel(lab: &Lab, topology: &Topology, host: &Host, node: u8) -> Observer {
    let addresses = [
        format!("{}/24", inner(node, VIP_V4)),
        format!("{}/64", inner(node, VIP_V6)),
    ];
    let nic = topology
        .segment
        .plug(&host.namespace, "eth1", &addresses)
        .unwrap();
    let mut observer = nic.observe().unwrap();
    let own = [VIP_V4, VIP_V6].map(|like| inner(node, like));
    own.iter()
        .try_for_each(|source| observer.watch(*source))
        .unwrap();
    let others = (1..=NODES).filter(|other| *other != node);
    let from: Vec<_> = others
        .flat_map(|other| [VIP_V4, VIP_V6].map(|like| inner(other, like)))
        .collect();
    let pins = lab.bpffs().join(format!("decap-{node}"));
    Topology::decapsulate_from(&from, (host, "eth1"), &pins)
        .unwrap_or_else(|error| panic!("{error:#}"));
    observer
}

/// Sends a datagram that comes in several pieces, and waits for its echo.
fn echo_large(target: SocketAddr) -> anyhow::Result<()> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(target)?;
    let data = vec![b'x'; 4000];
    socket.send(&data)?;
    let mut buffer = vec![0; 9000];
    let length = socket.recv(&mut buffer).context("wait for the echo")?;
    ensure!(
        buffer
            .get(..length)
            .is_some_and(|echo| echo.ends_with(&data))
    );
    Ok(())
}
