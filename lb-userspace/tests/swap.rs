//! A swap of a lookup table waits for the packets that read the old one: the next step of a slot, and the deletion of
//! pins, rely on it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_common::{
    backend::Backend,
    bench::Readings,
    slot::{Slot, SlotTable},
};
use lb_userspace::dataplane::{
    DataPlane as _, Sizes,
    bpf::{
        self, BpfDataPlane, ProgramLog,
        driver::{Reader, ReaderCounts},
    },
};
use zerocopy::FromZeros as _;

const PATIENCE: Duration = Duration::from_mins(1);

const SIZES: Sizes = Sizes {
    max_pins: 1024,
    max_sources: 1024,
};
/// How often a table is swapped under a reader.
const SWAPS: u16 = 6;

/// Two backends, the second odd, in turn.
const fn owner(swap: u16) -> u16 {
    2 + swap % 2
}

fn table(swap: u16) -> Box<SlotTable> {
    let mut table = SlotTable::new_box_zeroed().unwrap();
    table.slots.fill(Slot::stable(owner(swap)));
    table
}

/// Looks until the counts are so; a busy loop, since the moment matters.
fn until(counts: &ReaderCounts, what: &str, is_so: impl Fn(&Readings) -> bool) -> Readings {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let readings = counts.get().unwrap();
        if is_so(&readings) {
            return readings;
        }
        assert!(Instant::now() < deadline, "{what}: {readings:?}");
    }
}

/// Waits for the beginning of a reading, and returns its number.
fn begin(counts: &ReaderCounts) -> u64 {
    let before = counts.get().unwrap().began;
    let begun = |r: &Readings| r.began > before && r.ended < r.began;
    until(counts, "no reading begins", begun).began
}

/// A packet takes tens of milliseconds from the lookup of the table to the reading of its slot (lb-ebpf/src/bench/reader.rs); to
/// build a table and to swap it in takes less than one, as the first part shows with other writes: they return while the packet
/// reads on. So a swap that did not wait would return before that packet has found the old owner, which is then counted after
/// the return.
#[test]
fn a_swap_returns_when_no_packet_reads_the_old_table() {
    let directory = tempfile::tempdir().unwrap();
    let pin_path = directory.path().join("bpf");
    let mut plane = BpfDataPlane::open(&pin_path, ProgramLog::Off, SIZES).unwrap();
    plane.set_table(0, &table(0)).unwrap();
    let (mut reader, counts) = Reader::load(&pin_path).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                reader.read().unwrap();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            others_do_not_wait(&mut plane, &counts);
            for swap in 1..=SWAPS {
                swap_waits(&mut plane, &counts, swap);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        reads.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    drop(plane);
    bpf::detach(&pin_path).unwrap();
}

/// Writes as large as a table, and a write to a map of packets, end while the reader still reads.
fn others_do_not_wait(plane: &mut BpfDataPlane, counts: &ReaderCounts) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reading = begin(counts);
        // A note is made as a table is, and then pinned: all but the swap.
        let note = lb_userspace::model::leaving::Leaving::new([(1, 1)]);
        plane.set_leaving(Some(&note)).unwrap();
        plane.set_backend(1, &Backend::default()).unwrap();
        if counts.get().unwrap().ended < reading {
            return;
        }
        // This thread was held up for so long.
        assert!(
            Instant::now() < deadline,
            "no write is faster than a reading: this test shows nothing"
        );
    }
}

/// After a swap nobody finds the owner before, not even a packet that had looked up the table before it.
fn swap_waits(plane: &mut BpfDataPlane, counts: &ReaderCounts, swap: u16) {
    let old = usize::from(owner(swap - 1) % 2);
    let new = table(swap);
    let reading = begin(counts);
    plane.set_table(0, &new).unwrap();
    let after = counts.get().unwrap();
    assert!(
        after.ended >= reading,
        "reading {reading} goes on: {after:?}"
    );
    let later = until(counts, "no more readings", |r| r.ended > after.ended + 2);
    assert_eq!(
        later.seen[old], after.seen[old],
        "swap {swap}: {after:?}, {later:?}"
    );
    assert!(later.seen[1 - old] > after.seen[1 - old]);
}
