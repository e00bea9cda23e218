//! `cargo xtask limits`: sources that send ten times their limit beside a thousand that stay within it, and a flood from a
//! million sources beside connections that are open, with real packets.
//!
//! Frames are counted where the client sends them, by the program, and on the wire behind it.

mod fleet;
mod flood;
mod paced;

use std::{
    ffi::OsString,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use etherparse::PacketBuilder;

use self::paced::{Sent, Stream, send};
pub use self::{
    fleet::{Findings, Situation, fleet, serve as start_redis},
    flood::{Flood, flood},
};
use crate::{
    lab::{Lab, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, until},
    progress::{run_visibly, step},
    root, setup, workspace,
};

/// The limit of a source, in packets a second, and its burst.
const LIMIT: u32 = 1000;
const BURST: u32 = 50;

/// How many sources stay within the limit.
const CROWD: u16 = 1000;

/// What each of them sends, a second.
const EACH: u32 = 10;

/// How long a fleet may take to share a limit out anew.
const SETTLE: Duration = Duration::from_secs(2);

/// How long counters may take to be what they should.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to measure.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Seconds that each kind of traffic is sent.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Seconds of the flood.
    #[arg(long, default_value_t = 30)]
    pub flood: u64,
    /// Connections that are open beside the flood.
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// The binary is built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    pub built: bool,
}

/// What became of one kind of traffic.
#[derive(Debug, Clone)]
pub struct Row {
    /// The VIP's name.
    pub vip: &'static str,
    /// How long was sent.
    pub time: Duration,
    /// Frames of the source that sends too much.
    pub offered: u64,
    /// Those of them that were forwarded, as seen on the wire.
    pub forwarded: u64,
    /// Frames of the sources that stay within the limit.
    pub crowd: u64,
    /// Those of them that were forwarded.
    pub crowd_forwarded: u64,
    /// Frames that the limit should let through, by the moments at which they were sent.
    pub expected: u64,
}

impl Row {
    /// The most that may come through in the time.
    #[must_use]
    pub fn most(&self) -> u64 {
        let rate = self.time.as_millis() * u128::from(LIMIT) / 1000;
        // A frame may be judged a moment later than it was sent.
        u64::try_from(rate).unwrap_or(u64::MAX) + u64::from(BURST) + 2
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_burst = u32::try_from(self.forwarded).unwrap_or(u32::MAX);
        let after_burst = f64::from(after_burst.saturating_sub(BURST));
        let limit = self.time.as_secs_f64() * f64::from(LIMIT);
        write!(
            f,
            "| {} | {} | {} | {:+.2} % | {} | {} |",
            self.vip,
            self.offered,
            self.forwarded,
            (after_burst / limit - 1.0) * 100.0,
            self.crowd,
            self.crowd - self.crowd_forwarded
        )
    }
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir, optimised", || {
            run_visibly(workspace::cargo().args(["build", "--release", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        let words = [
            "limits".to_owned(),
            "--built".to_owned(),
            format!("--seconds={}", options.seconds),
            format!("--flood={}", options.flood),
            format!("--connections={}", options.connections),
        ];
        root::again_as_root("the lab", &words.map(OsString::from))?;
    }
    let binary = workspace::root().join("target/release/weir");
    let rows = step("send ten times the limit", || {
        sources(&binary, Duration::from_secs(options.seconds))
    })?;
    println!(
        "\n{LIMIT} packets a second of a source, burst {BURST}; {CROWD} sources send {EACH} a second each\n\n\
         | VIP | offered by one | forwarded | against the limit after its burst | sent by {CROWD} others | lost of those |\n\
         |---|---|---|---|---|---|"
    );
    for row in &rows {
        println!("{row}");
    }
    let flood = step("flood from a million sources", || {
        flood(
            &binary,
            options.connections,
            Duration::from_secs(options.flood),
        )
    })?;
    println!("\n{flood}");
    for nodes in [2, 4] {
        let seen = step(&format!("one limit for a fleet of {nodes}"), || {
            fleet(&binary, nodes, SETTLE, Duration::from_secs(options.seconds))
        })?;
        println!(
            "\n{nodes} nodes, ten times the limit of the fleet\n\n| situation | let through | of the limit | in the busiest second |\n|---|---|---|---|"
        );
        println!("{seen}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends TCP and UDP, over IPv4 and IPv6, each for a time.
pub fn sources(binary: &Path, time: Duration) -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut topology = Topology::build(
        &lab,
        &Plan {
            near: 1,
            ..Plan::default()
        },
    )?;
    let limit = format!("[vip.limit]\npackets_per_source = \"{LIMIT}/s\"\nburst = {BURST}\n");
    let weir = start(
        binary,
        &lab,
        &topology,
        &WeirConfig::for_topology(&topology, &[]),
        &limit,
    )?;
    let mut rows = Vec::new();
    for (vip, address, kind) in [
        ("web-v4", VIP_V4, Kind::Ack),
        ("web-v6", VIP_V6, Kind::Ack),
        ("echo-v4", VIP_V4, Kind::Datagram),
        ("echo-v6", VIP_V6, Kind::Datagram),
    ] {
        rows.push(measure(&mut topology, &weir, vip, (address, kind), time)?);
    }
    Ok(rows)
}

/// Starts weir with some lines in every VIP.
fn start(
    binary: &Path,
    lab: &Lab,
    topology: &Topology,
    config: &WeirConfig,
    lines: &str,
) -> Result<Weir> {
    let weir = Weir::start_binary(binary.to_owned(), lab, &topology.lb.namespace, config, &[])?;
    let text = fs::read_to_string(weir.config()).context("read the config")?;
    let text = text
        .split("[[vip]]")
        .map(|vip| vip.replacen("[[vip.backend]]", &format!("{lines}[[vip.backend]]"), 1))
        .collect::<Vec<_>>()
        .join("[[vip]]");
    let limited = lab.write("limited.toml", &text)?;
    weir.ask(&["apply", &limited.display().to_string()])?;
    Ok(weir)
}

fn measure(
    topology: &mut Topology,
    weir: &Weir,
    vip: &'static str,
    (address, kind): (IpAddr, Kind),
    time: Duration,
) -> Result<Row> {
    let link = Link::of(topology)?;
    let busy = source(address, 0);
    topology.observer.watch(busy)?;
    let before = weir.status()?.vip(vip)?.packets;
    let streams = [
        Stream {
            frames: vec![link.frame(busy, address, kind)],
            per_second: 10 * LIMIT,
        },
        Stream {
            frames: (1..=CROWD)
                .map(|number| link.frame(source(address, number), address, kind))
                .collect(),
            per_second: u32::from(CROWD) * EACH,
        },
    ];
    let Sent { time, moments } = topology
        .client
        .namespace
        .inside(|| send("eth0", &streams, |now| now < time))?;
    let [busy_moments, crowd_moments] = moments.as_slice() else {
        anyhow::bail!("two streams were sent");
    };
    let crowd = crowd_moments.len() as u64;
    let mut total = 0;
    let mut forwarded = 0;
    until("the last frames to be counted", PATIENCE, || {
        total = weir.status()?.vip(vip)?.packets - before;
        forwarded = topology.observer.seen(busy)?;
        Ok(total >= forwarded + crowd)
    })
    .with_context(|| {
        format!("{vip}: {crowd} frames within the limit, {forwarded} of the source over it, {total} forwarded in all")
    })?;
    Ok(Row {
        vip,
        time,
        offered: busy_moments.len() as u64,
        forwarded,
        crowd,
        crowd_forwarded: total - forwarded,
        expected: paced::within(busy_moments, LIMIT, BURST),
    })
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A TCP segment of a connection that nobody has.
    Ack,
    /// The same, to where connections last.
    Stray,
    /// The first segment of one.
    Syn,
    /// A UDP datagram.
    Datagram,
}

/// The MAC addresses between the client and the load balancer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    client: [u8; 6],
    lb: [u8; 6],
}

impl Link {
    pub(crate) fn of(topology: &Topology) -> Result<Self> {
        Ok(Self {
            client: topology.client.nic.mac_bytes()?,
            lb: topology.lb.nic.mac_bytes()?,
        })
    }

    /// A frame of a flow to a VIP.
    fn frame(&self, from: IpAddr, to: IpAddr, kind: Kind) -> Vec<u8> {
        self.frame_to(from, 40_000, to, kind)
    }

    pub(crate) fn frame_to(&self, from: IpAddr, port: u16, to: IpAddr, kind: Kind) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(self.client, self.lb);
        let ip = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
            (from, to) => link.ipv6(v6(from), v6(to), 64),
        };
        let mut frame = Vec::with_capacity(80);
        let written = match kind {
            Kind::Ack | Kind::Stray => {
                let port_of_vip = match kind {
                    Kind::Stray => Topology::lasting(to).port(),
                    _ => Topology::http(to).port(),
                };
                let tcp = ip.tcp(port, port_of_vip, 1, 65_535).ack(1);
                tcp.write(&mut frame, b"")
            }
            Kind::Syn => {
                let port_of_vip = Topology::lasting(to).port();
                let tcp = ip.tcp(port, port_of_vip, 1, 65_535).syn();
                tcp.write(&mut frame, b"")
            }
            Kind::Datagram => ip
                .udp(port, Topology::udp(to).port())
                .write(&mut frame, b"x"),
        };
        debug_assert!(written.is_ok(), "writing to a vector cannot fail");
        frame
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A source by its number: no host of the lab, and each in a prefix of its own.
fn source(like: IpAddr, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    if like.is_ipv4() {
        Ipv4Addr::new(10, 99, high, low).into()
    } else {
        Ipv6Addr::new(0xfd99, 0, 0, number, 0, 0, 0, 1).into()
    }
}

/// Resident memory of the daemon, in bytes.
fn memory(weir: &Weir) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("the daemon's memory")?.trim().parse()?;
    ensure!(kib > 0, "the daemon has no memory");
    Ok(kib * 1024)
}
