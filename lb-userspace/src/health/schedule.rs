//! When a check's turns come: spread over its interval, so that many checks make no burst. Pure.
//!
//! A check's turns are a grid of its interval, moved by a phase that is a hash of the check, and each turn is
//! moved by up to a tenth of the interval to either side, by another hash. The first probe of a new check does not
//! wait for the grid: it comes within [`SOON`].

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::Check;

/// New checks are spread over so long.
const SOON: Duration = Duration::from_secs(1);

/// Turns move within one part in so many of the interval: a tenth to either side.
const JITTER: u32 = 5;

/// The turns of one check. Times count from one moment, the same for all checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    seed: u64,
    interval: Duration,
    phase: Duration,
}

impl Schedule {
    /// `node` differs from node to node, so that the nodes of a fleet do not ask a backend all at once.
    pub(super) fn new(check: &Check, node: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        (node, check).hash(&mut hasher);
        let seed = hasher.finish();
        Self {
            seed,
            interval: check.interval,
            phase: part_of(check.interval, seed),
        }
    }

    /// How long after it became known a check has its first probe.
    pub(super) fn first(&self) -> Duration {
        part_of(self.interval.min(SOON), self.hash(u64::MAX))
    }

    /// The turn that follows the first probe, which was at `now`: half an interval later or more.
    pub(super) fn turn_after_first(&self, now: Duration) -> u64 {
        let not_before = (now + self.interval / 2).saturating_sub(self.phase);
        not_before.as_nanos().div_ceil(self.interval.as_nanos()) as u64
    }

    /// The turn that follows another one, when it is over: the next, or the newest that is due already.
    pub(super) fn turn_after(&self, turn: u64, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.phase).as_nanos() / self.interval.as_nanos();
        (turn + 1).max(passed as u64)
    }

    /// When a turn is due.
    pub(super) fn due(&self, turn: u64) -> Duration {
        let grid = Duration::from_nanos((self.interval.as_nanos() as u64).saturating_mul(turn));
        grid + self.phase + part_of(self.interval / JITTER, self.hash(turn))
    }

    fn hash(&self, turn: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, turn).hash(&mut hasher);
        hasher.finish()
    }
}

/// A part of a time, even over all hashes.
fn part_of(time: Duration, hash: u64) -> Duration {
    let nanoseconds = (u128::from(hash) * time.as_nanos()) >> u64::BITS;
    Duration::from_nanos(nanoseconds as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::health::Probe;

    fn check(backend: u32, interval: Duration) -> Check {
        Check {
            target: (std::net::Ipv4Addr::from(0x0a00_0000 + backend), 80).into(),
            through: None,
            probe: Probe::Tcp,
            interval,
            timeout: interval,
            rise: 2,
            fall: 3,
        }
    }

    /// The most of `times` in one of the `count` equal parts of a time.
    fn fullest(times: &[Duration], of: Duration, count: usize) -> usize {
        let mut parts = vec![0; count];
        for time in times {
            let part = time.as_nanos() * count as u128 / of.as_nanos();
            parts[part as usize % count] += 1;
        }
        parts.into_iter().max().unwrap()
    }

    #[test]
    fn ten_thousand_checks_make_no_burst() {
        let interval = Duration::from_secs(2);
        let schedules: Vec<_> = (0..10_000)
            .map(|backend| Schedule::new(&check(backend, interval), 1))
            .collect();
        // 100 a part, were they wholly even; 150 is five standard deviations more.
        let first: Vec<_> = schedules.iter().map(Schedule::first).collect();
        assert!(first.iter().all(|time| *time < SOON));
        assert!(fullest(&first, SOON, 100) < 150);
        for turn in [0, 1, 1_000_000] {
            let due: Vec<_> = schedules.iter().map(|s| s.due(turn)).collect();
            let most = fullest(&due, interval, 100);
            assert!(most < 150, "{most} in turn {turn}");
        }
    }

    #[test]
    fn nodes_have_phases_of_their_own() {
        let check = check(1, Duration::from_secs(2));
        assert_ne!(
            Schedule::new(&check, 1).due(0),
            Schedule::new(&check, 2).due(0)
        );
    }

    proptest! {
        #[test]
        fn turns_keep_the_interval_within_a_fifth(backend in 0..1000_u32, turn in 0..1_000_000_u64, ms in 100..3_600_000_u64) {
            let interval = Duration::from_millis(ms);
            let schedule = Schedule::new(&check(backend, interval), 1);
            let gap = schedule.due(turn + 1).saturating_sub(schedule.due(turn));
            prop_assert!(gap >= interval * 4 / 5 && gap <= interval * 6 / 5, "{:?}", gap);
        }

        #[test]
        fn the_second_probe_comes_in_half_to_two_intervals(backend in 0..1000_u32, ms in 0..10_000_000_u64) {
            let interval = Duration::from_secs(2);
            let schedule = Schedule::new(&check(backend, interval), 1);
            let now = Duration::from_millis(ms);
            let due = schedule.due(schedule.turn_after_first(now));
            prop_assert!(due >= now + interval / 2, "{:?}", due);
            prop_assert!(due <= now + interval * 2, "{:?}", due);
        }

        #[test]
        fn late_turns_are_left_out_but_not_the_newest(backend in 0..1000_u32, turn in 0..1000_u64, late in 0..100_000_u64) {
            let interval = Duration::from_secs(2);
            let schedule = Schedule::new(&check(backend, interval), 1);
            let now = schedule.due(turn) + Duration::from_millis(late);
            let next = schedule.turn_after(turn, now);
            prop_assert!(next > turn);
            prop_assert!(schedule.due(next + 1) > now, "another one is due already");
        }
    }
}
