//! One limit on one node.

use std::{collections::VecDeque, time::Duration};

use super::demand::Demand;
use crate::limits::fleet::{FleetLimit, Origin, Rate, Scope, Share, wire::Answer};

/// So many published rates are kept apart, until one is applied.
const MOST_UNAPPLIED: usize = 32;

/// What a node holds of one limit.
#[derive(Debug)]
pub(super) struct Lease {
    limit: FleetLimit,
    standing: Standing,
    demand: Demand,
    window: usize,
    is_fresh: bool,
    /// Rates that were published and may still be in force, with their generations, the newest last.
    published: VecDeque<(u64, Rate)>,
}

/// What a node may let through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// A lease, which lasts `until`. It was given for `lasts`.
    Leased {
        rate: Rate,
        until: Duration,
        lasts: Duration,
    },
    /// No lease, and others may still have theirs: an even part, but no more than this.
    Cautious { most: Rate, until: Duration },
    /// An even part.
    Even,
}

impl Lease {
    pub(super) fn new(limit: &FleetLimit) -> Self {
        Self {
            limit: limit.clone(),
            standing: Standing::Even,
            demand: Demand::default(),
            window: 1,
            is_fresh: true,
            published: VecDeque::new(),
        }
    }

    pub(super) fn change(&mut self, limit: &FleetLimit) {
        self.limit.clone_from(limit);
    }

    pub(super) const fn scope(&self) -> Scope {
        self.limit.scope
    }

    pub(super) const fn limit(&self) -> Rate {
        self.limit.rate
    }

    /// Whether it was never asked for.
    pub(super) const fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    pub(super) const fn asked(&mut self) {
        self.is_fresh = false;
    }

    pub(super) fn observe(
        &mut self,
        now: Duration,
        offered: Option<u64>,
        window: usize,
        applied: u64,
    ) {
        self.window = window;
        if let Some(offered) = offered {
            self.demand.note(now, offered, window);
        }
        while let Some((next, _)) = self.published.get(1)
            && *next <= applied
        {
            self.published.pop_front();
        }
    }

    /// What came lately; an even part as long as nobody knows.
    pub(super) fn want(&self, nodes: u32) -> Rate {
        let want = self.demand.rate(self.window);
        want.unwrap_or(self.limit().part(nodes)).min(self.limit())
    }

    /// The most that may be in force now.
    pub(super) fn held(&self, standing: Rate) -> Rate {
        let published = self.published.iter().map(|(_, rate)| *rate);
        published.fold(standing, Rate::max)
    }

    /// What is to be enforced at a moment.
    pub(super) fn standing(&mut self, now: Duration, nodes: u32) -> Share {
        if let Standing::Leased { rate, until, lasts } = self.standing
            && now >= until
        {
            self.standing = Standing::Cautious {
                most: rate,
                until: until + lasts,
            };
        }
        if let Standing::Cautious { until, .. } = self.standing
            && now >= until
        {
            self.standing = Standing::Even;
        }
        let even = self.limit().part(nodes);
        let (rate, origin) = match self.standing {
            Standing::Leased { rate, .. } => (rate.min(self.limit()), Origin::Lease),
            Standing::Cautious { most, .. } => (most.min(even), Origin::Fallback),
            Standing::Even => (even, Origin::Fallback),
        };
        Share::new(rate, &self.limit, origin)
    }

    pub(super) fn take(&mut self, answer: Answer, until: Duration, lasts: Duration) {
        let Answer { rate, is_lease } = answer;
        self.standing = if is_lease {
            Standing::Leased { rate, until, lasts }
        } else {
            Standing::Cautious { most: rate, until }
        };
    }

    pub(super) fn published(&mut self, generation: u64, rate: Rate) {
        if self.published.back().is_some_and(|(_, last)| *last == rate) {
            return;
        }
        self.published.push_back((generation, rate));
        // A data plane that applies nothing for long may have any of them in force.
        if self.published.len() > MOST_UNAPPLIED
            && let Some((_, oldest)) = self.published.pop_front()
            && let Some((_, next)) = self.published.front_mut()
        {
            *next = oldest.max(*next);
        }
    }

    /// When its standing changes without an answer.
    pub(super) const fn ends(&self) -> Option<Duration> {
        match self.standing {
            Standing::Leased { until, .. } | Standing::Cautious { until, .. } => Some(until),
            Standing::Even => None,
        }
    }
}
