//! SYNs from a million sources, beside connections that are open.

use std::{
    fmt,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Kind, Link, memory, start};
use crate::{
    lab::{Backend, FrameSocket, Lab, Plan, Protocol, Topology, VIP_V4, Vip, WeirConfig},
    soak::traffic::Traffic,
};

/// How many sources send.
const SOURCES: u32 = 1 << 20;

/// The first of them, 100.64.0.0 (RFC 6598): no host of the lab has such an address.
const FIRST_SOURCE: u32 = 0x6440_0000;

/// New connections a second that the VIP takes in all, and of a source.
const LIMITS: &str = "[[vip.limit]]\nnew_connections = \"1000/s\"\nburst = 1000\n\
                      [[vip.limit]]\npackets_per_source = \"100k/s\"\nnew_connections_per_source = \"100/s\"\nburst = 1000\n";

/// How many connections that come and go are let in beside the others; a flood may keep them out.
const NONE_PASSING: u32 = 0;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Flood {
    /// How long it took.
    pub time: Duration,
    /// SYNs sent.
    pub sent: u64,
    /// Packets that limits threw away.
    pub limited: u64,
    /// Connections that were open.
    pub connections: u32,
    /// Those of them that broke, and why.
    pub broken: Vec<String>,
    /// Lines that were echoed on them meanwhile.
    pub lines: u64,
    /// Flows that were remembered at the end.
    pub pins: u64,
    /// The daemon's resident memory before and after, in bytes.
    pub memory: (u64, u64),
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.memory;
        write!(
            f,
            "{} SYNs from {SOURCES} sources in {:.0} s, {} of them dropped by limits; {} connections open, {} broken, {} lines \
             echoed; {} flows remembered; the daemon's memory {} KiB before, {} KiB after",
            self.sent,
            self.time.as_secs_f64(),
            self.limited,
            self.connections,
            self.broken.len(),
            self.lines,
            self.pins,
            before / 1024,
            after / 1024
        )
    }
}

/// Floods for a time.
pub fn flood(binary: &Path, connections: u32, time: Duration) -> Result<Flood> {
    let lab = Lab::new()?;
    let plan = Plan {
        near: 2,
        ..Plan::default()
    };
    let topology = Topology::build(&lab, &plan)?;
    let backends = topology.backends.iter().map(|host| Backend {
        address: host.v4,
        weight: 100,
    });
    let config = WeirConfig {
        vips: vec![Vip {
            name: "lasting".to_owned(),
            address: VIP_V4,
            port: Topology::lasting(VIP_V4).port(),
            protocol: Protocol::Tcp,
            flows: None,
            checked: None,
            backends: backends.collect(),
        }],
        ..WeirConfig::for_topology(&topology, &[])
    };
    let weir = start(binary, &lab, &topology, &config, LIMITS)?;
    let mut traffic = Traffic::start(&topology, connections, NONE_PASSING)?;
    let limited = || -> Result<u64> {
        let reasons = weir.status()?.reasons;
        let limited = reasons.iter().find(|reason| reason.reason == "limited");
        Ok(limited.context("the reason `limited`")?.packets)
    };
    let (limited_before, memory_before) = (limited()?, memory(&weir)?);
    let lines_before = traffic.tally.messages;
    let link = Link::of(&topology)?;
    let namespace = &topology.client.namespace;
    let (sent, took) = thread::scope(|scope| {
        let sender = scope.spawn(|| namespace.inside(|| syns(&link, time)));
        sender
            .join()
            .map_err(|_panic| anyhow::anyhow!("the sender panicked"))?
    })?;
    traffic.wait_for_a_round()?;
    let report = Flood {
        time: took,
        sent,
        limited: limited()? - limited_before,
        connections,
        lines: traffic.tally.messages - lines_before,
        pins: weir.pins()?,
        memory: (memory_before, memory(&weir)?),
        broken: traffic
            .broken
            .iter()
            .map(|broken| format!("{broken:?}"))
            .collect(),
    };
    traffic.end()?;
    Ok(report)
}

/// Sends SYNs from one source after the other, as fast as the socket takes them.
fn syns(link: &Link, time: Duration) -> Result<(u64, Duration)> {
    let socket = FrameSocket::open("eth0")?;
    let began = Instant::now();
    let mut sent = 0;
    // Whole frames, checksums included: a switch may look at them.
    for source in (0..SOURCES).cycle() {
        let from = Ipv4Addr::from(FIRST_SOURCE + source).into();
        socket.send(&link.frame_to(from, 40_000, VIP_V4, Kind::Syn))?;
        sent += 1;
        if sent % 256 == 0 && began.elapsed() >= time {
            break;
        }
    }
    Ok((sent, began.elapsed()))
}
