//! From single probes to a verdict: rise and fall. Pure.

use super::Check;

/// What is known of a backend.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It serves.
    Healthy,
    /// It does not.
    Failed,
}

/// A verdict and the run of equal results that may turn it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Standing {
    pub(super) verdict: Verdict,
    /// Whether the last probe passed.
    last: Option<bool>,
    /// How many probes in a row ended as the last one did.
    pub(super) in_a_row: u32,
}

impl Standing {
    pub(super) const fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            last: None,
            in_a_row: 0,
        }
    }

    /// What one more probe makes of it. Where nothing is known, the first result decides at once.
    #[must_use]
    pub(super) fn after(self, passed: bool, check: &Check) -> Self {
        let is_same = self.last == Some(passed);
        let in_a_row = if is_same {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        let verdict = match (self.verdict, passed) {
            (Verdict::Unknown, true) => Verdict::Healthy,
            (Verdict::Unknown, false) => Verdict::Failed,
            (Verdict::Failed, true) if in_a_row >= u32::from(check.rise) => Verdict::Healthy,
            (Verdict::Healthy, false) if in_a_row >= u32::from(check.fall) => Verdict::Failed,
            (verdict, _) => verdict,
        };
        Self {
            verdict,
            last: Some(passed),
            in_a_row,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::health::Probe;

    fn check(rise: u16, fall: u16) -> Check {
        Check {
            target: "10.0.0.1:80".parse().unwrap(),
            through: None,
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise,
            fall,
        }
    }

    fn after(standing: Standing, results: &[bool], check: &Check) -> Standing {
        let results = results.iter();
        results.fold(standing, |standing, passed| standing.after(*passed, check))
    }

    /// The rule said the other way round: the verdict of the last run that was long enough to have one.
    fn last_long_run(from: Verdict, results: &[bool], check: &Check) -> Verdict {
        let end_of_run = |wanted: bool, length: u16| {
            let ends = usize::from(length)..=results.len();
            let mut runs = ends.filter(|end| {
                let run = &results[end - usize::from(length)..*end];
                run.iter().all(|passed| *passed == wanted)
            });
            runs.next_back().unwrap_or(0)
        };
        let (risen, fallen) = (end_of_run(true, check.rise), end_of_run(false, check.fall));
        match risen.cmp(&fallen) {
            std::cmp::Ordering::Greater => Verdict::Healthy,
            std::cmp::Ordering::Less => Verdict::Failed,
            std::cmp::Ordering::Equal => from,
        }
    }

    #[test]
    fn falls_and_rises_after_so_many_in_a_row() {
        let check = check(2, 3);
        let healthy = Standing::new(Verdict::Healthy);
        let shaken = after(healthy, &[false, false, true, false, false], &check);
        assert_eq!((shaken.verdict, shaken.in_a_row), (Verdict::Healthy, 2));
        let failed = shaken.after(false, &check);
        assert_eq!((failed.verdict, failed.in_a_row), (Verdict::Failed, 3));
        let risen = after(failed, &[true, false, true, true], &check);
        assert_eq!((risen.verdict, risen.in_a_row), (Verdict::Healthy, 2));
    }

    proptest! {
        #[test]
        fn the_last_long_run_decides(
            rise in 1..5_u16,
            fall in 1..5_u16,
            is_healthy: bool,
            results in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let check = check(rise, fall);
            let from = if is_healthy { Verdict::Healthy } else { Verdict::Failed };
            let standing = after(Standing::new(from), &results, &check);
            prop_assert_eq!(standing.verdict, last_long_run(from, &results, &check));
            let run = results.iter().rev().take_while(|passed| Some(*passed) == results.last());
            prop_assert_eq!(standing.in_a_row as usize, run.count());
        }

        #[test]
        fn where_nothing_is_known_the_first_result_decides(rise in 1..5_u16, fall in 1..5_u16, passed: bool) {
            let standing = Standing::default().after(passed, &check(rise, fall));
            let wanted = if passed { Verdict::Healthy } else { Verdict::Failed };
            prop_assert_eq!(standing.verdict, wanted);
        }

        #[test]
        fn a_verdict_never_becomes_unknown_again(results in prop::collection::vec(any::<bool>(), 1..20)) {
            let standing = after(Standing::default(), &results, &check(2, 3));
            prop_assert_ne!(standing.verdict, Verdict::Unknown);
        }
    }
}
