//! What the operator wants: `weir.toml`, validated.
//!
//! A [`Config`] that exists is valid: every rule is checked while it is loaded, all findings are reported
//! at once, each with file, line, key, what was found and what is wanted ([`error`]).

mod address;
mod announce;
mod backend;
mod control;
mod duration;
mod encap;
mod endpoint;
pub mod error;
mod fleet;
mod flows;
pub mod health;
mod host;
mod keys;
mod kubernetes;
mod limits;
pub mod list_file;
mod lists;
mod load;
mod node;
mod prefix;
mod redis;
mod reload;
mod section;
mod single;
mod source;
mod vip;

pub(crate) use address::{unfit_for_backend, unfit_for_vip};
pub use encap::DEFAULT_GUE_PORT;
pub use endpoint::{Endpoint, Sentinel, Wrong};
pub use error::{Errors, Finding};
pub use health::{Health, Times};
pub use limits::LONGEST_FRAME;
pub use lists::{Entry, List, Lists};
pub use load::{
    DEFAULT_API_SOCKET, DEFAULT_PIN_PATH, DEFAULT_STATE_FILE, Paths, Scope, Summary, check, paths,
};
pub use prefix::{NotAPrefix, Prefix};
pub use single::Reader;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// A whole configuration file.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of this node.
    pub node: Node,
    /// Who may send to any VIP, as far as the VIP's own lists do not tell.
    pub access: Lists,
    /// Where the fleet's limits are shared, and its nodes hear of each other, if anywhere.
    pub redis: Option<Redis>,
    /// The other nodes, where there is no Redis.
    pub fleet: Fleet,
    /// Whose Services are served besides the file's VIPs, if anybody's.
    pub kubernetes: Option<Kubernetes>,
    /// How routes for VIPs are published.
    pub announce: Announcing,
    /// The VIPs that it serves, in the file's order.
    pub vips: Vec<Vip>,
}

impl Config {
    /// The access lists of all VIPs (`None`), then those of each VIP.
    pub fn lists(&self) -> impl Iterator<Item = (Option<&Vip>, &Lists)> {
        let own = self.vips.iter().map(|vip| (Some(vip), &vip.access));
        std::iter::once((None, &self.access)).chain(own)
    }
}

/// `[node]`: settings of this node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node's name; by default the host's.
    pub name: String,
    /// The interfaces that packets come by, at least one.
    pub interfaces: Vec<String>,
    /// How the program is attached.
    pub xdp_mode: XdpMode,
    /// The secret that the flow hash is derived from; the same across a fleet.
    pub seed: Secret,
    /// Directory of the pinned maps, programs and links, on a bpffs.
    pub pin_path: PathBuf,
    /// The Unix socket of the API.
    pub api_socket: PathBuf,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics_listen: SocketAddr,
    /// What SIGTERM does to the data plane.
    pub on_exit: OnExit,
    /// Source addresses of outer headers.
    pub encap_source: EncapSource,
    /// UDP port that backends take GUE on.
    pub gue_port: u16,
    /// Other nodes of the fleet on this node's segments: what they send here is not balanced again.
    pub peers: BTreeSet<IpAddr>,
    /// How many flows are remembered at most, in each of three maps, while slots change hands.
    pub max_pins: u32,
    /// How many sources are remembered at most, of VIPs that limit them.
    pub max_sources: u32,
    /// Where commands made through the API are kept.
    pub state_file: PathBuf,
    /// Who may read through the API, besides root; the group of the API's socket.
    pub api_group: Option<Group>,
    /// Who may change things through the API, besides root.
    pub api_admin_group: Option<Group>,
}

/// `[redis]`: where the nodes of a fleet share the limits that are to hold for all of them together, and tell each other
/// which tables they have.
#[derive(Clone, Debug)]
pub struct Redis {
    /// The URL as it was given.
    pub url: Secret,
    /// The URL as it was understood.
    pub endpoint: Endpoint,
    /// The fleet's name: nodes of one name share their limits.
    pub fleet: String,
    /// From one request to the next.
    pub period: Duration,
    /// How long an answer may take, at most the period.
    pub timeout: Duration,
}

impl Eq for Redis {}

impl PartialEq for Redis {
    fn eq(&self, other: &Self) -> bool {
        // The endpoint is what the URL says.
        let of = |redis: &Self| (redis.fleet.clone(), redis.period, redis.timeout);
        self.url == other.url && of(self) == of(other)
    }
}

/// `[fleet]`: which other nodes this one compares its tables with (docs/fleet.md).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fleet {
    /// Where the other nodes serve their metrics; this node's own address may be among them. Empty where there is
    /// `[redis]`.
    pub peers: BTreeSet<SocketAddr>,
}

/// `[kubernetes]`: the cluster whose Services of type `LoadBalancer` are served (docs/kubernetes.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kubernetes {
    /// The `loadBalancerClass` of the Services that are weir's.
    pub class: String,
    /// Whether Services without a class are weir's too.
    pub is_classless: bool,
    /// How the API server is reached; by default as within a pod.
    pub kubeconfig: Option<PathBuf>,
    /// This node's name in the cluster: who holds a Lease.
    pub node: String,
    /// Where the Lease is; by default in the pod's own namespace.
    pub namespace: Option<String>,
    /// The Lease of the node that writes statuses and Events.
    pub lease: String,
    /// How packets reach the cluster's nodes, where a Service does not say.
    pub forward: ForwardMode,
    /// How lookup tables are made, where a Service does not say.
    pub table: TableAlgorithm,
    /// How the network learns where the Services' addresses are.
    pub announce: Announce,
    /// How the cluster's nodes are checked.
    pub health: NodeHealth,
}

/// `[kubernetes.health]`: how the nodes that serve Services are checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NodeHealth {
    /// How often, and how many in a row.
    pub times: Times,
    /// Where kube-proxy answers for the node as a whole. Services without a `healthCheckNodePort` are checked there;
    /// where there is none, they are not checked.
    pub proxy_port: Option<u16>,
}

impl fmt::Display for NodeHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times {
            interval,
            timeout,
            rise,
            fall,
        } = self.times;
        let text = |time| humantime::format_duration(time);
        let (interval, timeout) = (text(interval), text(timeout));
        write!(
            f,
            "every {interval} within {timeout}, rise {rise}, fall {fall}"
        )?;
        match self.proxy_port {
            Some(port) => write!(f, ", proxy_port {port}"),
            None => Ok(()),
        }
    }
}

/// `[announce]`: how this node tells the network of its VIPs (docs/fleet.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcing {
    /// The routing table of the kernel that VIPs with `announce = "route"` are published in.
    pub table: u32,
    /// The routing protocol's number that marks weir's routes.
    pub protocol: u8,
    /// How long an address that was withdrawn stays so at least.
    pub hold_down: Duration,
    /// How long routes outlive a daemon that is gone, while its program is attached; `None` for ever.
    pub dead_daemon_hold: Option<Duration>,
    /// How long a daemon that is told to end forwards on after it has withdrawn its addresses; `None` where they stay.
    pub withdraw_delay: Option<Duration>,
}

/// A group of this host's users.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
}

impl Group {
    /// A number that no group has: that of a name that was not looked up.
    pub const NOBODY: u32 = u32::MAX;
}

/// `encap_source`: this node's own addresses, from which it sends encapsulated packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct EncapSource {
    /// Toward IPv4 backends.
    pub v4: Option<Ipv4Addr>,
    /// Toward IPv6 backends.
    pub v6: Option<Ipv6Addr>,
}

impl EncapSource {
    /// The address of a backend's family.
    #[must_use]
    pub fn toward(&self, backend: IpAddr) -> Option<IpAddr> {
        if backend.is_ipv4() {
            self.v4.map(IpAddr::V4)
        } else {
            self.v6.map(IpAddr::V6)
        }
    }
}

/// `xdp_mode`: how the program is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdpMode {
    /// Native where the driver can, else generic, said aloud.
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's generic path: any interface, slower.
    Generic,
}

impl XdpMode {
    /// Name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// `on_exit`: what SIGTERM does to the data plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnExit {
    /// The program goes on forwarding.
    Keep,
    /// The program is taken off and every pin removed.
    Detach,
}

/// A value that is never printed, logged or serialised.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself: for deriving keys, never for output.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// `[[vip]]`: an address, port and protocol that clients dial.
#[derive(Clone, Debug)]
pub struct Vip {
    /// Unique name.
    pub name: String,
    /// The address that clients dial.
    pub address: IpAddr,
    /// The port that clients dial; 0 for every port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How the lookup table is made.
    pub table: TableAlgorithm,
    /// What is hashed of a flow.
    pub affinity: Affinity,
    /// How the network learns where the address is; the same in all VIPs of an address.
    pub announce: Announce,
    /// How many backends must pass their checks for the address to be announced on this VIP's account.
    pub min_healthy: u16,
    /// Whether the address is announced before any command has said so; the same in all VIPs of an address.
    pub announce_at_start: bool,
    /// How the backends are checked; `None` where they are not, and count as healthy.
    pub health: Option<Health>,
    /// How flows outlive changes.
    pub flows: Flows,
    /// Who may send to it.
    pub access: Lists,
    /// How much it takes.
    pub limits: Limits,
    /// Who serves, in the file's order; addresses are unique within the VIP.
    pub backends: Vec<Backend>,
}

/// The rate limits of a VIP (docs/limits.md).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The limits, each kind once.
    pub by_kind: BTreeMap<lb_common::limit::Kind, Limit>,
    /// How many bits of an IPv4 address tell one source from another.
    pub source_prefix_v4: u8,
    /// How many bits of an IPv6 address tell one source from another.
    pub source_prefix_v6: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            by_kind: BTreeMap::new(),
            source_prefix_v4: 32,
            source_prefix_v6: 64,
        }
    }
}

/// One rate limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// How much is let through.
    pub rate: Rate,
    /// How much may come at once: packets, bytes or connections.
    pub burst: u64,
    /// Whether what is over it is only counted.
    pub is_observed: bool,
    /// Whether it holds for the whole fleet.
    pub is_cluster: bool,
}

/// How many packets, bytes or connections in a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In which time: a second, a minute or an hour.
    pub period: Duration,
}

/// How a VIP's flows outlive changes (docs/consistency.md).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flows {
    /// How long a slot moves from one backend to another: longer than live flows are silent.
    pub move_window: Duration,
    /// How long a remembered flow may be silent.
    pub flow_idle: Duration,
    /// How long a backend that was taken out serves its flows at most; `None` as long as they live.
    pub drain_timeout: Option<Duration>,
    /// How long a backend that comes, or comes back, takes to its whole weight.
    pub slow_start: Option<Duration>,
}

/// `protocol` of a VIP.
#[derive(
    Clone,
    Copy,
    Debug,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Name in config, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// `table` of a VIP: how its lookup table is made.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TableAlgorithm {
    /// Maglev hashing (NSDI'16): exact shares.
    Maglev,
    /// A ring of virtual nodes: no slot moves between backends that stay.
    Ring,
}

impl TableAlgorithm {
    /// Name in config, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Ring => "ring",
        }
    }
}

/// `affinity` of a VIP: what is hashed of a flow.
#[derive(
    Clone,
    Copy,
    Debug,
    Eq,
    Ord,
    PartialEq,
    PartialOrd,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// The whole 5-tuple.
    Flow,
    /// The client's address alone.
    Source,
}

impl Affinity {
    /// Name in config, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Source => "source",
        }
    }
}

/// `announce` of a VIP: how the network learns where its address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Announce {
    /// By nothing that weir does: a route, or an address of some host.
    None,
    /// The data plane answers ARP and neighbour solicitations on the node's interfaces, and the daemon tells of it there.
    L2,
    /// A route in a table of weir's own, which a BGP speaker on this host exports.
    Route,
}

impl Announce {
    /// Name in config, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L2 => "l2",
            Self::Route => "route",
        }
    }
}

/// `forward` of a VIP or backend: how packets reach it.
#[derive(
    Clone,
    Copy,
    Debug,
    Eq,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ForwardMode {
    /// MAC addresses rewritten, on one segment.
    L2,
    /// IP in IP: 4in4, 6in6 or 4in6.
    Ipip,
    /// UDP encapsulation (GUE, variant 1): any family over any.
    Gue,
}

impl ForwardMode {
    /// Name in config, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }
}

/// `[[vip.backend]]`: who serves.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The backend's own address.
    pub address: IpAddr,
    /// Share of new flows against the VIP's other backends, 0 to 65,535; 0 takes none.
    pub weight: u16,
    /// How packets reach it: its own key, or the VIP's.
    pub forward: ForwardMode,
    /// Overrides the neighbour table.
    pub mac: Option<[u8; 6]>,
}
