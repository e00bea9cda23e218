//! From the pins of an older layout to those of the current one, while the old program forwards.
//!
//! Maps of the same shape become those of both layouts: the very map is pinned once more, so that what the old program
//! writes meanwhile is not lost. One with the same entries but more or fewer of them is copied, one that the daemon writes
//! anyway is made anew. Nothing of the old layout changes before its links carry the new program.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aya::maps::{Array, Map, MapData, PerCpuArray};

use super::{
    layout::{Carry, INHERITED, Likeness, MAPS, REMEDY, Shape, inner},
    object::Object,
    pins::{self, Pins},
    value::Value,
};

/// Maps to be copied once the new ones are there.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Where the old ones are pinned.
    maps: PathBuf,
    names: Vec<&'static str>,
}

/// Takes over what an older layout has pinned, if its program is attached and the current layout's is not yet.
///
/// # Errors
/// Where the pins are of a newer layout, or what connections depend on is of another shape. Nothing has changed then.
pub(super) fn begin(pins: &Pins) -> anyhow::Result<Copies> {
    let own = pins.layout();
    let others = pins.others()?;
    // The layout that is attached is the one in force: one without links was left by a start that did not get so far.
    if pins.has_links(own)? {
        return Ok(Copies::default());
    }
    let mut attached = Vec::new();
    for layout in others {
        if pins.has_links(layout)? {
            attached.push(layout);
        }
    }
    let Some(old) = attached.into_iter().max() else {
        return Ok(Copies::default());
    };
    if old > own {
        bail!(
            "{} was pinned by a newer weir (layout {old}, and this one knows {own}); {REMEDY}",
            pins.root().display()
        );
    }
    let (maps, tables) = (pins.maps_of(old), pins.tables_of(old));
    let mut shared = Vec::new();
    let mut copies = Copies {
        maps: maps.clone(),
        ..Copies::default()
    };
    for shape in MAPS {
        match carry(&shape, &maps.join(shape.name))? {
            Likeness::Same => shared.push((maps.join(shape.name), OsString::from(shape.name))),
            Likeness::Resized => copies.names.push(shape.name),
            Likeness::Other => {}
        }
    }
    let mut inner_maps = Vec::new();
    for path in pins::entries(&tables)? {
        let name = path.file_name().unwrap_or_default().to_owned();
        if carry(&inner(&name.to_string_lossy()), &path)? == Likeness::Same {
            inner_maps.push((path, name));
        }
    }
    tracing::info!(from = %old, to = %own, shared = shared.len(), copied = ?copies.names, "taking over the pins of another layout");
    pins.clear()?;
    for (targets, directory) in [(shared, pins.maps()), (inner_maps, pins.tables())] {
        for (path, name) in targets {
            pin_again(&path, &directory.join(name))?;
        }
    }
    Ok(copies)
}

/// What becomes of an older layout's map: shared, copied, or made anew ([`Likeness::Other`]).
fn carry(shape: &Shape, path: &Path) -> anyhow::Result<Likeness> {
    let likeness = if path.exists() {
        shape.compare(path)?
    } else {
        Likeness::Other
    };
    match (shape.carry, likeness) {
        (Carry::Written, _) | (Carry::Wished, Likeness::Other) => Ok(Likeness::Other),
        (Carry::Needed, Likeness::Other) if !path.exists() => bail!(
            "{} lacks a map that connections depend on; {REMEDY}",
            path.display()
        ),
        (Carry::Needed, Likeness::Other) => {
            shape.check(path)?;
            Ok(Likeness::Other)
        }
        (_, likeness) => Ok(likeness),
    }
}

/// Pins a map in a second place.
fn pin_again(from: &Path, to: &Path) -> anyhow::Result<()> {
    let map = MapData::from_pin(from)
        .with_context(|| format!("opening the pinned map {}", from.display()))?;
    map.pin(to)
        .with_context(|| format!("pinning {}", to.display()))
}

impl Copies {
    /// Copies the entries of the old maps into the new ones, as far as both have them.
    ///
    /// # Errors
    /// Where a map cannot be read or written.
    pub(super) fn fill(&self, object: &mut Object) -> anyhow::Result<()> {
        for name in &self.names {
            let path = self.maps.join(name);
            let copied = match *name {
                "BACKENDS" => array(&path, &mut object.backends),
                "VIP_COUNTERS" => per_cpu(&path, &mut object.vip_counters),
                "VIP_DROPS" => per_cpu(&path, &mut object.vip_drops),
                "BACKEND_COUNTERS" => per_cpu(&path, &mut object.backend_counters),
                INHERITED => array(&path, &mut object.inherited),
                "OUTCOME_COUNTERS" => per_cpu(&path, &mut object.outcome_counters),
                "PIN_COUNTERS" => per_cpu(&path, &mut object.pin_counters),
                "ACCESS_COUNTERS" => per_cpu(&path, &mut object.access.counters),
                "LIMIT_SHARES" => per_cpu(&path, &mut object.limit_shares),
                // Fragments of the packets that are on the way just now, and what was used of limits.
                _ => Ok(()),
            };
            copied.with_context(|| format!("copying {}", path.display()))?;
        }
        Ok(())
    }
}

fn array<T: Copy>(old: &Path, new: &mut Array<MapData, Value<T>>) -> anyhow::Result<()>
where
    Value<T>: aya::Pod,
{
    let old: Array<MapData, Value<T>> = Map::Array(MapData::from_pin(old)?).try_into()?;
    for index in 0..old.len().min(new.len()) {
        new.set(index, old.get(&index, 0)?, 0)?;
    }
    Ok(())
}

fn per_cpu<T: aya::Pod>(old: &Path, new: &mut PerCpuArray<MapData, T>) -> anyhow::Result<()> {
    let old: PerCpuArray<MapData, T> = Map::PerCpuArray(MapData::from_pin(old)?).try_into()?;
    for index in 0..old.len().min(new.len()) {
        new.set(index, old.get(&index, 0)?, 0)?;
    }
    Ok(())
}

/// Moves the pin of an interface's link from an older layout, if it is there.
///
/// # Errors
/// Where it cannot be moved.
pub(super) fn adopt_link(pins: &Pins, link: &Path) -> anyhow::Result<()> {
    let name = link.file_name().unwrap_or_default();
    for layout in pins.others()? {
        let old = pins.links_of(layout).join(name);
        if old.exists() && !link.exists() {
            fs::rename(&old, link).with_context(|| format!("moving the pin {}", old.display()))?;
        }
    }
    Ok(())
}
