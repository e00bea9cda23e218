//! `--steady`: ten million flows in steady state cost what one does, and leave nothing behind.

use std::{fs, ops::ControlFlow};

use anyhow::{Context as _, ensure};
use lb_common::pin::Kind;
use lb_userspace::dataplane::{
    DataPlane as _, Remembered,
    bpf::{
        BpfDataPlane,
        driver::{Driver, Floor},
    },
};

use crate::{
    cases::{Case, MANY, ONE, STEADY},
    report::median,
};

/// Sends every flow once in each round, beside as many packets of one flow, and prints what it cost and what is left.
pub(crate) fn run(
    driver: &mut Driver,
    weir: &mut BpfDataPlane,
    cases: &[Case],
    rounds: u32,
) -> anyhow::Result<()> {
    let find = |name: &str| {
        let found = cases.iter().find(|case| case.name == name);
        found.with_context(|| format!("there is no case {name:?}"))
    };
    let (one, many) = (find(ONE)?, find(STEADY)?);
    let mut costs = [Vec::new(), Vec::new()];
    let before = resident_kib()?;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (case, costs) in [one, many].into_iter().zip(&mut costs) {
            let own = driver.measure_floor(Floor::Empty, &case.sample(), MANY)?;
            costs.push(driver.measure(weir, &case.sample(), MANY)? - own);
        }
    }
    let after = resident_kib()?;
    let mut found = 0u64;
    let mut visit = |remembered| {
        if matches!(remembered, Remembered::Pin(..)) {
            found += 1;
        }
        ControlFlow::Continue(())
    };
    weir.scan()?.walk(&mut visit)?;
    let mut made = 0;
    for kind in Kind::ALL {
        made += weir.pin_counters(kind)?.made;
    }
    let [one, many] = costs.map(|costs| median(&costs));
    println!("{MANY} flows through the real program, {rounds} times; medians");
    println!("net ns per packet, one flow       {one:.0}");
    println!("net ns per packet, all flows      {many:.0}");
    println!("ratio                             {:.2}", many / one);
    println!("pins found in the maps            {found}");
    println!("pins made                         {made}");
    println!("resident memory before, KiB       {before}");
    println!("resident memory after, KiB        {after}");
    ensure!(found == 0 && made == 0, "flows in steady state left pins");
    Ok(())
}

/// The memory of the process that holds the maps.
fn resident_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .context("the kernel tells no VmRSS")?
        .parse()
        .context("reading VmRSS")
}
