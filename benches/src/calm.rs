//! Which runs count. On a shared machine somebody else's work on the same core, mostly its other thread's, slows all that runs there by half or
//! more, for milliseconds or for minutes, and not everything alike: what computes more than what waits for memory. A control tells of it:
//! the driver alone with one packet that is always the same, before and after each run. Runs beside which it took long are left out.

/// How many times its least the control may take beside a run that counts. Alone on a core it was seen to take 1 to 1.3 times, beside
/// somebody else 1.7 and more, and hardly ever anything between.
const BOUND: f64 = 1.35;

/// What the control took.
#[derive(Debug)]
pub(crate) struct Control {
    least_ns: f64,
}

impl Control {
    /// Nothing measured yet.
    pub(crate) const fn new() -> Self {
        Self {
            least_ns: f64::INFINITY,
        }
    }

    /// Takes note of what the control took, in ns per packet. Tells whether this is little, by all that is known so far.
    pub(crate) const fn note(&mut self, ns: f64) -> bool {
        self.least_ns = self.least_ns.min(ns);
        self.is_calm(ns)
    }

    const fn is_calm(&self, ns: f64) -> bool {
        ns <= self.least_ns * BOUND
    }
}

/// Something that was measured, beside the control.
#[derive(Debug)]
pub(crate) struct Beside<T> {
    /// The longer one of what the control took before and after, ns per packet.
    pub(crate) control_ns: f64,
    pub(crate) measured: T,
}

/// What counts, now that the control's least is known: what was calm. Where nothing was, the calmest one.
pub(crate) fn counting<T>(control: &Control, runs: Vec<Beside<T>>) -> Vec<T> {
    let calmest = runs
        .iter()
        .map(|run| run.control_ns)
        .fold(f64::INFINITY, f64::min);
    let counts = runs
        .into_iter()
        .filter(|run| control.is_calm(run.control_ns) || run.control_ns <= calmest);
    counts.map(|run| run.measured).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut control = Control::new();
        assert!(control.note(70.0));
        assert!(control.note(94.0));
        assert!(!control.note(95.0));
        assert!(control.note(40.0));
        assert!(!control.note(70.0));
        assert_eq!(
            counting(&control, runs(&[70.0, 55.0, 40.0, 53.0, 94.0])),
            [2, 3]
        );
    }

    #[test]
    fn where_nothing_was_calm_the_calmest_counts() {
        let mut control = Control::new();
        control.note(40.0);
        assert_eq!(counting(&control, runs(&[70.0, 61.0, 80.0])), [1]);
        assert!(counting(&control, runs(&[])).is_empty());
    }
}
