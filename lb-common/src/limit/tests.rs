use super::*;
use crate::gcra::TICKS_PER_SECOND;
use core::cell::{Cell, RefCell};
use std::{collections::HashMap, rc::Rc};

#[derive(Clone, Default)]
struct Word(Rc<Cell<Ticks>>);

impl Tat for Word {
    fn load(&self) -> Ticks {
        self.0.get()
    }
    fn exchange(&self, seen: Ticks, next: Ticks) -> Result<(), Ticks> {
        assert_eq!(self.0.get(), seen);
        self.0.set(next);
        Ok(())
    }
    fn add(&self, _cost: Ticks) {
        panic!("nobody else changes it")
    }
}

#[derive(Clone, Default)]
struct Place {
    packets: Word,
    connections: Word,
    over: Rc<Cell<u64>>,
}

impl Known for Place {
    type Tat = Word;
    fn tat(&self, kind: Kind) -> Word {
        if kind == Kind::PacketsPerSource {
            self.packets.clone()
        } else {
            self.connections.clone()
        }
    }
    fn count(&self, _is_syn: bool, is_over: bool) {
        self.over.set(self.over.get() + u64::from(is_over));
    }
}

/// Several CPUs that share TATs and have credit of their own.
#[derive(Default)]
struct Maps {
    limits: Limits,
    vip_flags: u32,
    now_ns: Cell<u64>,
    clock_reads: Cell<u32>,
    coarse_reads: Cell<u32>,
    /// ns of a tick of the coarse clock.
    tick_ns: u64,
    cpu: Cell<usize>,
    totals: RefCell<HashMap<Kind, Word>>,
    credits: RefCell<HashMap<(usize, Kind), Ticks>>,
    sources: RefCell<HashMap<SourceKey, Place>>,
    own: HashMap<SourceKey, OwnRates>,
    judged: RefCell<HashMap<(Kind, Judgement), u64>>,
    bytes: Cell<u64>,
    is_full: bool,
}

impl LimitTables for Maps {
    type Tat = Word;
    type Known = Place;
    fn precise_ns(&self) -> u64 {
        self.clock_reads.set(self.clock_reads.get() + 1);
        self.now_ns.get()
    }

    fn coarse_ns(&self) -> u64 {
        self.coarse_reads.set(self.coarse_reads.get() + 1);
        let now = self.now_ns.get();
        now - now.checked_rem(self.tick_ns).unwrap_or(0)
    }
    fn limits(&self, _vip: u32) -> Option<&Limits> {
        Some(&self.limits)
    }
    fn own_rates(&self, key: &SourceKey) -> Option<&OwnRates> {
        self.own.get(key)
    }
    fn source(&self, key: &SourceKey, _now: Ticks) -> Option<Place> {
        if self.is_full {
            return None;
        }
        Some(self.sources.borrow_mut().entry(*key).or_default().clone())
    }
    fn total(&self, _vip: u32, kind: Kind) -> Option<Word> {
        Some(self.totals.borrow_mut().entry(kind).or_default().clone())
    }
    fn credit(&self, _vip: u32, kind: Kind) -> Ticks {
        let credits = self.credits.borrow();
        credits.get(&(self.cpu.get(), kind)).copied().unwrap_or(0)
    }
    fn set_credit(&self, _vip: u32, kind: Kind, credit: Ticks) {
        let mut credits = self.credits.borrow_mut();
        credits.insert((self.cpu.get(), kind), credit);
    }
    fn count_judged(&self, _vip: u32, kind: Kind, judgement: Judgement) {
        *self
            .judged
            .borrow_mut()
            .entry((kind, judgement))
            .or_default() += 1;
    }
    fn count_bytes(&self, _vip: u32, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
    }
}

fn rate(per_second: u64, burst: u64, batch: u64) -> Rate {
    let interval = TICKS_PER_SECOND / per_second;
    Rate {
        interval,
        depth: burst * interval,
        batch: batch * interval,
        flags: 0,
    }
}

fn maps(limits: &[(Kind, Rate)]) -> Maps {
    let every_bit = Address {
        high: u64::MAX,
        low: u64::MAX,
    };
    let mut maps = Maps {
        vip_flags: vip_flags(limits.iter().map(|(kind, _)| *kind)),
        ..Maps::default()
    };
    maps.limits.mask_v4 = every_bit;
    maps.limits.mask_v6 = every_bit;
    for (kind, rate) in limits {
        maps.limits.rates[*kind as usize] = *rate;
    }
    maps.limits = maps.limits.told();
    maps
}

fn sent(source: u8, is_syn: bool) -> Sent {
    Sent {
        source: Address::from_v4([192, 0, 2, source]),
        bytes: 100,
        is_syn,
    }
}

impl Maps {
    fn count(&self, kind: Kind, judgement: Judgement) -> u64 {
        let judged = self.judged.borrow();
        judged.get(&(kind, judgement)).copied().unwrap_or(0)
    }

    fn admit(&self, vip: u32, sent: &Sent) -> bool {
        let mut guards = self.vip_flags;
        if !sent.is_syn {
            guards &= !flags::SYN_LIMITS;
        }
        admits(self, vip, guards, sent)
    }

    /// Sends one packet a microsecond for a second, from one CPU after the other; returns how many pass.
    fn second(&self, cpus: usize, sent: &Sent) -> u64 {
        let mut passed = 0;
        for step in 0..1_000_000 {
            self.now_ns.set(self.now_ns.get() + 1000);
            self.cpu.set(step % cpus);
            passed += u64::from(self.admit(1, sent));
        }
        passed
    }
}

/// The burst is there when the first packet comes: so in the first second the last of its rate is still to come.
#[test]
fn a_source_gets_its_burst_and_then_its_rate() {
    let maps = maps(&[(Kind::PacketsPerSource, rate(500, 50, 0))]);
    assert_eq!(maps.second(1, &sent(1, false)), 50 + 499);
    assert_eq!(maps.second(1, &sent(1, false)), 500);
    // Another source is another matter.
    assert_eq!(maps.second(1, &sent(2, false)), 50 + 499);
    assert_eq!(maps.count(Kind::PacketsPerSource, Judgement::Allowed), 1598);
}

#[test]
fn batches_of_several_cpus_add_up_to_the_limit() {
    for (cpus, batch) in [(1, 0), (1, 10), (4, 25), (64, 1)] {
        let maps = maps(&[(Kind::Packets, rate(10_000, 800, batch))]);
        let first = maps.second(cpus, &sent(1, false));
        assert!((10_700..=10_800).contains(&first), "{cpus} CPUs: {first}");
        let second = maps.second(cpus, &sent(1, false));
        assert!((9_990..=10_010).contains(&second), "{cpus} CPUs: {second}");
    }
}

/// What CPUs hold was paid for before: after a pause it comes on top of the burst.
#[test]
fn after_a_pause_cpus_let_through_what_they_hold_and_the_burst_and_no_more() {
    for cpus in [1, 4] {
        let batch = 800 / 8 / u64::try_from(cpus).unwrap();
        let maps = maps(&[(Kind::Packets, rate(10_000, 800, batch))]);
        maps.second(cpus, &sent(1, false));
        // Each uses up what it holds, and takes a batch for the next packet.
        for cpu in 0..cpus {
            maps.cpu.set(cpu);
            while maps.credit(1, Kind::Packets) < (batch - 1) * TICKS_PER_SECOND / 10_000 {
                maps.now_ns.set(maps.now_ns.get() + 1_000_000_000);
                assert!(maps.admit(1, &sent(1, false)));
            }
        }
        maps.now_ns.set(maps.now_ns.get() + 1_000_000_000);
        let mut passed = 0u64;
        for step in 0..10_000 {
            maps.cpu.set(step % cpus);
            passed += u64::from(maps.admit(1, &sent(1, false)));
        }
        assert!((870..=900).contains(&passed), "{cpus} CPUs: {passed}");
    }
}

#[test]
fn bytes_are_paid_for_by_the_length_of_the_frame() {
    let maps = maps(&[(Kind::Bytes, rate(1_000_000, 65_536, 0))]);
    let frames = maps.second(1, &sent(1, false));
    assert_eq!(frames, (1_000_000 + 65_536) / 100);
    assert_eq!(maps.second(1, &sent(1, false)), 10_000);
    assert_eq!(maps.bytes.get(), 2 * 1_000_000 * 100);
}

#[test]
fn a_source_with_a_limit_of_its_own_is_held_to_that() {
    let mut maps = maps(&[(Kind::PacketsPerSource, rate(500, 50, 0))]);
    maps.second(1, &sent(1, false));
    let own = rate(2000, 50, 0);
    let packets = OwnRate {
        interval: own.interval,
        depth: own.depth,
    };
    let rates = OwnRates {
        packets,
        ..OwnRates::default()
    };
    let key = maps.limits.key(sent(1, false).source, 1);
    maps.own.insert(key, rates);
    // Nobody asks for them before the VIP's limits say so.
    assert!((495..=505).contains(&maps.second(1, &sent(1, false))));
    for rate in &mut maps.limits.rates {
        rate.flags |= rate_flags::OWN_RATES;
    }
    assert!((1_800..=2_050).contains(&maps.second(1, &sent(1, false))));
    assert_eq!(maps.second(1, &sent(2, false)), 549);
}

#[test]
fn limits_of_connections_count_syns_alone_and_others_read_no_clock() {
    let maps = maps(&[
        (Kind::NewConnections, rate(10, 1, 0)),
        (Kind::NewConnectionsPerSource, rate(10, 1, 0)),
    ]);
    assert_eq!(maps.second(1, &sent(1, false)), 1_000_000);
    assert!(maps.sources.borrow().is_empty());
    assert_eq!(maps.clock_reads.get() + maps.coarse_reads.get(), 0);
    assert_eq!(maps.second(1, &sent(1, true)), 10);
}

#[test]
fn limits_go_by_the_coarse_clock_unless_they_want_the_precise_one() {
    let mut maps = maps(&[(Kind::Packets, rate(1000, 100, 0))]);
    maps.second(1, &sent(1, false));
    assert_eq!(
        (maps.clock_reads.get(), maps.coarse_reads.take()),
        (0, 1_000_000)
    );
    for rate in &mut maps.limits.rates {
        rate.flags |= rate_flags::PRECISE;
    }
    maps.second(1, &sent(1, false));
    assert_eq!(
        (maps.clock_reads.get(), maps.coarse_reads.get()),
        (1_000_000, 0)
    );
}

/// Where 50 ms are left of the burst after one packet.
#[test]
fn a_coarse_clock_changes_no_rate() {
    for tick_ms in [1, 4, 10] {
        for kind in [Kind::Packets, Kind::PacketsPerSource] {
            let mut maps = maps(&[(kind, rate(1000, 51, 0))]);
            maps.tick_ns = tick_ms * 1_000_000;
            maps.second(1, &sent(1, false));
            let admitted = maps.second(1, &sent(1, false));
            assert!(
                admitted.abs_diff(1000) <= tick_ms,
                "{kind:?} {tick_ms} ms: {admitted}"
            );
            // Who keeps to the rate loses nothing.
            maps.now_ns.set(maps.now_ns.get() + 1_000_000_000);
            for _ in 0..10_000 {
                maps.now_ns.set(maps.now_ns.get() + 1_000_000);
                assert!(maps.admit(0, &sent(1, false)), "{kind:?} {tick_ms} ms");
            }
        }
    }
}

/// What a heavy source sends in vain costs the others nothing.
#[test]
fn what_is_over_a_sources_limit_is_not_taken_from_the_total() {
    let maps = maps(&[
        (Kind::PacketsPerSource, rate(100, 10, 0)),
        (Kind::Packets, rate(1000, 100, 0)),
    ]);
    maps.second(1, &sent(1, false));
    let spent = maps.count(Kind::Packets, Judgement::Allowed);
    assert_eq!(spent, 109);
    assert_eq!(maps.count(Kind::Packets, Judgement::Dropped), 0);
}

#[test]
fn what_is_only_observed_goes_on_and_is_counted() {
    let mut observed = rate(500, 50, 0);
    observed.flags = rate_flags::OBSERVE;
    let maps = maps(&[(Kind::PacketsPerSource, observed)]);
    assert_eq!(maps.second(1, &sent(1, false)), 1_000_000);
    assert_eq!(maps.count(Kind::PacketsPerSource, Judgement::Allowed), 549);
    assert_eq!(
        maps.count(Kind::PacketsPerSource, Judgement::Observed),
        999_451
    );
    let sources = maps.sources.borrow();
    assert_eq!(sources.values().next().unwrap().over.get(), 999_451);
}

#[test]
fn without_room_for_a_source_the_total_still_holds() {
    let mut maps = maps(&[
        (Kind::PacketsPerSource, rate(1, 1, 0)),
        (Kind::Packets, rate(1000, 100, 0)),
    ]);
    maps.is_full = true;
    assert_eq!(maps.second(1, &sent(1, false)), 1099);
}
