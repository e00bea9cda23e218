//! What another balancer serves, and what of it weir can.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::report::{Line, Report};
use crate::config::{Affinity, ForwardMode, Protocol};

/// A virtual server.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) line: Line,
    /// What clients dial; port 0 for every port.
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) affinity: Affinity,
    pub(super) health: Option<Health>,
    pub(super) reals: Vec<Real>,
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct Real {
    pub(super) line: Line,
    pub(super) address: IpAddr,
    /// The port that it is given; that of the virtual server where none is.
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) way: Way,
}

/// How packets reach a real server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    Forward(ForwardMode),
    /// By rewriting of addresses.
    Nat,
}

/// How the real servers are checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Health {
    pub(super) probe: Probe,
    /// Where it is not the virtual server's own.
    pub(super) port: Option<u16>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u16,
}

/// What is asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Probe {
    Tcp,
    Http {
        tls: bool,
        path: String,
        host: Option<String>,
        expect_status: String,
    },
    Dns {
        query: String,
    },
}

/// The services that weir can serve, with the real servers that it can reach.
pub(super) fn fit(services: Vec<Service>, report: &mut Report) -> Vec<Service> {
    let mut seen: BTreeMap<(SocketAddr, Protocol), usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for mut service in services {
        if let Some(what) = unfit(service.address.ip(), true) {
            let help = "give the VIP an address that clients can dial";
            report.left(&service.line, format!("its address is {what}"), help);
            continue;
        }
        let key = (service.address, service.protocol);
        if let Some(first) = seen.get(&key) {
            let why = format!(
                "line {first} has the same address, port and protocol, and weir has one VIP for them"
            );
            report.left(
                &service.line,
                why,
                "write the backends of both into one `[[vip]]`",
            );
            continue;
        }
        seen.insert(key, service.line.number);
        let mut backends = BTreeSet::new();
        let vip = service.address;
        service.reals.retain_mut(|real| {
            is_reachable(real, vip, report) && is_first(real, &mut backends, report)
        });
        if service.reals.is_empty() {
            report.changed(
                &service.line,
                "the VIP has no backend",
                "add them by `[[vip.backend]]`: until then its packets are dropped",
            );
        }
        fitting.push(service);
    }
    fitting
}

fn is_first(real: &Real, seen: &mut BTreeSet<IpAddr>, report: &mut Report) -> bool {
    let is_first = seen.insert(real.address);
    if !is_first {
        report.left(
            &real.line,
            "the VIP has this backend already: weir keeps ports, so that an address can serve once",
            "give every server process an address of its own, or raise the weight of the one that is there",
        );
    }
    is_first
}

/// Whether packets of a VIP can reach a real server; its way becomes one that weir has.
fn is_reachable(real: &mut Real, vip: SocketAddr, report: &mut Report) -> bool {
    let address = real.address;
    if let Some(what) = unfit(address, false) {
        let help = "write the address that it has on the balancer's network; a balancer that serves itself is not supported";
        report.left(&real.line, format!("its address is {what}"), help);
        return false;
    }
    if vip.ip() == address {
        report.left(
            &real.line,
            "its address is the VIP's own",
            "write the address that it has on the balancer's network",
        );
        return false;
    }
    let is_same_family = vip.is_ipv4() == address.is_ipv4();
    let is_tunnelled_6_over_4 = vip.is_ipv6() && address.is_ipv4();
    let forward = match real.way {
        Way::Forward(ForwardMode::L2) if !is_same_family => {
            report.left(
                &real.line,
                "direct routing to an address of another family",
                "write the server's address of the VIP's family, or `forward = \"gue\"`",
            );
            return false;
        }
        Way::Forward(ForwardMode::Ipip) if is_tunnelled_6_over_4 => {
            report.changed(
                &real.line,
                "weir's `ipip` carries IPv6 over IPv6 alone: it is `gue` here, which carries any family over any",
                "take GUE on the server: `weir decap attach --interface IF --from ADDRESS`",
            );
            ForwardMode::Gue
        }
        Way::Forward(mode) => mode,
        Way::Nat => {
            let (mode, how) = if is_same_family {
                (ForwardMode::L2, "`l2` here")
            } else {
                (ForwardMode::Gue, "`gue` here")
            };
            let ports = if real.port == vip.port() {
                String::new()
            } else {
                let (from, to) = (vip.port(), real.port);
                format!("; nor is port {from} translated to {to}")
            };
            let why = format!(
                "masquerading (NAT) is not in weir, whose servers answer clients directly: it is {how}{ports}"
            );
            let help = format!(
                "give the server the VIP as docs/backends.md shows, and have it serve port {} there; or `forward = \"ipip\"` \
                 where a router lies between",
                vip.port()
            );
            report.left(&real.line, why, help);
            real.way = Way::Forward(mode);
            return true;
        }
    };
    real.way = Way::Forward(forward);
    true
}

/// What makes an address one that weir does not take, if anything.
fn unfit(address: IpAddr, is_vip: bool) -> Option<&'static str> {
    if is_vip {
        crate::config::unfit_for_vip(address)
    } else {
        crate::config::unfit_for_backend(address)
    }
}

/// A scheduler of IPVS, and what becomes of it: `None` for one that is weir's own way of spreading.
///
/// The flags are those of `-b` (`sh-port`, `mh-port`, …) or of keepalived's keywords of these names.
pub(super) fn scheduler(name: &str, flags: &BTreeSet<&str>) -> Scheduler {
    let by_source = |port: &str| {
        if flags.contains(port) {
            Affinity::Flow
        } else {
            Affinity::Source
        }
    };
    match name {
        "rr" | "wrr" => Scheduler::same(Affinity::Flow),
        "sh" => Scheduler::same(by_source("sh-port")),
        "mh" => Scheduler::same(by_source("mh-port")),
        "lc" | "wlc" | "sed" | "nq" => Scheduler {
            affinity: Affinity::Flow,
            lost: Some((
                "weir does not count connections: flows are spread by weights alone",
                "set the weights by what the servers can bear; `weir top` shows what each of them gets",
            )),
        },
        "lblc" | "lblcr" | "dh" => Scheduler {
            affinity: Affinity::Flow,
            lost: Some((
                "weir does not spread by destination: that is what caches want whose VIP is every address",
                "nothing, where the VIP is one address; else weir is not for this service",
            )),
        },
        "fo" | "ovf" => Scheduler {
            affinity: Affinity::Flow,
            lost: Some((
                "weir has no server of last resort: all of the VIP's backends take flows, by their weights",
                "write `weight = 0` for those that stand by, and raise it by `weir weight` when they are needed",
            )),
        },
        _ => Scheduler {
            affinity: Affinity::Flow,
            lost: Some((
                "no scheduler that weir knows: flows are spread by weights",
                "see docs/tables.md for how weir spreads them",
            )),
        },
    }
}

/// What a scheduler becomes.
pub(super) struct Scheduler {
    pub(super) affinity: Affinity,
    /// Why it is not the same, and what to do.
    pub(super) lost: Option<(&'static str, &'static str)>,
}

impl Scheduler {
    const fn same(affinity: Affinity) -> Self {
        Self {
            affinity,
            lost: None,
        }
    }
}

/// What is said of persistence, which becomes `affinity = "source"`.
pub(super) const PERSISTENCE: (&str, &str) = (
    "weir remembers no clients: `affinity = \"source\"` sends all flows of an address to one backend, for as long as the set of \
     backends stays",
    "nothing, if the servers stand it that a client changes its server when one comes or goes (docs/consistency.md)",
);

/// What is said of a netmask of persistence.
pub(super) const GRANULARITY: (&str, &str) = (
    "`affinity = \"source\"` hashes whole addresses: clients of one network may get different backends",
    "nothing, if sessions are shared among the servers",
);

/// What is said of unequal weights under `rr`.
pub(super) const UNHEEDED_WEIGHTS: (&str, &str) = (
    "`rr` pays no heed to weights, and weir always does",
    "write equal weights if shares are to stay equal",
);
