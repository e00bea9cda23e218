//! Where the sources of limits are kept: in sets of four places, by a keyed hash.
//!
//! A place is one line of cache, and what a source is known by, its TATs and its counts all lie in it. A source that finds no place
//! takes the one of its set that has been paid for longest. A TAT in the past says no more than none at all, so that usually nothing is
//! lost by that; and a source that is at its limit is paid for last of all, so that no flood of others makes weir forget it. Nothing is
//! allocated, linked or locked, whatever comes (docs/decisions/0006-sources.md).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::{Address, HashKeys, finalise},
    gcra::{MAX_DEPTH, Ticks},
};

/// Places of a set.
pub const WAYS: usize = 4;

/// Sets of a block.
pub const SETS: usize = 16;

/// Sources of a block.
pub const PER_BLOCK: usize = WAYS * SETS;

/// What a source is known by: the prefix of its address, for one VIP.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct SourceKey {
    /// The first address of the prefix.
    pub prefix: Address,
    /// The VIP's id. Host order.
    pub vip: u64,
}

impl SourceKey {
    /// Hashes the key to what tells its place from others': never 0.
    ///
    /// Multilinear, as [`HashKeys::hash`]: of the sum's upper half, which chooses the set, nobody can tell anything without the keys; and
    /// two sources have the same sum with a chance of at most 2⁻³³, usually 2⁻⁶⁴. They would share a limit.
    #[must_use]
    #[inline(always)]
    pub const fn tag(&self, keys: &HashKeys) -> u64 {
        let [k0, k1, k2, k3, k4, k5, ..] = keys.keys;
        let Address { high, low } = self.prefix;
        let mut sum = k0
            .wrapping_add(k1.wrapping_mul(self.vip))
            .wrapping_add(k2.wrapping_mul(low >> 32));
        // The rest of every mapped IPv4 address is the same.
        if !self.prefix.is_v4() {
            sum = sum
                .wrapping_add(k3.wrapping_mul(low as u32 as u64))
                .wrapping_add(k4.wrapping_mul(high as u32 as u64))
                .wrapping_add(k5.wrapping_mul(high >> 32));
        }
        if sum == 0 { 1 } else { sum }
    }
}

/// Which of so many sets a source belongs to. A permutation comes between, since sums of neighbouring addresses lie in rows.
#[must_use]
#[inline(always)]
pub const fn set(tag: u64, sets: u32) -> u32 {
    ((finalise((tag >> 32) as u32) as u64 * sets as u64) >> 32) as u32
}

/// What is known of a source. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Source {
    /// [`SourceKey::tag`]; 0 in a place that nobody has.
    pub tag: u64,
    /// TAT of [`super::Kind::PacketsPerSource`].
    pub packets_tat: Ticks,
    /// TAT of [`super::Kind::NewConnectionsPerSource`].
    pub connections_tat: Ticks,
    /// Packets that were judged; CPUs that count at the same time may lose some.
    pub packets: u64,
    /// Packets that were over a limit of the source.
    pub over: u64,
    /// TCP SYNs among the packets, modulo 2³².
    pub new_connections: u32,
    /// The VIP's id. It and the prefix are for readers: programs go by the tag.
    pub vip: u32,
    /// The first address of the prefix.
    pub prefix: Address,
}

const _: () = assert!(size_of::<Source>() == 64);

impl Source {
    /// Whose place it is; none if it is free, or has just been taken by another source, or was taken under other keys.
    #[must_use]
    pub fn key(&self, keys: &HashKeys) -> Option<SourceKey> {
        let key = SourceKey {
            prefix: self.prefix,
            vip: u64::from(self.vip),
        };
        (self.tag != 0 && key.tag(keys) == self.tag).then_some(key)
    }
}

/// Sources as a map keeps them. Host order.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SourceBlock {
    /// By set.
    pub sets: [[Source; WAYS]; SETS],
}

/// The places of a set, which other CPUs may change at the same moment. Ways are below [`WAYS`].
pub trait Places {
    /// Whose it is.
    fn tag(&self, way: usize) -> u64;
    /// The TATs of whoever has it.
    fn tats(&self, way: usize) -> [Ticks; 2];
    /// Makes it that of `tag` if it is still that of `seen`; else tells whose it is.
    ///
    /// # Errors
    /// Whose it is instead.
    fn claim(&self, way: usize, seen: u64, tag: u64) -> Result<(), u64>;
    /// Begins a source in a place that it has claimed: nothing is counted, and all is paid for `now`.
    fn begin(&self, way: usize, key: &SourceKey, now: Ticks);
}

/// The place that a source has.
#[inline(always)]
pub fn find<P: Places>(places: &P, tag: u64) -> Option<usize> {
    (0..WAYS).find(|way| places.tag(*way) == tag)
}

/// How often a place is claimed that others claim at the same moment.
const TRIES: usize = 2;

/// Gives a source that has no place the idlest one of its set. `None` where others were faster.
#[inline(always)]
pub fn take<P: Places>(places: &P, tag: u64, key: &SourceKey, now: Ticks) -> Option<usize> {
    for _ in 0..TRIES {
        let (way, seen) = idlest(places, now);
        match places.claim(way, seen, tag) {
            Ok(()) => {
                places.begin(way, key, now);
                return Some(way);
            }
            // Another CPU has just begun the same source.
            Err(found) if found == tag => return Some(way),
            Err(_) => {}
        }
    }
    None
}

/// The place that nobody has, else the one that has been paid for longest, and whose it is.
#[inline(always)]
fn idlest<P: Places>(places: &P, now: Ticks) -> (usize, u64) {
    let mut idlest = (0, 0);
    let mut longest = 0;
    for way in 0..WAYS {
        let tag = places.tag(way);
        if tag == 0 {
            return (way, tag);
        }
        let [one, other] = places.tats(way).map(|tat| idle(tat, now));
        let idle = if one < other { one } else { other };
        if idle >= longest {
            (idlest, longest) = ((way, tag), idle);
        }
    }
    idlest
}

/// How long something has been paid for, in ticks, so that nothing is below 0: [`MAX_DEPTH`] if it is just now.
#[inline(always)]
const fn idle(tat: Ticks, now: Ticks) -> Ticks {
    now.wrapping_add(MAX_DEPTH).wrapping_sub(tat)
}

#[cfg(test)]
mod tests;
