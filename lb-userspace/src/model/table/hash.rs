//! The hash that all tables are made with: `SplitMix64`'s finaliser over the words of what is hashed.

use lb_common::{flow::Address, vip::VipKey};

/// 2⁶⁴ divided by the golden ratio: the increment of `SplitMix64`.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of `SplitMix64` (G. Steele et al., OOPSLA 2014), a permutation of the 64-bit numbers.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes one word into a hash: a permutation of the state for each word, so that inputs which differ in one
/// word never meet. Not cryptographic: the flow hash keeps attackers out, this one only spreads.
pub(super) const fn absorb(state: u64, word: u64) -> u64 {
    mix(state.wrapping_add(GOLDEN) ^ word)
}

pub(super) fn hash_address(state: u64, address: Address) -> u64 {
    // The bytes as lie in memory, read as little-endian on every host: part of the fleet's agreement.
    absorb(
        absorb(state, u64::from_le(address.high)),
        u64::from_le(address.low),
    )
}

pub(super) fn hash_vip(vip: &VipKey, seed: u64) -> u64 {
    let port = u64::from(u16::from_be_bytes(vip.port));
    let state = absorb(absorb(seed, 0), port << 8 | u64::from(vip.protocol));
    hash_address(state, vip.address)
}
