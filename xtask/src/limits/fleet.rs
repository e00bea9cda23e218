//! One limit for a fleet: several daemons, one Redis, and ten times the limit sent to all of them or to one.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{Kind, Link, Stream, send};
use crate::{
    lab::{
        Host, Lab, Observer, Plan, Process, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually,
        until,
    },
    traffic::steady::{Steady, Total},
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

/// From one look at the counters to the next.
const LOOK: Duration = Duration::from_millis(100);

/// What came through in one situation.
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

/// What was seen of a fleet.
#[derive(Debug, Clone)]
pub struct Findings {
    /// What came through, by situation.
    pub situations: Vec<Situation>,
    /// HTTP requests that were made while Redis went away, refused and came back.
    pub http: Total,
    /// What a node says of a Redis that runs no scripts for it.
    pub refused: Vec<String>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for situation in &self.situations {
            writeln!(f, "{situation}")?;
        }
        write!(
            f,
            "\nHTTP within its limit from before Redis was killed until it was back: {} requests answered, {} not.\n\
             A Redis that runs no scripts for weir: {}",
            self.http.requests,
            self.http.failed,
            self.refused.join("; ")
        )
    }
}

/// Goes through all situations, each counted for a time once `settle` is over.
pub fn fleet(binary: &Path, nodes: u8, settle: Duration, time: Duration) -> Result<Findings> {
    let fleet = Fleet::start(binary, nodes)?;
    let all: Vec<usize> = (0..fleet.nodes.len()).collect();
    let mut situations = Vec::new();
    for (name, what, loaded) in [
        ("spread over all nodes", What::Total, all.as_slice()),
        ("all of it on one node", What::Total, &[0]),
        ("one source, spread over all nodes", What::Source, &all),
        ("one source, all of it on one node", What::Source, &[0]),
    ] {
        let situation = fleet.under_load(what, loaded, || {
            thread::sleep(settle);
            fleet.count(name, what, || {
                thread::sleep(time);
                Ok(())
            })
        })?;
        situations.push(situation);
    }
    // From here on the moments in which everything changes are counted, too.
    let what = What::Total;
    let change = || {
        thread::sleep(settle);
        let killed = fleet.count("Redis killed, from that moment on", what, || {
            fleet.redis.signal(Signal::KILL)?;
            fleet.comes_to("fallback")?;
            thread::sleep(settle + time);
            Ok(())
        })?;
        let mut redis = None;
        let back = fleet.count("Redis back, empty, from that moment on", what, || {
            redis = Some(serve(&fleet.redis_host, fleet.redis_address)?);
            fleet.comes_to("lease")?;
            thread::sleep(settle + time);
            Ok(())
        })?;
        let refusing = fleet.count("Redis runs no scripts any more", what, || {
            fleet.command_redis("ACL SETUSER default -eval -evalsha")?;
            fleet.comes_to("fallback")?;
            thread::sleep(settle + time);
            Ok(())
        })?;
        let refused = fleet.problems()?;
        let running = fleet.count("and runs them again", what, || {
            fleet.command_redis("ACL SETUSER default +eval +evalsha")?;
            fleet.comes_to("lease")?;
            thread::sleep(settle + time);
            Ok(())
        })?;
        Ok((redis, refused, [killed, back, refusing, running]))
    };
    let ((_redis, refused, seen), http) =
        fleet.beside_http(|| fleet.under_load(what, &all, change))?;
    situations.extend(seen);
    Ok(Findings {
        situations,
        http,
        refused,
    })
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
            let limits = [
                (What::Total.vip(), What::Total.key()),
                (What::Source.vip(), What::Source.key()),
                ("web-v4", "new_connections"),
            ];
            let limited = limits
                .into_iter()
                .try_fold(limited, |text, (vip, key)| with_limit(&text, vip, key))?;
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
        fleet.comes_to("lease")?;
        Ok(fleet)
    }

    /// Waits until every node's share is from there, and knows of all nodes.
    fn comes_to(&self, origin: &str) -> Result<()> {
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

    /// Gives Redis a command.
    fn command_redis(&self, command: &str) -> Result<()> {
        self.redis_host.namespace.inside(|| {
            let mut stream = TcpStream::connect(self.redis_address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(format!("{command}\r\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            ensure!(answer.starts_with("+OK"), "{command}: {answer}");
            Ok(())
        })
    }

    /// What a node says is wrong with its Redis.
    fn problems(&self) -> Result<Vec<String>> {
        let node = self.nodes.first().context("a node")?;
        let status: serde_json::Value =
            serde_json::from_str(&node.weir.ask_degraded(&["status", "-o", "json"])?)?;
        let problems = status.get("problems").cloned().unwrap_or_default();
        let mut problems: Vec<String> = serde_json::from_value(problems).context("the problems")?;
        problems.retain(|problem| problem.contains("Redis"));
        Ok(problems)
    }

    /// Sends ten times the limit to some nodes while `work` is done.
    fn under_load<T>(
        &self,
        what: What,
        loaded: &[usize],
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
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
        self.beside(
            |has_ended| {
                let goes_on = |_| !has_ended.load(Ordering::Relaxed);
                send("eth0", &streams, goes_on).map(drop)
            },
            work,
        )
    }

    /// Makes HTTP requests while `work` is done.
    fn beside_http<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Total)> {
        let http = Steady::default();
        let done = self.beside(
            |_| {
                http.run_http(Topology::http(VIP_V4));
                Ok(())
            },
            || {
                let done = work();
                http.end();
                done
            },
        )?;
        Ok((done, http.total()))
    }

    /// Does `work` beside something that the client does until it is told that the work has ended.
    fn beside<T>(
        &self,
        client: impl FnOnce(&AtomicBool) -> Result<()> + Send,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let has_ended = AtomicBool::new(false);
        let namespace = &self.topology.client.namespace;
        thread::scope(|scope| {
            let client = scope.spawn(|| namespace.inside(|| client(&has_ended)));
            let done = work();
            has_ended.store(true, Ordering::Relaxed);
            let sent = client
                .join()
                .map_err(|_panic| anyhow::anyhow!("the client panicked"))?;
            sent.and(done)
        })
    }

    /// Counts what all nodes let through while `during` goes on.
    fn count(
        &self,
        name: &'static str,
        what: What,
        during: impl FnOnce() -> Result<()>,
    ) -> Result<Situation> {
        let has_ended = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let counter = scope.spawn(|| -> Result<Vec<(Instant, u64)>> {
                let mut seen = Vec::new();
                loop {
                    let is_last = has_ended.load(Ordering::Relaxed);
                    seen.push((Instant::now(), self.passed(what)?));
                    if is_last {
                        return Ok(seen);
                    }
                    thread::sleep(LOOK);
                }
            });
            let done = during();
            has_ended.store(true, Ordering::Relaxed);
            let seen = counter
                .join()
                .map_err(|_panic| anyhow::anyhow!("the counter panicked"))?;
            done.and(seen)
        })?;
        let ((began, first), (ended, last)) = seen
            .first()
            .zip(seen.last())
            .context("nothing was counted")?;
        Ok(Situation {
            name,
            time: *ended - *began,
            passed: last - first,
            busiest_second: busiest_second(&seen),
        })
    }

    /// What all nodes have let through so far.
    fn passed(&self, what: What) -> Result<u64> {
        let of = |node: &Node| Ok(node.weir.status()?.vip(what.vip())?.packets);
        self.nodes.iter().map(of).sum()
    }
}

/// The most that came in any second, of what had come at some moments.
fn busiest_second(seen: &[(Instant, u64)]) -> u64 {
    let windows = seen.iter().enumerate().filter_map(|(at, (from, before))| {
        let later = seen.iter().skip(at);
        let mut full = later.filter(|(to, _)| *to - *from >= Duration::from_secs(1));
        let (to, after) = full.next()?;
        let grown = u128::from(after - before) * 1000 / (*to - *from).as_millis();
        Some(u64::try_from(grown).unwrap_or(u64::MAX))
    });
    windows.max().unwrap_or_default()
}

/// The configuration with a limit for the fleet.
fn with_limit(text: &str, vip: &str, key: &str) -> Result<String> {
    let name = format!("name     = {vip:?}");
    let (before, after) = text.split_once(&name).context("the VIP of the limit")?;
    let limit = format!(
        "[vip.limit]\n{key} = \"{LIMIT}/s\"\nburst = {BURST}\ncluster = true\n[[vip.backend]]"
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

/// Starts a Redis that keeps nothing, and waits until it answers.
pub fn serve(host: &Host, address: SocketAddr) -> Result<Process> {
    let mut command: Command = host.namespace.command("redis-server");
    command.args(["--port", &address.port().to_string()]);
    command.args(["--bind", &address.ip().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--protected-mode", "no"]);
    let redis = Process::start(&host.namespace, "redis", &mut command)?;
    host.namespace.inside(|| {
        eventually("Redis to answer", PATIENCE, || {
            TcpStream::connect(address).map(drop).context("connect")
        })
    })?;
    Ok(redis)
}
