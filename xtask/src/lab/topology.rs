//! The usual lab: a client, a switch, a load balancer and backends that hold the VIP.
//!
//! ```text
//!   client ──┐                  ┌── backend-1     203.0.113.10 and 2001:db8::10 on lo
//!            ├── switch (br0) ──┼── backend-2
//!   lb ──────┘                  └── backend-3
//! ```
//!
//! The client routes the VIPs to the load balancer; backends answer the client across the bridge. With far
//! backends there is a second segment (br1), to which the load balancer and the client have an `eth1`. With
//! routed backends there is a third (br2), behind a router.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    Lab, exec,
    namespace::Namespace,
    observer::Observer,
    process::Process,
    segment::{Nic, Segment},
    wait,
};
use crate::workspace;

/// The IPv4 address that clients dial.
pub const VIP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10));
/// The IPv6 address that clients dial.
pub const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));
/// Where backends serve HTTP.
const HTTP: u16 = 80;
/// Where backends echo UDP.
const UDP: u16 = 9000;
/// Where backends echo lines over long-lived connections.
const LASTING: u16 = 7000;
/// Where backends answer health checks, apart from what they serve.
const CHECKED: u16 = 8080;
/// Host numbers on a segment.
const LB: u8 = 1;
const CLIENT: u8 = 2;
pub(super) const ROUTER: u8 = 3;
const SECOND_LB: u8 = 4;
const FIRST_BACKEND: u8 = 11;
/// Number of the segment behind the router.
const ROUTED: u8 = 2;

/// How many backends to make, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Backends on the load balancer's own segment.
    pub near: u8,
    /// Backends on a second segment, behind another interface of the load balancer.
    pub far: u8,
    /// Backends on a third segment, behind a router that is on the load balancer's own.
    pub routed: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            near: 3,
            far: 0,
            routed: 0,
        }
    }
}

/// A host with its first interface.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its interface on the segment.
    pub nic: Nic,
    /// Its IPv4 address there.
    pub v4: IpAddr,
    /// Its IPv6 address there.
    pub v6: IpAddr,
}

impl Host {
    /// The MAC address that it knows for a neighbour on its segment, without asking anybody; `None` where it knows none.
    pub fn knows(&self, neighbour: IpAddr) -> Result<Option<[u8; 6]>> {
        let words = format!("-j neigh show {neighbour} dev eth0");
        let all: serde_json::Value = serde_json::from_str(&self.namespace.ip(&words)?)?;
        let Some(text) = all.pointer("/0/lladdr").and_then(|found| found.as_str()) else {
            return Ok(None);
        };
        let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
        Ok(bytes.try_into().ok())
    }

    /// Lets it reach an address on its segment, and keep what it knows of its place until it is told otherwise.
    pub fn reach_on_segment(&self, address: IpAddr) -> Result<()> {
        self.namespace
            .ip(&format!("route replace {address} dev eth0"))?;
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let key = format!("net/{family}/neigh/eth0/base_reachable_time_ms");
        self.namespace.sysctl(&key, "600000")?;
        Ok(())
    }
}

/// The whole lab, ready for a load balancer.
#[derive(Debug)]
pub struct Topology {
    /// The load balancer's own segment.
    pub segment: Segment,
    /// Who dials the VIPs.
    pub client: Host,
    /// Where weir is to run; its far cable end runs the observer.
    pub lb: Host,
    /// Who serves; far backends come last.
    pub backends: Vec<Host>,
    /// Counts what the load balancer sends, by source address; watches the VIPs and the client.
    pub observer: Observer,
    /// The same for the load balancer's second interface, `eth1`, if there is one.
    pub far_observer: Option<Observer>,
    /// The backends' server processes.
    pub servers: Vec<Process>,
}

impl Topology {
    /// Makes the hosts, wires them, and waits until every backend serves.
    pub fn build(lab: &Lab, plan: &Plan) -> Result<Self> {
        let switch = lab.namespace("switch")?;
        let near = Segment::create(&switch, "br0")?;
        let client = host(lab, &near, "client", 0, CLIENT)?;
        let lb = host(lab, &near, "lb", 0, LB)?;
        let mut observer = lb.nic.observe()?;
        watch(&mut observer, &client)?;
        for (vip, via) in [(VIP_V4, lb.v4), (VIP_V6, lb.v6)] {
            client
                .namespace
                .ip(&format!("route add {vip} via {via} dev eth0"))?;
        }

        let mut backends = Vec::new();
        for number in 0..plan.near {
            backends.push(backend(lab, &near, number, 0)?);
        }
        let mut far_observer = None;
        if plan.far > 0 {
            let far = Segment::create(&switch, "br1")?;
            far.plug(&client.namespace, "eth1", &addresses(1, CLIENT))?;
            let mut observer = far
                .plug(&lb.namespace, "eth1", &addresses(1, LB))?
                .observe()?;
            watch(&mut observer, &client)?;
            far_observer = Some(observer);
            for number in plan.near..plan.near + plan.far {
                let backend = backend(lab, &far, number, 1)?;
                // The way to the client's address is the client's own foot in this segment.
                for (to, via) in [(client.v4, v4(1, CLIENT)), (client.v6, v6(1, CLIENT))] {
                    backend
                        .namespace
                        .ip(&format!("route add {to} via {via} dev eth0"))?;
                }
                backends.push(backend);
            }
        }
        if plan.routed > 0 {
            let router = router(lab, &near, &lb)?;
            let behind = Segment::create(&switch, "br2")?;
            behind.plug(&router, "eth1", &addresses(ROUTED, LB))?;
            for number in plan.near + plan.far..plan.near + plan.far + plan.routed {
                let backend = backend(lab, &behind, number, ROUTED)?;
                for via in [v4(ROUTED, LB), v6(ROUTED, LB)] {
                    backend
                        .namespace
                        .ip(&format!("route add default via {via} dev eth0"))?;
                }
                backends.push(backend);
            }
        }
        let servers = backends.iter().map(serve).collect::<Result<_>>()?;
        backends.iter().try_for_each(serves)?;
        Ok(Self {
            segment: near,
            client,
            lb,
            backends,
            observer,
            far_observer,
            servers,
        })
    }

    /// Makes another node of the fleet, `lb-2`, on the load balancer's own segment. Its observer must live as long.
    pub fn second_lb(&self, lab: &Lab) -> Result<(Host, Observer)> {
        self.another_lb(lab, 1)
    }

    /// The same of the one that comes so many after the first, four at most.
    pub fn another_lb(&self, lab: &Lab, after: u8) -> Result<(Host, Observer)> {
        let name = format!("lb-{}", after + 1);
        let lb = self.another_host(lab, &name, SECOND_LB + after - 1)?;
        let observer = lb.nic.observe()?;
        Ok((lb, observer))
    }

    /// Makes another host on the load balancer's own segment, by its number there.
    pub fn another_host(&self, lab: &Lab, name: &str, number: u8) -> Result<Host> {
        host(lab, &self.segment, name, 0, number)
    }

    /// Returns the backends' names in order, as their servers give them.
    #[must_use]
    pub fn backend_names(&self) -> Vec<String> {
        self.backends
            .iter()
            .map(|backend| backend.namespace.host().to_owned())
            .collect()
    }

    /// Returns where a VIP serves HTTP.
    #[must_use]
    pub fn http(vip: IpAddr) -> SocketAddr {
        (vip, HTTP).into()
    }

    /// Returns where a VIP echoes lines over long-lived connections.
    #[must_use]
    pub fn lasting(vip: IpAddr) -> SocketAddr {
        (vip, LASTING).into()
    }

    /// Starts what answers a backend's health checks: another process than its server, so that one can end without the other.
    pub fn answer_checks(backend: &Host) -> Result<Process> {
        let name = format!("{}-checked", backend.namespace.host());
        let mut command = backend.namespace.command(workspace::xtask_binary()?);
        command.args(["lab-serve", "--name", &name, "--lasting", "[::]:0"]);
        command.args(["--http", &format!("[::]:{CHECKED}")]);
        Process::start(&backend.namespace, &name, &mut command)
    }

    /// Returns the port where backends answer health checks.
    #[must_use]
    pub const fn checked() -> u16 {
        CHECKED
    }

    /// Returns where a VIP echoes UDP.
    #[must_use]
    pub fn udp(vip: IpAddr) -> SocketAddr {
        (vip, UDP).into()
    }

    /// Attaches `weir decap` on a backend's interface, for tunnels from the load balancer; pins go to `pins`.
    pub fn decapsulate(&self, backend: &Host, pins: &Path) -> Result<()> {
        let from = [self.lb.v4, self.lb.v6];
        Self::decapsulate_from(&from, (backend, "eth0"), pins)
    }

    /// The same on any interface of a host, for tunnels from other addresses.
    pub fn decapsulate_from(
        from: &[IpAddr],
        (host, interface): (&Host, &str),
        pins: &Path,
    ) -> Result<()> {
        let mut command = host.namespace.command(workspace::weir_binary()?);
        command.args(["decap", "attach", "--interface", interface]);
        for address in from {
            command.args(["--from", &address.to_string()]);
        }
        exec::run(command.arg("--pin-path").arg(pins)).map(drop)
    }

    /// Returns how many frames the load balancer has sent, by any interface, from a VIP or from the client.
    pub fn sent_by_lb(&self, source: IpAddr) -> Result<u64> {
        let far = self
            .far_observer
            .as_ref()
            .map_or(Ok(0), |observer| observer.seen(source))?;
        Ok(self.observer.seen(source)? + far)
    }
}

impl Host {
    /// Returns the host's address in the family of `like`.
    #[must_use]
    pub fn address(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() { self.v4 } else { self.v6 }
    }
}

pub(super) fn v4(segment: u8, number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, segment, number).into()
}

fn v6(segment: u8, number: u8) -> IpAddr {
    Ipv6Addr::new(0xfd77, 0, 0, u16::from(segment), 0, 0, 0, u16::from(number)).into()
}

pub(super) fn addresses(segment: u8, number: u8) -> [String; 2] {
    [
        format!("{}/24", v4(segment, number)),
        format!("{}/64", v6(segment, number)),
    ]
}

fn host(lab: &Lab, on: &Segment, name: &str, segment: u8, number: u8) -> Result<Host> {
    let namespace = lab.namespace(name)?;
    let nic = on.plug(&namespace, "eth0", &addresses(segment, number))?;
    Ok(Host {
        namespace,
        nic,
        v4: v4(segment, number),
        v6: v6(segment, number),
    })
}

/// Makes a router on the load balancer's segment, and tells the load balancer the way through it.
fn router(lab: &Lab, near: &Segment, lb: &Host) -> Result<Namespace> {
    let router = lab.namespace("router")?;
    near.plug(&router, "eth0", &addresses(0, ROUTER))?;
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        router.sysctl(key, "1")?;
    }
    for (to, via) in [
        (format!("{}/24", v4(ROUTED, 0)), v4(0, ROUTER)),
        (format!("{}/64", v6(ROUTED, 0)), v6(0, ROUTER)),
    ] {
        lb.namespace
            .ip(&format!("route add {to} via {via} dev eth0"))?;
    }
    Ok(router)
}

/// Makes a host that holds the VIPs and does not say so to the segment.
fn backend(lab: &Lab, on: &Segment, number: u8, segment: u8) -> Result<Host> {
    let backend = host(
        lab,
        on,
        &format!("backend-{}", number + 1),
        segment,
        FIRST_BACKEND + number,
    )?;
    backend
        .namespace
        .sysctl("net/ipv4/conf/all/arp_ignore", "1")?;
    backend
        .namespace
        .sysctl("net/ipv4/conf/all/arp_announce", "2")?;
    backend
        .namespace
        .ip(&format!("address add {VIP_V4}/32 dev lo"))?;
    backend
        .namespace
        .ip(&format!("address add {VIP_V6}/128 dev lo nodad"))?;
    Ok(backend)
}

fn watch(observer: &mut Observer, client: &Host) -> Result<()> {
    [VIP_V4, VIP_V6, client.v4, client.v6]
        .into_iter()
        .try_for_each(|source| observer.watch(source))
}

fn serve(backend: &Host) -> Result<Process> {
    let name = backend.namespace.host();
    let mut command = backend.namespace.command(workspace::xtask_binary()?);
    command.args(["lab-serve", "--name", name]);
    for vip in [VIP_V4, VIP_V6] {
        command.args(["--udp", &Topology::udp(vip).to_string()]);
    }
    Process::start(&backend.namespace, name, &mut command)
}

/// Waits until a backend accepts connections on the VIP.
fn serves(backend: &Host) -> Result<()> {
    backend.namespace.inside(|| {
        let what = format!("{} to serve", backend.namespace.host());
        wait::eventually(&what, Duration::from_secs(10), || {
            TcpStream::connect(Topology::http(VIP_V4))
                .map(drop)
                .context("connect")
        })
    })
}
