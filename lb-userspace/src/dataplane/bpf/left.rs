//! What a daemon has left pinned, read beside it or after its end: nothing is loaded, and nothing is written.

use std::path::Path;

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use lb_common::{
    backend::Backend,
    slot::SlotTable,
    tables::Counters,
    vip::{VipEntry, VipTable},
};

use super::{
    ReasonCount, VIPS_PIN, counters,
    inner::read_pinned,
    layout::{INHERITED, MAPS},
    linked_interfaces, pins,
    value::Value,
};

/// The maps that tell what is left.
const READ: [&str; 5] = [
    "BACKENDS",
    "VIP_COUNTERS",
    "BACKEND_COUNTERS",
    INHERITED,
    "OUTCOME_COUNTERS",
];

/// What is pinned.
#[derive(Debug)]
pub struct Left {
    /// The interfaces whose links are pinned.
    pub interfaces: Vec<String>,
    /// The VIPs, by id.
    pub vips: Vec<LeftVip>,
    /// The backends, by id.
    pub backends: Vec<LeftBackend>,
    /// Frames counted under each reason.
    pub reasons: Vec<ReasonCount>,
}

/// A VIP as packets find it.
pub struct LeftVip {
    /// Its id, key and flags.
    pub entry: VipEntry,
    /// Its lookup table, if it has one.
    pub table: Option<Box<SlotTable>>,
    /// What was forwarded for it.
    pub counters: Counters,
}

impl std::fmt::Debug for LeftVip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeftVip")
            .field("entry", &self.entry)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// A backend as packets find it.
#[derive(Debug)]
pub struct LeftBackend {
    /// Its id.
    pub id: u16,
    /// The way to it.
    pub entry: Backend,
    /// What was forwarded to it.
    pub counters: Counters,
}

impl Left {
    /// Reads the pins below `pin_path`.
    ///
    /// # Errors
    /// Where nothing is pinned there, it is of another layout, or it cannot be read.
    pub fn read(pin_path: &Path) -> anyhow::Result<Self> {
        let maps = pins::maps(pin_path)?;
        // No others: a daemon of another version may lack them.
        for shape in MAPS.iter().filter(|shape| READ.contains(&shape.name)) {
            shape.check(&maps.join(shape.name))?;
        }
        let tables = pins::tables(pin_path);
        let vips: Option<Box<VipTable>> = read_pinned(&tables.join(VIPS_PIN))?;
        let vip_counters = per_cpu::<Value<Counters>>(&maps.join("VIP_COUNTERS"))?;
        let mut vips = vips
            .iter()
            .flat_map(|vips| vips.entries())
            .map(|entry| {
                Ok(LeftVip {
                    entry,
                    table: read_pinned(&tables.join(entry.id.to_string()))?,
                    counters: counters::counters(&vip_counters, entry.id)
                        .context("reading a VIP's counters")?,
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        vips.sort_by_key(|vip| vip.entry.id);
        let outcomes = per_cpu::<u64>(&maps.join("OUTCOME_COUNTERS"))?;
        Ok(Self {
            interfaces: linked_interfaces(pin_path)?,
            vips,
            backends: backends(&maps)?,
            reasons: ReasonCount::all(|index| {
                let values = outcomes.get(&index, 0);
                let values = values.context("reading the reasons' counters")?;
                Ok(values.iter().fold(0u64, |sum, v| sum.wrapping_add(*v)))
            })?,
        })
    }
}

fn backends(maps: &Path) -> anyhow::Result<Vec<LeftBackend>> {
    let entries = MapData::from_pin(maps.join("BACKENDS")).context("opening the backends")?;
    let entries: Array<MapData, Value<Backend>> = Map::Array(entries)
        .try_into()
        .context("opening the backends")?;
    let counted = per_cpu::<Value<Counters>>(&maps.join("BACKEND_COUNTERS"))?;
    let inherited = counters::inherited(Some(maps))?;
    let mut found = Vec::new();
    for id in 1..=u16::MAX {
        let index = u32::from(id);
        let Value(entry) = entries.get(&index, 0).context("reading the backends")?;
        if entry.mode != 0 {
            let counted = counters::backend(&counted, &inherited, id);
            found.push(LeftBackend {
                id,
                entry,
                counters: counted.context("reading a backend's counters")?,
            });
        }
    }
    Ok(found)
}

fn per_cpu<T: aya::Pod>(path: &Path) -> anyhow::Result<PerCpuArray<MapData, T>> {
    let open = || -> Result<_, MapError> { Map::PerCpuArray(MapData::from_pin(path)?).try_into() };
    open().with_context(|| format!("opening {}", path.display()))
}
