//! Lookup tables by Maglev hashing (D. Eisenbud et al., NSDI'16), with weights.
//!
//! A table is a pure function of the VIP (address, port, protocol), the seed and the set of (backend
//! address, weight): never of history, order, names, modes or ids. So all nodes of a fleet agree without talking, and the
//! [`Digest`] shows when they do not.
//!
//! Each backend has a permutation of the slots: `offset + k · skip` modulo 65,536, where an odd skip reaches
//! every slot of a power-of-two table. The backends take turns, and a turn takes the first free slot of one's
//! permutation. The k-th turn of weight w is at the time (k − ½) / w (Webster's method of apportionment), so
//! that at every moment each backend has had its share of the turns to within one; the first turn of each is at
//! the time 0, so that even the least weight gets a slot.

use std::{cmp::Reverse, collections::BinaryHeap, fmt};

use lb_common::{
    flow::Address,
    slot::{SLOTS, Slot, SlotTable},
    vip::VipKey,
};
use zerocopy::FromZeros;

/// One who may own slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// The backend's address; unique within a table.
    pub address: Address,
    /// Share of the slots against the other members; 0 takes none.
    pub weight: u16,
}

/// Who owns each slot, by place in the members that the table was made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owners {
    /// [`SLOTS`] places, or [`NONE`].
    owners: Vec<u16>,
}

/// The place that means "nobody"; there are fewer backend ids than this.
const NONE: u16 = u16::MAX;

/// CRC32 (IEEE) over the owners' addresses in the order of the slots, 16 bytes each with IPv4 in its mapped form,
/// zeros for nobody. Equal tables have equal digests on every node, whatever ids they use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest(pub u32);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

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
    let vip = hash_vip(vip, seed);
    let mut hashed: Vec<_> = (0..NONE)
        .zip(members)
        .filter(|(_, member)| member.weight > 0)
        .map(|(place, member)| {
            let order = hash_address(vip, member.address);
            (order, member.address.octets(), place, member.weight)
        })
        .collect();
    // Turns at the same time go by this order: the hash's, so that no address is favoured under every VIP.
    hashed.sort_unstable();
    let mut candidates: Vec<_> = hashed
        .into_iter()
        .map(|(order, _, place, weight)| {
            let permutation = mix(order ^ GOLDEN);
            Candidate {
                place,
                weight,
                next: permutation as u16,
                skip: (permutation >> 16) as u16 | 1,
                turns: 0,
            }
        })
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
    Owners { owners }
}

impl Owners {
    /// The place of each slot's owner in the members, by slot.
    pub fn iter(&self) -> impl Iterator<Item = Option<usize>> {
        self.owners
            .iter()
            .map(|&place| (place != NONE).then_some(usize::from(place)))
    }

    /// How many slots each member owns, by place.
    #[must_use]
    pub fn counts(&self, members: usize) -> Vec<u32> {
        let mut counts = vec![0; members];
        for place in self.iter().flatten() {
            if let Some(count) = counts.get_mut(place) {
                *count += 1;
            }
        }
        counts
    }

    /// The digest, from the members that the table was made of.
    #[must_use]
    pub fn digest(&self, members: &[Member]) -> Digest {
        let mut bytes = Vec::with_capacity(SLOTS * size_of::<Address>());
        for place in self.iter() {
            let owner = place.and_then(|place| members.get(place));
            bytes.extend(owner.map_or([0; 16], |member| member.address.octets()));
        }
        Digest(crc32fast::hash(&bytes))
    }

    /// The table as packets read it, every slot Stable, from the members' ids by place.
    ///
    /// # Panics
    /// Where 256 KiB cannot be allocated.
    #[must_use]
    pub fn slot_table(&self, ids: &[u16]) -> Box<SlotTable> {
        #[expect(clippy::expect_used, reason = "as any allocation that fails")]
        let mut table = SlotTable::new_box_zeroed().expect("256 KiB for a lookup table");
        for (slot, place) in table.slots.iter_mut().zip(self.iter()) {
            if let Some(&id) = place.and_then(|place| ids.get(place)) {
                *slot = Slot::stable(id);
            }
        }
        table
    }
}

/// 2⁶⁴ divided by the golden ratio: the increment of `SplitMix64`.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (G. Steele et al., OOPSLA 2014), a permutation of the 64-bit numbers.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes one word into a hash: a permutation of the state for each word, so that inputs which differ in one
/// word never meet. Not cryptographic: the flow hash keeps attackers out, this one only spreads.
const fn absorb(state: u64, word: u64) -> u64 {
    mix(state.wrapping_add(GOLDEN) ^ word)
}

fn hash_address(state: u64, address: Address) -> u64 {
    // The bytes as lie in memory, read as little-endian on every host: part of the fleet's agreement.
    absorb(
        absorb(state, u64::from_le(address.high)),
        u64::from_le(address.low),
    )
}

fn hash_vip(vip: &VipKey, seed: u64) -> u64 {
    let port = u64::from(u16::from_be_bytes(vip.port));
    let state = absorb(absorb(seed, 0), port << 8 | u64::from(vip.protocol));
    hash_address(state, vip.address)
}

#[cfg(test)]
mod tests;
