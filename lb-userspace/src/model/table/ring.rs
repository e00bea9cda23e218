//! A ring of virtual nodes (D. Karger et al., STOC'97), with weights.
//!
//! Slots and virtual nodes lie on a circle of 2⁶⁴ points: slot s at s · 2⁴⁸, a node at a hash of the VIP, the seed
//! and the CRC32 of (backend address, number of the node). A slot belongs to the next node at or after it. CRC32
//! alone is linear: nodes of similar addresses would lie in the same pattern, and the largest share would be
//! near twice the mean. So it is finished with a mixer.
//!
//! **Weights.** As many nodes as weight would be 655 million for 10,000 backends of weight 65,535; nodes scaled
//! to the greatest weight or to the sum would move whenever another backend comes. Here a weight w = m · 2ᵉ with
//! 1 ≤ m < 2 has m · [`RING_NODES`] nodes of strength 2ᵉ. A node of strength 2ᵉ stands for 2ᵉ nodes: the nearest
//! of so many would be 2ᵉ times nearer, so its distance counts divided by 2ᵉ, and the slot belongs to the node
//! at the least distance so counted. Shares are proportional to the weights; the nodes of a backend depend
//! on its own weight alone and are at most twice [`RING_NODES`]. Among equal weights it is the plain ring.
//!
//! **Disruption.** What each backend bids for a slot depends on nobody else. So a backend that leaves gives its slots and one
//! that joins takes its slots, and no slot moves between two others; except that who won no slot at all
//! (likely only with thousands of backends, or weights far apart) is given one of another's.
//!
//! **Time.** Only the first node of each strength in a slot's stretch of the circle can win a slot, so
//! that nodes are never sorted: one minimum per node, then one walk back over the slots per strength.

use std::mem;

use lb_common::{slot::SLOTS, vip::VipKey};

use super::{Member, NONE, Owners, Places, Ranked, hash::absorb, ranked};

/// Virtual nodes of a backend whose weight is a power of two; others have up to twice as many.
///
/// A share strays by 1 in √nodes from the exact one, which is 3 to 4 %: as much as drawing each slot by lot would
/// with 100 backends. With more backends the lots dominate, and more nodes would only cost time.
pub const RING_NODES: u16 = 512;

/// Makes the table of a VIP. At most 65,535 members count.
#[must_use]
pub fn ring(vip: &VipKey, seed: u64, members: &[Member]) -> Owners {
    ring_of(RING_NODES, vip, seed, members)
}

/// The same with another number of virtual nodes, for measurements: not what a fleet agrees on.
#[must_use]
pub fn ring_of(nodes: u16, vip: &VipKey, seed: u64, members: &[Member]) -> Owners {
    let mut ranked = ranked(vip, seed, members);
    // One strength after the other. Ties go to the lesser strength, then by hash and address.
    ranked.sort_by_key(|one| strength(one.weight));
    let mut bids = vec![Bid::NONE; SLOTS];
    let numbers = Numbers::new(nodes);
    let mut rank = 0;
    for class in ranked.chunk_by(|a, b| strength(a.weight) == strength(b.weight)) {
        let mut nearest = Nearest::new();
        for one in class {
            nearest.add(one, rank, &numbers);
            rank += 1;
        }
        let strength = class.first().map_or(0, |one| strength(one.weight));
        nearest.bid(strength, &mut bids);
    }
    let mut owners: Vec<_> = bids.iter().map(|bid| bid.rank).collect();
    give_everyone_a_slot(&mut owners, &ranked);
    for owner in &mut owners {
        *owner = ranked
            .get(usize::from(*owner))
            .map_or(NONE, |one| one.place);
    }
    Owners(Places::new(owners))
}

/// e of a weight m · 2ᵉ with 1 ≤ m < 2.
const fn strength(weight: u16) -> u32 {
    match weight.checked_ilog2() {
        Some(exponent) => exponent,
        None => 0,
    }
}

/// What the best node offers for a slot.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Bid {
    /// Distance from the slot to the node, divided by the node's strength.
    distance: u64,
    /// Place among the ranked.
    rank: u16,
}

impl Bid {
    const NONE: Self = Self {
        distance: u64::MAX,
        rank: NONE,
    };
}

/// The CRC32 of each node's number, as it changes the CRC32 of an address that comes before it.
struct Numbers {
    nodes: u16,
    changes: Vec<u32>,
}

impl Numbers {
    fn new(nodes: u16) -> Self {
        // CRC32 is linear: crc(address ‖ number) = crc(address ‖ 0) ^ crc(0 ‖ number) ^ crc(0 ‖ 0).
        let zero = crc(&[0; 16], 0);
        let changes = (0..2 * u32::from(nodes)).map(|number| crc(&[0; 16], number) ^ zero);
        Self {
            nodes,
            changes: changes.collect(),
        }
    }

    /// The hashes of a member's nodes.
    fn of(&self, one: &Ranked) -> impl Iterator<Item = u64> {
        let weight = u64::from(one.weight);
        let half = (1 << strength(one.weight)) / 2;
        let nodes = (weight * u64::from(self.nodes) + half) >> strength(one.weight);
        let address = crc(&one.octets, 0);
        self.changes
            .iter()
            .take(nodes as usize)
            .map(move |change| absorb(one.hash, u64::from(address ^ change)))
    }
}

/// CRC32 (IEEE) of an address and a node's number in little-endian order.
fn crc(octets: &[u8; 16], number: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(octets);
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// The first node in the stretch from each slot to the next, among nodes of one strength.
struct Nearest {
    /// By slot: distance from the slot to the node in the upper 48 bits, rank in the lower 16, so that the
    /// least number is the nearest node and equals go by rank; [`u64::MAX`] where there is none.
    nodes: Vec<u64>,
}

impl Nearest {
    fn new() -> Self {
        Self {
            nodes: vec![u64::MAX; SLOTS],
        }
    }

    fn add(&mut self, one: &Ranked, rank: u16, numbers: &Numbers) {
        for point in numbers.of(one) {
            // The upper 16 bits are the slot, the other 48 the distance.
            if let Some(nearest) = self.nodes.get_mut((point >> 48) as usize) {
                *nearest = (*nearest).min(point << 16 | u64::from(rank));
            }
        }
    }

    /// Bids for every slot, each with the next node at or after it.
    fn bid(&self, strength: u32, bids: &mut [Bid]) {
        let mut nodes = self.nodes.iter().enumerate();
        let Some((first, &node)) = nodes.find(|(_, node)| **node != u64::MAX) else {
            return;
        };
        // Beyond the last node the circle goes on with the first.
        let mut next = (SLOTS + first, node);
        for (slot, (&own, bid)) in self.nodes.iter().zip(bids).enumerate().rev() {
            if own != u64::MAX {
                next = (slot, own);
            }
            let (ahead, node) = next;
            // At most 65,535 whole stretches, so that this fits.
            let distance = (((ahead - slot) as u64) << 48) + (node >> 16);
            let offer = Bid {
                distance: distance >> strength,
                rank: node as u16,
            };
            *bid = (*bid).min(offer);
        }
    }
}

/// Gives each of the ranked who won no slot one of those who have more, while there are such.
///
/// It is the first such slot from a place that its hash tells. So a table differs from one without
/// these gifts in no more slots than there are gifts.
fn give_everyone_a_slot(owners: &mut [u16], ranked: &[Ranked]) {
    let mut counts = vec![0i32; ranked.len()];
    for owner in &*owners {
        if let Some(count) = counts.get_mut(usize::from(*owner)) {
            *count += 1;
        }
    }
    for (rank, one) in (0..NONE).zip(ranked) {
        if counts.get(usize::from(rank)) != Some(&0) {
            continue;
        }
        let (before, from) = owners.split_at_mut((one.hash >> 48) as usize);
        let has_more = |owner: &u16| {
            counts
                .get(usize::from(*owner))
                .is_some_and(|&count| count > 1)
        };
        let Some(gift) = from.iter_mut().chain(before).find(|owner| has_more(owner)) else {
            break;
        };
        let giver = mem::replace(gift, rank);
        for (of, change) in [(giver, -1), (rank, 1)] {
            if let Some(count) = counts.get_mut(usize::from(of)) {
                *count += change;
            }
        }
    }
}
