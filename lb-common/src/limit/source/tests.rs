use super::*;
use proptest::prelude::*;
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread, vec,
    vec::Vec,
};

const KEYS: HashKeys = crate::flow::tests::KEYS;
const NOW: Ticks = 1 << 62;

/// A set as the kernel has it, for any number of CPUs.
#[derive(Default)]
struct Set {
    tags: [AtomicU64; WAYS],
    tats: [[AtomicU64; 2]; WAYS],
    begun: AtomicU32,
}

impl Places for Set {
    fn tag(&self, way: usize) -> u64 {
        self.tags[way].load(Ordering::SeqCst)
    }
    fn tats(&self, way: usize) -> [Ticks; 2] {
        [0, 1].map(|tat| self.tats[way][tat].load(Ordering::SeqCst))
    }
    fn claim(&self, way: usize, seen: u64, tag: u64) -> Result<(), u64> {
        let order = Ordering::SeqCst;
        self.tags[way].compare_exchange(seen, tag, order, order)?;
        Ok(())
    }
    fn begin(&self, way: usize, _key: &SourceKey, now: Ticks) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.pay(way, now);
    }
}

impl Set {
    /// All that the source sent is paid for at this time.
    fn pay(&self, way: usize, tat: Ticks) {
        for word in &self.tats[way] {
            word.store(tat, Ordering::SeqCst);
        }
    }

    /// A packet of a source.
    fn send(&self, tag: u64, now: Ticks) -> Option<usize> {
        find(self, tag).or_else(|| take(self, tag, &SourceKey::default(), now))
    }
}

#[test]
fn a_source_keeps_its_place_and_others_get_their_own() {
    let set = Set::default();
    let ways: HashSet<_> = (1..=4).map(|tag| set.send(tag, NOW).unwrap()).collect();
    assert_eq!(ways.len(), WAYS);
    let again: HashSet<_> = (1..=4).map(|tag| set.send(tag, NOW).unwrap()).collect();
    assert_eq!(again, ways);
    assert_eq!(set.begun.load(Ordering::SeqCst), 4);
}

#[test]
fn the_one_that_has_been_paid_for_longest_goes() {
    let set = Set::default();
    for (tag, tat) in [(1, NOW + 5), (2, NOW - 7), (3, NOW - 9), (4, NOW)] {
        let way = set.send(tag, NOW).unwrap();
        set.pay(way, tat);
    }
    assert_eq!(set.send(5, NOW), find(&set, 5));
    assert!(find(&set, 3).is_none());
    set.send(6, NOW).unwrap();
    assert!(find(&set, 2).is_none());
    // By the later of both TATs.
    set.tats[find(&set, 4).unwrap()][0].store(NOW - 100, Ordering::SeqCst);
    set.pay(find(&set, 5).unwrap(), NOW + 1);
    set.pay(find(&set, 6).unwrap(), NOW + 1);
    set.send(7, NOW).unwrap();
    assert!(find(&set, 4).is_none() && find(&set, 1).is_some());
}

/// A flood through one set never displaces a source that is at its limit.
#[test]
fn a_flood_does_not_make_a_limit_forget_who_is_at_it() {
    let set = Set::default();
    let (interval, depth) = (10, 1000);
    let heavy = set.send(1, NOW).unwrap();
    set.pay(heavy, NOW + depth);
    for (number, tag) in (2..100_000).enumerate() {
        let now = NOW + number as u64 / 100;
        // It gets as much as its rate gives.
        set.pay(heavy, now + depth);
        let way = set.send(tag, now).unwrap();
        set.pay(way, now + interval);
        assert_eq!(find(&set, 1), Some(heavy));
    }
}

#[test]
fn a_tat_of_the_clocks_round_before_is_the_first_to_go() {
    let set = Set::default();
    for tag in 1..=4 {
        let way = set.send(tag, NOW).unwrap();
        set.pay(way, NOW - 1);
    }
    set.pay(find(&set, 2).unwrap(), NOW + 2 * MAX_DEPTH);
    set.send(5, NOW).unwrap();
    assert!(find(&set, 2).is_none());
}

/// Every CPU gets the same place for the same source, and no two sources share one.
#[test]
fn cpus_that_come_at_the_same_moment_agree() {
    for _ in 0..200 {
        let set = Set::default();
        let places = thread::scope(|scope| {
            let cpus: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| [1, 2].map(|tag| (tag, set.send(tag, NOW)))))
                .collect();
            let found = cpus.into_iter().flat_map(|cpu| cpu.join().unwrap());
            found.collect::<Vec<_>>()
        });
        let mut by_way = HashMap::new();
        for (tag, way) in places {
            // Whoever was slower twice goes without.
            if let Some(way) = way {
                assert_eq!(*by_way.entry(way).or_insert(tag), tag);
            }
        }
        assert!(find(&set, 1).is_some());
    }
}

#[test]
fn a_place_tells_whose_it_is() {
    let key = SourceKey {
        prefix: Address::from_v4([192, 0, 2, 7]),
        vip: 4095,
    };
    let place = Source {
        tag: key.tag(&KEYS),
        prefix: key.prefix,
        vip: 4095,
        ..Source::default()
    };
    assert_eq!(place.key(&KEYS), Some(key));
    let torn = Source { vip: 4094, ..place };
    assert_eq!(torn.key(&KEYS), None);
    assert_eq!(Source::default().key(&KEYS), None);
    let mut others = KEYS;
    others.keys[1] ^= 1 << 40;
    assert_eq!(place.key(&others), None);
}

/// Half as many sources as there are places: neighbouring addresses and networks alike find room.
#[test]
fn sources_spread_over_the_sets() {
    let sets = 1 << 10;
    let count = sets * WAYS as u32 / 2;
    let v4 = |number: u32| Address::from_v4(number.to_be_bytes());
    let v6 = |number: u32| {
        Address::from_v6((u128::from(number) << 64 | 0x2001_0db8 << 96).to_be_bytes())
    };
    for address in [
        &v4 as &dyn Fn(u32) -> Address,
        &|number| v4(number << 8),
        &v6,
    ] {
        let mut taken = vec![0; sets as usize];
        let mut tags = HashSet::new();
        for number in 0..count {
            let key = SourceKey {
                prefix: address(number),
                vip: 3,
            };
            assert!(tags.insert(key.tag(&KEYS)));
            taken[set(key.tag(&KEYS), sets) as usize] += 1;
        }
        let without: usize = taken
            .iter()
            .map(|taken| usize::saturating_sub(*taken, WAYS))
            .sum();
        // Of a Poisson distribution of mean 2: 2.8 % more than 4.
        assert!(without * 100 < count as usize * 6, "{without} of {count}");
    }
}

proptest! {
    #[test]
    fn a_set_is_one_of_them(tag in any::<u64>(), sets in 1..u32::MAX) {
        prop_assert!(set(tag, sets) < sets);
    }

    #[test]
    fn other_vips_and_prefixes_are_other_sources(
        high in any::<u64>(), low in any::<u64>(), vip in 0..4096_u64, bit in 0..140_u32,
    ) {
        let key = SourceKey { prefix: Address { high, low }, vip };
        let mut other = key;
        match bit {
            0..64 => other.prefix.low ^= 1 << bit,
            64..128 => other.prefix.high ^= 1 << (bit - 64),
            _ => other.vip ^= 1 << (bit - 128),
        }
        prop_assert_ne!(key.tag(&KEYS), other.tag(&KEYS));
    }
}
