//! Which node announces an address: one of those that are there, the same in the eyes of all. Neither I/O nor a clock.
//!
//! Every node holds a Lease of its own, and looks at all of them. Who owns an address follows from who is there, by rendezvous
//! hashing: a node that leaves moves its own addresses and no others. That never two announce one address, whatever the nodes' clocks say,
//! rests on three times, each by one node's own clock:
//!
//! - a node owns nothing once its last renewal, or its last look, is [`TERM`] old (counted from when it was sent);
//! - a Lease is over when a node has seen it unchanged for as long as it lasts, which is longer;
//! - a node that begins owns nothing until [`TERM`] after its Lease was there: by then everybody has seen it, or owns nothing.
//!
//! From the last follows how long the owner before it may go on: a Lease that a look did not find yet belongs to nobody who owns before
//! [`TERM`] after that look was sent. So an address that falls to a newcomer is without an owner for little
//! more than the time between two looks. A node that takes its own Lease anew, after a restart, a break or a release, is a newcomer too,
//! and the Lease's number of transitions tells so to those who saw nothing of what was in between.
//!
//! The one exception is meant: a node that gives its share away lets go of its Lease first, and owns on for [`HANDOVER`], until the
//! others have looked. For so long two may answer for an address. Both forward to the same backends, and the new owner tells of
//! itself, so either answer is a good one; none at all would be an outage for whoever asks just then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use sha2::{Digest as _, Sha256};

use super::lease::{DURATION, Observed, PERIOD, WRITING};
use crate::announce::{HANDOVER, TERM};

// By the time a Lease is taken and not renewed ([`super::Step`]), its holder owns nothing.
const _: () = assert!(TERM.as_millis() == WRITING.as_millis());
const _: () = assert!(TERM.as_millis() < DURATION.as_millis());
// The others look every period, and a look takes a while.
const _: () =
    assert!(PERIOD.as_millis() < HANDOVER.as_millis() && HANDOVER.as_millis() < TERM.as_millis());

/// The node that owns an address, of those that are there: whatever their order, there is one if there is any node.
#[must_use]
pub fn owner<'n>(nodes: impl IntoIterator<Item = &'n str>, address: IpAddr) -> Option<&'n str> {
    nodes
        .into_iter()
        .max_by_key(|node| (rank(node, address), *node))
}

fn rank(node: &str, address: IpAddr) -> [u8; 32] {
    Sha256::new()
        .chain_update(address.to_string())
        .chain_update([0])
        .chain_update(node)
        .finalize()
        .into()
}

/// Who is there, as one node sees it. Every call says what time it is.
#[derive(Clone, Debug)]
pub struct Membership {
    me: String,
    /// What the others' Leases said last, and since when.
    seen: BTreeMap<String, (Observed, Instant)>,
    /// The others that are there, and from when on each may own at the earliest.
    others: BTreeMap<String, Instant>,
    held: Option<Held>,
    looked: Option<Instant>,
    /// What it owns on, where it has let go of its own Lease.
    left: Option<Left>,
}

/// What a node that has let go of its Lease owns on.
#[derive(Clone, Debug)]
struct Left {
    /// Until when.
    end: Instant,
    /// The others as they were then: what falls to it since they left, too, is not taken for so short a time.
    others: BTreeMap<String, Instant>,
}

/// This node's own Lease.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// From when on the others know of it.
    from: Instant,
    /// When its last renewal was sent.
    renewed: Instant,
}

impl Membership {
    /// For a node, by its name.
    #[must_use]
    pub const fn new(me: String) -> Self {
        Self {
            me,
            seen: BTreeMap::new(),
            others: BTreeMap::new(),
            held: None,
            looked: None,
            left: None,
        }
    }

    /// A request that was sent at `sent` and answered at `done` took or renewed this node's own Lease. Whether that holds: a renewal
    /// that took until the one before it was over does not, since others would not see that this node begins anew. It is to take the
    /// Lease then.
    #[must_use]
    pub fn renewed(&mut self, sent: Instant, done: Instant) -> bool {
        self.left = None;
        // As for [`super::Step`]: once the last renewal is over, the Lease is taken and not renewed.
        let renewal = self.held.filter(|held| sent < held.renewed + TERM);
        if renewal.is_some_and(|held| done >= held.renewed + TERM) {
            self.held = None;
            return false;
        }
        self.held = Some(Held {
            from: renewal.map_or(done + TERM, |held| held.from),
            renewed: sent,
        });
        true
    }

    /// Somebody else has this node's Lease, or it is to be taken anew: it owns nothing at once.
    pub fn lost(&mut self) {
        self.held = None;
        self.left = None;
    }

    /// This node's own Lease was let go of by a request that was answered at `done`.
    pub fn released(&mut self, done: Instant) {
        let end = self.term(done).unwrap_or(done);
        self.left = Some(Left {
            end: end.min(done + HANDOVER),
            others: self.others.clone(),
        });
        self.held = None;
    }

    /// A look that was sent at `sent` and answered at `done` saw these Leases.
    pub fn looked(
        &mut self,
        leases: impl IntoIterator<Item = Observed>,
        sent: Instant,
        done: Instant,
    ) {
        let before = std::mem::take(&mut self.seen);
        let known = std::mem::take(&mut self.others);
        // Who was not there at the last look has come since. Without one before it may have been there for long.
        let newcomer = self.looked.map_or(sent, |at| at + TERM);
        for lease in leases {
            let holder = lease.holder.clone();
            if holder.is_empty() || holder == self.me {
                continue;
            }
            let same = before.get(&holder).filter(|(seen, _)| *seen == lease);
            let since = same.map_or(done, |(_, since)| *since);
            let is_over = sent.saturating_duration_since(since) >= lease.lasts;
            if !is_over {
                // One that has taken its Lease since was away in between: it waits as who comes for the first time does.
                let is_new = before
                    .get(&holder)
                    .is_some_and(|(seen, _)| seen.transitions < lease.transitions);
                let known = known.get(&holder).filter(|_| !is_new);
                let from = known.copied().unwrap_or(newcomer);
                self.others.insert(holder.clone(), from);
            }
            self.seen.insert(holder, (lease, since));
        }
        self.looked = Some(sent);
    }

    /// Who is there: this node too, unless it has given its share away.
    #[must_use]
    pub fn nodes(&self, now: Instant) -> BTreeSet<String> {
        let is_there = self.left.as_ref().is_none_or(|left| now < left.end);
        let me = is_there.then(|| self.me.clone());
        self.others.keys().cloned().chain(me).collect()
    }

    /// Until when this node owns an address; `None`: not now.
    #[must_use]
    pub fn owns(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        let term = self.term(now)?;
        let me = self.me.as_str();
        let others = self.left.as_ref().map_or(&self.others, |left| &left.others);
        let others = others.iter();
        let before_me = others.filter(|(node, _)| owner([me, node.as_str()], address) != Some(me));
        match before_me.map(|(_, from)| *from).min() {
            Some(from) if from <= now => None,
            Some(from) => Some(term.min(from)),
            None => Some(term),
        }
    }

    /// Until when this node owns what falls to it; `None`: nothing at all now.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<Instant> {
        if let Some(left) = &self.left {
            return (now < left.end).then_some(left.end);
        }
        let held = self.held.filter(|held| held.from <= now)?;
        let end = held.renewed.min(self.looked?) + TERM;
        (now < end).then_some(end)
    }
}
