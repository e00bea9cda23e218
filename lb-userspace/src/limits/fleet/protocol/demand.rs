//! What comes of one limit, from a counter that is read now and then.

use std::{collections::VecDeque, time::Duration};

use crate::limits::fleet::Rate;

/// The last readings of a counter.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// When the counter was read last, and what it showed.
    last: Option<(Duration, u64)>,
    /// Time between readings and cells that came in it, the newest first.
    periods: VecDeque<(Duration, u64)>,
}

impl Demand {
    /// Takes a reading; two times `window` periods are kept.
    pub(super) fn note(&mut self, now: Duration, counter: u64, window: usize) {
        let Some((then, before)) = self.last else {
            self.last = Some((now, counter));
            return;
        };
        let Some(time) = now.checked_sub(then).filter(|time| !time.is_zero()) else {
            return;
        };
        // One that goes back has begun again.
        let cells = counter.checked_sub(before).unwrap_or(counter);
        self.last = Some((now, counter));
        self.periods.push_front((time, cells));
        self.periods.truncate(window.max(1) * 2);
    }

    /// The larger rate of the last two windows: what stops and starts is not given away at every stop. `None` before
    /// anything is known.
    pub(super) fn rate(&self, window: usize) -> Option<Rate> {
        let window = window.max(1);
        let rate = |periods: &mut dyn Iterator<Item = &(Duration, u64)>| {
            let (time, cells) = periods.fold((Duration::ZERO, 0u64), |(time, cells), period| {
                (time + period.0, cells.saturating_add(period.1))
            });
            (!time.is_zero()).then(|| {
                let rate = u128::from(cells) * 1_000_000_000 / time.as_micros().max(1);
                Rate::from_thousandths(u64::try_from(rate).unwrap_or(u64::MAX))
            })
        };
        let newer = rate(&mut self.periods.iter().take(window));
        let older = rate(&mut self.periods.iter().skip(window).take(window));
        newer.max(older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(readings: &[(u64, u64)], window: usize) -> Option<Rate> {
        let mut demand = Demand::default();
        for &(millis, counter) in readings {
            demand.note(Duration::from_millis(millis), counter, window);
        }
        demand.rate(window)
    }

    #[test]
    fn is_what_came_per_second() {
        assert_eq!(demand(&[], 1), None);
        assert_eq!(demand(&[(0, 500)], 1), None);
        assert_eq!(
            demand(&[(0, 500), (100, 700)], 1),
            Some(Rate::per_second(2000))
        );
        // The same moment twice tells nothing.
        assert_eq!(demand(&[(0, 500), (0, 700)], 1), None);
    }

    #[test]
    fn falls_a_window_late_and_rises_at_once() {
        let falling = [(0, 0), (100, 200), (200, 200)];
        assert_eq!(demand(&falling, 1), Some(Rate::per_second(2000)));
        let fallen = [(0, 0), (100, 200), (200, 200), (300, 200)];
        assert_eq!(demand(&fallen, 1), Some(Rate::per_second(0)));
        let risen = [(0, 0), (100, 0), (200, 0), (300, 200)];
        assert_eq!(demand(&risen, 1), Some(Rate::per_second(2000)));
        assert_eq!(demand(&risen, 2), Some(Rate::per_second(1000)));
    }

    #[test]
    fn a_counter_may_begin_again() {
        assert_eq!(
            demand(&[(0, 500), (100, 20)], 1),
            Some(Rate::per_second(200))
        );
    }
}
