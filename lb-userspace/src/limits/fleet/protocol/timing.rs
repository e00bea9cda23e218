//! How long everything takes, from the period.

use std::time::Duration;

use crate::limits::fleet::Rate;

/// So many cells make a demand: of a low limit, several periods are counted together.
const CELLS: u64 = 16;

/// At most so many periods are counted together.
const MOST_PERIODS: u64 = 50;

/// The length of a turn; everything else follows from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// From one request to the next.
    pub period: Duration,
}

impl Timing {
    /// How long a lease lasts that is asked for again after so many turns: two answers may be lost.
    #[must_use]
    pub fn lease(self, turns: u32) -> Duration {
        self.period * turns.saturating_mul(3)
    }

    /// How much earlier a node takes its lease for ended than Redis does.
    #[must_use]
    pub fn margin(self) -> Duration {
        self.period / 4
    }

    /// After so long without a call of anybody, leases may have ended in Redis that nodes still follow.
    pub(super) fn gap(self) -> Duration {
        self.period * 2
    }

    /// In so long every node has told every lease, although answers are lost and connections made anew.
    #[must_use]
    pub fn learn(self, turns: u32) -> Duration {
        self.period * turns.saturating_mul(2).saturating_add(7)
    }

    /// For so long Redis keeps what nobody asks for.
    pub(super) fn keep(self, turns: u32) -> Duration {
        (self.lease(turns) * 10).max(Duration::from_mins(1))
    }

    /// Over how many periods the demand of a limit is counted.
    pub(super) fn window(self, limit: Rate, turns: u32) -> usize {
        let cells = u128::from(limit.thousandths()) * self.period.as_millis();
        let periods = u128::from(CELLS * 1_000_000).div_ceil(cells.max(1));
        let periods = u64::try_from(periods).unwrap_or(MOST_PERIODS);
        periods.clamp(u64::from(turns), MOST_PERIODS.max(u64::from(turns))) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_limits_are_counted_for_longer() {
        let timing = Timing {
            period: Duration::from_millis(100),
        };
        let window = |cells, turns| timing.window(Rate::per_second(cells), turns);
        assert_eq!(window(1_000_000, 1), 1);
        assert_eq!(window(160, 1), 1);
        assert_eq!(window(159, 1), 2);
        assert_eq!(window(10, 1), 16);
        assert_eq!(window(1, 1), 50);
        assert_eq!(window(0, 1), 50);
        assert_eq!(window(160, 4), 4);
        assert_eq!(window(1, 60), 60);
    }
}
