//! The generic cell rate algorithm (ITU-T I.371; RFC 4115 has the same idea): a rate and a burst, held by one
//! 64-bit theoretical arrival time (TAT), which is when all that was admitted so far is paid for at the rate.
//!
//! Time is counted in [`Ticks`]: a nanosecond is too coarse for the bytes of fast links.

/// Time in 4,096ths of a nanosecond, modulo 2⁶⁴ (52 days). Clocks and TATs wrap; what is compared is how far they are
/// apart.
pub type Ticks = u64;

/// Ticks of a nanosecond.
pub const TICKS_PER_NS: u64 = 4096;

/// Ticks of a second.
pub const TICKS_PER_SECOND: u64 = 1_000_000_000 * TICKS_PER_NS;

/// The longest time that a burst may take at its rate: one hour. A TAT further ahead than that was left behind 52 days
/// ago, when the clock was in its round before, and counts as past.
pub const MAX_DEPTH: Ticks = 3600 * TICKS_PER_SECOND;

/// A rate limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// How far the TAT may run ahead of the clock: the time that the whole burst takes at the rate. At most
    /// [`MAX_DEPTH`].
    pub depth: Ticks,
}

impl Limit {
    /// Judges what arrives `now` and takes `cost` at the rate. Returns the new TAT, or `None` where it is too much.
    ///
    /// In any time t at most `t + depth` is admitted, and whatever is admitted is paid for once.
    #[must_use]
    #[inline(always)]
    pub const fn admit(&self, tat: Ticks, now: Ticks, cost: Ticks) -> Option<Ticks> {
        let ahead = tat.wrapping_sub(now);
        // In the past (also: further ahead than can be) it starts afresh.
        let ahead = if ahead > MAX_DEPTH { 0 } else { ahead };
        let next = ahead.wrapping_add(cost);
        if next > self.depth {
            None
        } else {
            Some(now.wrapping_add(next))
        }
    }
}

/// A clock's nanoseconds in ticks.
#[must_use]
#[inline(always)]
pub const fn ticks(ns: u64) -> Ticks {
    ns.wrapping_mul(TICKS_PER_NS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same in integers that never wrap: a level that runs empty at one tick a tick.
    struct Model {
        level: u128,
        at: u128,
    }

    impl Model {
        fn admit(&mut self, now: u128, cost: u128, depth: u128) -> bool {
            self.level = self.level.saturating_sub(now - self.at);
            self.at = now;
            let is_admitted = self.level + cost <= depth;
            if is_admitted {
                self.level += cost;
            }
            is_admitted
        }
    }

    #[test]
    fn admits_the_burst_and_then_the_rate() {
        let limit = Limit { depth: 50 };
        let mut tat = 0;
        let mut admitted = [0u32; 2];
        for now in 0..2000u64 {
            for _ in 0..3 {
                if let Some(next) = limit.admit(tat, 1_000_000 + now, 10) {
                    tat = next;
                    admitted[usize::from(now >= 1000)] += 1;
                }
            }
        }
        assert_eq!(admitted, [5 + 99, 100]);
    }

    #[test]
    fn a_tat_from_the_round_before_starts_afresh() {
        let limit = Limit { depth: 50 };
        let now: Ticks = 1 << 40;
        // Idle for a fifth of a day, 26 days and 39 days.
        for idle in [1u64 << 56, 1 << 63, (1 << 63) + (1 << 62)] {
            assert_eq!(limit.admit(now.wrapping_sub(idle), now, 10), Some(now + 10));
        }
    }

    #[test]
    fn a_smaller_burst_counts_at_once() {
        let now = 77;
        assert_eq!(Limit { depth: 50 }.admit(now + 60, now, 10), None);
        assert_eq!(Limit { depth: 70 }.admit(now + 60, now, 10), Some(now + 70));
    }

    #[test]
    fn what_costs_more_than_the_burst_never_passes() {
        assert_eq!(Limit { depth: 9 }.admit(0, 0, 10), None);
        let limit = Limit { depth: MAX_DEPTH };
        assert_eq!(limit.admit(0, 0, MAX_DEPTH), Some(MAX_DEPTH));
    }

    proptest! {
        /// Random costs at random times, from any point of the clock's round: the same as with exact numbers.
        #[test]
        fn equals_the_model(
            start in any::<u64>(),
            depth in 1..=MAX_DEPTH,
            arrivals in prop::collection::vec((0..2000u64, 0..1100u64), 1..200),
        ) {
            let limit = Limit { depth };
            let mut model = Model { level: 0, at: 0 };
            let mut tat = start;
            let mut elapsed: u64 = 0;
            // Pauses in thousandths of a quarter of the burst, costs in thousandths of it.
            let part = |thousandths: u64, of: u64| (u128::from(of) * u128::from(thousandths) / 1000) as u64;
            for (pause, cost) in arrivals {
                elapsed += part(pause, depth / 4);
                let cost = part(cost, depth);
                let now = start.wrapping_add(elapsed);
                let next = limit.admit(tat, now, cost);
                let is_admitted = model.admit(elapsed.into(), cost.into(), depth.into());
                prop_assert_eq!(next.is_some(), is_admitted);
                tat = next.unwrap_or(tat);
            }
        }
    }
}
