//! `weir-bench`: what a packet costs, in ns, beside the floors of the same run.
//!
//! Method: a driver program runs in every repeat of `BPF_PROG_TEST_RUN`, restores the packet, chooses the next
//! flow and tail-calls the program under test (lb-ebpf/src/bench). Its own cost is measured beside that, by turns,
//! with a program that does nothing, and subtracted. Runs that somebody else on the same core slowed down are told by a control and left out
//! ([`calm`]). Rounds are interleaved, and everything is loaded anew some times, since where programs and maps lie is worth some ns; the
//! table has the median, the minimum and the maximum of all runs that count. Believe ratios, and differences above 15 %.
//!
//! Other programs can be measured beside, in the same rounds: any XDP program that is pinned, or attached by a pinned
//! link, as that of a running weir of any version is.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the table is the output")]

mod calm;
mod cases;
mod counters;
mod plots;
mod report;
mod stage;
mod steady;
mod targets;

use std::{path::PathBuf, str::FromStr};

use anyhow::Context as _;
use calm::Control;
use clap::Parser;
use counters::Counters;
use lb_userspace::dataplane::bpf::driver::Pinned;
use report::{Effort, Machine, Report};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use stage::{Row, Stage};

/// The fewest packets of a run: the first ones are slow.
const FEWEST: u32 = 1000;

/// Measures what a packet costs on this machine.
#[derive(Parser)]
struct Arguments {
    /// How often everything is loaded anew: where programs and maps lie in memory is worth some ns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    loads: u32,
    /// Interleaved rounds of each load.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Calm runs of each case in each round: those that somebody else on the same core slows down are left out, and tried
    /// again for a while.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Packets of each run at most: few, since what interrupts a run spoils its mean, and fewer where a packet takes longer than 100 ns.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(i64::from(FEWEST)..))]
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

/// Stays on one CPU: the caches of another hold nothing of what ran before.
fn stay() -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).context("staying on one CPU")
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Before there is only one processor to be seen.
    let machine = Machine::this(lb_userspace::COMMIT)?;
    stay()?;
    let (mut stage, cases) = Stage::load(&arguments)?;
    if arguments.steady {
        return steady::run(&mut stage.driver, &mut stage.weir, &cases, arguments.rounds);
    }
    let others = others(&arguments)?;
    let mut rows = Vec::new();
    for case in &cases {
        let others = others.iter().filter(|_| case.program.is_weir()).map(Some);
        let all = [None].into_iter().chain(others);
        rows.extend(all.map(|other| Row::new(case, other)));
    }

    let effort = Effort {
        loads: arguments.loads,
        rounds: arguments.rounds,
        runs: arguments.runs,
        packets: arguments.packets,
    };
    let (mut control, mut counters) = (Control::default(), Counters::open());
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
            stage.round(&mut rows, &mut control, &mut counters, effort)?;
        }
    }

    let rows = rows.into_iter().map(|row| row.report(&control));
    let (results, own_ns): (_, Vec<_>) = rows.unzip();
    let report = Report::new(
        effort,
        machine,
        &own_ns.concat(),
        stage.weir.program_sizes()?,
        results,
    );
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
