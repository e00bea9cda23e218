//! Config files for weir, written so that a person can read them.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::topology::{Topology, VIP_V4, VIP_V6};

/// Where metrics are told unless another place is named: on the host's loopback.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9407);

/// What the daemon is to do.
#[derive(Debug, Clone)]
pub struct WeirConfig {
    /// The node's name; its files in the lab's folder are named after it.
    pub node: String,
    /// Interfaces to attach to.
    pub interfaces: Vec<String>,
    /// Where metrics are told.
    pub metrics: SocketAddr,
    /// `keep` or `detach`.
    pub on_exit: &'static str,
    /// How backends are reached: `l2`, `ipip` or `gue`.
    pub forward: &'static str,
    /// Sources of outer headers; none where nothing is encapsulated.
    pub encap_source: Vec<IpAddr>,
    /// What announces the VIPs: their key `announce`, and others that go with it, as text; empty for no such key.
    pub announce: &'static str,
    /// What clients dial.
    pub vips: Vec<Vip>,
    /// Keys of `[node]` that are not above, then other sections, as text.
    pub more: String,
}

/// A virtual service.
#[derive(Debug, Clone)]
pub struct Vip {
    /// Its name in status and metrics.
    pub name: String,
    /// The address that clients dial.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// How long flows are remembered while they move; `None` for what is usual.
    pub flows: Option<FlowTimes>,
    /// The port of every backend that is asked whether it is well; `None` for no checks.
    pub checked: Option<u16>,
    /// Who serves it.
    pub backends: Vec<Backend>,
}

/// How long a VIP's flows are remembered while they move, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct FlowTimes {
    /// How long flows that were not heard of stay with the owner before.
    pub move_window: u32,
    /// How long a flow may be silent.
    pub flow_idle: u32,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One server of a VIP.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its own address.
    pub address: IpAddr,
    /// Its part of the new flows, against the other weights.
    pub weight: u32,
}

impl WeirConfig {
    /// Serves HTTP and UDP echo on both VIPs by all backends of a topology; missing weights are 100.
    #[must_use]
    pub fn for_topology(topology: &Topology, weights: &[u32]) -> Self {
        let vip = |name: &str, address: IpAddr, port: u16, protocol| Vip {
            name: format!("{name}-{}", if address.is_ipv4() { "v4" } else { "v6" }),
            address,
            port,
            protocol,
            flows: None,
            checked: None,
            backends: backends(topology, address, weights),
        };
        let vips = [VIP_V4, VIP_V6].into_iter().flat_map(|address| {
            [
                vip(
                    "web",
                    address,
                    Topology::http(address).port(),
                    Protocol::Tcp,
                ),
                vip(
                    "echo",
                    address,
                    Topology::udp(address).port(),
                    Protocol::Udp,
                ),
            ]
        });
        let mut interfaces = vec!["eth0".to_owned()];
        if topology.far_observer.is_some() {
            interfaces.push("eth1".to_owned());
        }
        Self {
            node: "lb-1".to_owned(),
            interfaces,
            metrics: METRICS,
            on_exit: "keep",
            forward: "l2",
            encap_source: vec![topology.lb.v4, topology.lb.v6],
            announce: "",
            vips: vips.collect(),
            more: String::new(),
        }
    }

    /// Returns the folder of the pins: a node's own, below the lab's bpffs.
    pub(super) fn pin_path(&self, folder: &Path) -> PathBuf {
        folder.join("bpf").join(&self.node)
    }

    /// Returns the socket of the API.
    pub(super) fn socket(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.sock", self.node))
    }

    /// Returns the file of what was commanded.
    fn state_file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.state.json", self.node))
    }

    /// Returns the TOML; the pins, the socket and the state lie in the lab's folder.
    pub(super) fn to_toml(&self, folder: &Path) -> String {
        let mut text = format!(
            "# Written by the lab: weir balances these VIPs in the host `lb`.\n\
             [node]\n\
             name           = {:?}\n\
             interfaces     = {:?}\n\
             xdp_mode       = \"native\"\n\
             seed           = \"lab\"\n\
             # A bpffs of this lab's own, so that labs never meet.\n\
             pin_path       = \"{}\"\n\
             api_socket     = \"{}\"\n\
             state_file     = \"{}\"\n\
             metrics_listen = \"{}\"\n\
             on_exit        = {:?}\n",
            self.node,
            self.interfaces,
            self.pin_path(folder).display(),
            self.socket(folder).display(),
            self.state_file(folder).display(),
            self.metrics,
            self.on_exit,
        );
        if !self.encap_source.is_empty() {
            let sources: Vec<_> = self.encap_source.iter().map(IpAddr::to_string).collect();
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "encap_source   = {sources:?}");
        }
        text.push_str(&self.more);
        for vip in &self.vips {
            vip.write(&mut text, self.forward, self.announce);
        }
        text
    }
}

impl Vip {
    fn write(&self, text: &mut String, forward: &str, announce: &str) {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        // Writing to a String cannot fail.
        let _infallible = write!(
            text,
            "\n[[vip]]\nname     = {:?}\naddress  = \"{}\"\nport     = {}\nprotocol = {protocol:?}\nforward  = {forward:?}\n",
            self.name, self.address, self.port,
        );
        text.push_str(announce);
        if let Some(times) = self.flows {
            let _infallible = write!(
                text,
                "move_window = \"{}s\"\nflow_idle   = \"{}s\"\n",
                times.move_window, times.flow_idle
            );
        }
        if let Some(port) = self.checked {
            // Who refuses a connection fails at once; who is only slow has all the time there is.
            let _infallible = write!(
                text,
                "[vip.health]\ntype     = \"tcp\"\nport     = {port}\ninterval = \"1s\"\ntimeout  = \"1s\"\n\
                 rise     = 1\nfall     = 4\n"
            );
        }
        for backend in &self.backends {
            let _infallible = write!(
                text,
                "[[vip.backend]]\naddress = \"{}\"\nweight  = {}\n",
                backend.address, backend.weight
            );
        }
    }
}

fn backends(topology: &Topology, like: IpAddr, weights: &[u32]) -> Vec<Backend> {
    let weights = weights.iter().copied().chain(std::iter::repeat(100));
    topology
        .backends
        .iter()
        .zip(weights)
        .map(|(host, weight)| Backend {
            address: host.address(like),
            weight,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_the_design_names() {
        let backends = vec![Backend {
            address: "10.77.0.11".parse().unwrap(),
            weight: 200,
        }];
        let vip = Vip {
            name: "web".to_owned(),
            address: VIP_V4,
            port: 80,
            protocol: Protocol::Tcp,
            flows: Some(FlowTimes {
                move_window: 5,
                flow_idle: 10,
            }),
            checked: Some(8080),
            backends,
        };
        let config = WeirConfig {
            node: "lb-2".to_owned(),
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            metrics: METRICS,
            on_exit: "keep",
            forward: "l2",
            encap_source: vec!["10.77.0.1".parse().unwrap()],
            announce: "announce = \"route\"\n",
            vips: vec![vip],
            more: "[announce]\nhold_down = \"1s\"\n".to_owned(),
        };
        let text = config.to_toml(Path::new("/run/lab"));
        for line in [
            "interfaces     = [\"eth0\", \"eth1\"]",
            "name           = \"lb-2\"",
            "pin_path       = \"/run/lab/bpf/lb-2\"",
            "api_socket     = \"/run/lab/lb-2.sock\"",
            "address  = \"203.0.113.10\"",
            "protocol = \"tcp\"",
            "announce = \"route\"",
            "hold_down = \"1s\"",
            "move_window = \"5s\"",
            "[vip.health]",
            "[[vip.backend]]",
            "weight  = 200",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
