//! The observing program: a second object over the same pinned maps, swapped in through the pinned links.

use std::fs;

use anyhow::Context as _;
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use lb_common::{
    gcra::Ticks,
    observe::{Told, Watches},
};

use super::{
    BpfDataPlane, attach,
    object::{Object, Program, Tracing, take},
    value::Value,
};
use crate::dataplane::{Load, Observing, Records};

/// The observing program, loaded. It is kept for as long as the daemon lives: the next who watches need not wait, and no
/// packet that is on its way through it at a swap loses the steps before it.
pub struct Observer {
    object: Object,
    watches: Array<MapData, Value<Watches>>,
    tats: Array<MapData, Ticks>,
    /// What was written last.
    written: Watches,
    /// What it tells, until somebody takes it.
    records: Option<Ring>,
    is_in: bool,
}

impl Observer {
    /// Takes the maps of a loaded object that no other object has.
    pub(super) fn new(mut object: Object) -> anyhow::Result<Self> {
        let records = Ring::take(&mut object)?;
        Ok(Self {
            watches: take(&mut object.ebpf, "WATCHES")?,
            tats: take(&mut object.ebpf, "WATCH_TATS")?,
            written: Watches::default(),
            records: Some(records),
            is_in: false,
            object,
        })
    }

    /// As [`Object::take_keys`].
    pub(super) fn take_keys(&mut self) -> anyhow::Result<()> {
        self.object.take_keys()
    }

    /// Writes who watches what.
    pub(super) fn watch(&mut self, watches: &Watches) -> anyhow::Result<()> {
        let lots = self.written.sampled.iter().zip(&watches.sampled);
        let mut closed = *watches;
        for (index, (before, now)) in (0u32..).zip(lots) {
            if *before != 0 || *now == 0 {
                continue;
            }
            self.tats
                .set(index, 0, 0)
                .context("giving a watcher its rate")?;
            // Not before the whole of what it wants is there.
            if let Some(lot) = closed.sampled.get_mut(index as usize) {
                *lot = 0;
            }
        }
        for watches in [&closed, watches] {
            let set = self.watches.set(0, Value::from_ref(watches), 0);
            set.context("writing who watches what")?;
        }
        self.written = *watches;
        Ok(())
    }
}

/// The ring that records are told in, and the counters of those that are not.
struct Ring {
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, Value<Told>>,
}

/// Lets those watch the program of a private copy.
pub(super) fn private(
    object: &mut Object,
    watches: &Watches,
) -> anyhow::Result<impl Records + use<>> {
    let mut map: Array<MapData, Value<Watches>> = take(&mut object.ebpf, "WATCHES")?;
    map.set(0, Value::from_ref(watches), 0)
        .context("writing who watches what")?;
    Ring::take(object)
}

impl Ring {
    fn take(object: &mut Object) -> anyhow::Result<Self> {
        Ok(Self {
            ring: take(&mut object.ebpf, "RECORDS")?,
            counters: take(&mut object.ebpf, "WATCH_COUNTERS")?,
        })
    }
}

impl Records for Ring {
    fn drain(&mut self, take: &mut dyn FnMut(&[u8])) {
        while let Some(record) = self.ring.next() {
            take(&record);
        }
    }

    fn told(&self, watcher: usize) -> anyhow::Result<Told> {
        let values = self.counters.get(&(watcher as u32), 0);
        let values = values.context("reading what a watcher was told")?;
        let sum = |sum: Told, Value(value): &Value<Told>| Told {
            told: sum.told.wrapping_add(value.told),
            over_rate: sum.over_rate.wrapping_add(value.over_rate),
            ring_full: sum.ring_full.wrapping_add(value.ring_full),
            reserved: 0,
        };
        Ok(values.iter().fold(Told::default(), sum))
    }
}

impl Observing for BpfDataPlane {
    fn load_observer(&self) -> anyhow::Result<Load> {
        let pins = self.pins.as_ref();
        let pins = pins.context("packets of a private copy are traced, not watched")?;
        let (maps, steps) = (pins.maps(), pins.steps());
        let sizes = self.object.sizes;
        Ok(Box::new(move || {
            let object = Object::load(Program::Observing, Some(&maps), 0, Tracing::Off, sizes)
                .context("loading the program that observes")?;
            object.pin_steps(&steps)?;
            Ok(Box::new(Observer::new(object)?))
        }))
    }

    fn take_observer(&mut self, mut observer: Box<Observer>) -> anyhow::Result<Box<dyn Records>> {
        // They may be others since it was loaded.
        observer.take_keys()?;
        let records = observer.records.take();
        self.observer = Some(observer);
        Ok(Box::new(records.context("its records are read already")?))
    }

    fn set_watches(&mut self, watches: &Watches) -> anyhow::Result<()> {
        let observer = self.observer.as_mut();
        observer
            .context("the program that observes is not loaded")?
            .watch(watches)
    }

    fn observe(&mut self, is_wanted: bool) -> anyhow::Result<()> {
        let (Some(observer), Some(pins)) = (self.observer.as_mut(), &self.pins) else {
            anyhow::ensure!(!is_wanted, "the program that observes is not loaded");
            return Ok(());
        };
        if observer.is_in == is_wanted {
            return Ok(());
        }
        // In part in is in: it must be taken out again.
        observer.is_in |= is_wanted;
        let program = if is_wanted {
            observer.object.program()?
        } else {
            self.object.program()?
        };
        for entry in fs::read_dir(pins.links()).context("reading the pinned links")? {
            let entry = entry.context("reading the pinned links")?;
            attach::swap(program, &entry.path())?;
        }
        observer.is_in = is_wanted;
        tracing::info!(observed = is_wanted, "XDP programs swapped without a gap");
        Ok(())
    }

    fn is_observed(&self) -> bool {
        self.observer
            .as_ref()
            .is_some_and(|observer| observer.is_in)
    }

    fn observer_id(&self) -> Option<u32> {
        self.observer.as_ref()?.object.program_id().ok()
    }
}

impl BpfDataPlane {
    /// Name of the pin of the observing program's steps, if it is loaded.
    pub(super) fn observer_steps(&self) -> anyhow::Result<Option<String>> {
        let observer = self.observer.as_ref();
        observer
            .map(|observer| observer.object.steps_pin())
            .transpose()
    }

    /// The program that interfaces are to carry now.
    pub(super) fn current(&mut self) -> anyhow::Result<&mut aya::programs::Xdp> {
        match &mut self.observer {
            Some(observer) if observer.is_in => observer.object.program(),
            _ => self.object.program(),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{flow::HashKeys, tables::Node};

    use super::*;
    use crate::dataplane::{
        DataPlane as _, Sizes,
        bpf::{ProgramLog, detach},
    };

    const SIZES: Sizes = Sizes {
        max_pins: 1024,
        max_sources: 1024,
    };

    fn node(key: u64) -> Node {
        Node::new(HashKeys { keys: [key; 11] })
    }

    fn key(object: &Object) -> u64 {
        object.keys.get(&0, 0).unwrap().0.keys[0]
    }

    /// Each object has a copy of the keys: one that is stale would send flows astray for as long as somebody watches.
    #[test]
    fn every_program_hashes_by_the_keys_that_were_set_last() {
        let directory = tempfile::tempdir().unwrap();
        let pin_path = directory.path().join("bpf");
        let mut plane = BpfDataPlane::open(&pin_path, ProgramLog::Off, SIZES).unwrap();
        plane.set_node(&node(1)).unwrap();
        let observer = plane.load_observer().unwrap()().unwrap();
        assert_eq!(
            key(&observer.object),
            1,
            "those of the maps it is loaded over"
        );
        plane.set_node(&node(2)).unwrap();
        drop(plane.take_observer(observer).unwrap());
        let keys = |plane: &BpfDataPlane| {
            let observer = plane
                .observer
                .as_ref()
                .map(|observer| key(&observer.object));
            (key(&plane.object), observer)
        };
        assert_eq!(
            keys(&plane),
            (2, Some(2)),
            "set between its loading and its coming"
        );
        plane.set_node(&node(3)).unwrap();
        assert_eq!(keys(&plane), (3, Some(3)));
        drop(plane);
        let plane = BpfDataPlane::open(&pin_path, ProgramLog::Off, SIZES).unwrap();
        assert_eq!(keys(&plane), (3, None), "those of the daemon before");
        drop(plane);
        detach(&pin_path).unwrap();
    }
}
