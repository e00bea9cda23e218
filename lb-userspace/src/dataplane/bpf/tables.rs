//! Lookup tables: built aside and swapped in whole, many at a time.
//!
//! At each swap the kernel waits until no packet reads the old table, which takes several milliseconds and no processor.
//! Swaps on many threads wait together: 500 tables take as long as a few.

use std::{os::fd::OwnedFd, path::Path, thread};

use anyhow::Context as _;
use aya::maps::{ArrayOfMaps, Map, MapData};
use lb_common::slot::SlotTable;

use super::{
    inner::{inner_map, remove_if_there},
    object::Inner,
    pins::Pins,
    value::Value,
};
use crate::model::slots::{Since, Slots};

/// The outer map.
type Tables = ArrayOfMaps<MapData, Inner<SlotTable>>;

/// How many swaps wait at a time; each holds two tables of 256 KiB.
const AT_ONCE: usize = 64;

/// Swaps in a VIP's table, and pins it.
pub(super) fn swap(
    tables: &mut Tables,
    pins: Option<&Pins>,
    vip: u32,
    table: &SlotTable,
) -> anyhow::Result<()> {
    let inner = inner_map(table)?;
    tables
        .set(vip, &inner, 0)
        .with_context(|| format!("swapping the table of VIP {vip}"))?;
    pin(pins, &vip.to_string(), |path| {
        inner.pin(path).context("pinning a table")
    })
}

/// Swaps in several tables with the notes of their times. Returns what became of each.
pub(super) fn swap_all(
    tables: &OwnedFd,
    pins: Option<&Pins>,
    new: &[(u32, &Slots)],
) -> Vec<anyhow::Result<()>> {
    let share = new.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        let threads: Vec<_> = new
            .chunks(share)
            .map(|new| scope.spawn(move || swap_each(tables, pins, new)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(results) => results,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

fn swap_each(
    tables: &OwnedFd,
    pins: Option<&Pins>,
    new: &[(u32, &Slots)],
) -> Vec<anyhow::Result<()>> {
    let mut tables = reopen(tables);
    let swap_one = |(vip, slots): &(u32, &Slots)| {
        let tables = tables
            .as_mut()
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        // The note first: where a slot's time is not known, it starts again.
        if let Some(since) = slots.since() {
            note(pins, &since_pin(*vip), Some(since))?;
        }
        swap(tables, pins, *vip, &slots.table())?;
        if slots.since().is_none() {
            note(pins, &since_pin(*vip), None::<&Since>)?;
        }
        Ok(())
    };
    new.iter().map(swap_one).collect()
}

/// Pins a note under a name, or takes the one there away: what no packet reads, and a later daemon must know.
pub(super) fn note<T: Copy>(pins: Option<&Pins>, name: &str, note: Option<&T>) -> anyhow::Result<()>
where
    Value<T>: aya::Pod,
{
    match (note, pins) {
        (_, None) => Ok(()),
        (None, Some(pins)) => remove_if_there(&pins.tables().join(name)),
        (Some(note), Some(_)) => {
            let map = inner_map(note)?;
            pin(pins, name, |path| {
                map.pin(path)
                    .with_context(|| format!("pinning the note {name}"))
            })
        }
    }
}

/// Pins an inner map in place of an older one, so that the next daemon finds it without `CAP_SYS_ADMIN`.
pub(super) fn pin(
    pins: Option<&Pins>,
    name: &str,
    map: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(pins) = pins else {
        return Ok(());
    };
    let path = pins.tables().join(name);
    remove_if_there(&path)?;
    map(&path)
}

/// Name under which is pinned since when a VIP's slots are in their states.
pub(super) fn since_pin(vip: u32) -> String {
    format!("{vip}-since")
}

/// Another handle to the outer map.
fn reopen(tables: &OwnedFd) -> anyhow::Result<Tables> {
    let fd = tables.try_clone();
    let data = MapData::from_fd(fd.context("another handle to the tables")?)
        .context("another handle to the tables")?;
    Map::ArrayOfMaps(data)
        .try_into()
        .context("another handle to the tables")
}
