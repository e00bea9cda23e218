//! How many nodes the fleet has.

use std::time::Duration;

/// The most of the last one to two spans counts. A node that dies is missed at once in the leases; for the
/// fallback it is better to count one too many for a while than one too few.
const SPAN: Duration = Duration::from_secs(10);

/// How many nodes were alive lately.
#[derive(Clone, Copy, Debug)]
pub(super) struct Population {
    began: Duration,
    before: u32,
    most: u32,
    /// What was heard last: holds for as long as nothing is heard.
    last: u32,
}

impl Population {
    pub(super) fn new(nodes: u32) -> Self {
        let nodes = nodes.max(1);
        Self {
            began: Duration::ZERO,
            before: nodes,
            most: nodes,
            last: nodes,
        }
    }

    /// Takes a count; of a Redis that is still learning it may be too low.
    pub(super) fn note(&mut self, now: Duration, live: u32, is_learning: bool) {
        let live = if is_learning {
            live.max(self.last)
        } else {
            live
        };
        if now.saturating_sub(self.began) >= SPAN {
            // While nothing was heard, what was heard last held.
            let is_recent = now.saturating_sub(self.began) < SPAN * 2;
            self.before = if is_recent { self.most } else { self.last };
            self.most = self.last;
            self.began = now;
        }
        self.last = live;
        self.most = self.most.max(live);
    }

    pub(super) fn nodes(&self, now: Duration) -> u32 {
        if now.saturating_sub(self.began) < SPAN {
            self.before.max(self.most)
        } else {
            self.most
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn more_nodes_count_at_once_and_fewer_after_a_while() {
        let mut population = Population::new(0);
        assert_eq!(population.nodes(at(0)), 1);
        population.note(at(1), 4, false);
        assert_eq!(population.nodes(at(1)), 4);
        for second in 2..=30 {
            population.note(at(second), 2, false);
            let nodes = population.nodes(at(second));
            assert_eq!(nodes, if second < 20 { 4 } else { 2 }, "{second}");
        }
    }

    #[test]
    fn silence_changes_nothing_and_learning_only_adds() {
        let mut population = Population::new(3);
        population.note(at(1), 3, false);
        assert_eq!(population.nodes(at(1000)), 3);
        population.note(at(1001), 1, true);
        population.note(at(1012), 1, true);
        population.note(at(1023), 1, true);
        assert_eq!(population.nodes(at(1023)), 3);
        population.note(at(1024), 5, true);
        assert_eq!(population.nodes(at(1024)), 5);
    }
}
