//! `cargo xtask restarts`: all that may happen to a daemon, under steady HTTP and UDP traffic that must not notice.
//!
//! The daemon is killed and stays away, starts again, takes a storm of reloads, and is replaced by another binary. Frames
//! are counted where the client sends, in the XDP program, and on the wire behind it: three equal numbers, and no request
//! that failed.

use std::{
    ffi::OsString,
    fmt, fs,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::process::Signal;

use crate::{
    lab::{self, Lab, Observer, Plan, Topology, VIP_V4, Weir, WeirConfig},
    progress::{run_visibly, step, verdict},
    root, setup,
    traffic::steady::{Steady, Total},
    workspace,
};

/// How long something that is to happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much must be answered between two events, so that each is under traffic.
const BETWEEN: u64 = 100;

/// What is done to the daemon.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Seconds without a daemon after it was killed.
    #[arg(long, default_value_t = 30)]
    pub away: u64,
    /// How many reloads follow one another.
    #[arg(long, default_value_t = 100)]
    pub reloads: u32,
    /// The binary to upgrade to [default: an optimised build of this working tree]
    #[arg(long, value_name = "FILE")]
    pub upgrade_to: Option<PathBuf>,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    pub built: bool,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests and datagrams.
    pub traffic: Total,
    /// Frames that the client sent for the VIPs, on the wire.
    pub sent: u64,
    /// Frames that the XDP program forwarded, by its own counters.
    pub forwarded: u64,
    /// Frames that the load balancer sent on, on the wire.
    pub received: u64,
    /// How long the traffic ran.
    pub duration: Duration,
}

impl Report {
    /// What is not as it should be.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.traffic.failed > 0 {
            complaints.push(format!(
                "{} requests failed: {:?}",
                self.traffic.failed, self.traffic.errors
            ));
        }
        if self.sent != self.forwarded || self.forwarded != self.received {
            complaints.push("frames were lost, or counted twice".to_owned());
        }
        complaints
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Total {
            requests,
            datagrams,
            failed,
            ..
        } = &self.traffic;
        write!(
            f,
            "{:.0} s: {requests} HTTP requests and {datagrams} datagrams answered, {failed} failed\n\
             {} frames sent by the client, {} forwarded by the program, {} seen behind it",
            self.duration.as_secs_f64(),
            self.sent,
            self.forwarded,
            self.received
        )
    }
}

/// Runs all of it; the exit code is 0 only if nothing was lost.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir twice: as usual, and optimised", || {
            run_visibly(workspace::cargo().args(["build", "-p", "lb-userspace"]))?;
            run_visibly(workspace::cargo().args(["build", "--release", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        root::again_as_root("the lab", &options.words())?;
    }
    let options = Options {
        upgrade_to: Some(match &options.upgrade_to {
            Some(path) => path.clone(),
            None => workspace::root().join("target/release/weir"),
        }),
        ..options.clone()
    };
    let report = through(&options)?;
    println!("\n{report}");
    Ok(verdict(&report.complaints()))
}

impl Options {
    /// Returns these options as words, for the run as root.
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = [
            "restarts".to_owned(),
            "--built".to_owned(),
            format!("--away={}", self.away),
            format!("--reloads={}", self.reloads),
        ]
        .map(OsString::from)
        .into();
        if let Some(path) = &self.upgrade_to {
            words.extend(["--upgrade-to".into(), path.clone().into_os_string()]);
        }
        words
    }
}

/// Does all of it in a lab and returns what was seen. Without a binary to upgrade to, a copy of the running one with other
/// bytes is taken.
pub fn through(options: &Options) -> Result<Report> {
    let lab = Lab::new()?;
    let topology = Topology::build(&lab, &Plan::default())?;
    let mut observer = topology.client.nic.observe()?;
    observer.watch(topology.client.v4)?;
    let config = WeirConfig::for_topology(&topology, &[]);
    let mut weir = Weir::start(&lab, &topology.lb.namespace, &config)?;
    let before = Counts::take(&topology, &observer, &weir)?;

    let steady = Steady::default();
    let began = Instant::now();
    let client = &topology.client.namespace;
    let (http, udp) = (Topology::http(VIP_V4), Topology::udp(VIP_V4));
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            client.inside(|| {
                steady.run(http, udp);
                Ok(())
            })
        });
        let done = happen(options, &lab, &mut weir, &steady);
        steady.end();
        match traffic.join() {
            Ok(result) => result?,
            Err(_) => bail!("the traffic panicked"),
        }
        done
    })?;
    let duration = began.elapsed();

    // Frames of the last connection's end may be on the way.
    let mut counts = Counts::default();
    let settled = lab::until("equal counts", Duration::from_secs(3), || {
        counts = Counts::take(&topology, &observer, &weir)?.since(&before);
        Ok(counts.sent == counts.forwarded && counts.forwarded == counts.received)
    });
    // Where they differ, the report says so.
    drop(settled);
    Ok(Report {
        traffic: steady.total(),
        sent: counts.sent,
        forwarded: counts.forwarded,
        received: counts.received,
        duration,
    })
}

/// Everything that happens to the daemon.
fn happen(options: &Options, lab: &Lab, weir: &mut Weir, steady: &Steady) -> Result<()> {
    goes_on(steady)?;
    step(
        &format!("kill the daemon, and be {} s without it", options.away),
        || {
            weir.end_by(Signal::KILL)?;
            let until = Instant::now() + Duration::from_secs(options.away);
            while Instant::now() < until {
                goes_on(steady)?;
            }
            Ok(())
        },
    )?;
    step("start it again", || weir.restart())?;
    goes_on(steady)?;
    step(&format!("reload {} times", options.reloads), || {
        for _ in 0..options.reloads {
            weir.reload()?;
        }
        Ok(())
    })?;
    goes_on(steady)?;
    let binary = match &options.upgrade_to {
        Some(path) => path.clone(),
        None => rebuilt(lab)?,
    };
    let old = weir.program_on("eth0")?;
    step("replace it by another binary", || {
        let (from, to) = (fs::read(weir.binary())?, fs::read(&binary)?);
        ensure!(from != to, "{} is no other binary", binary.display());
        weir.terminate()?;
        weir.upgrade(binary)
    })?;
    goes_on(steady)?;
    ensure!(
        weir.program_on("eth0")? != old,
        "the old program is still on the interface"
    );
    lab::until("the old program to go", PATIENCE, || {
        Ok(!lab::program_exists(old)?)
    })
}

/// Waits until more traffic has been answered.
fn goes_on(steady: &Steady) -> Result<()> {
    let before = steady.answered();
    lab::until("traffic to be answered", PATIENCE, || {
        Ok(steady.answered() > before + BETWEEN)
    })
}

/// A copy of the binary under test with other bytes: what follows the sections of an ELF file is nobody's.
fn rebuilt(lab: &Lab) -> Result<PathBuf> {
    let from = workspace::weir_binary()?;
    let to = lab.folder().join("weir-rebuilt");
    fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    let mut bytes = fs::read(&to)?;
    bytes.extend(b"rebuilt");
    fs::write(&to, bytes)?;
    Ok(to)
}

/// Frames from the client, so far.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    sent: u64,
    forwarded: u64,
    received: u64,
}

impl Counts {
    fn take(topology: &Topology, observer: &Observer, weir: &Weir) -> Result<Self> {
        let client = topology.client.v4;
        Ok(Self {
            sent: observer.seen(client)?,
            forwarded: weir.status()?.forwarded(),
            received: topology.sent_by_lb(client)?,
        })
    }

    const fn since(self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            forwarded: self.forwarded - before.forwarded,
            received: self.received - before.received,
        }
    }
}
