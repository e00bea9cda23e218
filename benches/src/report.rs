//! What came out: a table, a file for later, and what it is held against.

use std::{fs, path::Path, time::SystemTime};

use anyhow::Context as _;
use lb_userspace::dataplane::bpf::ProgramSize;
use serde::Serialize;

use crate::{
    counters::Counts,
    targets::{self, Held},
};

/// One run of the measurements.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    #[serde(flatten)]
    pub(crate) effort: Effort,
    /// What the driver itself costs, ns per packet; taken out of everything else.
    pub(crate) driver_ns: f64,
    pub(crate) programs: Vec<Program>,
    pub(crate) cases: Vec<Case>,
    pub(crate) held: Vec<Held>,
}

/// How much was measured.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Effort {
    /// How often everything was loaded anew.
    pub(crate) loads: u32,
    /// Rounds of each load.
    pub(crate) rounds: u32,
    /// Calm runs of each case that were wanted in each round.
    pub(crate) runs: u32,
    /// Packets of each run at most.
    pub(crate) packets: u32,
}

/// Where it was measured.
#[derive(Serialize)]
pub(crate) struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    /// Which of the processor's faults the kernel works around: it makes calls dear.
    mitigations: Vec<String>,
    commit: String,
    /// Seconds since the epoch.
    at: u64,
}

/// How large a program of weir's is.
#[derive(Serialize)]
pub(crate) struct Program {
    name: String,
    verified_instructions: u32,
    instructions: u32,
    machine_code_bytes: u32,
}

impl From<ProgramSize> for Program {
    fn from(size: ProgramSize) -> Self {
        Self {
            name: size.name,
            verified_instructions: size.verified,
            instructions: size.instructions,
            machine_code_bytes: size.machine_code,
        }
    }
}

/// What a packet of a case cost, net of the driver.
#[derive(Serialize)]
pub(crate) struct Case {
    #[serde(rename = "case")]
    pub(crate) name: String,
    pub(crate) median_ns: f64,
    /// Between them lies the middle half.
    pub(crate) quartiles_ns: [f64; 2],
    min_ns: f64,
    max_ns: f64,
    net_ns: Vec<f64>,
    /// Runs that do not count, since somebody else was at work.
    left_out: usize,
    /// Whether nobody was, in those that count.
    pub(crate) is_calm: bool,
    /// Medians of what the processor counted, a packet; none where it counts nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    counted: Vec<Counted>,
}

/// Events of one kind a packet, net of the driver.
#[derive(Serialize)]
struct Counted {
    event: &'static str,
    median: f64,
}

impl Case {
    /// Of the runs that count.
    pub(crate) fn new(name: String, net_ns: Vec<f64>) -> Self {
        let mut sorted = net_ns.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part| quantile(&sorted, part);
        Self {
            name,
            median_ns: at(0.5),
            quartiles_ns: [at(0.25), at(0.75)],
            min_ns: at(0.0),
            max_ns: at(1.0),
            net_ns,
            left_out: 0,
            is_calm: true,
            counted: Vec::new(),
        }
    }

    /// How many runs were left out, and whether those that count were calm.
    pub(crate) fn beside_others(self, left_out: usize, is_calm: bool) -> Self {
        Self {
            left_out,
            is_calm,
            ..self
        }
    }

    /// With what the processor counted, by run.
    pub(crate) fn counted(mut self, runs: &[Counts]) -> Self {
        let first = runs.iter().take(1).flatten();
        let counted = first.enumerate().map(|(at, (event, _))| {
            let values = runs.iter().filter_map(|counts| counts.get(at));
            let values: Vec<_> = values.map(|(_, count)| *count).collect();
            Counted {
                event,
                median: median(&values),
            }
        });
        self.counted = counted.collect();
        self
    }
}

/// The middle of several values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The value below which this part of them lies, of values in order; between two of them, the way from one to the other.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of a vector, which a float holds"
)]
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = last as f64 * part;
    let below = sorted.get(at as usize).copied().unwrap_or(f64::NAN);
    let above = sorted.get(at.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * at.fract()
}

impl Report {
    /// Of what was measured, and what the driver itself took.
    pub(crate) fn new(
        effort: Effort,
        machine: Machine,
        driver: &[f64],
        programs: Vec<ProgramSize>,
        cases: Vec<Case>,
    ) -> Self {
        Self {
            machine,
            effort,
            driver_ns: median(driver),
            programs: programs.into_iter().map(Into::into).collect(),
            held: targets::hold(&cases),
            cases,
        }
    }

    /// As JSON.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("writing the results")
    }

    /// Writes the results and their plots into a directory.
    pub(crate) fn save(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join("packets.json");
        let json = self.json()? + "\n";
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, json))
            .with_context(|| format!("writing {}", path.display()))?;
        crate::plots::write(self, directory)
    }

    /// Prints all of it.
    pub(crate) fn print(&self) {
        let machine = &self.machine;
        println!(
            "\nLinux {}, {} of {}; weir {}",
            machine.kernel, machine.cpus, machine.cpu, machine.commit
        );
        println!(
            "net ns per packet, {} rounds after each of {} loads, each of up to {} calm runs of {} packets (the driver takes {:.0} more)",
            self.effort.rounds,
            self.effort.loads,
            self.effort.runs,
            self.effort.packets,
            self.driver_ns
        );
        let count = |of: fn(&Case) -> usize| self.cases.iter().map(of).sum::<usize>();
        println!(
            "{} runs count, {} more were left out, beside a control that took too long\n",
            count(|case| case.net_ns.len()),
            count(|case| case.left_out)
        );
        println!("{:<52} {:>8} {:>8} {:>8}", "case", "median", "min", "max");
        for case in &self.cases {
            println!(
                "{:<52} {:>8.1} {:>8.1} {:>8.1}{}",
                case.name,
                case.median_ns,
                case.min_ns,
                case.max_ns,
                if case.is_calm { "" } else { " *" }
            );
        }
        if self.cases.iter().any(|case| !case.is_calm) {
            println!(
                "* somebody else was always at work on the same core: the calmest run, held against nothing; more rounds may help"
            );
        }
        self.print_counted();
        println!(
            "\n{:<22} {:>12} {:>14} {:>14}",
            "program", "instructions", "verified", "bytes of code"
        );
        for program in &self.programs {
            println!(
                "{:<22} {:>12} {:>14} {:>14}",
                program.name,
                program.instructions,
                program.verified_instructions,
                program.machine_code_bytes
            );
        }
        if self.held.is_empty() {
            return;
        }
        println!("\nheld against what it is to be (H: a hash lookup of this run)\n");
        for held in &self.held {
            println!(
                "{:<62} {:>6.2} {:<6} {}",
                held.what,
                held.value,
                held.unit,
                match held.at_most {
                    Some(limit) if held.value <= limit => format!("at most {limit}: yes"),
                    Some(limit) => format!("at most {limit}: NO"),
                    None => String::new(),
                }
            );
        }
    }
}

impl Report {
    /// The processor's counters, where it has any.
    fn print_counted(&self) {
        let Some(first) = self.cases.first().filter(|case| !case.counted.is_empty()) else {
            println!("\nthe processor's counters: this machine has none that can be read");
            return;
        };
        print!("\n{:<52}", "events a packet (median)");
        for counted in &first.counted {
            print!(" {:>13}", counted.event);
        }
        println!();
        for case in &self.cases {
            print!("{:<52}", case.name);
            for counted in &case.counted {
                print!(" {:>13.2}", counted.median);
            }
            println!();
        }
    }
}

impl Machine {
    /// This one; `commit` is what weir was built from.
    pub(crate) fn this(commit: &str) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let cpuinfo = read("/proc/cpuinfo")?;
        // Not every architecture names it.
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, name)| name);
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: cpu.trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            mitigations: mitigations(),
            commit: commit.to_owned(),
            at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        })
    }
}

/// "FAULT: what the kernel does", of those that it does something against.
fn mitigations() -> Vec<String> {
    let listed = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let mut found: Vec<_> = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let told = fs::read_to_string(entry.path()).ok()?;
            let told = told.trim();
            let name = entry.file_name();
            told.starts_with("Mitigation")
                .then(|| format!("{}: {told}", name.to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let case = Case::new(String::new(), vec![4.0, 1.0, 2.0, 9.0]);
        let [first, third] = case.quartiles_ns;
        let found = [case.min_ns, first, case.median_ns, third, case.max_ns];
        // Each of them a number of quarters, which floats hold exactly.
        assert_eq!(
            found.map(|ns| ns.to_string()),
            ["1", "1.75", "3", "5.25", "9"]
        );
        assert_eq!(median(&[7.0]).to_string(), "7");
        assert!(median(&[]).is_nan());
    }
}
