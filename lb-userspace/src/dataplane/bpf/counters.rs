//! What packets count, and how long the programs run.

use std::path::Path;

use anyhow::Context as _;
use aya::{
    maps::{Array, IterableMap as _, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    programs::Program,
    util::nr_cpus,
};
use lb_common::{
    access::List,
    tables::{Counters, Drops},
};

use super::{layout::INHERITED, object::Object, value::Value};
use crate::dataplane::ProgramRuns;

/// What was forwarded, summed over the CPUs.
pub(super) fn counters(
    map: &PerCpuArray<MapData, Value<Counters>>,
    id: u32,
) -> Result<Counters, MapError> {
    Ok(sum(&map.get(&id, 0)?))
}

pub(super) fn sum(values: &PerCpuValues<Value<Counters>>) -> Counters {
    values
        .iter()
        .fold(Counters::default(), |sum, Value(value)| Counters {
            packets: sum.packets.wrapping_add(value.packets),
            bytes: sum.bytes.wrapping_add(value.bytes),
            new_connections: sum.new_connections.wrapping_add(value.new_connections),
            reserved: 0,
        })
}

/// What was forwarded to a backend, what it has inherited included.
pub(super) fn backend(
    counted: &PerCpuArray<MapData, Value<Counters>>,
    inherited: &Array<MapData, Value<Counters>>,
    id: u16,
) -> Result<Counters, MapError> {
    let Value(inherited) = inherited.get(&u32::from(id), 0)?;
    Ok(added(counters(counted, u32::from(id))?, inherited))
}

const fn added(a: Counters, b: Counters) -> Counters {
    Counters {
        packets: a.packets.wrapping_add(b.packets),
        bytes: a.bytes.wrapping_add(b.bytes),
        new_connections: a.new_connections.wrapping_add(b.new_connections),
        reserved: 0,
    }
}

/// The map of what backends have inherited: the one that is pinned, or a new one.
pub(super) fn inherited(
    maps_dir: Option<&Path>,
) -> anyhow::Result<Array<MapData, Value<Counters>>> {
    let failed = "the map of inherited counters";
    let pin = maps_dir.map(|directory| directory.join(INHERITED));
    if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
        let data = MapData::from_pin(pin).context(failed)?;
        return Map::Array(data).try_into().context(failed);
    }
    let map = Array::create(1 << 16, 0).context(failed)?;
    if let Some(pin) = pin {
        map.map().pin(pin).context(failed)?;
    }
    Ok(map)
}

/// Adds what was counted under one id to what another has inherited.
///
/// Nobody else writes the map. Beside the sums it notes whom they came from last, so that a daemon that was killed before
/// the old id went adds nothing again.
pub(super) fn inherit(object: &mut Object, from: u16, to: u16) -> anyhow::Result<()> {
    let failed = || format!("passing the counters of backend {from} on to backend {to}");
    let Value(held) = object
        .inherited
        .get(&u32::from(to), 0)
        .with_context(failed)?;
    if held.reserved == u64::from(from) {
        return Ok(());
    }
    let more = backend(&object.backend_counters, &object.inherited, from).with_context(failed)?;
    let sums = Counters {
        reserved: u64::from(from),
        ..added(held, more)
    };
    let written = object.inherited.set(u32::from(to), Value(sums), 0);
    written.with_context(failed)
}

/// What of a VIP's was dropped, summed over the CPUs.
pub(super) fn drops(object: &Object, vip: u32) -> anyhow::Result<Drops> {
    let values = object.vip_drops.get(&vip, 0);
    let values = values.context("reading what was dropped of a VIP's")?;
    let mut sums = Drops::default();
    for Value(drops) in values.iter() {
        for (sum, packets) in sums.packets.iter_mut().zip(&drops.packets) {
            *sum = sum.wrapping_add(*packets);
        }
    }
    Ok(sums)
}

/// Sets what was counted under a VIP's id to zero.
pub(super) fn clear_vip(object: &mut Object, vip: u32) -> anyhow::Result<()> {
    let failed = || format!("beginning the counters of VIP {vip} anew");
    clear(&mut object.vip_counters, vip).with_context(failed)?;
    clear(&mut object.vip_drops, vip).with_context(failed)?;
    for list in List::ALL {
        let cleared = fill(&mut object.access.counters, list.counter(vip), 0);
        cleared.with_context(failed)?;
    }
    Ok(())
}

/// Sets what was counted under a backend's id to zero.
pub(super) fn clear_backend(object: &mut Object, id: u16) -> anyhow::Result<()> {
    let failed = || format!("beginning the counters of backend {id} anew");
    let index = u32::from(id);
    clear(&mut object.backend_counters, index).with_context(failed)?;
    let cleared = object.inherited.set(index, Value(Counters::default()), 0);
    cleared.with_context(failed)
}

fn clear<T: Copy + Default>(
    map: &mut PerCpuArray<MapData, Value<T>>,
    index: u32,
) -> anyhow::Result<()>
where
    Value<T>: aya::Pod,
{
    fill(map, index, Value(T::default()))
}

fn fill<T: aya::Pod>(
    map: &mut PerCpuArray<MapData, T>,
    index: u32,
    value: T,
) -> anyhow::Result<()> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    Ok(map.set(index, PerCpuValues::try_from(vec![value; cpus])?, 0)?)
}

/// How often each program ran, and how long in all; none where the kernel has counted nothing.
///
/// It counts while `kernel.bpf_stats_enabled` is 1, or while some process has asked for it, which nothing else tells.
pub(super) fn runs(object: &Object) -> anyhow::Result<Vec<ProgramRuns>> {
    let runs = object
        .ebpf
        .programs()
        .map(|(name, program): (_, &Program)| {
            let info = program.info();
            let info = info.with_context(|| format!("asking how often {name} ran"))?;
            Ok(ProgramRuns {
                program: name.to_owned(),
                runs: info.run_count(),
                time: info.run_time(),
            })
        });
    let runs: Vec<_> = runs.collect::<anyhow::Result<_>>()?;
    let has_counted = runs.iter().any(|program| program.runs > 0);
    Ok(if has_counted { runs } else { Vec::new() })
}
