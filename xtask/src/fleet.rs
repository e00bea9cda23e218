//! `cargo xtask fleet`: three nodes behind a router with BGP, under long-lived connections of both IPs.
//!
//! A node is withdrawn and brought back again and again, so that the router sends open flows to other nodes; one is drained; one
//! dies with its link; then the last backend fails, and the first comes back. It counts connections that break and measures times.

mod dial;
mod site;

use std::{
    fmt,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::process::Signal;

use self::site::{Decision, Moment, NODES, Site, VIPS};
use crate::{
    lab::Topology,
    progress::{run_visibly, step, verdict},
    root, setup,
    soak::traffic::Traffic,
    workspace,
};

/// How long new connections are made after a node has died.
const AFTERMATH: Duration = Duration::from_secs(4);
/// From when on after the death all of them must come about, whatever the machine is busy with.
const SURELY_NOTICED: Duration = Duration::from_secs(3);

/// How much of it.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Long-lived connections, half of them to each VIP.
    #[arg(long, default_value_t = 1000)]
    pub connections: u32,
    /// How often a node is withdrawn and brought back.
    #[arg(long, default_value_t = 10)]
    pub rounds: u32,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    pub built: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    connections: u32,
    rounds: u32,
    /// Ends of connections that were open, in words.
    broken: Vec<String>,
    /// Long-lived connections that did not come about.
    refused: usize,
    /// Lines that went to and fro.
    messages: u64,
    /// From the command until no packet came to the drained node any more, with the two seconds without one.
    drain_seconds: f64,
    dial: Dialled,
    /// From the decisions to the router's kernel, in ms, by VIP.
    withdrawn_ms: [i64; 2],
    announced_ms: [i64; 2],
}

/// What became of new connections while a node died.
#[derive(Debug, Clone, Default)]
struct Dialled {
    attempts: usize,
    failed: usize,
    /// When the last that failed began, in ms after the death.
    last_failed_ms: u128,
    /// How many failed of those that began when all must have noticed.
    failed_late: usize,
}

/// Shows it; the exit code is 0 only if no connection broke.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir and its XDP program", || {
            run_visibly(workspace::cargo().args(["build", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        let Options {
            connections,
            rounds,
            ..
        } = options;
        let words = format!("fleet --built --connections {connections} --rounds {rounds}");
        let words: Vec<_> = words.split(' ').map(Into::into).collect();
        root::again_as_root("the fleet", &words)?;
    }
    let findings = show(options)?;
    println!("\n{findings}");
    Ok(verdict(&findings.complaints()))
}

/// Does all of it.
pub fn show(options: &Options) -> Result<Findings> {
    let mut findings = Findings {
        connections: options.connections,
        rounds: options.rounds,
        ..Findings::default()
    };
    let mut site = step(
        "three nodes, a router and four backends, until the router has three ways to both VIPs",
        Site::start,
    )?;
    let mut traffic = step("open the connections", || {
        let half = options.connections / 2;
        let start = |vip| Traffic::start_to(&site.topology, vip, half, 0);
        VIPS.into_iter().map(start).collect::<Result<Vec<_>>>()
    })?;
    step("withdraw a node and bring it back, again and again", || {
        for round in 0..options.rounds {
            let node = site.nodes.get(round as usize % NODES).context("no node")?;
            node.weir.ask(&["drain-node"])?;
            site.wait_for_paths(NODES - 1)?;
            speak(&mut traffic)?;
            node.weir.ask(&["undrain-node"])?;
            site.wait_for_paths(NODES)?;
            speak(&mut traffic)?;
            println!("    round {}: {} broken", round + 1, broken(&traffic));
        }
        Ok(())
    })?;
    findings.drain_seconds = step("drain a node, and wait until nothing comes", || {
        drain(&site, &mut traffic)
    })?;
    findings.dial = step("a node dies, with its link", || kill(&mut site))?;
    step("every connection speaks on", || speak(&mut traffic))?;
    for traffic in &mut traffic {
        traffic.end()?;
        findings.messages += traffic.tally.messages;
        findings.refused += traffic.refused.len();
        let words = traffic.broken.iter();
        findings
            .broken
            .extend(words.map(|broken| format!("{broken:?}")));
    }
    findings.withdrawn_ms = step("the last backend fails", || {
        let began = Moment::now();
        site.fail_all()?;
        let gone = site.wait_for_paths(0)?;
        decided(&site, began, false, gone)
    })?;
    findings.announced_ms = step("the first backend is back", || {
        let began = Moment::now();
        site.pass_one()?;
        let back = site.wait_until_paths("one or more", |paths| paths > 0)?;
        decided(&site, began, true, back)
    })?;
    Ok(findings)
}

fn speak(traffic: &mut [Traffic]) -> Result<()> {
    traffic.iter_mut().try_for_each(Traffic::wait_for_a_round)
}

fn broken(traffic: &[Traffic]) -> usize {
    traffic.iter().map(|traffic| traffic.broken.len()).sum()
}

/// Drains the second node and waits; then it comes back.
fn drain(site: &Site, traffic: &mut [Traffic]) -> Result<f64> {
    let node = site.nodes.get(1).context("no second node")?;
    let words = [
        "drain-node",
        "--wait",
        "--quiet",
        "2s",
        "--timeout",
        "30s",
        "-o",
        "json",
    ];
    let waited: serde_json::Value = serde_json::from_str(&node.weir.ask(&words)?)?;
    let seconds = waited.get("seconds").and_then(serde_json::Value::as_f64);
    speak(traffic)?;
    node.weir.ask(&["undrain-node"])?;
    site.wait_for_paths(NODES)?;
    seconds.context("drain-node does not tell how long it took")
}

/// Takes the third node off the net without a word, and kills its daemon.
fn kill(site: &mut Site) -> Result<Dialled> {
    let targets = VIPS.map(Topology::http);
    let client = site.topology.client.namespace.clone();
    let node = site.nodes.get_mut(2).context("no third node")?;
    let (death, attempts) = dial::during(&client, &targets, || {
        // The router sends to all three when it happens.
        thread::sleep(Duration::from_millis(500));
        let death = Instant::now();
        node.host.ip("link set eth0 down")?;
        node.weir.end_by(Signal::KILL)?;
        thread::sleep(AFTERMATH);
        Ok(death)
    })?;
    let failed = || attempts.iter().filter(|attempt| attempt.failed);
    let after = failed().map(|attempt| attempt.began.saturating_duration_since(death));
    let late = failed().filter(|attempt| attempt.began > death + SURELY_NOTICED);
    site.wait_for_paths(NODES - 1)?;
    Ok(Dialled {
        attempts: attempts.len(),
        failed: failed().count(),
        last_failed_ms: after.max().unwrap_or_default().as_millis(),
        failed_late: late.count(),
    })
}

/// The time from the decision of the nodes to what the router's kernel was `seen` to have: for a withdrawal from that of the last
/// node, for an announcement from that of the first.
fn decided(site: &Site, began: Moment, announced: bool, seen: [Moment; 2]) -> Result<[i64; 2]> {
    let mut decisions: Vec<Decision> = Vec::new();
    // The third is dead.
    for node in site.nodes.iter().take(NODES - 1) {
        let own = node.decisions()?.into_iter();
        decisions.extend(
            own.filter(|decision| decision.announced == announced && decision.at.since(began) >= 0),
        );
    }
    let mut times = [0; 2];
    for ((vip, seen), time) in VIPS.into_iter().zip(seen).zip(&mut times) {
        let own = decisions.iter().filter(|decision| decision.address == vip);
        let at = own.map(|decision| decision.at);
        let at = if announced { at.min() } else { at.max() };
        *time = seen.since(at.context("no node has decided anything")?);
    }
    Ok(times)
}

impl Findings {
    /// What should not be, in sentences.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if let Some(first) = self.broken.first() {
            complaints.push(format!(
                "{} connections broke, such as {first}",
                self.broken.len()
            ));
        }
        if self.refused > 0 {
            complaints.push(format!("{} connections did not come about", self.refused));
        }
        if self.dial.failed_late > 0 {
            complaints.push(format!(
                "{} new connections failed {} s after a node had died",
                self.dial.failed_late,
                SURELY_NOTICED.as_secs()
            ));
        }
        complaints
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dialled {
            attempts,
            failed,
            last_failed_ms,
            ..
        } = self.dial;
        let [w4, w6] = self.withdrawn_ms;
        let [a4, a6] = self.announced_ms;
        writeln!(
            f,
            "{} long-lived connections, half IPv4, half IPv6: {} lines echoed, {} connections broken",
            self.connections,
            self.messages,
            self.broken.len()
        )?;
        writeln!(
            f,
            "  a node withdrawn and brought back {} times, one drained, one killed with its link",
            self.rounds
        )?;
        writeln!(
            f,
            "  drain-node --wait --quiet 2s: {:.1} s until nothing had come for 2 s",
            self.drain_seconds
        )?;
        writeln!(
            f,
            "  a node dead (BFD 3 x 100 ms): {failed} of {attempts} new connections failed, the last begun {last_failed_ms} ms after it"
        )?;
        writeln!(
            f,
            "  last backend gone: from the last node's decision to the router's kernel {w4} ms (IPv4), {w6} ms (IPv6)"
        )?;
        write!(
            f,
            "  first backend back: from the first node's decision to the router's kernel {a4} ms (IPv4), {a6} ms (IPv6)"
        )
    }
}
