//! The tries of blocked and listed prefixes.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{
        Array, IterableMap as _, Map, MapData, MapError, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
};
use lb_common::access::{PrefixKey, verdict};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{inner::ignore_absent, object::take};
use crate::{config::Prefix, dataplane::ListPlane};

/// What a key has after its number of bits.
type PrefixBytes = [u8; 20];

/// Prefixes with their verdicts.
type PrefixMap = LpmTrie<MapData, PrefixBytes, u32>;

/// The maps of blocks and lists.
pub(super) struct Maps {
    pub(super) blocks: PrefixMap,
    pub(super) block_scopes: Array<MapData, u32>,
    lists: PrefixMap,
    list_scopes: Array<MapData, u32>,
    pub(super) counters: PerCpuArray<MapData, u64>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            blocks: take(ebpf, "BLOCKS")?,
            block_scopes: take(ebpf, "BLOCK_SCOPES")?,
            lists: take(ebpf, "LISTS")?,
            list_scopes: take(ebpf, "LIST_SCOPES")?,
            counters: take(ebpf, "ACCESS_COUNTERS")?,
        })
    }
}

/// A key as aya takes it.
fn trie_key(key: &PrefixKey) -> Key<PrefixBytes> {
    let mut bytes = PrefixBytes::default();
    if let Some(rest) = key.as_bytes().last_chunk() {
        bytes = *rest;
    }
    Key::new(key.bits, bytes)
}

fn prefix_key(key: &Key<PrefixBytes>) -> PrefixKey {
    let mut bytes = [0; size_of::<PrefixKey>()];
    let (bits, rest) = bytes.split_at_mut(size_of::<u32>());
    bits.copy_from_slice(&key.prefix_len().to_ne_bytes());
    rest.copy_from_slice(&key.data());
    PrefixKey::read_from_bytes(&bytes).unwrap_or_default()
}

/// Blocks a prefix.
pub(super) fn block(map: &mut PrefixMap, key: &PrefixKey) -> anyhow::Result<()> {
    set(map, key, verdict::DENIED)
}

fn set(map: &mut PrefixMap, key: &PrefixKey, verdict: u32) -> anyhow::Result<()> {
    map.insert(&trie_key(key), verdict, 0)
        .with_context(|| format!("writing {} to an access list", Prefix::of_key(key)))
}

/// Takes a prefix out, if it is there.
pub(super) fn clear(map: &mut PrefixMap, key: &PrefixKey) -> anyhow::Result<()> {
    ignore_absent(map.remove(&trie_key(key)))
        .with_context(|| format!("taking {} off an access list", Prefix::of_key(key)))
}

/// All prefixes with their verdicts.
pub(super) fn entries(map: &PrefixMap) -> anyhow::Result<Vec<(PrefixKey, u32)>> {
    const READING: &str = "reading an access list";
    let mut entries = Vec::new();
    for key in map.keys() {
        let key = key.context(READING)?;
        match map.get(&key, 0) {
            Ok(verdict) => entries.push((prefix_key(&key), verdict)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context(READING),
        }
    }
    Ok(entries)
}

/// The VIPs for which something is looked up, by id.
pub(super) fn scopes(map: &Array<MapData, u32>) -> anyhow::Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for vip in 0..map.len() {
        let scopes = map.get(&vip, 0);
        let scopes = scopes.context("reading which VIPs access lists concern")?;
        if scopes != 0 {
            found.push((vip, scopes));
        }
    }
    Ok(found)
}

/// The maps of the configuration's lists, by handles of their own.
pub(super) struct Kernel {
    lists: PrefixMap,
    scopes: Array<MapData, u32>,
}

impl Kernel {
    pub(super) fn new(maps: &Maps) -> anyhow::Result<Self> {
        const OPENING: &str = "another handle to the access lists";
        let reopen = |data: &MapData| {
            let fd = data.fd().as_fd().try_clone_to_owned().context(OPENING)?;
            MapData::from_fd(fd).context(OPENING)
        };
        Ok(Self {
            lists: Map::LpmTrie(reopen(maps.lists.map())?)
                .try_into()
                .context(OPENING)?,
            scopes: Map::Array(reopen(maps.list_scopes.map())?)
                .try_into()
                .context(OPENING)?,
        })
    }
}

impl ListPlane for Kernel {
    fn set_prefix(&mut self, key: &PrefixKey, verdict: u32) -> anyhow::Result<()> {
        set(&mut self.lists, key, verdict)
    }

    fn clear_prefix(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        clear(&mut self.lists, key)
    }

    fn set_list_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        let set = self.scopes.set(vip, scopes, 0);
        set.with_context(|| format!("writing which access lists concern VIP {vip}"))
    }

    fn prefixes(&self) -> anyhow::Result<Vec<(PrefixKey, u32)>> {
        entries(&self.lists)
    }

    fn list_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        scopes(&self.scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::access::NODE;

    #[test]
    fn keys_go_to_the_kernel_and_come_back() {
        for text in ["192.0.2.0/24", "2001:db8::/32", "::/0", "0.0.0.0/0"] {
            let prefix: Prefix = text.parse().unwrap();
            let key = prefix.key(NODE);
            assert_eq!(prefix_key(&trie_key(&key)), key);
        }
    }
}
