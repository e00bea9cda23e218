//! Lookup tables: which backend owns which slot of a VIP.
//!
//! A table is a pure function of the VIP (address, port, protocol), the seed and the set of (backend
//! address, weight): never of history, order, names, modes or ids. So all nodes of a fleet agree without talking, and the
//! [`Digest`] shows when they do not.
//!
//! [`maglev`] keeps the shares exact; [`ring`] keeps the slots of those who stay. docs/tables.md has figures.

mod hash;
mod maglev;
mod ring;

use std::fmt;

use lb_common::{flow::Address, slot::SLOTS, vip::VipKey};

pub use self::{
    maglev::maglev,
    ring::{RING_NODES, ring, ring_of},
};
use super::places::{NONE, Places};
use hash::{hash_address, hash_vip};

/// One who may own slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// The backend's address; unique within a table.
    pub address: Address,
    /// Share of the slots against the other members; 0 takes none.
    pub weight: u16,
}

/// Who owns each slot, by place in the members that the table was made of: [`SLOTS`] places, or `NONE` for nobody, of
/// whom there are fewer than backend ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owners(Places);

/// CRC32 (IEEE) over the owners' addresses in the order of the slots, 16 bytes each with IPv4 in its mapped form,
/// zeros for nobody. Equal tables have equal digests on every node, whatever ids they use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest(pub u32);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A member with a weight, in the order in which ties are broken.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Ranked {
    /// Of the VIP, the seed and the address. First, so that no address is favoured under every VIP.
    hash: u64,
    octets: [u8; 16],
    /// Place in the members.
    place: u16,
    weight: u16,
}

/// The members that have a weight, in an order that depends on nothing but VIP, seed and addresses.
fn ranked(vip: &VipKey, seed: u64, members: &[Member]) -> Vec<Ranked> {
    let vip = hash_vip(vip, seed);
    let mut ranked: Vec<_> = (0..NONE)
        .zip(members)
        .filter(|(_, member)| member.weight > 0)
        .map(|(place, member)| Ranked {
            hash: hash_address(vip, member.address),
            octets: member.address.octets(),
            place,
            weight: member.weight,
        })
        .collect();
    ranked.sort_unstable();
    ranked
}

impl Owners {
    /// The place of each slot's owner in the members, by slot.
    pub fn iter(&self) -> impl Iterator<Item = Option<usize>> {
        let places = self.0.iter();
        places.map(|place| (place != NONE).then_some(usize::from(place)))
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
}

#[cfg(test)]
mod tests;
