//! The generic cell rate algorithm (ITU-T I.371; RFC 4115 has the same idea): a rate and a burst, held by one
//! 64-bit theoretical arrival time (TAT).

/// A rate limit, in nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// Time that one cell takes at the rate.
    pub interval: u64,
    /// How far the TAT may run ahead of the clock: the burst in cells, less one, times `interval`.
    pub tolerance: u64,
}

impl Limit {
    /// Judges a cell that arrives `now`. Returns the new TAT, or `None` where the cell is one too many.
    #[must_use]
    #[inline(always)]
    pub const fn admit(&self, tat: u64, now: u64) -> Option<u64> {
        let ahead = tat.wrapping_sub(now);
        // A TAT in the past (or a clock that was set back by half its range) starts afresh.
        let (tat, ahead) = if ahead > u64::MAX / 2 {
            (now, 0)
        } else {
            (tat, ahead)
        };
        if ahead > self.tolerance {
            None
        } else {
            Some(tat.wrapping_add(self.interval))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_burst_and_then_the_rate() {
        let limit = Limit {
            interval: 10,
            tolerance: 40,
        };
        let mut tat = 0;
        let mut admitted = [0u32; 2];
        for now in 0..2000u64 {
            for _ in 0..3 {
                if let Some(next) = limit.admit(tat, 1_000_000 + now) {
                    tat = next;
                    admitted[usize::from(now >= 1000)] += 1;
                }
            }
        }
        assert_eq!(admitted, [5 + 99, 100]);
    }
}
