//! Keys derived from the fleet's seed. Nodes with the same seed make the same choices.

use std::fmt;

use lb_common::flow::{HASH_KEYS, HashKeys};
use sha2::{Digest as _, Sha256};

/// What is derived from the seed. As secret as the seed itself, so `Debug` shows nothing.
#[derive(Clone, Copy)]
pub struct Keys {
    /// Keys of the flow hash, for the packet's way.
    pub hash_keys: HashKeys,
    /// Seed of the lookup tables.
    pub table_seed: u64,
}

impl Keys {
    /// Derives every key by SHA-256 over `label ‖ index ‖ seed`, first eight bytes, little-endian.
    ///
    /// The labels have fixed lengths and the index is one byte, so no two keys share an input. They
    /// name a version: another way of hashing flows must take another label.
    #[must_use]
    pub fn derive(seed: &str) -> Self {
        let mut keys = [0; HASH_KEYS];
        for (index, key) in (0..).zip(&mut keys) {
            *key = derive("weir flow hash 1", index, seed);
        }
        Self {
            hash_keys: HashKeys { keys },
            table_seed: derive("weir table hash 1", 0, seed),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

fn derive(label: &str, index: u8, seed: &str) -> u64 {
    let hash = Sha256::new()
        .chain_update(label)
        .chain_update([index])
        .chain_update(seed)
        .finalize();
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = from;
    }
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fleets mix versions of weir while they are upgraded: a change of these numbers breaks their flows.
    // Computed by another implementation of SHA-256.
    #[test]
    fn keys_of_a_known_seed() {
        let keys = Keys::derive("fleet-secret");
        assert_eq!(keys.table_seed, 0x8d92_dbf9_32ac_6fd2);
        assert_eq!(keys.hash_keys.keys[0], 0xd099_dbda_62de_9284);
        assert_eq!(keys.hash_keys.keys[10], 0x82a5_38ad_8afe_573f);
    }

    #[test]
    fn every_key_differs_and_none_is_shown() {
        let keys = Keys::derive("fleet-secret");
        let mut all = keys.hash_keys.keys.to_vec();
        all.push(keys.table_seed);
        all.extend(Keys::derive("fleet-secres").hash_keys.keys);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2 * HASH_KEYS + 1);
        assert_eq!(format!("{keys:?}"), "<secret>");
    }
}
