//! A cross-check of the driver: live frames on a veth, and what the kernel's own statistics say that the program took.
//!
//! The statistics cost something themselves, as the driver does: what a packet for a VIP takes more than one for nobody is free
//! of both, and is told by both ways of measuring.

use std::{collections::BTreeMap, net::IpAddr, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::serving::{self, PORT};
use crate::{
    lab::{Lab, Metrics, Namespace, Nic, Statistics, VIP_V4, Weir},
    progress::{run_visibly, step},
    workspace,
};

/// What is sent: the name of the bench's case, where to, and how many flows.
const LOADS: [(&str, Option<[u8; 4]>, u32); 3] = [
    ("not a VIP, v4 TCP", Some([203, 0, 113, 99]), 1),
    ("l2, v4 TCP, 1 flow", None, 1),
    ("l2, v4 TCP, 64k flows", None, 1 << 16),
];

/// Builds what is run.
pub(super) fn build() -> Result<()> {
    step("build weir, the generator and what measures", || {
        run_visibly(workspace::cargo().args([
            "build",
            "--release",
            "-p",
            "lb-userspace",
            "-p",
            "weir-benches",
        ]))
    })
}

/// What the generator tells.
#[derive(Deserialize)]
struct Sent {
    packets: u64,
    packets_per_second: f64,
}

/// What was seen of a load.
struct Seen {
    case: &'static str,
    sent: Sent,
    /// ns that a run of the program took, by the kernel's statistics.
    live_ns: f64,
}

/// Measures both ways, and prints them side by side.
pub(super) fn run(seconds: u64) -> Result<()> {
    let binary = |name: &str| workspace::root().join("target/release").join(name);
    let lab = Lab::new()?;
    let (host, switch) = (lab.namespace("host")?, lab.namespace("switch")?);
    let segment = crate::lab::Segment::create(&switch, "wire")?;
    let (weir, nic) = serving::start(&lab, &host, &segment, ("eth0", 1), binary("weir"), &[])?;
    let _observer = nic.observe()?;
    let statistics = Statistics::on()?;
    let mut seen = Vec::new();
    for (case, to, flows) in LOADS {
        let to = to.map_or(VIP_V4, IpAddr::from);
        let load = Load {
            generator: binary("weir-gen"),
            switch: &switch,
            nic: &nic,
            to,
            flows,
            seconds,
        };
        let name = format!("{case}: live frames for {seconds} s");
        seen.push(step(&name, || load.measure(case, &weir))?);
    }
    drop(statistics);
    let driven = step("the same by the driver", || driven(&binary("weir-bench")))?;
    print(&seen, &driven)
}

struct Load<'a> {
    generator: std::path::PathBuf,
    switch: &'a Namespace,
    nic: &'a Nic,
    to: IpAddr,
    flows: u32,
    seconds: u64,
}

impl Load<'_> {
    fn measure(&self, case: &'static str, weir: &Weir) -> Result<Seen> {
        let before = weir.metrics()?;
        let output = self
            .switch
            .command(&self.generator)
            .args(["--interface", self.nic.port(), "--mac", &self.nic.mac()?])
            .args(["--to", &format!("{}:{PORT}", self.to)])
            .args(["--flows", &self.flows.to_string()])
            .args(["--seconds", &self.seconds.to_string(), "--json"])
            .output()
            .context("start the generator")?;
        if !output.status.success() {
            bail!(
                "the generator failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let sent: Sent = serde_json::from_slice(&output.stdout).context("read what was sent")?;
        let after = weir.metrics()?;
        let runs = grown(&before, &after, "weir_program_runs_total")?;
        let time = grown(&before, &after, "weir_program_run_seconds_total")?;
        // A handful of frames are the hosts' own. What the veth's queue did not take is lost, and no packet of the program's.
        ensure!(
            runs > 0.0,
            "the program did not run: are BPF statistics on?"
        );
        println!(
            "    {} packets made, {:.3} million a second; the program ran {runs} times",
            sent.packets,
            sent.packets_per_second / 1e6
        );
        Ok(Seen {
            case,
            sent,
            live_ns: time * 1e9 / runs,
        })
    }
}

fn grown(before: &Metrics, after: &Metrics, name: &str) -> Result<f64> {
    let program = [("program", "weir_xdp")];
    let now = after.sum(name, &program);
    let now = now.with_context(|| format!("there is no {name}"))?;
    Ok(now - before.sum(name, &program).unwrap_or_default())
}

/// Medians of the bench, by case.
fn driven(bench: &std::path::Path) -> Result<BTreeMap<String, f64>> {
    #[derive(Deserialize)]
    struct Report {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        case: String,
        median_ns: f64,
    }
    let mut command = Command::new(bench);
    command.args(["--json", "--loads", "5", "--rounds", "15"]);
    for (case, ..) in LOADS {
        command.args(["--only", case]);
    }
    let output = command.output().context("start the bench")?;
    ensure!(
        output.status.success(),
        "the bench failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Report = serde_json::from_slice(&output.stdout).context("read its results")?;
    Ok(report
        .cases
        .into_iter()
        .map(|case| (case.case, case.median_ns))
        .collect())
}

fn print(seen: &[Seen], driven: &BTreeMap<String, f64>) -> Result<()> {
    let (Some(base), Some(base_driven)) = (
        seen.first(),
        LOADS.first().and_then(|(case, ..)| driven.get(*case)),
    ) else {
        bail!("nothing was measured");
    };
    println!(
        "\n{:<28} {:>14} {:>10} {:>10} {:>18} {:>18}",
        "case", "million / s", "live, ns", "driver, ns", "live, above first", "driver, above first"
    );
    for load in seen {
        let driven = driven
            .get(load.case)
            .with_context(|| format!("the bench told nothing of {}", load.case))?;
        println!(
            "{:<28} {:>14.3} {:>10.1} {:>10.1} {:>18.1} {:>18.1}",
            load.case,
            load.sent.packets_per_second / 1e6,
            load.live_ns,
            driven,
            load.live_ns - base.live_ns,
            driven - base_driven
        );
    }
    Ok(())
}
