//! Walking through the maps of pins, fragments and sources.

use std::{ops::ControlFlow, os::fd::AsFd as _};

use anyhow::{Context as _, ensure};
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use lb_common::{
    fragment::MAX_FRAGMENTED,
    limit::{Source, SourceKey, source::SourceBlock},
    pin::Kind,
};

use super::{object::Object, value::Value};
use crate::dataplane::{Remembered, Scan};

/// A walk starts again where the key at hand has just been removed. One that takes more steps than this many times
/// what fits is given up.
const PATIENCE: usize = 4;

/// A scan with handles of its own, so that any thread may walk through it.
pub(super) fn scan(object: &Object) -> anyhow::Result<Scan> {
    let [syn, proven, old] = &object.pins;
    let pins = [
        (Kind::Syn, reopen(syn)?),
        (Kind::Proven, reopen(proven)?),
        (Kind::Old, reopen(old)?),
    ];
    let max_pins = object.sizes.max_pins as usize;
    let fragments = reopen(&object.fragments)?;
    Ok(Scan::new(move |visit| {
        for (kind, map) in pins {
            let mut visit = |Value(flow), Value(pin)| visit(Remembered::Pin(kind, flow, pin));
            if walk(&map, max_pins, &mut visit)?.is_break() {
                return Ok(());
            }
        }
        let mut visit = |Value(key), backend: u32| visit(Remembered::Fragment(key, backend as u16));
        walk(&fragments, MAX_FRAGMENTED, &mut visit).map(|_| ())
    }))
}

/// The same of the sources of VIPs that limit them.
pub(super) fn sources(object: &Object) -> anyhow::Result<Scan<(SourceKey, Source)>> {
    let keys = object.hash_keys()?;
    let blocks: Array<_, Value<SourceBlock>> = Map::Array(again(object.sources.map())?)
        .try_into()
        .context("another handle to a map")?;
    Ok(Scan::new(move |visit| {
        for index in 0..blocks.len() {
            let Value(block) = blocks.get(&index, 0).context("reading sources")?;
            for source in block.sets.as_flattened() {
                let key = source.key(&keys);
                if key.is_some_and(|key| visit((key, *source)).is_break()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }))
}

fn walk<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    capacity: usize,
    visit: &mut impl FnMut(K, V) -> ControlFlow<()>,
) -> anyhow::Result<ControlFlow<()>> {
    let mut left = capacity.saturating_mul(PATIENCE);
    for key in map.keys() {
        let key = key.context("walking through a map")?;
        ensure!(left > 0, "a map changes faster than it can be read");
        left -= 1;
        let value = match map.get(&key, 0) {
            Ok(value) => value,
            // It went just now.
            Err(MapError::KeyNotFound) => continue,
            Err(error) => return Err(error).context("reading a map"),
        };
        if visit(key, value).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Another handle to a map of pins or fragments.
fn reopen<K: aya::Pod, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
) -> anyhow::Result<HashMap<MapData, K, V>> {
    Map::LruHashMap(again(map.map())?)
        .try_into()
        .context("another handle to a map")
}

/// Another handle to a map.
fn again(map: &MapData) -> anyhow::Result<MapData> {
    let fd = map.fd().as_fd().try_clone_to_owned();
    let fd = fd.context("another handle to a map")?;
    MapData::from_fd(fd).context("another handle to a map")
}
