//! `cargo xtask soak`: random changes under long-lived connections, and an account of each that breaks.
//!
//! Backends come and go, get other weights, are drained and fail their checks; the daemon is killed; strays flood the VIP. With two nodes, a router
//! before them also sends open flows to the other node whenever no slot is on the move.

mod change;
mod death;
mod findings;
mod fleet;
mod flood;
pub(crate) mod traffic;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

pub use self::findings::Findings;
use self::{
    change::{Backends, Change},
    death::Death,
    fleet::Fleet,
    traffic::Traffic,
};
use crate::{
    progress::{run_visibly, step, verdict},
    root, setup, workspace,
};

/// Names the seed in the environment, to run the same changes again.
pub const SEED_VARIABLE: &str = "WEIR_SOAK_SEED";
/// How long a pause between two changes may be: some come while slots are in every state.
const PAUSE_MS: u64 = 800;
/// Every so many changes come after all slots have gone the whole way, as far as traffic lets them.
const REST_EVERY: u32 = 20;
/// After every so many changes strays flood the VIP.
const FLOOD_EVERY: u32 = 5;

/// How much to change under how many connections.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Long-lived connections.
    #[arg(long, default_value_t = 2000)]
    pub connections: u32,
    /// Random changes.
    #[arg(long, default_value_t = 200)]
    pub changes: u32,
    /// Change for so many minutes instead.
    #[arg(long, conflicts_with = "changes")]
    pub minutes: Option<u64>,
    /// Load balancers: two are behind a router with equal-cost paths.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub nodes: u8,
    /// Seed of the random numbers [default: `WEIR_SOAK_SEED`, else a random one]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Break a rule of weir's on purpose: this must break connections, and the soak must end badly
    #[arg(long, value_enum)]
    pub break_rule: Option<BreakRule>,
    /// The binaries are built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    pub built: bool,
}

/// A rule that connections depend on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum BreakRule {
    /// Flows of slots that change hands are remembered: the lab deletes them from the kernel's maps
    ForgetPins,
}

/// Soaks; the exit code is 0 only if no connection broke that should not, and everything came to rest.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir and its XDP program", || {
            run_visibly(workspace::cargo().args(["build", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        let seed = options.seed()?;
        let until = match options.minutes {
            Some(minutes) => format!("--minutes {minutes}"),
            None => format!("--changes {}", options.changes),
        };
        let mut words = format!(
            "soak --built --connections {} {until} --nodes {} --seed {seed}",
            options.connections, options.nodes
        );
        if let Some(BreakRule::ForgetPins) = options.break_rule {
            words += " --break-rule forget-pins";
        }
        let words: Vec<_> = words.split(' ').map(Into::into).collect();
        root::again_as_root("the soak", &words)?;
    }
    let findings = soak(options)?;
    println!("\n{findings}");
    if let Some(rule) = options.break_rule {
        println!(
            "A rule was broken on purpose ({rule:?}): broken connections are what this was to show."
        );
    }
    Ok(verdict(&findings.complaints()))
}

impl Options {
    /// How far the soak is after so many changes and so much time; at its end from 1 on.
    fn progress(&self, changes: u32, time: Duration) -> f64 {
        match self.minutes {
            Some(minutes) => time.as_secs_f64() / Duration::from_mins(minutes).as_secs_f64(),
            None => f64::from(changes) / f64::from(self.changes),
        }
    }

    fn seed(&self) -> Result<u64> {
        match (self.seed, std::env::var(SEED_VARIABLE)) {
            (Some(seed), _) => Ok(seed),
            (None, Ok(text)) => text
                .parse()
                .with_context(|| format!("{SEED_VARIABLE} is {text:?}, not a number")),
            (None, Err(_)) => Ok(fastrand::u64(..)),
        }
    }
}

/// Makes the lab, lets traffic run, changes everything, and looks at what is left.
pub fn soak(options: &Options) -> Result<Findings> {
    let seed = options.seed()?;
    println!("==> seed {seed}: {SEED_VARIABLE}={seed} makes the same changes again");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut backends = Backends::new();
    let mut fleet = Fleet::start(options.nodes, &backends)?;
    let mut traffic = Traffic::start(
        &fleet.topology,
        options.connections,
        options.connections / 20,
    )?;
    let mut deaths = Vec::new();
    let started = Instant::now();
    fleet.rehash(&mut random, &mut traffic)?;

    let mut number = 0;
    let mut strays = 0;
    let mut has_flapped = false;
    while options.progress(number, started.elapsed()) < 1.0 {
        number += 1;
        // One flap at least, however few the changes are.
        let is_due = !has_flapped && options.progress(number, started.elapsed()) >= 0.5;
        let flap = is_due.then(|| backends.any_flap(&mut random)).flatten();
        let change = flap.unwrap_or_else(|| backends.any_change(&mut random));
        has_flapped |= is_due;
        backends.make(change);
        let died = fleet
            .make(change, &backends, &mut random)
            .with_context(|| format!("change {number}: {change:?}"))?;
        deaths.extend(died);
        traffic.read()?;
        println!(
            "    {:>4.0} s  {number:>3} {change:<28}  {} open, {} broken, {} refused",
            started.elapsed().as_secs_f64(),
            traffic.tally.open,
            traffic.broken.len(),
            traffic.refused.len(),
            change = change.to_string()
        );
        if number % FLOOD_EVERY == 0 {
            strays += flood::flood(&fleet.topology, number / FLOOD_EVERY)?;
        }
        if number % REST_EVERY == 0 {
            fleet.wait_for_moves()?;
        }
        thread::sleep(Duration::from_millis(random.u64(0..PAUSE_MS)));
    }
    if options.break_rule.is_some() {
        break_pins(&mut fleet, &mut backends, &mut random)?;
        traffic.wait_for_a_round()?;
    }
    let victim = kill_one(&mut fleet, &mut backends, &mut random)?;
    traffic.end()?;
    if options.break_rule.is_some() {
        // What is remembered by now would only be waited for.
        fleet.forget_pins()?;
    }
    step("wait until every slot is Stable", || {
        fleet.wait_until_stable()
    })?;
    let mut after = None;
    if options.nodes > 1 {
        // Whatever the tables have become: flows may go from node to node again.
        let mut second = Traffic::start(
            &fleet.topology,
            options.connections,
            options.connections / 20,
        )?;
        fleet.rehash(&mut random, &mut second)?;
        second.end()?;
        after = Some(second);
    }
    let counters = fleet.counters()?;
    let digests = fleet.digests()?;
    let fresh = fleet.fresh_digest(&backends)?;
    Ok(Findings {
        changes: number,
        strays,
        counters,
        victim,
        flaps: deaths,
        is_broken: options.break_rule.is_some(),
        traffic: [Some(traffic), after].into_iter().flatten().collect(),
        digests,
        fresh,
    })
}

/// Drains a backend with connections, and forgets them once its slots are others'.
fn break_pins(
    fleet: &mut Fleet,
    backends: &mut Backends,
    random: &mut fastrand::Rng,
) -> Result<()> {
    let index = fleet.busiest(&backends.serving())?;
    let change = Change::Drain(index);
    backends.make(change);
    fleet.make(change, backends, random)?;
    fleet.wait_for_moves()?;
    fleet.forget_pins()
}

/// Takes a backend out of the config, waits until it gets no new flow, and kills its server.
fn kill_one(
    fleet: &mut Fleet,
    backends: &mut Backends,
    random: &mut fastrand::Rng,
) -> Result<Death> {
    let index = fleet.busiest(&backends.serving())?;
    let change = Change::Remove(index);
    backends.make(change);
    fleet.make(change, backends, random)?;
    fleet.wait_for_moves()?;
    fleet.kill(index)
}
