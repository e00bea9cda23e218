//! Which runs count. On a shared machine somebody else's work on the same core, mostly its other thread's, slows what runs there, for milliseconds
//! or for minutes, and what computes more than what waits for memory. A control tells of it:
//! the driver alone with one packet that is always the same, before and after each run. Runs beside which it took long are left out.

/// How many times what it takes alone the control may take beside a run that counts. docs/performance.md has what was seen.
const BOUND: f64 = 1.35;

/// One in so many measurements of the control may have taken less than what it is said to take alone: a lucky one is no measure for the others.
const LUCKY: usize = 100;

/// What the control took, ns per packet, in order.
#[derive(Debug, Default)]
pub(crate) struct Control {
    taken_ns: Vec<f64>,
}

impl Control {
    /// Takes note of a measurement.
    pub(crate) fn note(&mut self, ns: f64) {
        let at = self.taken_ns.partition_point(|taken| *taken < ns);
        self.taken_ns.insert(at, ns);
    }

    /// Whether nobody else was at work while the control took so long, by all that is known so far.
    pub(crate) fn is_calm(&self, ns: f64) -> bool {
        let alone = self.taken_ns.get(self.taken_ns.len() / LUCKY);
        alone.is_some_and(|alone| ns <= alone * BOUND)
    }
}

/// Something that was measured, beside the control.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    /// The longer one of what the control took before and after, ns per packet.
    pub(crate) control_ns: f64,
    pub(crate) measured: T,
}

/// What counts of the runs of a case.
#[derive(Debug, PartialEq)]
pub(crate) struct Counting<T> {
    pub(crate) runs: Vec<T>,
    /// Whether nobody else was at work meanwhile. If there was always somebody, the calmest run is all that counts.
    pub(crate) are_calm: bool,
}

/// Chooses what counts, now that it is known what the control takes alone.
pub(crate) fn counting<T>(control: &Control, mut runs: Vec<Beside<T>>) -> Counting<T> {
    runs.sort_by(|run, other| run.control_ns.total_cmp(&other.control_ns));
    let calm = runs.partition_point(|run| control.is_calm(run.control_ns));
    runs.truncate(calm.max(1));
    Counting {
        runs: runs.into_iter().map(|run| run.measured).collect(),
        are_calm: calm > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(taken: &[f64]) -> Control {
        let mut control = Control::default();
        for ns in taken {
            control.note(*ns);
        }
        control
    }

    fn runs(controls: &[f64]) -> Vec<Beside<usize>> {
        let numbered = controls.iter().enumerate();
        numbered
            .map(|(measured, control_ns)| Beside {
                control_ns: *control_ns,
                measured,
            })
            .collect()
    }

    #[test]
    fn what_looked_calm_is_left_out_once_the_control_was_faster() {
        let mut control = control(&[80.0, 70.0]);
        assert!(control.is_calm(94.0) && !control.is_calm(95.0));
        control.note(40.0);
        assert!(control.is_calm(54.0) && !control.is_calm(70.0));
        assert_eq!(
            counting(&control, runs(&[70.0, 54.0, 40.0, 55.0, 94.0])),
            Counting {
                runs: vec![2, 1],
                are_calm: true
            }
        );
    }

    #[test]
    fn one_lucky_measurement_is_no_measure_for_the_others() {
        let mut control = control(&[20.0]);
        for _ in 0..98 {
            control.note(40.0);
        }
        assert!(!control.is_calm(28.0));
        control.note(40.0);
        assert!(control.is_calm(54.0));
    }

    #[test]
    fn where_somebody_was_always_at_work_the_calmest_run_counts() {
        let control = control(&[40.0]);
        let counts = |measured, are_calm| Counting {
            runs: measured,
            are_calm,
        };
        assert_eq!(
            counting(&control, runs(&[70.0, 61.0, 80.0])),
            counts(vec![1], false)
        );
        assert_eq!(counting(&control, runs(&[])), counts(vec![], false));
    }
}
