//! What is known of a host, made up in tests and gathered by `gather` elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use super::Dialled;
use crate::{
    api::{ForeignProgram, Status},
    config::ForwardMode,
    dataplane::bpf::decap::{DecapSettings, IpPrefix},
    model::attached::AttachMode,
    neighbours::Snapshot,
};

/// The kernel, and what this process may do.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Release of the kernel, as `uname -r` tells it.
    pub(super) release: String,
    /// Whether the kernel has type information of its own.
    pub(super) has_btf: bool,
    /// Capabilities that weir needs and this process lacks.
    pub(super) missing: Vec<&'static str>,
    /// Whether this process has `CAP_SYS_ADMIN`.
    pub(super) is_sys_admin: bool,
    /// What became of loading the real program, attached to nothing; the error in words.
    pub(super) program: Result<Loaded, String>,
    /// The sysctl `net.core.bpf_jit_enable`; `None` where this network namespace does not show it.
    pub(super) jit: Option<u8>,
    /// The most files that a process here may open.
    pub(super) descriptors: u64,
    /// Memory that is free or can be, in bytes.
    pub(super) memory: Option<u64>,
    /// CPUs that are online.
    pub(super) cpus: u32,
}

/// The real program, as the kernel loaded it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// Whether it was compiled to machine code; `None` where the kernel does not tell.
    pub(super) is_jitted: Option<bool>,
    /// Instructions that the verifier walked through for the largest of its steps.
    pub(super) verified: Option<u32>,
}

/// An interface.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
pub(super) struct Nic {
    pub(super) name: String,
    /// The kernel's number of it.
    pub(super) index: u32,
    pub(super) is_up: bool,
    /// Whether its link has a signal.
    pub(super) has_carrier: bool,
    pub(super) is_loopback: bool,
    /// Whether frames on it have MAC addresses.
    pub(super) is_ethernet: bool,
    /// The largest IP packet, in bytes.
    pub(super) mtu: u32,
    /// `veth`, `bond`, `tun`…; `None` for a device of its own.
    pub(super) kind: Option<String>,
    /// Name of the driver, of a device on a bus.
    pub(super) driver: Option<String>,
    /// The XDP program on it.
    pub(super) xdp: Option<Carried>,
    /// What its driver can do of XDP; `None` where the kernel (before 6.3) does not tell.
    pub(super) can: Option<XdpFeatures>,
    /// Whether VLAN devices lie on it.
    pub(super) has_vlans: bool,
    pub(super) offloads: Offloads,
    pub(super) queues: Option<Queues>,
    /// Frames that its receive ring holds, and how many it could.
    pub(super) ring: Option<(u32, u32)>,
    /// Its own IPv4 settings.
    pub(super) conf: Conf,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Carried {
    pub(super) mode: AttachMode,
    pub(super) program: ForeignProgram,
    /// Whether it is attached by the link that weir has pinned for this interface.
    pub(super) is_weirs: bool,
}

/// What a driver can do of XDP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct XdpFeatures {
    /// Run programs, with drop, pass and transmit.
    pub(super) basic: bool,
    /// Send on what another interface redirects to it.
    pub(super) transmit: bool,
    /// Receive frames of several buffers.
    pub(super) scatter: bool,
}

/// An offload: whether it is on, and whether it can be changed. `None` where the driver does not know it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Offload {
    pub(super) is_on: bool,
    pub(super) is_fixed: bool,
}

/// The offloads that XDP does not go with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Offloads {
    pub(super) lro: Option<Offload>,
    pub(super) gro_hw: Option<Offload>,
    pub(super) vlan_rx: Option<Offload>,
}

/// Queues of an interface in use, and how many there could be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Queues {
    pub(super) rx: u32,
    pub(super) tx: u32,
    pub(super) max_rx: u32,
    pub(super) max_tx: u32,
    /// Whether receive and transmit queues are set as one number.
    pub(super) is_combined: bool,
}

/// Settings of IPv4 on an interface, or of `all`; `None` where they cannot be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Conf {
    pub(super) rp_filter: Option<u8>,
    pub(super) arp_ignore: Option<u8>,
    pub(super) arp_announce: Option<u8>,
    /// Whether IPv6 is switched off here.
    pub(super) no_ipv6: bool,
}

/// An address of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    pub(super) interface: String,
    /// Whether duplicate address detection keeps it from being used.
    pub(super) is_tentative: bool,
}

/// Interfaces, addresses and settings of this network namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Net {
    pub(super) nics: BTreeMap<String, Nic>,
    pub(super) addresses: Vec<Held>,
    /// The settings of `all`; the kernel takes the larger of these and the interface's own.
    pub(super) all: Conf,
}

impl Net {
    /// Whether an address is this host's own.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }

    /// The name of an interface by its number.
    pub(super) fn by_index(&self, index: u32) -> Option<&Nic> {
        self.nics.values().find(|nic| nic.index == index)
    }
}

/// What a daemon answers.
#[derive(Clone, Debug)]
pub(super) enum Daemon {
    /// It answered.
    Answers(Box<Status>),
    /// There is none.
    Away,
    /// It could not be asked.
    Unknown(String),
}

/// A load balancer.
#[derive(Clone, Debug)]
pub(super) struct Balancer {
    pub(super) host: Host,
    pub(super) net: Net,
    /// Ways to backends.
    pub(super) ways: Snapshot,
    pub(super) daemon: Daemon,
    pub(super) bpffs: Bpffs,
    /// Directories that files are made in and that this process may not write to, by the key that names them.
    pub(super) unwritable: Vec<(&'static str, PathBuf)>,
    /// Why `metrics_listen` cannot be listened on; only looked at where no daemon answers.
    pub(super) metrics: Option<String>,
    /// Health checks that failed, with the reason; only made where no daemon answers.
    pub(super) unhealthy: Vec<(String, String)>,
    /// Who tells routers of VIPs; `None` where none is announced by a route.
    pub(super) routing: Option<Routing>,
}

/// Routes of VIPs, and who may tell routers of them. Errors are in words.
#[derive(Clone, Debug)]
pub(super) struct Routing {
    /// The addresses that the table has weir's routes for.
    pub(super) routes: Result<BTreeSet<IpAddr>, String>,
    /// Rules that lead packets to the table.
    pub(super) rules: Result<Vec<Rule>, String>,
    /// BGP speakers that run in this network namespace.
    pub(super) speakers: Vec<Speaker>,
}

/// A rule of the kernel's routing policy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Rule {
    pub(super) is_v4: bool,
    pub(super) priority: u32,
}

/// A BGP speaker.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    /// `BIRD` or `FRR`.
    pub(super) name: &'static str,
    /// Its sessions, as it tells them.
    pub(super) said: Result<Vec<Session>, String>,
}

/// A BGP session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// What the speaker calls it, or the neighbour's address.
    pub(super) name: String,
    pub(super) is_established: bool,
    /// How it stands, in the speaker's words.
    pub(super) state: String,
    /// The addresses that the neighbour is told of.
    pub(super) told: BTreeSet<IpAddr>,
}

/// The file system at `pin_path`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bpffs {
    /// It is a bpffs.
    Mounted,
    /// It is none: weir mounts one.
    Absent,
}

/// A server of VIPs.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) net: Net,
    /// The interfaces that packets for VIPs come by.
    pub(super) facing: Vec<String>,
    /// Where `weir decap` is attached; an error in words where the pins cannot be read.
    pub(super) decap: Result<Vec<Decap>, String>,
    /// Where the pins of `weir decap` are, if not at the usual place.
    pub(super) decap_pins: Option<PathBuf>,
    /// Sockets that take packets from anybody.
    pub(super) sockets: Vec<Listening>,
    /// Whether sockets on every IPv6 address leave IPv4 to others.
    pub(super) is_v6_only: bool,
}

/// `weir decap` on an interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Decap {
    pub(super) interface: String,
    /// Whether the program is on the interface still.
    pub(super) is_attached: bool,
    pub(super) settings: DecapSettings,
}

/// What a server is to take.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) vips: Vec<Dialled>,
    /// How packets come.
    pub(super) tunnels: BTreeSet<Tunnel>,
    /// Where tunnels come from; empty where that is not known.
    pub(super) sources: Vec<IpPrefix>,
    /// UDP port of GUE.
    pub(super) gue_port: u16,
    /// This host's addresses as a backend; empty where they are not known.
    pub(super) own: Vec<IpAddr>,
    /// Whether a configuration was given that does not name this host.
    pub(super) is_stranger: bool,
}

/// What encapsulated packets look like.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Tunnel {
    pub(super) forward: ForwardMode,
    pub(super) is_outer_v4: bool,
    pub(super) is_inner_v4: bool,
}

/// A socket that takes new connections, or datagrams from anybody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Listening {
    pub(super) is_tcp: bool,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}
