//! `weir-bench`: what a packet costs, in ns, beside the floors of the same run.
//!
//! Method: a driver program runs in every repeat of `BPF_PROG_TEST_RUN`, restores the packet, chooses the next
//! flow and tail-calls the program under test (lb-ebpf/src/bench). Its own cost is measured in the same round
//! with a program that does nothing, and subtracted. Rounds are interleaved; the table has the median, the
//! minimum and the maximum of the rounds. Believe ratios, and differences above 15 %.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the table is the output")]

mod cases;

use anyhow::Context as _;
use cases::{Case, Program};
use clap::Parser;
use lb_userspace::dataplane::bpf::{
    BpfDataPlane,
    driver::{Driver, Floor},
};

/// Measures what a packet costs on this machine.
#[derive(Parser)]
struct Arguments {
    /// Interleaved rounds.
    #[arg(long, default_value_t = 11)]
    rounds: u32,
    /// Packets of each case in each round.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u32,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut driver = Driver::load()?;
    let mut weir = BpfDataPlane::private()?;
    let mut cases = cases::prepare(&mut weir)?;
    if let Some(only) = &arguments.only {
        cases.retain(|case| case.name.contains(only.as_str()));
    }

    let mut results = vec![Vec::new(); cases.len()];
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        for (case, result) in cases.iter().zip(&mut results) {
            let own = driver.measure_floor(Floor::Empty, &case.sample(), arguments.packets)?;
            let gross = measure(&mut driver, &mut weir, case, arguments.packets)?;
            result.push(gross - own);
        }
    }

    let floor = cases
        .iter()
        .zip(&results)
        .find(|(case, _)| matches!(case.program, Program::Floor(Floor::Swap)))
        .map(|(_, result)| median(result));
    if arguments.json {
        let rows: Vec<_> = cases
            .iter()
            .zip(&results)
            .map(|(case, result)| serde_json::json!({ "case": case.name, "net_ns": result, "median_ns": median(result) }))
            .collect();
        println!(
            "{}",
            serde_json::json!({ "rounds": arguments.rounds, "packets": arguments.packets, "cases": rows })
        );
        return Ok(());
    }
    println!(
        "\nnet ns per packet, {} rounds of {} packets\n",
        arguments.rounds, arguments.packets
    );
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>9}",
        "case", "median", "min", "max", "x floor"
    );
    for (case, result) in cases.iter().zip(&results) {
        let (min, max) = result.iter().fold((f64::MAX, f64::MIN), |(min, max), ns| {
            (min.min(*ns), max.max(*ns))
        });
        let ratio = floor.map_or_else(String::new, |floor| {
            format!("{:.1}", median(result) / floor)
        });
        println!(
            "{:<34} {:>8.1} {min:>8.1} {max:>8.1} {ratio:>9}",
            case.name,
            median(result)
        );
    }
    Ok(())
}

fn measure(
    driver: &mut Driver,
    weir: &mut BpfDataPlane,
    case: &Case,
    packets: u32,
) -> anyhow::Result<f64> {
    match case.program {
        Program::Weir => driver.measure(weir, &case.sample(), packets),
        Program::Floor(floor) => driver.measure_floor(floor, &case.sample(), packets),
    }
    .with_context(|| format!("measuring \"{}\"", case.name))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
