//! Two nodes of a fleet: what reaches the one goes where the other has sent its flow.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use etherparse::{
    Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice,
    icmpv4::DestUnreachableHeader,
};
use xtask::lab::{
    Host, Lab, Observer, Plan, Recorder, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, until,
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of each address family: with three backends, on more than one of them.
const FLOWS: u16 = 8;
/// What the errors tell: each connection's own, so that each can be told from the others.
const MTUS: std::ops::Range<u16> = 1400..1400 + FLOWS;

/// A lab in which two nodes have the same VIPs, backends and seed; the client dials through the first.
struct Fleet {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    nodes: [Weir; 2],
    second: Host,
    client: Recorder,
    topology: Topology,
    _observer: Observer,
    _lab: Lab,
}

/// A connection through the first node.
struct Flow {
    stream: TcpStream,
    /// The next byte that the server will send.
    sequence: u32,
}

#[test]
fn an_icmp_error_at_another_node_than_the_flows_reaches_the_flows_backend() {
    let mut fleet = Fleet::start();
    for vip in [VIP_V4, VIP_V6] {
        let mut served = Vec::new();
        // From the largest MTU down: a backend keeps the smallest that it was told.
        for mtu in MTUS.rev() {
            let flow = fleet.connect(vip);
            fleet.tell_too_big(vip, &flow, mtu);
            let told = fleet.who_learns(vip, mtu);
            let name = answerer(flow).unwrap_or_else(|error| panic!("{vip}: {error:#}"));
            assert_eq!(told, name, "{vip}: {mtu} reached another backend");
            served.push(name);
        }
        served.sort();
        served.dedup();
        assert!(served.len() > 1, "{vip}: all flows on {served:?}");
    }
    // The connections went through the one node, the errors through the other.
    let errors = u64::from(2 * FLOWS);
    assert_eq!(
        fleet
            .nodes
            .each_ref()
            .map(|node| counted(node, "icmp_error")),
        [0, errors]
    );
    assert_eq!(counted(&fleet.nodes[1], "forwarded"), 0);
    assert!(counted(&fleet.nodes[0], "forwarded") >= errors);
}

impl Fleet {
    fn start() -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, &Plan::default()).unwrap();
        let (second, observer) = topology.second_lb(&lab).unwrap();
        let config = WeirConfig::for_topology(&topology, &[]);
        let other = WeirConfig {
            node: "lb-2".to_owned(),
            encap_source: vec![second.v4, second.v6],
            ..config.clone()
        };
        let nodes = [(&topology.lb, &config), (&second, &other)].map(|(host, config)| {
            Weir::start(&lab, &host.namespace, config).unwrap_or_else(|error| panic!("{error:#}"))
        });
        let client = topology.client.nic.record().unwrap();
        Self {
            nodes,
            second,
            client,
            topology,
            _observer: observer,
            _lab: lab,
        }
    }

    /// Connects to a VIP's web server by the first node.
    fn connect(&mut self, vip: IpAddr) -> Flow {
        let to = Topology::http(vip);
        let stream = self
            .topology
            .client
            .namespace
            .inside(|| TcpStream::connect_timeout(&to, PATIENCE).context("connect"))
            .unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        let port = stream.local_addr().unwrap().port();
        let answer = self
            .client
            .wait_for("the answer to the SYN", PATIENCE, |frame| {
                sequence_of_syn_ack(frame, port).is_some()
            })
            .unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        Flow {
            stream,
            // The SYN takes a number itself.
            sequence: sequence_of_syn_ack(&answer, port).unwrap().wrapping_add(1),
        }
    }

    /// Sends an error to the second node, as a router on the way to the client would: a segment that the server has
    /// sent does not fit. Of the segment it holds the IP header and the first 8 bytes alone.
    fn tell_too_big(&self, vip: IpAddr, flow: &Flow, mtu: u16) {
        let client = &self.topology.client;
        let link = PacketBuilder::ethernet2(
            client.nic.mac_bytes().unwrap(),
            self.second.nic.mac_bytes().unwrap(),
        );
        let to = flow.stream.local_addr().unwrap();
        let mut quoted = Vec::new();
        let mut frame = Vec::new();
        let from = Topology::http(vip).port();
        match (vip, client.address(vip)) {
            (IpAddr::V4(vip), IpAddr::V4(client)) => {
                PacketBuilder::ipv4(vip.octets(), client.octets(), 64)
                    .tcp(from, to.port(), flow.sequence, 65_535)
                    .ack(1)
                    .write(&mut quoted, &[0; 1460])
                    .unwrap();
                let error = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
                link.ipv4(client.octets(), vip.octets(), 64)
                    .icmpv4(Icmpv4Type::DestinationUnreachable(error))
                    .write(&mut frame, &quoted[..20 + 8])
            }
            (IpAddr::V6(vip), IpAddr::V6(client)) => {
                PacketBuilder::ipv6(vip.octets(), client.octets(), 64)
                    .tcp(from, to.port(), flow.sequence, 65_535)
                    .ack(1)
                    .write(&mut quoted, &[0; 1440])
                    .unwrap();
                link.ipv6(client.octets(), vip.octets(), 64)
                    .icmpv6(Icmpv6Type::PacketTooBig { mtu: mtu.into() })
                    .write(&mut frame, &quoted[..40 + 8])
            }
            (vip, client) => panic!("{vip} and {client} are of two families"),
        }
        .unwrap();
        client.nic.send(&frame).unwrap();
    }

    /// Waits until a backend has learned an MTU of the way to the client; returns its name. No other has.
    fn who_learns(&self, vip: IpAddr, mtu: u16) -> String {
        let client = self.topology.client.address(vip);
        let knows = |backend: &Host| -> Result<bool> {
            let way = backend
                .namespace
                .ip(&format!("route get {client} from {vip}"))?;
            let mut words = way.split_whitespace().skip_while(|word| *word != "mtu");
            Ok(words.nth(1) == Some(&mtu.to_string()))
        };
        let mut told = Vec::new();
        let waited = until(&format!("a backend to learn {mtu}"), PATIENCE, || {
            told.clear();
            for backend in &self.topology.backends {
                if knows(backend)? {
                    told.push(backend.namespace.host().to_owned());
                }
            }
            Ok(!told.is_empty())
        });
        waited.unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        assert_eq!(told.len(), 1, "{vip}: {mtu} reached {told:?}");
        told.remove(0)
    }
}

/// The sequence number of a server's answer to a SYN from a port.
fn sequence_of_syn_ack(frame: &[u8], port: u16) -> Option<u32> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.transport? {
        TransportSlice::Tcp(tcp) if tcp.syn() && tcp.ack() && tcp.destination_port() == port => {
            Some(tcp.sequence_number())
        }
        _ => None,
    }
}

/// Asks over a connection, and returns the name of the backend that it leads to.
fn answerer(flow: Flow) -> Result<String> {
    let mut stream = flow.stream;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    let (_, name) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no end of the head: {answer}"))?;
    Ok(name.trim().to_owned())
}

fn counted(node: &Weir, reason: &str) -> u64 {
    let status = node.status().unwrap();
    let counts = status
        .reasons
        .iter()
        .filter(|counted| counted.reason == reason);
    counts.map(|counted| counted.packets).sum()
}
