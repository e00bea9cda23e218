//! How many packets still come to backends that take no new flows.

use std::{collections::BTreeMap, time::Instant};

/// Packets of quiet backends, as they were counted after the last two scans.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    last: BTreeMap<u16, (Instant, u64)>,
    /// Frames a second, by backend id.
    rates: BTreeMap<u16, f64>,
}

impl Ebb {
    /// Notes how many frames each of these backends has had until `now`.
    pub(super) fn note(&mut self, counts: impl IntoIterator<Item = (u16, u64)>, now: Instant) {
        let mut last = BTreeMap::new();
        let mut rates = BTreeMap::new();
        for (id, frames) in counts {
            if let Some((then, before)) = self.last.get(&id) {
                let seconds = now.saturating_duration_since(*then).as_secs_f64();
                let more = u32::try_from(frames.saturating_sub(*before)).unwrap_or(u32::MAX);
                if seconds > 0.0 {
                    rates.insert(id, f64::from(more) / seconds);
                }
            }
            last.insert(id, (now, frames));
        }
        *self = Self { last, rates };
    }

    /// Frames a second between the last two scans; `None` where there were none.
    pub(super) fn rate(&self, id: u16) -> Option<f64> {
        self.rates.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_between_two_scans_and_goes_with_the_backend() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut ebb = Ebb::default();
        ebb.note([(1, 1000), (2, 7)], at(0));
        assert_eq!(ebb.rate(1), None);
        ebb.note([(1, 1050), (2, 7), (3, 9)], at(5));
        assert_eq!(
            [1, 2, 3].map(|id| ebb.rate(id)),
            [Some(10.0), Some(0.0), None]
        );
        ebb.note([(2, 8)], at(7));
        assert_eq!([1, 2].map(|id| ebb.rate(id)), [None, Some(0.5)]);
    }
}
