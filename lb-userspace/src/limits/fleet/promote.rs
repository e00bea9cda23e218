//! Which sources get limits of their own in the fleet: those that see so much of theirs on this node that the fleet
//! might pass it.
//!
//! A source passes its limit only if at least one of N nodes sees more than an N-th of it. Promoted are sources past
//! a quarter of that, so that what nodes see of a source without asking for it stays below a quarter of its limit
//! in all.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::Rate;

/// A promoted source is one past this part of an even share.
const PART: u64 = 4;

/// It stays one until it has been below half of that for so long.
const REST: Duration = Duration::from_secs(10);

/// At most so many sources are promoted on a node, of all limits together.
pub const MOST: usize = 1024;

/// A source that the data plane counts, of one limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate<S> {
    /// Which limit, which source.
    pub source: S,
    /// What came of it here lately.
    pub rate: Rate,
    /// What the fleet may let through of it.
    pub limit: Rate,
}

/// The sources that are promoted.
#[derive(Debug)]
pub struct Promoted<S> {
    most: usize,
    sources: BTreeMap<S, State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// How many thousandths of what promotes it were seen in the last scan.
    weight: u64,
    /// Since when it is too light.
    light: Option<Duration>,
}

impl<S: Clone + Ord> Promoted<S> {
    /// None yet, and never more than `most`.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            sources: BTreeMap::new(),
        }
    }

    /// Takes a scan of the data plane; sources that it does not have are silent. `nodes` is how many nodes the fleet
    /// is taken to have.
    pub fn scan(
        &mut self,
        now: Duration,
        candidates: impl IntoIterator<Item = Candidate<S>>,
        nodes: u32,
    ) {
        for state in self.sources.values_mut() {
            state.weight = 0;
        }
        let mut heavy = Vec::new();
        for candidate in candidates {
            let weight = weight(&candidate, nodes);
            match self.sources.get_mut(&candidate.source) {
                Some(state) => state.weight = weight,
                None if weight >= 1000 => heavy.push((Reverse(weight), candidate.source)),
                None => {}
            }
        }
        self.sources.retain(|_, state| {
            state.light = match state.light {
                _ if state.weight >= 500 => None,
                None => Some(now),
                since => since,
            };
            state
                .light
                .is_none_or(|since| now.saturating_sub(since) < REST)
        });
        // The heaviest first, and where all places are taken, for sources that are less than half as heavy.
        heavy.sort_unstable();
        heavy.truncate(self.most);
        let mut by_weight: Vec<_> = Vec::new();
        if self.sources.len() + heavy.len() > self.most {
            let sources = self.sources.iter();
            by_weight
                .extend(sources.map(|(source, state)| (Reverse(state.weight), source.clone())));
            by_weight.sort_unstable();
        }
        for (Reverse(weight), source) in heavy {
            if self.sources.len() >= self.most {
                match by_weight.pop() {
                    Some((Reverse(least), lightest)) if least < weight / 2 => {
                        self.sources.remove(&lightest);
                    }
                    _ => return,
                }
            }
            let light = None;
            self.sources.insert(source, State { weight, light });
        }
    }

    /// The sources, in their order.
    #[must_use]
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &S> {
        self.sources.keys()
    }
}

/// The rate in thousandths of what promotes a source.
fn weight<S>(candidate: &Candidate<S>, nodes: u32) -> u64 {
    let rate = u128::from(candidate.rate.thousandths()) * 1000;
    let part =
        u128::from(candidate.limit.thousandths()) / u128::from(PART * u64::from(nodes.max(1)));
    u64::try_from(rate / part.max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Rate = Rate::per_second(8000);

    fn scan(promoted: &mut Promoted<u32>, second: u64, rates: &[(u32, u64)]) -> Vec<u32> {
        let candidates = rates.iter().map(|&(source, rate)| Candidate {
            source,
            rate: Rate::per_second(rate),
            limit: LIMIT,
        });
        promoted.scan(Duration::from_secs(second), candidates, 2);
        promoted.sources().copied().collect()
    }

    #[test]
    fn a_quarter_of_an_even_share_promotes() {
        let mut promoted = Promoted::new(10);
        assert_eq!(
            scan(&mut promoted, 0, &[(1, 999), (2, 1000), (3, 9000)]),
            [2, 3]
        );
    }

    #[test]
    fn a_source_that_wavers_stays_and_a_silent_one_goes() {
        let mut promoted = Promoted::new(10);
        scan(&mut promoted, 0, &[(1, 1000), (2, 1000)]);
        for second in 1..=30 {
            let rate = if second % 9 == 0 { 500 } else { 0 };
            let sources = scan(&mut promoted, second, &[(1, rate)]);
            let expected = if second < 11 { &[1, 2][..] } else { &[1] };
            assert_eq!(sources, expected, "{second}");
        }
    }

    #[test]
    fn the_heaviest_have_the_places() {
        let mut promoted = Promoted::new(2);
        assert_eq!(
            scan(&mut promoted, 0, &[(1, 1000), (2, 3000), (3, 2000)]),
            [2, 3]
        );
        let all = [(1, 3900), (2, 3000), (3, 2000), (4, 4100), (5, 90_000)];
        // Twice as heavy as the lightest, or they would change places at every scan.
        assert_eq!(scan(&mut promoted, 1, &all), [2, 5]);
        assert_eq!(scan(&mut promoted, 2, &all), [2, 5]);
    }

    #[test]
    fn a_flood_of_sources_takes_no_more_than_the_places() {
        let mut promoted = Promoted::new(MOST);
        let flood: Vec<_> = (0..1_000_000).map(|source| (source, 5000)).collect();
        let before = scan(&mut promoted, 0, &flood);
        assert_eq!(before.len(), MOST);
        let other: Vec<_> = (500_000..1_500_000).map(|source| (source, 5000)).collect();
        assert!(scan(&mut promoted, 1, &other).len() <= MOST);
        assert_eq!(scan(&mut promoted, 20, &[]).len(), MOST);
        assert_eq!(scan(&mut promoted, 31, &[]).len(), 0);
    }
}
