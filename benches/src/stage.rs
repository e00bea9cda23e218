//! What is measured, loaded and ready, and one round of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lb_userspace::dataplane::{
    Sizes,
    bpf::{
        BpfDataPlane,
        driver::{Classic, Driver, Floor, Pinned, Sample},
    },
};

use crate::{
    Arguments, FEWEST,
    calm::{Beside, Control, Counting, counting},
    cases::{self, Case, Program, Tables, Watched},
    counters::{Counters, Counts},
    report::{self, Effort},
};

/// How long runs of a case are tried again in a round while somebody else is at work.
const PATIENCE: Duration = Duration::from_millis(300);

/// A packet that takes longer than this, the driver included, comes in fewer numbers: all runs are to be as short, since the control knows
/// nothing of what happens between its own two.
const LONG_NS: f64 = 100.0;

/// One line of the table.
pub(crate) struct Row<'a> {
    case: &'a Case,
    other: Option<&'a (String, Pinned)>,
    runs: Vec<Beside<Run>>,
}

/// One run of a case.
struct Run {
    /// What the driver took, ns per packet.
    own_ns: f64,
    /// What the case took beyond that.
    net_ns: f64,
    counts: Counts,
}

impl<'a> Row<'a> {
    pub(crate) const fn new(case: &'a Case, other: Option<&'a (String, Pinned)>) -> Self {
        Self {
            case,
            other,
            runs: Vec::new(),
        }
    }

    fn name(&self) -> String {
        match self.other {
            Some((name, _)) => format!("{name}: {}", self.case.name),
            None => self.case.name.clone(),
        }
    }

    /// What came out, now that it is known which runs count; and what the driver took in these, ns per packet.
    pub(crate) fn report(self, control: &Control) -> (report::Case, Vec<f64>) {
        let (name, all) = (self.name(), self.runs.len());
        let Counting { runs, are_calm } = counting(control, self.runs);
        let left_out = all - runs.len();
        let own_ns = runs.iter().map(|run| run.own_ns).collect();
        let (net_ns, counts): (_, Vec<_>) =
            runs.into_iter().map(|run| (run.net_ns, run.counts)).unzip();
        let case = report::Case::new(name, net_ns)
            .beside_others(left_out, are_calm)
            .counted(&counts);
        (case, own_ns)
    }
}

/// What is measured, loaded and ready.
pub(crate) struct Stage {
    pub(crate) driver: Driver,
    pub(crate) weir: BpfDataPlane,
    tables: Tables,
    classic: Option<Classic>,
    observed: Vec<(Watched, BpfDataPlane)>,
    /// What the control is measured with.
    control_sample: Sample,
}

impl Stage {
    /// Loads what the cases that are asked for want, and tells them.
    pub(crate) fn load(arguments: &Arguments) -> anyhow::Result<(Self, Vec<Case>)> {
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
            control_sample: cases::control()?,
        };
        Ok((stage, cases))
    }

    /// Measures the cases of all rows, one after the other, each until enough runs were calm or it has been tried long enough.
    pub(crate) fn round(
        &mut self,
        rows: &mut [Row<'_>],
        control: &mut Control,
        counters: &mut Counters,
        effort: Effort,
    ) -> anyhow::Result<()> {
        for row in rows {
            cases::arrange(&mut self.weir, &self.tables, row.case)?;
            // The caches are full of what other cases left.
            let warm_up_ns = self.measure(row, effort.packets)?;
            let packets = fewer(effort.packets, warm_up_ns);
            let mut before = self.control_ns(control, effort.packets)?;
            let (mut calm, mut tried) = (0, 0);
            let begun = Instant::now();
            while calm < effort.runs && (tried < effort.runs || begun.elapsed() < PATIENCE) {
                let measured = self.run(row, counters, packets)?;
                let after = self.control_ns(control, effort.packets)?;
                let control_ns = before.max(after);
                calm += u32::from(control.is_calm(control_ns));
                tried += 1;
                row.runs.push(Beside {
                    control_ns,
                    measured,
                });
                before = after;
            }
        }
        Ok(())
    }

    fn control_ns(&mut self, control: &mut Control, packets: u32) -> anyhow::Result<f64> {
        let ns = self
            .driver
            .measure_floor(Floor::Empty, &self.control_sample, packets)?;
        control.note(ns);
        Ok(ns)
    }

    fn run(&mut self, row: &Row<'_>, counters: &mut Counters, packets: u32) -> anyhow::Result<Run> {
        let sample = row.case.sample();
        let (own_ns, own) =
            counters.around(|| self.driver.measure_floor(Floor::Empty, &sample, packets))?;
        let (ns, counts) = counters.around(|| self.measure(row, packets))?;
        let net = counts.into_iter().zip(own);
        let net = net.map(|((event, count), (_, own))| (event, (count - own) / f64::from(packets)));
        Ok(Run {
            own_ns,
            net_ns: ns - own_ns,
            counts: net.collect(),
        })
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

/// How many packets take as long as so many of [`LONG_NS`], if they take longer; else so many.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between a thousand and what fits"
)]
fn fewer(packets: u32, ns: f64) -> u32 {
    let as_long = f64::from(packets) * (LONG_NS / ns).min(1.0);
    (as_long as u32).max(FEWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_comes_in_fewer_numbers() {
        let fewer = [30.0, 100.0, 1000.0, 1e6].map(|ns| fewer(50_000, ns));
        assert_eq!(fewer, [50_000, 50_000, 5000, FEWEST]);
    }
}
