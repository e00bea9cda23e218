//! `weir decap` end to end: tunnel packets of every kind to a backend, whose kernel answers from the VIP.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, ipproto, sendto, socket};
use serde_json::Value;
use xtask::{
    lab::{Host, Lab, Plan, Topology, VIP_V4, VIP_V6, eventually},
    workspace,
};

const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(300);
const GUE_PORT: u16 = 6080;

struct Run {
    topology: Topology,
    pin_path: PathBuf,
    _lab: Lab,
}

#[derive(Clone, Copy, Debug)]
enum Tunnel {
    Ipip,
    Gue,
}

impl Run {
    fn start() -> Self {
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
        Self {
            topology,
            pin_path: lab.bpffs().join("decap"),
            _lab: lab,
        }
    }

    fn backend(&self) -> &Host {
        &self.topology.backends[0]
    }

    /// Runs `weir decap` on the backend.
    fn decap(&self, arguments: &str) -> Result<String> {
        let pin_path = self.pin_path.to_string_lossy().into_owned();
        let arguments = ["decap"]
            .into_iter()
            .chain(arguments.split_whitespace())
            .chain(["--pin-path", &pin_path]);
        let weir = workspace::weir_binary()?;
        self.backend()
            .namespace
            .run(&weir.to_string_lossy(), arguments)
    }

    /// How many packets were counted under a reason.
    fn counted(&self, reason: &str) -> u64 {
        let status: Value = serde_json::from_str(&self.decap("status -o json").unwrap()).unwrap();
        let interface = &status["interfaces"][0];
        assert_eq!(
            (&interface["name"], &interface["mode"]),
            (&"eth0".into(), &"native".into())
        );
        let reasons = interface["reasons"].as_array().unwrap();
        let of = reasons.iter().find(|entry| entry["reason"] == reason);
        of.unwrap()["packets"].as_u64().unwrap()
    }

    /// Sends a query to a VIP through a tunnel, and returns the echo that came from the VIP itself.
    fn ask(&self, from: &Host, tunnel: Tunnel, outer_v6: bool, vip: IpAddr) -> Result<String> {
        let like = if outer_v6 { VIP_V6 } else { VIP_V4 };
        let backend = self.backend().address(like);
        let own = from.address(vip);
        from.namespace.inside(|| {
            let client = UdpSocket::bind((own, 0))?;
            let packet = query(client.local_addr()?, Topology::udp(vip))?;
            send(tunnel, backend, &packet)?;
            client.set_read_timeout(Some(SILENCE))?;
            let mut buffer = [0; 100];
            let (len, from) = client.recv_from(&mut buffer).context("wait for the echo")?;
            ensure!(from == Topology::udp(vip), "answered by {from}");
            Ok(String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned())
        })
    }
}

/// The inner packet.
fn query(from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 60),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 60),
        _ => anyhow::bail!("two families"),
    };
    let mut packet = Vec::new();
    builder
        .udp(from.port(), to.port())
        .write(&mut packet, b"hello")?;
    Ok(packet)
}

/// Sends a packet in another one, whose header the kernel writes.
fn send(tunnel: Tunnel, to: IpAddr, packet: &[u8]) -> Result<()> {
    let sent = match tunnel {
        Tunnel::Gue => {
            let any: IpAddr = if to.is_ipv4() {
                "0.0.0.0".parse()?
            } else {
                "::".parse()?
            };
            UdpSocket::bind((any, 0))?.send_to(packet, (to, GUE_PORT))?
        }
        Tunnel::Ipip => {
            let family = if to.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
            let protocol: Protocol = if is_v6 { ipproto::IPV6 } else { ipproto::IPIP };
            let socket = socket(family, SocketType::RAW, Some(protocol))?;
            sendto(&socket, packet, SendFlags::empty(), &SocketAddr::new(to, 0))?
        }
    };
    ensure!(
        sent == packet.len(),
        "sent {sent} of {} bytes",
        packet.len()
    );
    Ok(())
}

/// A datagram from host to host, with no tunnel.
fn plain_udp(from: &Host, to: &Host) -> Result<()> {
    let bind = |host: &Host| {
        let address = host.v4;
        host.namespace
            .inside(|| Ok(UdpSocket::bind((address, 7000))?))
    };
    let (sender, receiver) = (bind(from)?, bind(to)?);
    receiver.set_read_timeout(Some(PATIENCE))?;
    sender.send_to(b"plain", receiver.local_addr()?)?;
    ensure!(receiver.recv(&mut [0; 100])? == 5, "another length");
    Ok(())
}

#[test]
fn a_backend_answers_what_came_through_any_tunnel() {
    let run = Run::start();
    let client = &run.topology.client;
    let kinds = || {
        [Tunnel::Ipip, Tunnel::Gue].into_iter().flat_map(|tunnel| {
            [false, true]
                .into_iter()
                .flat_map(move |outer_v6| [VIP_V4, VIP_V6].map(|vip| (tunnel, outer_v6, vip)))
        })
    };
    for (tunnel, outer_v6, vip) in kinds() {
        run.ask(client, tunnel, outer_v6, vip).unwrap_err();
    }

    let from = format!("--from {} --from {}", client.v4, client.v6);
    run.decap(&format!("attach --interface eth0 --xdp-mode native {from}"))
        .unwrap();
    for (tunnel, outer_v6, vip) in kinds() {
        // Neighbours are resolved meanwhile.
        eventually("an echo", PATIENCE, || {
            let echo = run.ask(client, tunnel, outer_v6, vip)?;
            ensure!(echo == "backend-1 hello", "{tunnel:?} to {vip}: {echo}");
            Ok(())
        })
        .unwrap();
    }
    assert!(run.counted("ipip") >= 4 && run.counted("gue") >= 4);
    assert_eq!(run.counted("foreign_source"), 0);

    // The load balancer's host is not on the list.
    let lb = &run.topology.lb;
    for (tunnel, outer_v6, vip) in kinds() {
        run.ask(lb, tunnel, outer_v6, vip).unwrap_err();
    }
    assert_eq!(run.counted("foreign_source"), 8);
    // What is no tunnel goes on.
    plain_udp(lb, run.backend()).unwrap();

    // New settings through the same link, and counters go on.
    let from = format!("--from {} --from {} --vip {VIP_V4}", lb.v4, lb.v6);
    run.decap(&format!("attach --interface eth0 {from}"))
        .unwrap();
    let asked = run.ask(lb, Tunnel::Ipip, false, VIP_V4).unwrap();
    assert_eq!(asked, "backend-1 hello");
    run.ask(lb, Tunnel::Gue, true, VIP_V6).unwrap_err();
    run.ask(client, Tunnel::Gue, false, VIP_V4).unwrap_err();
    assert_eq!(
        (run.counted("not_vip"), run.counted("foreign_source")),
        (1, 9)
    );

    run.decap("detach").unwrap();
    // The kernel takes the program off a moment after its last pin has gone.
    eventually("the program to be off", PATIENCE, || {
        let asked = run.ask(lb, Tunnel::Ipip, false, VIP_V4);
        ensure!(asked.is_err(), "{asked:?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    // Degraded: nothing is attached.
    run.decap("status").unwrap_err();
    assert!(!run.pin_path.exists(), "the pins are gone");
}
