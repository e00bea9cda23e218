//! Which addresses are announced. Pure: time and everything that is known are arguments.
//!
//! The network asks for addresses, and health is a VIP's, so an address with several VIPs stands for all of them. It is announced as
//! long as *one* of them has enough backends that pass, and withdrawn when *none* has. The other rule, which withdraws with the
//! first that has too few, would take the healthy VIPs of the address along; and since nodes of a fleet mostly see the same
//! backends fail, all nodes would do so together: one broken port would take the whole address off the net. Who wants each VIP to
//! stand for itself gives it an address of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// One VIP's word on its address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// How many backends take new flows and pass their checks; those that are used because all fail do not.
    pub passing: usize,
    /// How many backends take new flows and may pass: nobody has asked them yet.
    pub unknown: usize,
    /// How many must pass.
    pub min_healthy: usize,
}

/// What of this node counts for every address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// Whether the program is on one interface at least.
    pub is_attached: bool,
    /// Whether no traffic is wanted: a command drains the node, or the daemon is about to end.
    pub is_drained: bool,
}

/// Why an address is announced or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is: enough backends pass.
    Healthy,
    /// It is, as it was: whether enough backends pass is not known yet.
    Unchanged,
    /// It is not: no traffic is wanted here.
    Drained,
    /// It is not: the program is on no interface.
    NotAttached,
    /// It is not: too few backends pass.
    TooFewHealthy,
    /// It is not: whether enough backends pass is not known yet.
    Unknown,
    /// It is not yet again: it was withdrawn a short while ago.
    HoldDown,
}

impl Reason {
    /// Whether an address with this reason is announced.
    #[must_use]
    pub const fn is_announced(self) -> bool {
        matches!(self, Self::Healthy | Self::Unchanged)
    }

    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unchanged => "unchanged",
            Self::Drained => "drained",
            Self::NotAttached => "not_attached",
            Self::TooFewHealthy => "too_few_healthy",
            Self::Unknown => "unknown",
            Self::HoldDown => "hold_down",
        }
    }
}

/// What is decided at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// Every address that is claimed, and why it is announced or not.
    pub addresses: BTreeMap<IpAddr, Reason>,
    /// When an address may come back by time alone.
    pub wake: Option<Instant>,
}

impl Decision {
    /// The addresses that are announced.
    pub fn announced(&self) -> impl Iterator<Item = IpAddr> {
        let announced = self.addresses.iter();
        announced.filter_map(|(address, reason)| reason.is_announced().then_some(*address))
    }
}

/// Decides, and remembers what it takes to hold an address down.
#[derive(Clone, Debug, Default)]
pub struct Decider {
    addresses: BTreeMap<IpAddr, Standing>,
}

/// What is remembered of an address. A drain is not in it: it lies over whatever health says, so that its end is no return of
/// something that came and went.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Whether it is announced where the node is not drained.
    is_up: bool,
    /// When it was withdrawn last because of backends or the program.
    withdrawn: Option<Instant>,
}

/// How the claims on an address stand together: the best of them counts.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
enum Strength {
    #[default]
    TooFew,
    Undecided,
    Enough,
}

impl Claim {
    const fn strength(&self) -> Strength {
        if self.passing >= self.min_healthy {
            Strength::Enough
        } else if self.passing.saturating_add(self.unknown) >= self.min_healthy {
            Strength::Undecided
        } else {
            Strength::TooFew
        }
    }
}

impl Decider {
    /// One that goes on from what an earlier daemon has announced.
    #[must_use]
    pub fn adopt(announced: &BTreeSet<IpAddr>) -> Self {
        let up = Standing {
            is_up: true,
            withdrawn: None,
        };
        Self {
            addresses: announced.iter().map(|address| (*address, up)).collect(),
        }
    }

    /// Decides `now`. An address that was withdrawn stays so for `hold_down`; the first announcement waits for nothing.
    pub fn decide(
        &mut self,
        node: Node,
        claims: impl IntoIterator<Item = Claim>,
        hold_down: Duration,
        now: Instant,
    ) -> Decision {
        let mut strengths: BTreeMap<IpAddr, Strength> = BTreeMap::new();
        for claim in claims {
            let best = strengths.entry(claim.address).or_default();
            *best = claim.strength().max(*best);
        }
        let mut decision = Decision::default();
        let before = std::mem::take(&mut self.addresses);
        for (address, strength) in strengths {
            let mut standing = before.get(&address).copied().unwrap_or_default();
            let reason = standing.follow(node.is_attached, strength, hold_down, now);
            if reason == Reason::HoldDown {
                let end = standing.withdrawn.map(|withdrawn| withdrawn + hold_down);
                decision.wake = [decision.wake, end].into_iter().flatten().min();
            }
            let reason = if node.is_drained {
                Reason::Drained
            } else {
                reason
            };
            decision.addresses.insert(address, reason);
            self.addresses.insert(address, standing);
        }
        decision
    }
}

impl Standing {
    fn follow(
        &mut self,
        is_attached: bool,
        strength: Strength,
        hold_down: Duration,
        now: Instant,
    ) -> Reason {
        let was_up = self.is_up;
        let is_held = self
            .withdrawn
            .is_some_and(|withdrawn| now.saturating_duration_since(withdrawn) < hold_down);
        let reason = match (is_attached, strength) {
            (false, _) => Reason::NotAttached,
            (true, Strength::TooFew) => Reason::TooFewHealthy,
            (true, Strength::Undecided) if was_up => Reason::Unchanged,
            (true, Strength::Undecided) => Reason::Unknown,
            (true, Strength::Enough) if !was_up && is_held => Reason::HoldDown,
            (true, Strength::Enough) => Reason::Healthy,
        };
        self.is_up = reason.is_announced();
        if was_up && !self.is_up {
            self.withdrawn = Some(now);
        }
        reason
    }
}

#[cfg(test)]
mod tests;
