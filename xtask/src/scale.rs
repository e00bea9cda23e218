//! `cargo xtask scale`: how long the control plane takes with many VIPs that share their backends.
//!
//! Every time is that of an answer: the daemon answers once the maps hold what was asked for. A command's time has the start
//! of the `weir` process in it.

use std::{
    ffi::OsString,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    panic::resume_unwind,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    lab::{self, Backend, Lab, Metrics, Plan, Protocol, Topology, VIP_V4, Vip, Weir, WeirConfig},
    progress::{run_visibly, step},
    root, setup, workspace,
};

/// How long a backend that has gone may take to be out of all tables.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often what can be repeated is.
const TIMES: usize = 11;

/// The first port of the VIPs, which share an address.
const FIRST_PORT: u16 = 1000;

/// Health checks of every VIP; those of one backend are one, since they are the same.
const CHECKED: &str = "[vip.health]\ntype = \"tcp\"\nport = 80\ninterval = \"500ms\"\ntimeout = \"300ms\"\n\
                       rise = 1\nfall = 2\n";

/// More backends than these are not checked.
const MOST_CHECKED: u16 = 100;

/// The first address of backends on the load balancer's segment, 10.77.0.100, and the length of its prefix.
const NEAR: (u32, &str) = (u32::from_be_bytes([10, 77, 0, 100]), "24");

/// The first address of backends that are not, and the prefix that is behind a router: they are one neighbour.
const FAR: (u32, &str) = (u32::from_be_bytes([10, 96, 0, 1]), "10.96.0.0/16");

/// How much there is.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// VIPs, each with all backends.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub vips: u16,
    /// Backends. More than 100 are reached by ipip through a router, and not checked.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    pub backends: u16,
    /// The binary is built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    pub built: bool,
}

/// Measures, and prints a table.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir, optimised", || {
            run_visibly(workspace::cargo().args(["build", "--release", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        let words = [
            "scale".to_owned(),
            "--built".to_owned(),
            format!("--vips={}", options.vips),
            format!("--backends={}", options.backends),
        ];
        root::again_as_root("the lab", &words.map(OsString::from))?;
    }
    println!(
        "\n{} VIPs with {} backends each\n",
        options.vips, options.backends
    );
    measure(options)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells a row of the table.
fn tell(what: &str, took: Duration) {
    println!("| {what} | {:.3} s |", took.as_secs_f64());
}

/// Does everything once, and tells what was done with its time.
fn measure(options: &Options) -> Result<()> {
    let lab = Lab::new()?;
    let plan = Plan {
        near: 1,
        far: 0,
        routed: 0,
    };
    let topology = Topology::build(&lab, &plan)?;
    let host = &topology.backends.first().context("one backend")?.namespace;
    let (addresses, config) = backends(&topology, options)?;
    let binary = workspace::root().join("target/release/weir");
    let mut weir = step("start weir", || {
        Weir::start_binary(binary, &lab, &topology.lb.namespace, &config, &[])
    })?;
    println!("| what | time |\n|---|---|");

    weir.terminate()?;
    let took = timed(|| weir.relaunch(&["--fresh"]).and_then(|()| weir.answers()))?;
    tell("a start from nothing, until packets are forwarded", took);
    weir.end_by(Signal::KILL)?;
    let took = timed(|| weir.relaunch(&[]).and_then(|()| weir.answers()))?;
    tell("a start that takes over all of it", took);

    let cli = |arguments: &[&str]| weir.ask(arguments).map(drop);
    let first = addresses.first().context("an address")?.to_string();
    let commands = || -> Result<(Duration, Duration)> {
        let mut took = Vec::new();
        for _ in 0..TIMES {
            took.push(timed(|| cli(&["drain", "vip-0", &first]))?);
            took.push(timed(|| cli(&["undrain", "vip-0", &first]))?);
        }
        middle_and_last(took)
    };
    let (median, slowest) = commands()?;
    tell("a command for one backend of one VIP (median)", median);
    tell("the slowest of those", slowest);
    let scrapes = || -> Result<(Duration, Duration)> {
        let ask = || Metrics::ask(&topology.lb.namespace, config.metrics).map(drop);
        let took = (0..TIMES).map(|_| timed(ask)).collect::<Result<_>>()?;
        middle_and_last(took)
    };
    let (median, slowest) = scrapes()?;
    tell("a scrape of all metrics (median)", median);
    tell("the slowest of those", slowest);
    let (median, slowest) = while_scraped(&topology.lb.namespace, config.metrics, commands)?;
    tell(
        "a command while metrics are scraped without a pause (median)",
        median,
    );
    tell("the slowest of those", slowest);

    let path = weir.config().to_owned();
    let text = fs::read_to_string(&path)?;
    let lighter = text.replace(
        &format!("address = \"{first}\"\nweight  = 100"),
        &format!("address = \"{first}\"\nweight  = 50"),
    );
    ensure!(lighter != text, "the configuration is not as expected");
    fs::write(&path, &lighter)?;
    let took = timed(|| cli(&["apply"]))?;
    tell("a configuration that changes every table", took);

    let (median, slowest) = commands()?;
    tell("the same while the slots of all VIPs move (median)", median);
    tell("the slowest of those", slowest);
    let took = timed(|| cli(&["drain", "--all", &first]))?;
    tell("a command for one backend of all VIPs", took);
    cli(&["undrain", "--all", &first])?;

    if options.backends > MOST_CHECKED {
        weir.terminate()?;
        return Ok(());
    }
    let checked = text.replace(
        "forward  = \"l2\"\n",
        &format!("forward  = \"l2\"\n{CHECKED}"),
    );
    ensure!(checked != text, "the configuration is not as expected");
    // Keys of a VIP come before its sections.
    fs::write(&path, checked)?;
    cli(&["apply"])?;
    tell(
        "a backend that fails its checks, from the first table to the last",
        failure(&weir, host, &first)?,
    );
    let (median, slowest) = scrapes()?;
    tell(
        "a scrape of all metrics, those of health checks included (median)",
        median,
    );
    tell("the slowest of those", slowest);
    weir.terminate()?;
    Ok(())
}

/// The backends' addresses, ways to them, and a configuration in which all VIPs have all of them.
fn backends(topology: &Topology, options: &Options) -> Result<(Vec<IpAddr>, WeirConfig)> {
    let host = topology.backends.first().context("one backend")?;
    let is_near = options.backends <= MOST_CHECKED;
    let (first, via) = if is_near { NEAR } else { FAR };
    let addresses: Vec<IpAddr> = (0..options.backends)
        .map(|number| Ipv4Addr::from(first + u32::from(number)).into())
        .collect();
    let mut config = WeirConfig {
        vips: vips(options, &addresses),
        ..WeirConfig::for_topology(topology, &[])
    };
    if is_near {
        for address in &addresses {
            host.namespace
                .ip(&format!("address add {address}/{via} dev eth0"))?;
        }
    } else {
        let route = format!("route add {via} via {}", host.v4);
        topology.lb.namespace.ip(&route)?;
        config.forward = "ipip";
        config.encap_source = vec![topology.lb.v4];
    }
    Ok((addresses, config))
}

/// How long it takes from the first write to the last when a backend that all VIPs share fails its checks.
fn failure(weir: &Weir, host: &lab::Namespace, address: &str) -> Result<Duration> {
    let of_health = |text: &str| -> Vec<Duration> {
        let lines = text
            .lines()
            .filter(|line| line.contains("cause=\"health\""));
        lines.filter_map(time_of).collect()
    };
    lab::until("every backend to be healthy", PATIENCE, || {
        let text = weir.ask(&["status", "-o", "json"])?;
        let status: Value = serde_json::from_str(&text)?;
        let list = |value: &Value, key: &str| -> Vec<Value> {
            let list = value.get(key).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let vips = list(&status, "vips");
        let mut backends = vips.iter().flat_map(|vip| list(vip, "backends"));
        Ok(backends.all(|backend| backend.get("healthy") == Some(&Value::Bool(true))))
    })?;
    let before = of_health(&fs::read_to_string(weir.log())?).len();
    host.ip(&format!("address del {address}/24 dev eth0"))?;
    lab::until("the backend to be out of every table", PATIENCE, || {
        let status = weir.ask(&["backend", "show", address, "-o", "json"])?;
        let rows: Value = serde_json::from_str(&status)?;
        let rows = rows.as_array().context("the backends")?;
        Ok(rows
            .iter()
            .all(|row| row.get("slots") == Some(&Value::from(0))))
    })?;
    let times = of_health(&fs::read_to_string(weir.log())?);
    let times = times.get(before..).unwrap_or_default();
    let (first, last) = times
        .first()
        .zip(times.last())
        .context("no line tells of it")?;
    Ok(last.saturating_sub(*first))
}

/// The time of day at which a line of the log was written.
fn time_of(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once('T')?;
    let (time, _) = rest.split_once('Z')?;
    let mut parts = time.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>(), parts.next()?.parse::<u64>());
    let seconds: f64 = parts.next()?.parse().ok()?;
    let whole = Duration::from_secs(hours.ok()? * 3600 + minutes.ok()? * 60);
    Some(whole + Duration::from_secs_f64(seconds))
}

/// The median and the longest of some times.
fn middle_and_last(mut took: Vec<Duration>) -> Result<(Duration, Duration)> {
    took.sort_unstable();
    let median = took.get(took.len() / 2).copied();
    let both = median.zip(took.last().copied());
    both.context("nothing was timed")
}

/// Does something while somebody scrapes all the time.
fn while_scraped<T>(
    host: &lab::Namespace,
    metrics: SocketAddr,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                Metrics::ask(host, metrics)?;
            }
            Ok(())
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let scraped = asking.join().unwrap_or_else(|panic| resume_unwind(panic));
        scraped.and(done)
    })
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn vips(options: &Options, addresses: &[IpAddr]) -> Vec<Vip> {
    let backends: Vec<_> = addresses
        .iter()
        .map(|address| Backend {
            address: *address,
            weight: 100,
        })
        .collect();
    let vip = |number: u16| Vip {
        name: format!("vip-{number}"),
        address: VIP_V4,
        port: FIRST_PORT + number,
        protocol: Protocol::Tcp,
        flows: None,
        checked: None,
        backends: backends.clone(),
    };
    (0..options.vips).map(vip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_time_of_a_line() {
        let time = time_of("2026-11-24T05:06:15.101124Z  INFO weir: forwarding").unwrap();
        assert_eq!(
            time,
            Duration::from_micros((5 * 3600 + 6 * 60 + 15) * 1_000_000 + 101_124)
        );
        assert_eq!(time_of("no time"), None);
    }
}
