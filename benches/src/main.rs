//! `weir-bench`: what a packet costs, in ns, beside the floors of the same run.
//!
//! Method: a driver program runs in every repeat of `BPF_PROG_TEST_RUN`, restores the packet, chooses the next
//! flow and tail-calls the program under test (lb-ebpf/src/bench). Its own cost is measured beside that, by turns,
//! with a program that does nothing, and subtracted. Of several runs of both in a round the least counts: what disturbs one is never
//! the program. Rounds are interleaved, and everything is loaded anew some times, since
//! where programs and maps lie is worth some ns; the table has the median, the minimum and the maximum of all rounds. Believe ratios, and differences above 15 %.
//!
//! Other programs can be measured beside, in the same rounds: any XDP program that is pinned, or attached by a pinned
//! link, as that of a running weir of any version is.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the table is the output")]

mod cases;
mod counters;
mod plots;
mod report;
mod steady;
mod targets;

use std::{path::PathBuf, str::FromStr};

use anyhow::{Context as _, bail};
use cases::{Case, Program, Tables, Watched};
use clap::Parser;
use counters::{Counters, Counts};
use lb_userspace::dataplane::{
    Sizes,
    bpf::{
        BpfDataPlane,
        driver::{Classic, Driver, Floor, Pinned},
    },
};
use report::{Effort, Report};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

/// Measures what a packet costs on this machine.
#[derive(Parser)]
struct Arguments {
    /// How often everything is loaded anew: where programs and maps lie in memory is worth some ns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    loads: u32,
    /// Interleaved rounds of each load.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Runs of each case in each round, of which the fastest counts: on shared machines others take turns on the same core.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Packets of each run: few, since what interrupts a run spoils its mean.
    #[arg(long, default_value_t = 50_000)]
    packets: u32,
    /// Only cases whose name contains this; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// Measure this pinned program beside weir, in the cases that --only chooses: it must do with their packets what weir does
    #[arg(long, value_name = "NAME=PATH[@INTERFACE]")]
    program: Vec<Other>,
    /// The same for the program that is attached by this pinned link; packets come by INTERFACE
    #[arg(long, value_name = "NAME=PATH[@INTERFACE]")]
    link: Vec<Other>,
    /// Room for pins of a kind; the cases pin a million flows.
    #[arg(long, default_value_t = 1 << 21)]
    max_pins: u32,
    /// Flows that the flow table of the classic design holds.
    #[arg(long, default_value_t = 8_000_000)]
    flow_table: u32,
    /// Instead of the cases: that ten million flows cost what one does, and leave nothing behind.
    #[arg(long, conflicts_with_all = ["only", "program", "link", "json"])]
    steady: bool,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Write results and plots into this directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "steady")]
    save: Option<PathBuf>,
}

/// A program that is measured beside weir.
#[derive(Clone, Debug)]
struct Other {
    name: String,
    path: PathBuf,
    interface: Option<String>,
}

impl FromStr for Other {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, rest) = text
            .split_once('=')
            .context("there is no `=` after the name")?;
        let (path, interface) = match rest.rsplit_once('@') {
            Some((path, interface)) => (path, Some(interface.to_owned())),
            None => (rest, None),
        };
        Ok(Self {
            name: name.to_owned(),
            path: path.into(),
            interface,
        })
    }
}

/// One line of the table: what it is, and net ns and events a packet by round.
struct Row<'a> {
    case: &'a Case,
    other: Option<&'a (String, Pinned)>,
    results: Vec<f64>,
    counts: Vec<Counts>,
}

impl Row<'_> {
    fn name(&self) -> String {
        match self.other {
            Some((name, _)) => format!("{name}: {}", self.case.name),
            None => self.case.name.clone(),
        }
    }
}

/// What is measured, loaded and ready.
struct Stage {
    driver: Driver,
    weir: BpfDataPlane,
    tables: Tables,
    classic: Option<Classic>,
    observed: Vec<(Watched, BpfDataPlane)>,
}

impl Stage {
    /// Loads what the cases that are asked for want, and tells them.
    fn load(arguments: &Arguments) -> anyhow::Result<(Self, Vec<Case>)> {
        let mut driver = Driver::load(arguments.max_pins)?;
        let mut weir = BpfDataPlane::private_with(Sizes {
            max_pins: arguments.max_pins,
            // As many as the daemon remembers unless it is told otherwise.
            max_sources: 1 << 18,
        })?;
        let (mut cases, tables) = cases::prepare(&mut weir, &arguments.only)?;
        if !arguments.only.is_empty() {
            cases.retain(|case| arguments.only.iter().any(|only| case.name.contains(only)));
        }
        // Only where it is measured: the table takes a gigabyte.
        let is_classic = |case: &Case| matches!(case.program, Program::Classic);
        let classic = cases
            .iter()
            .any(is_classic)
            .then(|| cases::classic(arguments.flow_table))
            .transpose()?;
        let watched = [Watched::Sampled, Watched::Every].into_iter().filter(|what| {
            let is_watched = |case: &Case| matches!(case.program, Program::Observed(watched) if watched == *what);
            cases.iter().any(is_watched)
        });
        let observed = watched
            .map(|watched| Ok((watched, watched.load()?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if !arguments.steady && cases.iter().any(Case::wants_pins) {
            cases::pin_flows(&mut driver, &mut weir, arguments.max_pins)?;
        }
        let stage = Self {
            driver,
            weir,
            tables,
            classic,
            observed,
        };
        Ok((stage, cases))
    }

    /// Measures the cases of all rows once, one after the other. Returns what the driver itself took.
    fn round(
        &mut self,
        rows: &mut [Row<'_>],
        counters: &mut Counters,
        (runs, packets): (u32, u32),
    ) -> anyhow::Result<Vec<f64>> {
        let mut own_cost = Vec::new();
        for row in rows {
            cases::arrange(&mut self.weir, &self.tables, row.case)?;
            let (mut own, mut gross) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..runs {
                let (ns, own_counts) = counters.around(|| {
                    self.driver
                        .measure_floor(Floor::Empty, &row.case.sample(), packets)
                })?;
                own = own.min(ns);
                let (ns, counts) = counters.around(|| self.measure(row, packets))?;
                gross = gross.min(ns);
                let net = counts.into_iter().zip(own_counts);
                let net = net
                    .map(|((event, count), (_, own))| (event, (count - own) / f64::from(packets)));
                row.counts.push(net.collect());
            }
            own_cost.push(own);
            row.results.push(gross - own);
        }
        Ok(own_cost)
    }

    fn measure(&mut self, row: &Row<'_>, packets: u32) -> anyhow::Result<f64> {
        let (driver, sample) = (&mut self.driver, row.case.sample());
        match (row.other, row.case.program, &mut self.classic) {
            (Some((_, pinned)), ..) => driver.measure_pinned(pinned, &sample, packets),
            (None, Program::Weir, _) => driver.measure(&mut self.weir, &sample, packets),
            (None, Program::Floor(floor), _) => driver.measure_floor(floor, &sample, packets),
            (None, Program::Classic, Some(classic)) => {
                driver.measure_classic(classic, &sample, packets)
            }
            (None, Program::Observed(wanted), _) => {
                let mut planes = self.observed.iter_mut();
                let plane = planes.find(|(watched, _)| *watched == wanted);
                let (_, plane) = plane.context("the program that observes is not loaded")?;
                driver.measure(plane, &sample, packets)
            }
            (None, Program::Classic, None) => bail!("the classic design is not loaded"),
        }
        .with_context(|| {
            format!(
                "measuring \"{}\" (others than weir: choose cases by --only)",
                row.name()
            )
        })
    }
}

/// Stays on one CPU: the caches of another hold nothing of what ran before.
fn stay() -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).context("staying on one CPU")
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    stay()?;
    let (mut stage, cases) = Stage::load(&arguments)?;
    if arguments.steady {
        return steady::run(&mut stage.driver, &mut stage.weir, &cases, arguments.rounds);
    }
    let others = others(&arguments)?;
    let mut rows = Vec::new();
    for case in &cases {
        let others = others.iter().filter(|_| case.program.is_weir()).map(Some);
        rows.extend([None].into_iter().chain(others).map(|other| Row {
            case,
            other,
            results: Vec::new(),
            counts: Vec::new(),
        }));
    }

    let mut counters = Counters::open();
    let mut own_cost = Vec::new();
    for load in 1..=arguments.loads {
        if load > 1 {
            // Both would not fit into the memory of a small machine.
            drop(stage);
            (stage, _) = Stage::load(&arguments)?;
        }
        for round in 1..=arguments.rounds {
            eprintln!(
                "load {load} of {}, round {round} of {}",
                arguments.loads, arguments.rounds
            );
            let runs = (arguments.runs, arguments.packets);
            own_cost.extend(stage.round(&mut rows, &mut counters, runs)?);
        }
    }

    let results = rows
        .into_iter()
        .map(|row| report::Case::new(row.name(), row.results).counted(&row.counts))
        .collect();
    let report = Report::new(
        Effort {
            loads: arguments.loads,
            rounds: arguments.rounds,
            runs: arguments.runs,
            packets: arguments.packets,
        },
        lb_userspace::COMMIT,
        &own_cost,
        stage.weir.program_sizes()?,
        results,
    )?;
    if let Some(directory) = &arguments.save {
        report.save(directory)?;
        eprintln!("written to {}", directory.display());
    }
    if arguments.json {
        println!("{}", report.json()?);
    } else {
        report.print();
    }
    Ok(())
}

/// Opens what is to be measured beside weir.
fn others(arguments: &Arguments) -> anyhow::Result<Vec<(String, Pinned)>> {
    let programs = arguments.program.iter().map(|other| {
        let pinned = Pinned::program(&other.path, other.interface.as_deref())?;
        Ok((other.name.clone(), pinned))
    });
    let links = arguments.link.iter().map(|other| {
        let pinned = Pinned::of_link(&other.path, other.interface.as_deref())?;
        Ok((other.name.clone(), pinned))
    });
    programs.chain(links).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_has_a_name_a_path_and_maybe_an_interface() {
        let other: Other = "old=/sys/fs/bpf/weir/v1/links/eth0@eth0".parse().unwrap();
        assert_eq!(
            (other.name.as_str(), other.path.to_str().unwrap()),
            ("old", "/sys/fs/bpf/weir/v1/links/eth0")
        );
        assert_eq!(other.interface.as_deref(), Some("eth0"));
        let other: Other = "other=/sys/fs/bpf/other".parse().unwrap();
        assert_eq!(other.interface, None);
        assert!("/sys/fs/bpf/other".parse::<Other>().is_err());
    }
}
