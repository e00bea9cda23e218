//! What packets count, and how long the programs run.

use std::fs;

use anyhow::Context as _;
use aya::{
    maps::{MapData, MapError, PerCpuArray, PerCpuValues},
    programs::Program,
    util::nr_cpus,
};
use lb_common::{
    access::List,
    tables::{Counters, Drops},
};

use super::{object::Object, value::Value};
use crate::dataplane::ProgramRuns;

/// Tells whether the kernel counts how often programs run, and how long.
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

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
    let cleared = clear(&mut object.backend_counters, u32::from(id));
    cleared.with_context(|| format!("beginning the counters of backend {id} anew"))
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

/// How often each program ran, and how long in all; none where the kernel does not count.
pub(super) fn runs(object: &Object) -> anyhow::Result<Vec<ProgramRuns>> {
    let is_counting = fs::read_to_string(STATISTICS).is_ok_and(|text| text.trim() == "1");
    if !is_counting {
        return Ok(Vec::new());
    }
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
    runs.collect()
}
