//! Maglev hashing (D. Eisenbud et al., NSDI'16), with weights.
//!
//! Each backend has a permutation of the slots: `offset + k · skip` modulo 65,536, where an odd skip reaches
//! every slot of a power-of-two table. The backends take turns, and a turn takes the first free slot of one's
//! permutation. The k-th turn of weight w is at the time (k − ½) / w (Webster's method of apportionment), so
//! that at every moment each backend has had its share of the turns to within one; the first turn of each is at
//! the time 0, so that even the least weight gets a slot.

use std::{cmp::Reverse, collections::BinaryHeap};

use lb_common::{slot::SLOTS, vip::VipKey};

use super::{
    Member, NONE, Owners, Places, Ranked,
    hash::{GOLDEN, mix},
    ranked,
};

/// A member that takes turns.
struct Candidate {
    /// Place in the members.
    place: u16,
    weight: u16,
    /// Next slot of its permutation to try.
    next: u16,
    /// Step of its permutation; odd.
    skip: u16,
    /// Turns taken.
    turns: u32,
}

impl Candidate {
    /// When the next turn is: (k − ½) / w in steps of 2⁻³², by integers of 64 bits.
    fn time(&self) -> u64 {
        match self.turns {
            0 => 0,
            turns => ((2 * u64::from(turns) + 1) << 31) / u64::from(self.weight),
        }
    }

    /// Takes the first slot of the permutation that nobody owns. There must be one.
    fn take(&mut self, owners: &mut [u16]) {
        // An odd skip visits each slot once in so many steps.
        for _ in 0..SLOTS {
            let slot = owners.get_mut(usize::from(self.next));
            self.next = self.next.wrapping_add(self.skip);
            if let Some(owner) = slot.filter(|owner| **owner == NONE) {
                *owner = self.place;
                break;
            }
        }
        self.turns += 1;
    }
}

/// Makes the table of a VIP. At most 65,535 members count.
#[must_use]
pub fn maglev(vip: &VipKey, seed: u64, members: &[Member]) -> Owners {
    let mut owners = vec![NONE; SLOTS];
    // Turns at the same time go by the order of the ranked.
    let mut candidates: Vec<_> = ranked(vip, seed, members)
        .into_iter()
        .map(
            |Ranked {
                 hash,
                 place,
                 weight,
                 ..
             }| {
                let permutation = mix(hash ^ GOLDEN);
                Candidate {
                    place,
                    weight,
                    next: permutation as u16,
                    skip: (permutation >> 16) as u16 | 1,
                    turns: 0,
                }
            },
        )
        .collect();
    let mut queue: BinaryHeap<_> = (0..candidates.len()).map(|at| Reverse((0, at))).collect();
    for _ in 0..SLOTS {
        let Some(mut head) = queue.peek_mut() else {
            break;
        };
        let Reverse((time, at)) = &mut *head;
        if let Some(candidate) = candidates.get_mut(*at) {
            candidate.take(&mut owners);
            *time = candidate.time();
        }
    }
    Owners(Places::new(owners))
}
