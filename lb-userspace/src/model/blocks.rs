//! Prefixes that commands block, for a VIP or for all, some for a time. Pure: who keeps them is the module `state`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use lb_common::access::{MAX_BLOCKS, NODE, PrefixKey, blocks};

use crate::config::Prefix;

/// What is blocked.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct BlockName {
    /// The VIP's name; `None` for all VIPs.
    pub vip: Option<String>,
    /// Whose packets.
    pub prefix: Prefix,
}

/// How it is blocked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// Since when.
    pub since: SystemTime,
    /// Until when; `None` until it is undone. Time goes by while no daemon runs, too.
    pub until: Option<SystemTime>,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
    /// Who did it.
    pub by: String,
}

/// Everything that is blocked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Blocks(BTreeMap<BlockName, Block>);

/// More is blocked already than the maps have room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{MAX_BLOCKS} prefixes are blocked, and no more can be: unblock some, or put them into a `deny_file`"
)]
pub struct Full;

impl Blocks {
    /// How a prefix is blocked, if it is.
    #[must_use]
    pub fn get(&self, name: &BlockName) -> Option<&Block> {
        self.0.get(name)
    }

    /// Everything, by VIP and prefix.
    pub fn iter(&self) -> impl Iterator<Item = (&BlockName, &Block)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Blocks a prefix; one that is blocked already is blocked as said now.
    ///
    /// # Errors
    /// [`Full`].
    pub fn set(&mut self, name: BlockName, block: Block) -> Result<(), Full> {
        if self.0.len() >= MAX_BLOCKS && !self.0.contains_key(&name) {
            return Err(Full);
        }
        self.0.insert(name, block);
        Ok(())
    }

    /// Lets a prefix send again. Returns how it was blocked.
    pub fn remove(&mut self, name: &BlockName) -> Option<Block> {
        self.0.remove(name)
    }

    /// Blocks of other prefixes that hold this one, or that it holds, in the same place: what whoever looks for it may mean.
    pub fn near(&self, name: &BlockName) -> impl Iterator<Item = &BlockName> {
        self.0.keys().filter(move |other| {
            let is_related =
                other.prefix.contains(&name.prefix) || name.prefix.contains(&other.prefix);
            is_related && *other != name
        })
    }

    /// Takes out what has ended. Returns what that was.
    pub fn expire(&mut self, now: SystemTime) -> Vec<BlockName> {
        let has_ended = |block: &Block| block.until.is_some_and(|until| until <= now);
        let ended = self.0.iter().filter(|(_, block)| has_ended(block));
        let ended: Vec<_> = ended.map(|(name, _)| name.clone()).collect();
        for name in &ended {
            self.0.remove(name);
        }
        ended
    }

    /// When the first of them ends.
    #[must_use]
    pub fn first_end(&self) -> Option<SystemTime> {
        self.0.values().filter_map(|block| block.until).min()
    }

    /// What the maps hold of them. `id` gives a VIP's number; a block of a VIP that there is not does nothing.
    #[must_use]
    pub fn keys(&self, id: impl Fn(&str) -> Option<u32>) -> BTreeSet<PrefixKey> {
        let key = |name: &BlockName| {
            let scope = match &name.vip {
                Some(vip) => id(vip)?,
                None => NODE,
            };
            Some(name.prefix.key(scope))
        };
        self.0.keys().filter_map(key).collect()
    }
}

/// Whom blocked prefixes concern: ids of VIPs, and [`NODE`].
#[must_use]
pub fn owners(keys: &BTreeSet<PrefixKey>) -> BTreeSet<u32> {
    keys.iter().map(PrefixKey::owner).collect()
}

/// What is to be looked up for a VIP of this number, where blocks concern `owners`.
#[must_use]
pub fn scopes(owners: &BTreeSet<u32>, vip: u32) -> u32 {
    let has = |owner: u32| owners.contains(&owner);
    let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    bit(has(vip), blocks::OF_VIP) | bit(has(NODE), blocks::OF_NODE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn name(vip: Option<&str>, prefix: &str) -> BlockName {
        BlockName {
            vip: vip.map(str::to_owned),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn block(until: Option<u64>) -> Block {
        Block {
            since: SystemTime::UNIX_EPOCH,
            until: until.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
            reason: None,
            by: "uid 0".to_owned(),
        }
    }

    #[test]
    fn what_has_ended_goes_and_the_rest_stays() {
        let mut blocks = Blocks::default();
        blocks
            .set(name(None, "192.0.2.0/24"), block(Some(10)))
            .unwrap();
        blocks
            .set(name(Some("web"), "192.0.2.0/24"), block(Some(20)))
            .unwrap();
        blocks
            .set(name(None, "2001:db8::/32"), block(None))
            .unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(blocks.first_end(), Some(at(10)));
        assert!(blocks.expire(at(9)).is_empty());
        assert_eq!(blocks.expire(at(10)), [name(None, "192.0.2.0/24")]);
        assert_eq!(blocks.first_end(), Some(at(20)));
        // Blocked once more, for longer.
        blocks
            .set(name(Some("web"), "192.0.2.0/24"), block(None))
            .unwrap();
        assert!(blocks.expire(at(99)).is_empty());
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn a_vip_looks_only_for_what_concerns_it() {
        let mut all = Blocks::default();
        all.set(name(Some("web"), "192.0.2.0/24"), block(None))
            .unwrap();
        all.set(name(Some("gone"), "192.0.2.0/24"), block(None))
            .unwrap();
        let id = |vip: &str| (vip == "web").then_some(7);
        let keys = all.keys(id);
        assert_eq!(keys.len(), 1);
        let of = |keys| [7, 8].map(|vip| scopes(&owners(keys), vip));
        assert_eq!(of(&keys), [blocks::OF_VIP, 0]);
        all.set(name(None, "::/0"), block(None)).unwrap();
        let keys = all.keys(id);
        let both = blocks::OF_VIP | blocks::OF_NODE;
        assert_eq!(of(&keys), [both, blocks::OF_NODE]);
    }

    #[test]
    fn there_is_room_for_so_many_and_for_those_again() {
        let mut blocks = Blocks::default();
        for number in 0..MAX_BLOCKS {
            let prefix = format!("10.{}.{}.0/24", number >> 8, number & 255);
            blocks.set(name(None, &prefix), block(None)).unwrap();
        }
        assert_eq!(
            blocks.set(name(None, "192.0.2.0/24"), block(None)),
            Err(Full)
        );
        blocks
            .set(name(None, "10.0.0.0/24"), block(Some(1)))
            .unwrap();
        let near = name(None, "10.0.0.9");
        assert_eq!(blocks.near(&near).count(), 1);
    }
}
