//! Three nodes behind a router with BGP and equal-cost paths, four backends, a client.
//!
//! ```text
//!   client ── router ══ lb, lb-2, lb-3 ── backend-1 … backend-4     one segment; BIRD on the router and on every node
//! ```

use std::{
    fmt::Write as _,
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::lab::{
    Backend, Bird, FlowTimes, Host, Lab, Namespace, Observer, Plan, Process, Protocol, Topology,
    VIP_V4, VIP_V6, Vip, Weir, WeirConfig, example, until,
};

/// How long something that is to happen may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Nodes of the fleet.
pub(super) const NODES: usize = 3;
/// Backends of each VIP.
const BACKENDS: u8 = 4;
/// The router's number on the segment.
const ROUTER: u8 = 3;
/// What clients dial.
pub(super) const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];
/// Between two looks at the router's routes.
const LOOK: Duration = Duration::from_millis(5);

/// All of it.
#[derive(Debug)]
pub(super) struct Site {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    pub(super) nodes: Vec<Node>,
    _routers: Bird,
    router: Namespace,
    checked: Vec<Process>,
    pub(super) topology: Topology,
    _others: Vec<(Host, Observer)>,
    _lab: Lab,
}

/// A node of the fleet.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) weir: Weir,
    pub(super) host: Namespace,
    /// What its daemon tells of as it happens.
    events: Process,
    _bird: Bird,
}

/// What a node decided, and when.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    pub(super) at: Moment,
    pub(super) address: IpAddr,
    pub(super) announced: bool,
}

/// A time of the day in milliseconds, as all of the lab's processes have it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Moment(u64);

impl Moment {
    const DAY_MS: u64 = 86_400_000;

    pub(super) fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = u64::try_from(since.as_millis()).unwrap_or_default();
        Self(ms % Self::DAY_MS)
    }

    /// Reads `2026-11-28T00:36:50.123Z`.
    fn read(text: &str) -> Option<Self> {
        let time = text.split_once('T')?.1.strip_suffix('Z')?;
        let (whole, ms) = time.split_once('.')?;
        let mut seconds: u64 = 0;
        for part in whole.split(':') {
            seconds = seconds * 60 + part.parse::<u64>().ok()?;
        }
        Some(Self(seconds * 1000 + ms.parse::<u64>().ok()?))
    }

    /// Milliseconds since an earlier one; less than none where it is a later one.
    pub(super) fn since(self, earlier: Self) -> i64 {
        let day = i64::try_from(Self::DAY_MS).unwrap_or(i64::MAX);
        let of = |moment: Self| i64::try_from(moment.0).unwrap_or_default();
        let ms = of(self) - of(earlier);
        // Midnight.
        if ms < -day / 2 { ms + day } else { ms }
    }
}

impl Site {
    /// Starts everything; every backend answers its checks, and every node announces every VIP.
    pub(super) fn start() -> Result<Self> {
        let lab = Lab::new()?;
        let plan = Plan {
            near: BACKENDS,
            ..Plan::default()
        };
        let topology = Topology::build(&lab, &plan)?;
        let hosts = topology.backends.iter();
        let checked = hosts.map(Topology::answer_checks).collect::<Result<_>>()?;
        let others = (1..NODES)
            .map(|after| topology.another_lb(&lab, u8::try_from(after)?))
            .collect::<Result<Vec<_>>>()?;
        let router = topology.another_host(&lab, "router", ROUTER)?;
        prepare(&topology, &router)?;
        topology.lb.nic.filter_unknown()?;
        others
            .iter()
            .try_for_each(|(host, _)| host.nic.filter_unknown())?;
        let hosts: Vec<&Host> = std::iter::once(&topology.lb)
            .chain(others.iter().map(|(host, _)| host))
            .collect();
        let routers = Bird::start(
            &lab,
            &router.namespace,
            "router-bird",
            &routers(&router, &hosts),
        )?;
        let mut birds = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let name = format!("lb-{}-bird", index + 1);
            birds.push(Bird::start(
                &lab,
                &host.namespace,
                &name,
                &speaker(host, &router)?,
            )?);
        }
        let mut nodes = Vec::new();
        for (index, (host, bird)) in hosts.iter().zip(birds).enumerate() {
            let config = config(&topology, host, index + 1);
            let weir = Weir::start(&lab, &host.namespace, &config)?;
            let socket = weir.socket().to_string_lossy().into_owned();
            let mut follow = weir.command(&["events", "-o", "json", "--socket", &socket]);
            let name = format!("{}-events", config.node);
            nodes.push(Node {
                events: Process::start(&host.namespace, &name, &mut follow)?,
                weir,
                host: host.namespace.clone(),
                _bird: bird,
            });
        }
        let site = Self {
            nodes,
            _routers: routers,
            router: router.namespace,
            checked,
            topology,
            _others: others,
            _lab: lab,
        };
        site.wait_for_paths(NODES)?;
        site.wait_until_stable()?;
        Ok(site)
    }

    /// How many ways to a VIP the router's kernel has.
    pub(super) fn paths(&self, vip: IpAddr) -> Result<usize> {
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        let routes = self.router.ip(&format!("{family} route show {vip}"))?;
        Ok(routes.matches("via ").count())
    }

    /// Waits until the router's kernel has so many ways to every VIP; returns since when.
    pub(super) fn wait_for_paths(&self, wanted: usize) -> Result<[Moment; 2]> {
        self.wait_until_paths(&format!("{wanted}"), |paths| paths == wanted)
    }

    /// The same of another condition.
    pub(super) fn wait_until_paths(
        &self,
        what: &str,
        is_so: impl Fn(usize) -> bool,
    ) -> Result<[Moment; 2]> {
        let deadline = Instant::now() + PATIENCE;
        let mut since = [None; 2];
        loop {
            for (vip, since) in VIPS.into_iter().zip(&mut since) {
                if since.is_none() && is_so(self.paths(vip)?) {
                    *since = Some(Moment::now());
                }
            }
            if let [Some(v4), Some(v6)] = since {
                return Ok([v4, v6]);
            }
            if Instant::now() >= deadline {
                let found = [self.paths(VIP_V4)?, self.paths(VIP_V6)?];
                bail!("the router has {found:?} ways to the VIPs, and not {what}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until no slot of any node is on the move.
    fn wait_until_stable(&self) -> Result<()> {
        for node in &self.nodes {
            until("every slot to be Stable", PATIENCE, || {
                let status = node.weir.status()?;
                let slots = status.vips.iter().map(|vip| vip.slots);
                Ok(slots
                    .map(|slots| slots.holding + slots.moving + slots.settling)
                    .all(|moving| moving == 0))
            })?;
        }
        Ok(())
    }

    /// Lets every backend fail its checks; their servers serve on.
    pub(super) fn fail_all(&mut self) -> Result<()> {
        for checked in &mut self.checked {
            checked.end_by(Signal::KILL, PATIENCE)?;
        }
        self.checked.clear();
        Ok(())
    }

    /// Lets one backend pass its checks again.
    pub(super) fn pass_one(&mut self) -> Result<()> {
        let backend = self.topology.backends.first().context("no backend")?;
        self.checked.push(Topology::answer_checks(backend)?);
        Ok(())
    }
}

impl Node {
    /// What the node has decided since it was started, in order.
    pub(super) fn decisions(&self) -> Result<Vec<Decision>> {
        let text = fs::read_to_string(self.events.log()).context("read the events")?;
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let decision = |event: serde_json::Value| {
            let text = |key: &str| event.get(key).and_then(serde_json::Value::as_str);
            (text("type")? == "announcement").then_some(())?;
            Some(Decision {
                at: Moment::read(text("time")?)?,
                address: text("address")?.parse().ok()?,
                announced: event.get("announced")?.as_bool()?,
            })
        };
        Ok(events.filter_map(decision).collect())
    }
}

/// Makes the router one: it forwards, and spreads by addresses and ports. The client goes through it.
fn prepare(topology: &Topology, router: &Host) -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
        // All are on one segment, and yet the way is to be through the router.
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/eth0/send_redirects", "0"),
    ] {
        router.namespace.sysctl(key, value)?;
    }
    for vip in VIPS {
        let via = router.address(vip);
        topology
            .client
            .namespace
            .ip(&format!("route replace {vip} via {via} dev eth0"))?;
    }
    Ok(())
}

/// The configuration of a node's BIRD: the example that weir comes with.
fn speaker(host: &Host, router: &Host) -> Result<String> {
    example(&[
        ("LOCAL4", host.v4.to_string()),
        ("ROUTER4", router.v4.to_string()),
        ("LOCAL6", host.v6.to_string()),
        ("ROUTER6", router.v6.to_string()),
    ])
}

/// The configuration of the router's BIRD.
fn routers(router: &Host, nodes: &[&Host]) -> String {
    let mut text = format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\n\
         protocol kernel {{ merge paths on limit 16; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol kernel {{ merge paths on limit 16; ipv6 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}\n\
         template bgp node {{ bfd on; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; }}\n",
        router.v4
    );
    for (number, node) in nodes.iter().enumerate() {
        for (family, vip, bits) in [("ipv4", VIP_V4, 32), ("ipv6", VIP_V6, 128)] {
            let (local, neighbour) = (router.address(vip), node.address(vip));
            // Writing to a string cannot fail.
            let _infallible = writeln!(
                text,
                "protocol bgp n{number}_{family} from node {{ local {local} as 65000; neighbor {neighbour} as 65001; \
                 {family} {{ import where net ~ [ {vip}/{bits} ]; export none; }}; }}"
            );
        }
    }
    text
}

/// Both VIPs, with long-lived connections and a web server each, by all backends.
fn config(topology: &Topology, host: &Host, number: usize) -> WeirConfig {
    let vip = |address: IpAddr, name: &str, port: u16| Vip {
        name: format!("{name}-{}", if address.is_ipv4() { "v4" } else { "v6" }),
        address,
        port,
        protocol: Protocol::Tcp,
        flows: Some(FlowTimes {
            move_window: 5,
            flow_idle: 10,
        }),
        checked: Some(Topology::checked()),
        backends: topology
            .backends
            .iter()
            .map(|backend| Backend {
                address: backend.address(address),
                weight: 100,
            })
            .collect(),
    };
    let vips = VIPS.into_iter().flat_map(|address| {
        [
            vip(address, "lines", Topology::lasting(address).port()),
            vip(address, "web", Topology::http(address).port()),
        ]
    });
    WeirConfig {
        node: format!("lb-{number}"),
        encap_source: vec![host.v4, host.v6],
        announce: "announce = \"route\"\n",
        more: "\n[announce]\nhold_down = \"1s\"\n".to_owned(),
        vips: vips.collect(),
        ..WeirConfig::for_topology(topology, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_go_past_midnight() {
        let read = |text| Moment::read(text).unwrap();
        let noon = read("2026-11-28T12:00:00.000Z");
        assert_eq!(read("2026-11-28T12:00:01.023Z").since(noon), 1023);
        assert_eq!(noon.since(read("2026-11-28T12:00:01.023Z")), -1023);
        let late = read("2026-11-28T23:59:59.990Z");
        assert_eq!(read("2026-11-29T00:00:00.010Z").since(late), 20);
    }
}
