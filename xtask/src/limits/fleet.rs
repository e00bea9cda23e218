//! One limit for a fleet: several daemons, one Redis, and ten times the limit sent to all of them or to one.

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::{Kind, Link, Stream, send};
use crate::lab::{
    Host, Lab, Observer, Plan, Process, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually,
    until,
};

/// The limit of the whole fleet, in packets a second, and its burst.
const LIMIT: u32 = 4000;
const BURST: u32 = 400;

/// What is sent in all: ten times that.
const OFFERED: u32 = 10 * LIMIT;

/// What is limited: a VIP as a whole, or each source of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Total,
    Source,
}

impl What {
    const fn vip(self) -> &'static str {
        match self {
            Self::Total => "echo-v4",
            Self::Source => "echo-v6",
        }
    }

    const fn address(self) -> IpAddr {
        match self {
            Self::Total => VIP_V4,
            Self::Source => VIP_V6,
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Total => "packets",
            Self::Source => "packets_per_source",
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// What came through in one situation, after it had settled.
#[derive(Debug, Clone)]
pub struct Situation {
    /// What it is.
    pub name: &'static str,
    /// How long was counted.
    pub time: Duration,
    /// Packets that the fleet let through.
    pub passed: u64,
    /// The most in any second of it.
    pub busiest_second: u64,
}

impl Situation {
    /// What came through, against the limit.
    #[must_use]
    pub fn part(&self) -> f64 {
        let passed = u32::try_from(self.passed).unwrap_or(u32::MAX);
        f64::from(passed) / (self.time.as_secs_f64() * f64::from(LIMIT))
    }
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busiest = u32::try_from(self.busiest_second).unwrap_or(u32::MAX);
        write!(
            f,
            "| {} | {} | {:.1} % | {:.1} % |",
            self.name,
            self.passed,
            100.0 * self.part(),
            100.0 * f64::from(busiest) / f64::from(LIMIT)
        )
    }
}

/// A fleet and its Redis.
struct Fleet {
    // Fields are dropped in order: the lab comes last.
    redis: Process,
    redis_host: Host,
    redis_address: SocketAddr,
    nodes: Vec<Node>,
    topology: Topology,
    _lab: Lab,
}

struct Node {
    weir: Weir,
    link: Link,
    _host: Option<(Host, Observer)>,
}

/// Goes through all situations, each counted for a time once `settle` is over.
pub fn fleet(binary: &Path, nodes: u8, settle: Duration, time: Duration) -> Result<Vec<Situation>> {
    let mut fleet = Fleet::start(binary, nodes)?;
    let all: Vec<usize> = (0..fleet.nodes.len()).collect();
    let mut seen = vec![
        fleet.situation("spread over all nodes", What::Total, &all, settle, time)?,
        fleet.situation("all of it on one node", What::Total, &[0], settle, time)?,
        fleet.situation(
            "one source, spread over all nodes",
            What::Source,
            &all,
            settle,
            time,
        )?,
        fleet.situation(
            "one source, all of it on one node",
            What::Source,
            &[0],
            settle,
            time,
        )?,
    ];
    fleet.redis.end_by(Signal::KILL, PATIENCE)?;
    // Leases have ended once every node says so.
    fleet.wait_for_origin("fallback")?;
    seen.push(fleet.situation(
        "Redis killed, spread over all nodes",
        What::Total,
        &all,
        settle,
        time,
    )?);
    fleet.redis = serve(&fleet.redis_host, fleet.redis_address)?;
    fleet.wait_for_origin("lease")?;
    seen.push(fleet.situation(
        "Redis back, spread over all nodes",
        What::Total,
        &all,
        settle,
        time,
    )?);
    Ok(seen)
}

impl Fleet {
    fn start(binary: &Path, nodes: u8) -> Result<Self> {
        let lab = Lab::new()?;
        let topology = Topology::build(
            &lab,
            &Plan {
                near: 1,
                ..Plan::default()
            },
        )?;
        let redis_host = topology.another_host(&lab, "redis", 9)?;
        let redis_address = SocketAddr::new(redis_host.v4, 6379);
        let redis = serve(&redis_host, redis_address)?;
        let mut all = Vec::new();
        for number in 0..nodes {
            let host = if number == 0 {
                None
            } else {
                Some(topology.another_lb(&lab, number)?)
            };
            let lb = host.as_ref().map_or(&topology.lb, |(host, _)| host);
            let config = WeirConfig {
                node: format!("lb-{}", number + 1),
                ..WeirConfig::for_topology(&topology, &[])
            };
            let weir = Weir::start_binary(binary.to_owned(), &lab, &lb.namespace, &config, &[])?;
            let text = fs::read_to_string(weir.config()).context("read the config")?;
            let limited = format!(
                "[redis]\nurl = \"redis://{redis_address}\"\nfleet = \"lab\"\n{}",
                text.replacen("[node]", "\n[node]", 1)
            );
            let limited = [What::Total, What::Source]
                .into_iter()
                .try_fold(limited, |text, what| with_limit(&text, what))?;
            let file = lab.write(&format!("limited-{number}.toml"), &limited)?;
            weir.ask(&["apply", &file.display().to_string()])?;
            let link = Link {
                client: topology.client.nic.mac_bytes()?,
                lb: lb.nic.mac_bytes()?,
            };
            all.push(Node {
                weir,
                link,
                _host: host,
            });
        }
        let fleet = Self {
            redis,
            redis_host,
            redis_address,
            nodes: all,
            topology,
            _lab: lab,
        };
        fleet.wait_for_origin("lease")?;
        Ok(fleet)
    }

    /// Waits until every node's share is from there, and knows of all nodes.
    fn wait_for_origin(&self, origin: &str) -> Result<()> {
        for node in &self.nodes {
            until("the shares to be from elsewhere", PATIENCE, || {
                let status: serde_json::Value =
                    serde_json::from_str(&node.weir.ask_degraded(&["status", "-o", "json"])?)?;
                let at = |path| status.pointer(path).cloned().unwrap_or_default();
                let is_all = at("/fleet/assumed_nodes") == self.nodes.len();
                Ok(is_all && at("/fleet/shares/0/origin") == origin)
            })
            .with_context(|| format!("shares by {origin}"))?;
        }
        Ok(())
    }

    /// Sends to some nodes, and counts at all of them.
    fn situation(
        &self,
        name: &'static str,
        what: What,
        loaded: &[usize],
        settle: Duration,
        time: Duration,
    ) -> Result<Situation> {
        let streams: Vec<_> = loaded
            .iter()
            .filter_map(|node| self.nodes.get(*node))
            .map(|node| Stream {
                frames: vec![node.link.frame(
                    source(what.address()),
                    what.address(),
                    Kind::Datagram,
                )],
                per_second: OFFERED / u32::try_from(loaded.len()).unwrap_or(1),
            })
            .collect();
        let client = &self.topology.client.namespace;
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                client.inside(|| send("eth0", &streams, settle + time + Duration::from_secs(1)))
            });
            thread::sleep(settle);
            let began = Instant::now();
            let first = self.passed(what)?;
            let (mut last, mut at, mut busiest) = (first, began, 0);
            while began.elapsed() < time {
                thread::sleep(Duration::from_secs(1).min(time));
                let (now, passed) = (Instant::now(), self.passed(what)?);
                let grown = u128::from(passed - last) * 1000 / (now - at).as_millis().max(1);
                busiest = busiest.max(u64::try_from(grown).unwrap_or(u64::MAX));
                (last, at) = (passed, now);
            }
            let situation = Situation {
                name,
                time: at - began,
                passed: last - first,
                busiest_second: busiest,
            };
            let sent = sender
                .join()
                .map_err(|_panic| anyhow::anyhow!("the sender panicked"))?;
            sent.map(|_| situation)
        })
    }

    /// What all nodes have let through so far.
    fn passed(&self, what: What) -> Result<u64> {
        let of = |node: &Node| Ok(node.weir.status()?.vip(what.vip())?.packets);
        self.nodes.iter().map(of).sum()
    }
}

/// The configuration with a limit for the fleet.
fn with_limit(text: &str, what: What) -> Result<String> {
    let name = format!("name     = {:?}", what.vip());
    let (before, after) = text.split_once(&name).context("the VIP of the limit")?;
    let limit = format!(
        "[vip.limit]\n{} = \"{LIMIT}/s\"\nburst = {BURST}\ncluster = true\n[[vip.backend]]",
        what.key()
    );
    Ok(format!(
        "{before}{name}{}",
        after.replacen("[[vip.backend]]", &limit, 1)
    ))
}

/// A client of no host.
fn source(like: IpAddr) -> IpAddr {
    super::source(like, 7)
}

fn serve(host: &Host, address: SocketAddr) -> Result<Process> {
    let mut command: Command = host.namespace.command("redis-server");
    command.args(["--port", &address.port().to_string()]);
    command.args(["--bind", &address.ip().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    let redis = Process::start(&host.namespace, "redis", &mut command)?;
    host.namespace.inside(|| {
        eventually("Redis to answer", PATIENCE, || {
            std::net::TcpStream::connect(address)
                .map(drop)
                .context("connect")
        })
    })?;
    Ok(redis)
}
