//! `weir-tables`: balance, disruption and build time of lookup tables, as JSON and plots.
//!
//! Method: each set of backends is made into tables under several seeds. Balance is slots against the exact share by
//! weight; disruption is the slots that move between two backends which both stay. Both are the same on every machine.
//! Times are of one core, the median of several builds.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the table is the output")]

mod measure;
mod plots;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Parser;
use lb_common::slot::SLOTS;
use measure::Row;
use weir_benches::sets::{Algorithm, BACKENDS};

/// Measures lookup tables, and writes tables.json and plots.
#[derive(Parser)]
struct Arguments {
    /// Where to, from where this is started.
    #[arg(long, default_value = "benches/results")]
    directory: PathBuf,
    /// Seeds of each figure.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seeds: u32,
    /// Builds that are timed.
    #[arg(long, default_value_t = 21)]
    builds: usize,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        for backends in BACKENDS {
            eprintln!("{}: {backends} backends", algorithm.name());
            rows.push(measure::row(
                algorithm,
                backends,
                arguments.seeds,
                arguments.builds,
            ));
        }
    }
    print(&rows);
    let directory = &arguments.directory;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let json = serde_json::json!({
        "slots": SLOTS,
        "seeds": arguments.seeds,
        "builds": arguments.builds,
        "rows": rows,
    });
    let path = directory.join("tables.json");
    fs::write(&path, format!("{json:#}\n")).with_context(|| format!("write {}", path.display()))?;
    plots::write(&rows, directory)?;
    println!("\nwritten to {}", directory.display());
    Ok(())
}

/// As Markdown, so that it goes into documents as it is.
fn print(rows: &[Row]) {
    println!(
        "| algorithm | backends | deviation | peak / mean | worst | weights 1 to 100: deviation | peak / mean |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        println!(
            "| {} | {} | {:.2} % | {:.3} | {:.3} | {:.2} % | {:.3} |",
            row.algorithm,
            row.backends,
            row.equal.deviation * 100.0,
            row.equal.peak,
            row.equal.worst_peak,
            row.unequal.deviation * 100.0,
            row.unequal.peak,
        );
    }
    println!(
        "\n| algorithm | backends | leave: slots that must move | beyond | worst | join: must | beyond | worst | build, ms | min | max |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for row in rows {
        println!(
            "| {} | {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {:.2} | {:.2} | {:.2} |",
            row.algorithm,
            row.backends,
            row.leave.needed,
            row.leave.excess,
            row.leave.worst_excess,
            row.join.needed,
            row.join.excess,
            row.join.worst_excess,
            row.build_ms.median,
            row.build_ms.min,
            row.build_ms.max,
        );
    }
}
