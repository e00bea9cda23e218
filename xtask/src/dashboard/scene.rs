//! What the pictures show: two nodes behind a router, three backends, traffic, and things that go wrong.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{
    lab::{
        Ecmp, FlowTimes, Host, Lab, Observer, Plan, Process, Prometheus, Statistics, Topology,
        VIP_V4, Weir, WeirConfig,
    },
    limits::start_redis,
    progress::step,
    traffic::steady::Steady,
    workspace,
};

/// What backends weigh.
const WEIGHTS: [u32; 3] = [100, 100, 200];

/// The port of the metrics.
const METRICS: u16 = 9407;

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets a second of a source beyond its limit.
const FLOOD: u32 = 1500;

/// What happens, and in which second.
const EVENTS: [(u64, &str, Event); 11] = [
    (20, "backend-2 stops answering checks", Event::Fail),
    (65, "backend-2 answers again", Event::Recover),
    (
        75,
        "what a host sends to the VIP of UDP is blocked",
        Event::Block,
    ),
    (85, "and is let in again", Event::Unblock),
    (95, "backend-1 is drained on one node alone", Event::Drain),
    (115, "and on the other", Event::DrainElsewhere),
    (130, "backend-1 is undrained on both", Event::Undrain),
    (140, "a source sends more than its limit", Event::Flood),
    (155, "it ends", Event::EndFlood),
    (165, "Redis is killed", Event::KillRedis),
    (200, "Redis is back", Event::StartRedis),
];

/// When it ends.
const END: u64 = 210;

#[derive(Clone, Copy)]
enum Event {
    Fail,
    Recover,
    Block,
    Unblock,
    Drain,
    DrainElsewhere,
    Undrain,
    Flood,
    EndFlood,
    KillRedis,
    StartRedis,
}

/// What is left of it: the server that has seen all.
pub(super) struct Scene {
    // Dropped in order: the lab comes last.
    pub(super) prometheus: Prometheus,
    /// In seconds since 1970.
    pub(super) began: f64,
    pub(super) ended: f64,
    _fleet: Fleet,
}

struct Fleet {
    nodes: Vec<Weir>,
    checked: Vec<Process>,
    redis: Process,
    redis_host: Host,
    redis_address: SocketAddr,
    _ecmp: Ecmp,
    second: (Host, Observer),
    topology: Topology,
    lab: Lab,
}

/// Plays it all.
pub(super) fn play() -> Result<Scene> {
    let mut fleet = step(
        "make a fleet of two nodes, three backends, Redis",
        Fleet::start,
    )?;
    let targets = [fleet.topology.lb.v4, fleet.second.0.v4].map(|ip| SocketAddr::new(ip, METRICS));
    let rules = fs::read_to_string(workspace::root().join("deploy/prometheus/rules.yml"))
        .context("read the rules")?;
    let prometheus = Prometheus::start(
        &fleet.lab,
        &fleet.topology.client.namespace,
        &targets,
        &rules,
    )?;
    let began = now()?;
    step(
        &format!("{END} s of traffic, with things that go wrong"),
        || fleet.run(),
    )?;
    Ok(Scene {
        prometheus,
        began: began + 5.0,
        ended: now()?,
        _fleet: fleet,
    })
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

impl Fleet {
    fn start() -> Result<Self> {
        let lab = Lab::new()?;
        let topology = Topology::build(&lab, &Plan::default())?;
        let second = topology.second_lb(&lab)?;
        let ecmp = Ecmp::create(&lab, &topology, vec![topology.lb.v4, second.0.v4])?;
        let redis_host = topology.another_host(&lab, "redis", 9)?;
        let redis_address = SocketAddr::new(redis_host.v4, 6379);
        let redis = start_redis(&redis_host, redis_address)?;
        let backends = topology.backends.iter();
        let checked = backends
            .map(Topology::answer_checks)
            .collect::<Result<_>>()?;
        let mut nodes = Vec::new();
        for (number, host) in [&topology.lb, &second.0].into_iter().enumerate() {
            let mut config = WeirConfig {
                node: format!("lb-{}", number + 1),
                metrics: SocketAddr::new(host.v4, METRICS),
                encap_source: Vec::new(),
                ..WeirConfig::for_topology(&topology, &WEIGHTS)
            };
            config.vips.retain(|vip| vip.address == VIP_V4);
            for vip in &mut config.vips {
                vip.checked = Some(Topology::checked());
                vip.flows = Some(FlowTimes {
                    move_window: 10,
                    flow_idle: 10,
                });
            }
            let weir = Weir::start(&lab, &host.namespace, &config)?;
            let limited = limited(&fs::read_to_string(weir.config())?, redis_address);
            fs::write(weir.config(), limited).context("write the config")?;
            weir.reload()?;
            nodes.push(weir);
        }
        Ok(Self {
            nodes,
            checked,
            redis,
            redis_host,
            redis_address,
            _ecmp: ecmp,
            second,
            topology,
            lab,
        })
    }

    /// Sends, and lets happen what happens.
    fn run(&mut self) -> Result<()> {
        let _statistics = Statistics::on()?;
        let client = self.topology.client.namespace.clone();
        let steady = Steady::default();
        let (flooding, end) = (AtomicBool::new(false), AtomicBool::new(false));
        let (http, echo) = (Topology::http(VIP_V4), Topology::udp(VIP_V4));
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                client.inside(|| {
                    steady.run(http, echo);
                    Ok(())
                })
            });
            let flood = scope.spawn(|| client.inside(|| flood(echo, &flooding, &end)));
            let played = self.play_events(&flooding);
            steady.end();
            end.store(true, Ordering::Relaxed);
            for thread in [sender, flood] {
                thread
                    .join()
                    .map_err(|_panic| anyhow::anyhow!("a sender panicked"))??;
            }
            played
        })
    }

    fn play_events(&mut self, flooding: &AtomicBool) -> Result<()> {
        let began = Instant::now();
        let until = |second| {
            let left = Duration::from_secs(second).saturating_sub(began.elapsed());
            thread::sleep(left);
        };
        for (second, what, event) in EVENTS {
            until(second);
            println!("    {second:>3} s: {what}");
            self.let_happen(event, flooding).context(what)?;
        }
        until(END);
        Ok(())
    }

    fn let_happen(&mut self, event: Event, flooding: &AtomicBool) -> Result<()> {
        let address = |backend: usize| {
            let host = self.topology.backends.get(backend).context("a backend");
            host.map(|host| host.v4.to_string())
        };
        let ask = |node: usize, arguments: &[&str]| {
            self.nodes
                .get(node)
                .context("a node")?
                .ask(arguments)
                .map(drop)
        };
        match event {
            Event::Fail => {
                let process = self.checked.get_mut(1).context("a backend")?;
                process.end_by(Signal::KILL, PATIENCE)?;
            }
            Event::Recover => {
                let host = self.topology.backends.get(1).context("a backend")?;
                let process = self.checked.get_mut(1).context("a backend")?;
                *process = Topology::answer_checks(host)?;
            }
            Event::Block => {
                let client = self.topology.client.v4.to_string();
                for node in 0..self.nodes.len() {
                    ask(node, &["block", &client, "--vip", "echo-v4"])?;
                }
            }
            Event::Unblock => {
                let client = self.topology.client.v4.to_string();
                for node in 0..self.nodes.len() {
                    ask(node, &["unblock", &client, "--vip", "echo-v4"])?;
                }
            }
            Event::Drain => ask(0, &["drain", "--all", &address(0)?])?,
            Event::DrainElsewhere => ask(1, &["drain", "--all", &address(0)?])?,
            Event::Undrain => {
                ask(0, &["undrain", "--all", &address(0)?])?;
                ask(1, &["undrain", "--all", &address(0)?])?;
            }
            Event::Flood => flooding.store(true, Ordering::Relaxed),
            Event::EndFlood => flooding.store(false, Ordering::Relaxed),
            Event::KillRedis => {
                self.redis.end_by(Signal::KILL, PATIENCE)?;
            }
            Event::StartRedis => self.redis = start_redis(&self.redis_host, self.redis_address)?,
        }
        Ok(())
    }
}

/// A configuration whose UDP service has a limit of each source, and one of the whole fleet.
fn limited(text: &str, redis: SocketAddr) -> String {
    let limits = "[vip.limit]\npackets_per_source = \"500/s\"\nburst = 50\n[[vip.backend]]";
    let shared =
        "[vip.limit]\nnew_connections = \"2000/s\"\nburst = 200\ncluster = true\n[[vip.backend]]";
    let mut parts = text.split("[[vip]]");
    let head = parts.next().unwrap_or_default();
    let vips = parts.map(|vip| {
        let limit = if vip.contains("\"udp\"") {
            limits
        } else {
            shared
        };
        format!("[[vip]]{}", vip.replacen("[[vip.backend]]", limit, 1))
    });
    let vips: String = vips.collect();
    format!("{head}\n[redis]\nurl = \"redis://{redis}\"\nfleet = \"lab\"\n\n{vips}")
}

/// Sends datagrams from one port for as long as it is to, and looks for the way to the VIP as traceroute does.
fn flood(to: SocketAddr, flooding: &AtomicBool, end: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("bind a UDP socket")?;
    let pause = Duration::from_millis(10);
    let traceroute = SocketAddr::new(to.ip(), 33_434);
    while !end.load(Ordering::Relaxed) {
        if flooding.load(Ordering::Relaxed) {
            for _ in 0..FLOOD / 100 {
                socket
                    .send_to(b"more than is allowed", to)
                    .context("send")?;
            }
        }
        socket.send_to(b"where are you?", traceroute).ok();
        thread::sleep(pause);
    }
    Ok(())
}
