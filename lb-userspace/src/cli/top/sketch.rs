//! The heaviest of a stream in bounded memory: Space-Saving (Metwally, Agrawal and El Abbadi, ICDT 2005), with weights.
//!
//! There are `m` counters. A key that has one adds to it; a new key takes a free one, or else the smallest, and goes on from
//! its count. With `W` the weight of all that was added, for every key:
//!
//! - a counter is never below what its key weighs, and above it by no more than its `error`;
//! - no `error` is above `W / m`;
//! - a key that weighs more than `W / m` has a counter.
//!
//! While there were no more keys than counters, all is exact.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// What is known of a key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counter {
    /// Its weight, or more.
    pub(super) count: u64,
    /// How much more at most: the count that it took over.
    pub(super) error: u64,
    /// The second weight since it has this counter: no more than what there was.
    pub(super) beside: u64,
    /// How often it was added since then.
    pub(super) times: u64,
}

/// Counters of the heaviest keys.
#[derive(Clone, Debug)]
pub(super) struct Sketch<K> {
    capacity: usize,
    counters: HashMap<K, Counter>,
    /// The same keys, the lightest first.
    order: BTreeSet<(u64, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Sketch<K> {
    /// An empty one with so many counters, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            counters: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// Adds to a key: its weight, and another weight that is kept beside it.
    pub(super) fn add(&mut self, key: K, weight: u64, beside: u64) {
        let mut counter = match self.counters.get(&key) {
            Some(counter) => {
                self.order.remove(&(counter.count, key.clone()));
                *counter
            }
            None => self.free(),
        };
        counter.count = counter.count.saturating_add(weight);
        counter.beside = counter.beside.saturating_add(beside);
        counter.times += 1;
        self.order.insert((counter.count, key.clone()));
        self.counters.insert(key, counter);
    }

    /// A counter for a new key.
    fn free(&mut self) -> Counter {
        if self.counters.len() < self.capacity {
            return Counter::default();
        }
        let Some((count, lightest)) = self.order.pop_first() else {
            return Counter::default();
        };
        self.counters.remove(&lightest);
        Counter {
            count,
            error: count,
            ..Counter::default()
        }
    }

    /// No counter is higher than what its key weighs by more than this.
    pub(super) fn bound(&self) -> u64 {
        let errors = self.counters.values().map(|counter| counter.error);
        errors.max().unwrap_or_default()
    }

    /// The heaviest keys, the heaviest first.
    pub(super) fn top(&self, most: usize) -> impl Iterator<Item = (&K, Counter)> {
        let keys = self.order.iter().rev().take(most);
        keys.filter_map(|(_, key)| Some((key, *self.counters.get(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_exact_while_every_key_has_a_counter() {
        let mut sketch = Sketch::new(3);
        for (key, weight) in [("a", 1), ("b", 5), ("a", 7), ("c", 2), ("b", 1)] {
            sketch.add(key, weight, 10 * weight);
        }
        let top: Vec<_> = sketch.top(2).map(|(key, c)| (*key, c.count)).collect();
        assert_eq!(top, [("a", 8), ("b", 6)]);
        let (_, heaviest) = sketch.top(1).next().unwrap();
        assert_eq!((heaviest.beside, heaviest.times), (80, 2));
        assert_eq!(sketch.bound(), 0);
    }

    #[test]
    fn a_new_key_takes_the_lightest_counter_and_says_how_far_it_may_be_off() {
        let mut sketch = Sketch::new(2);
        sketch.add("heavy", 10, 1);
        sketch.add("light", 3, 1);
        sketch.add("new", 1, 1);
        let top: Vec<_> = sketch.top(9).map(|(key, c)| (*key, c)).collect();
        let new = Counter {
            count: 4,
            error: 3,
            beside: 1,
            times: 1,
        };
        assert_eq!(top[1], ("new", new));
        assert_eq!((top.len(), top[0].0, sketch.bound()), (2, "heavy", 3));
    }

    proptest! {
        #[test]
        fn keeps_its_promises(
            capacity in 1_usize..12,
            stream in prop::collection::vec((0_u8..30, 1_u64..50), 0..400),
        ) {
            let mut sketch = Sketch::new(capacity);
            let mut exact = BTreeMap::<u8, u64>::new();
            for (key, weight) in &stream {
                sketch.add(*key, *weight, *weight);
                *exact.entry(*key).or_default() += weight;
            }
            let all: u64 = exact.values().sum();
            let allowed = all / capacity as u64;
            let kept: BTreeMap<_, _> = sketch.top(usize::MAX).map(|(key, c)| (*key, c)).collect();
            prop_assert!(kept.len() <= capacity);
            prop_assert_eq!(kept.values().map(|c| c.count).sum::<u64>(), all);
            prop_assert!(sketch.bound() <= allowed);
            for (key, counter) in &kept {
                prop_assert!(counter.count >= exact[key]);
                prop_assert!(counter.count - counter.error <= exact[key]);
                prop_assert!(counter.beside <= exact[key]);
            }
            for (key, weight) in &exact {
                prop_assert!(*weight <= allowed || kept.contains_key(key), "{} weighs {}", key, weight);
            }
            let counts: Vec<_> = sketch.top(usize::MAX).map(|(_, c)| c.count).collect();
            prop_assert!(counts.is_sorted_by(|a, b| a >= b));
        }
    }
}
