//! The processor's own counters, where the machine has them (virtual machines often have none): what a packet takes of cycles,
//! instructions and misses, net of the driver as its time is.

use perf_event::{
    Builder, CountAndTime, Counter,
    events::{Cache, CacheId, CacheOp, CacheResult, Hardware},
};

/// Misses of loads in the first-level cache of data.
const L1D_MISSES: Cache = Cache {
    which: CacheId::L1D,
    operation: CacheOp::READ,
    result: CacheResult::MISS,
};

/// The events of this thread and of the kernel for it.
pub(crate) struct Counters {
    by_event: Vec<(&'static str, Counter)>,
}

/// What was counted, by event.
pub(crate) type Counts = Vec<(&'static str, f64)>;

impl Counters {
    /// Those that the machine has and lets be read.
    pub(crate) fn open() -> Self {
        Self::of([
            ("cycles", Builder::new(Hardware::CPU_CYCLES)),
            ("instructions", Builder::new(Hardware::INSTRUCTIONS)),
            ("branch misses", Builder::new(Hardware::BRANCH_MISSES)),
            ("L1d misses", Builder::new(L1D_MISSES)),
            ("LLC misses", Builder::new(Hardware::CACHE_MISSES)),
        ])
    }

    fn of<const N: usize>(events: [(&'static str, Builder<'_>); N]) -> Self {
        let open = |(name, mut builder): (&'static str, Builder<'_>)| {
            // What cannot be opened is not there.
            let counter = builder.include_kernel().build().ok()?;
            Some((name, counter))
        };
        Self {
            by_event: events.into_iter().filter_map(open).collect(),
        }
    }

    /// Does something, and tells what was counted meanwhile.
    ///
    /// # Errors
    /// What it failed with, or where a counter cannot be read.
    pub(crate) fn around<T>(
        &mut self,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, Counts)> {
        let before = self.read()?;
        for (_, counter) in &mut self.by_event {
            counter.enable()?;
        }
        let done = work();
        for (_, counter) in &mut self.by_event {
            counter.disable()?;
        }
        let done = done?;
        let after = self.read()?;
        let names = self.by_event.iter().map(|(name, _)| *name);
        let counts = names.zip(before.iter().zip(&after).map(between));
        Ok((done, counts.collect()))
    }

    fn read(&mut self) -> std::io::Result<Vec<CountAndTime>> {
        let counters = self.by_event.iter_mut();
        counters
            .map(|(_, counter)| counter.read_count_and_time())
            .collect()
    }
}

/// What was counted from one reading to another. Where there are fewer counters than events they take turns, and the rest is
/// estimated.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 events are more than a run of this lasts"
)]
fn between((before, after): (&CountAndTime, &CountAndTime)) -> f64 {
    let [count, enabled, running] = [
        after.count.saturating_sub(before.count),
        after.time_enabled.saturating_sub(before.time_enabled),
        after.time_running.saturating_sub(before.time_running),
    ]
    .map(|difference| difference as f64);
    if running == 0.0 {
        return 0.0;
    }
    count * enabled / running
}

#[cfg(test)]
mod tests {
    use perf_event::events::{Raw, Software};

    use super::*;

    #[test]
    fn counts_what_happens_meanwhile_and_leaves_out_what_is_not_there() {
        let none = Builder::new(Raw::new(u64::MAX));
        let mut counters = Counters::of([
            ("faults", Builder::new(Software::PAGE_FAULTS)),
            ("nothing", none),
        ]);
        let (sum, counts) = counters
            .around(|| {
                let pages = vec![1_u8; 1 << 22];
                Ok(pages.iter().map(|byte| u64::from(*byte)).sum::<u64>())
            })
            .unwrap();
        assert_eq!(sum, 1 << 22);
        let [("faults", faults)] = counts[..] else {
            panic!("{counts:?}")
        };
        assert!(faults > 0.0);
    }
}
