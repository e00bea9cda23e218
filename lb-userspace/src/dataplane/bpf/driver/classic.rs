//! The classic design to measure beside weir: a program that remembers every flow (lb-ebpf/src/bench/classic.rs).

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, MapData},
};
use lb_common::{
    backend::Backend,
    flow::HashKeys,
    slot::SlotTable,
    vip::{VipEntry, VipTable},
};
use zerocopy::FromZeros as _;

use super::super::{
    inner::inner_map,
    object::{Inner, take},
    test_run::xdp,
    value::Value,
};

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench-classic-ebpf"));

/// Name of the program in the object.
const PROGRAM: &str = "classic";

/// The loaded program.
pub struct Classic {
    pub(super) ebpf: Ebpf,
}

impl Classic {
    /// Loads it with a table of so many flows, and lets it serve one VIP.
    ///
    /// # Errors
    /// Where the kernel refuses, such as for want of memory for the table.
    pub fn load(
        flows: u32,
        keys: &HashKeys,
        vip: VipEntry,
        slots: &SlotTable,
        backends: &[(u16, Backend)],
    ) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS", flows);
        let mut ebpf = loader.load(OBJECT).with_context(|| {
            format!("loading the classic program with a table of {flows} flows")
        })?;
        let program = xdp(&mut ebpf, PROGRAM)?;
        program.load().context("loading the classic program")?;
        let mut held: Array<MapData, Value<HashKeys>> = take(&mut ebpf, "KEYS")?;
        held.set(0, Value::from_ref(keys), 0)
            .context("writing the keys")?;
        let mut table = VipTable::new_box_zeroed()
            .map_err(|error| anyhow::anyhow!("making a table: {error:?}"))?;
        table
            .build(&[vip])
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut vips: ArrayOfMaps<MapData, Inner<VipTable>> = take(&mut ebpf, "VIPS")?;
        vips.set(0, &inner_map(&*table)?, 0)
            .context("writing the VIP")?;
        let mut tables: ArrayOfMaps<MapData, Inner<SlotTable>> = take(&mut ebpf, "TABLES")?;
        tables
            .set(vip.id, &inner_map(slots)?, 0)
            .context("writing the table")?;
        let mut held: Array<MapData, Value<Backend>> = take(&mut ebpf, "BACKENDS")?;
        for (id, backend) in backends {
            held.set(u32::from(*id), Value::from_ref(backend), 0)
                .context("writing a backend")?;
        }
        Ok(Self { ebpf })
    }
}

impl super::Driver {
    /// Mean ns per packet of the classic design, the driver's own cost included.
    ///
    /// # Errors
    /// As [`Self::measure_floor`].
    pub fn measure_classic(
        &mut self,
        classic: &mut Classic,
        sample: &super::Sample,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        let fd = xdp(&mut classic.ebpf, PROGRAM)?.fd()?.try_clone()?;
        self.measure_fd(&fd, sample, repeat, None)
    }
}
