//! A packet that takes long over reading a slot (lb-ebpf/src/bench/reader.rs), to test that swaps wait for it.

use std::path::Path;

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData},
};
use lb_common::bench::Readings;

use super::super::{object::take, pins, test_run::xdp, value::Value};

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench-reader-ebpf"));

/// Name of the program in the object.
const PROGRAM: &str = "reader";

/// The loaded program.
pub struct Reader {
    ebpf: Ebpf,
}

/// What it tells, for any thread.
pub struct ReaderCounts(Array<MapData, Value<Readings>>);

impl Reader {
    /// Loads it over the lookup tables that are pinned below `pin_path`.
    ///
    /// # Errors
    /// Where nothing is pinned there, or the kernel refuses.
    pub fn load(pin_path: &Path) -> anyhow::Result<(Self, ReaderCounts)> {
        let tables = pins::maps(pin_path)?.join("TABLES");
        let mut ebpf = EbpfLoader::new()
            .map_pin_path("TABLES", &tables)
            .load(OBJECT)
            .context("loading the slow reader's maps")?;
        let program = xdp(&mut ebpf, PROGRAM)?;
        program.load().context("loading the slow reader")?;
        let counts = take(&mut ebpf, "READINGS")?;
        Ok((Self { ebpf }, ReaderCounts(counts)))
    }

    /// Reads once: this takes tens of milliseconds, during which a packet is on its way.
    ///
    /// # Errors
    /// Where the program cannot be run.
    pub fn read(&mut self) -> anyhow::Result<()> {
        let frame = [0; 64];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::default()
        };
        let program = xdp(&mut self.ebpf, PROGRAM)?;
        program
            .test_run(options)
            .context("running the slow reader")?;
        Ok(())
    }
}

impl ReaderCounts {
    /// How far the reader is at this moment.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn get(&self) -> anyhow::Result<Readings> {
        let Value(readings) = self.0.get(&0, 0).context("reading the reader's counts")?;
        Ok(readings)
    }
}
