//! Every way to a backend, end to end: l2, ipip and gue, near and behind a router, with path MTU, ping,
//! traceroute and fragments, between real kernels.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, SocketType, connect, ipproto, recv, send, socket,
    sockopt::{Ipv4PathMtuDiscovery, Timeout, set_ip_mtu_discover, set_socket_timeout},
};
use xtask::{
    lab::{Lab, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, until},
    traffic::{client, udp},
};

const PATIENCE: Duration = Duration::from_secs(10);
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// How the backends of a VIP are addressed.
#[derive(Clone, Copy)]
enum Outer {
    /// In the VIP's own family.
    Same,
    /// All by IPv4, or all by IPv6.
    V4,
    V6,
}

/// A lab in which weir balances.
struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    topology: Topology,
    _lab: Lab,
}

impl Run {
    fn start(plan: &Plan, forward: &'static str, outer: Outer) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, plan).unwrap();
        let mut config = WeirConfig::for_topology(&topology, &[]);
        config.forward = forward;
        for vip in &mut config.vips {
            for (backend, host) in vip.backends.iter_mut().zip(&topology.backends) {
                backend.address = match outer {
                    Outer::Same => host.address(vip.address),
                    Outer::V4 => host.v4,
                    Outer::V6 => host.v6,
                };
            }
        }
        // IPv6 VIPs have no IPv4 way in IP in IP.
        if forward == "ipip" && matches!(outer, Outer::V4) {
            config.vips.retain(|vip| vip.address.is_ipv4());
        }
        if forward != "l2" {
            for backend in &topology.backends {
                let name = backend.namespace.host();
                let pins = lab.bpffs().join(format!("decap-{name}"));
                topology
                    .decapsulate(backend, &pins)
                    .unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
        }
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            _lab: lab,
        }
    }

    /// Asserts that requests are answered by every backend, and that no answer passes the load balancer.
    fn assert_serves(&self, vip: IpAddr) {
        let options = client::Options::new(Topology::http(vip), 200);
        let client = &self.topology.client.namespace;
        let summary = client.inside(|| client::fetch(&options)).unwrap();
        assert_eq!(
            (summary.failed, summary.answered()),
            (0, 200),
            "{vip}: {:?}",
            summary.errors
        );
        let names: Vec<_> = summary.by_backend.keys().cloned().collect();
        assert_eq!(names, self.topology.backend_names(), "{vip}");
        let echoes = client.inside(|| udp::echoes(Topology::udp(vip), 50));
        assert_eq!(
            echoes
                .unwrap_or_else(|error| panic!("{vip}: {error:#}"))
                .values()
                .sum::<u32>(),
            50
        );
        assert_eq!(
            self.topology.sent_by_lb(vip).unwrap(),
            0,
            "answers from {vip} passed the load balancer"
        );
    }

    fn counted(&self, reason: &str) -> u64 {
        let status = self.weir.status().unwrap();
        let counts = status
            .reasons
            .iter()
            .filter(|counted| counted.reason == reason);
        counts.map(|counted| counted.packets).sum()
    }
}

/// Two backends on the load balancer's segment and two behind a router.
const MIXED: Plan = Plan {
    near: 2,
    far: 0,
    routed: 2,
};

#[test]
fn ipip_reaches_backends_near_and_behind_a_router_in_their_own_family() {
    let run = Run::start(&MIXED, "ipip", Outer::Same);
    for vip in VIPS {
        run.assert_serves(vip);
    }
}

#[test]
fn ipip_carries_ipv4_in_ipv6() {
    let mut plan = MIXED;
    plan.near = 1;
    let run = Run::start(&plan, "ipip", Outer::V6);
    run.assert_serves(VIP_V4);
}

#[test]
fn gue_reaches_backends_near_and_behind_a_router() {
    let run = Run::start(&MIXED, "gue", Outer::Same);
    for vip in VIPS {
        run.assert_serves(vip);
    }
}

#[test]
fn gue_carries_any_family_over_any() {
    for outer in [Outer::V4, Outer::V6] {
        let run = Run::start(
            &Plan {
                near: 1,
                far: 0,
                routed: 1,
            },
            "gue",
            outer,
        );
        for vip in VIPS {
            run.assert_serves(vip);
        }
    }
}

/// With an MTU of 1,500 everywhere, full segments do not fit into a tunnel: the client must learn so.
#[test]
fn an_upload_through_a_tunnel_finds_its_mtu() {
    const SIZE: usize = 1_000_000;
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        "ipip",
        Outer::Same,
    );
    for vip in VIPS {
        let address = SocketAddr::new(vip, 80);
        // The HTTP server has the port already; the VIP's other port would be another VIP. So an upload to it:
        // a request with a body, which the server reads before it answers.
        let got = run
            .topology
            .client
            .namespace
            .inside(|| upload(address, SIZE))
            .unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        assert!(got.starts_with("HTTP/1.1 "), "{got}");
    }
    assert!(
        run.counted("too_big_answered") >= 2,
        "no packet was too big: the test proves nothing"
    );
}

fn upload(to: SocketAddr, size: usize) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /upload HTTP/1.1\r\nHost: vip\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    )?;
    stream
        .write_all(&vec![b'x'; size])
        .context("write the body")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("read the answer")?;
    Ok(answer)
}

#[test]
fn udp_with_df_is_told_the_mtu_and_then_fits() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        "ipip",
        Outer::Same,
    );
    let told = run.topology.client.namespace.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(Topology::udp(VIP_V4))?;
        // 1,472 bytes fill a packet of 1,500, which does not fit into the tunnel's 1,480.
        socket.send(&[b'x'; 1472])?;
        let is_told = || {
            Ok(socket
                .send(&[b'x'; 1472])
                .is_err_and(|error| error.raw_os_error() == Some(EMSGSIZE)))
        };
        until("the client to learn the MTU", PATIENCE, is_told)?;
        socket.send(&[b'x'; 1452]).context("send what fits")?;
        let mut buffer = [0; 2048];
        socket.recv(&mut buffer).context("wait for the echo")
    });
    assert!(told.unwrap_or_else(|error| panic!("{error:#}")) >= 1452);
}

/// `EMSGSIZE` of asm-generic/errno.h.
const EMSGSIZE: i32 = 90;

#[test]
fn a_fragmented_query_of_4000_bytes_is_answered() {
    let run = Run::start(
        &Plan {
            near: 3,
            far: 0,
            routed: 0,
        },
        "l2",
        Outer::Same,
    );
    for vip in VIPS {
        let answered = run.topology.client.namespace.inside(|| {
            let any: SocketAddr = if vip.is_ipv4() {
                "0.0.0.0:0".parse()?
            } else {
                "[::]:0".parse()?
            };
            for _ in 0..20 {
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                socket.connect(Topology::udp(vip))?;
                socket.send(&[b'x'; 4000])?;
                let mut buffer = [0; 8192];
                let len = socket.recv(&mut buffer).context("wait for the echo")?;
                ensure!(len > 4000, "{len} bytes came back");
            }
            Ok(())
        });
        answered.unwrap_or_else(|error| panic!("{vip}: {error:#}"));
    }
    assert_eq!(run.counted("fragment_orphan"), 0);
}

#[test]
fn vips_answer_ping() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        "l2",
        Outer::Same,
    );
    let client = &run.topology.client.namespace;
    client
        .sysctl("net/ipv4/ping_group_range", "0 2147483647")
        .unwrap();
    for vip in VIPS {
        let answer = client
            .inside(|| ping(vip))
            .unwrap_or_else(|error| panic!("{vip}: {error:#}"));
        assert_eq!(answer, b"are you there?", "{vip}");
    }
    assert_eq!(run.counted("echo"), 2);
}

/// Sends an echo request by a ping socket; the kernel fills in identifier and checksum, and checks the reply's.
fn ping(to: IpAddr) -> Result<Vec<u8>> {
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8u8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let socket = socket(family, SocketType::DGRAM, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(2)))?;
    connect(&socket, &SocketAddr::new(to, 0))?;
    let mut request = vec![kind, 0, 0, 0, 0, 0, 0, 1];
    request.extend_from_slice(b"are you there?");
    send(&socket, &request, rustix::net::SendFlags::empty())?;
    let mut reply = [0; 256];
    let (len, _) =
        recv(&socket, &mut reply, rustix::net::RecvFlags::empty()).context("wait for the reply")?;
    Ok(reply.get(8..len).unwrap_or_default().to_vec())
}

/// traceroute ends when a probe to a high port comes back as "port unreachable".
#[test]
fn traceroute_to_a_vip_ends() {
    let run = Run::start(
        &Plan {
            near: 1,
            far: 0,
            routed: 0,
        },
        "l2",
        Outer::Same,
    );
    for vip in VIPS {
        let refused = run.topology.client.namespace.inside(|| {
            let any: SocketAddr = if vip.is_ipv4() {
                "0.0.0.0:0".parse()?
            } else {
                "[::]:0".parse()?
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_ttl(1)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            socket.connect(SocketAddr::new(vip, 33434))?;
            socket.send(&[0; 32])?;
            let mut buffer = [0; 16];
            Ok(socket.recv(&mut buffer).err().map(|error| error.kind()))
        });
        assert_eq!(
            refused.unwrap(),
            Some(std::io::ErrorKind::ConnectionRefused),
            "{vip}"
        );
    }
    assert_eq!(run.counted("traceroute_answered"), 2);
}
