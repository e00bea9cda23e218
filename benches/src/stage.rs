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
    Arguments,
    calm::{Beside, Control, counting},
    cases::{self, Case, Program, Tables, Watched},
    counters::{Counters, Counts},
    report::{self, Effort},
};

/// How long runs of a case are tried again in a round while the machine is not calm.
const PATIENCE: Duration = Duration::from_millis(300);

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
        let runs = counting(control, self.runs);
        let left_out = all - runs.len();
        let own_ns = runs.iter().map(|run| run.own_ns).collect();
        let (net_ns, counts): (_, Vec<_>) =
            runs.into_iter().map(|run| (run.net_ns, run.counts)).unzip();
        (
            report::Case::new(name, net_ns, left_out).counted(&counts),
            own_ns,
        )
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
    control: Sample,
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
            control: cases::control()?,
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
            let mut before = self.control_ns(effort.packets)?;
            let (mut calm, mut tried) = (0, 0);
            let begun = Instant::now();
            while calm < effort.runs && (tried < effort.runs || begun.elapsed() < PATIENCE) {
                let measured = self.run(row, counters, effort.packets)?;
                let after = self.control_ns(effort.packets)?;
                let is_calm = control.note(before) & control.note(after);
                calm += u32::from(is_calm);
                tried += 1;
                row.runs.push(Beside {
                    control_ns: before.max(after),
                    measured,
                });
                before = after;
            }
        }
        Ok(())
    }

    fn control_ns(&mut self, packets: u32) -> anyhow::Result<f64> {
        self.driver
            .measure_floor(Floor::Empty, &self.control, packets)
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
