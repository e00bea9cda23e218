use std::collections::HashSet;

use proptest::{
    collection::btree_map, prelude::*, strategy::ValueTree as _, test_runner::TestRunner,
};

use super::{
    hash::{GOLDEN, mix},
    *,
};

/// An algorithm.
type Make = fn(&VipKey, u64, &[Member]) -> Owners;
const BOTH: [Make; 2] = [maglev, ring];

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn vip() -> VipKey {
    VipKey::new(Address::from_v4([203, 0, 113, 10]), 443u16.to_be_bytes(), 6)
}

fn member(index: u16, weight: u16) -> Member {
    let [a, b] = index.to_be_bytes();
    Member {
        address: Address::from_v4([10, 0, a, b]),
        weight,
    }
}

fn equal(count: u16) -> Vec<Member> {
    (0..count).map(|index| member(index, 100)).collect()
}

fn addresses(make: Make, members: &[Member]) -> Vec<Option<Address>> {
    make(&vip(), SEED, members)
        .iter()
        .map(|place| place.map(|place| members[place].address))
        .collect()
}

fn digest(make: Make, members: &[Member]) -> Digest {
    make(&vip(), SEED, members).digest(members)
}

/// One of the greatest weight, and as many others of the least as given.
fn unequal(light: u16) -> Vec<Member> {
    let mut members = vec![member(0, u16::MAX)];
    members.extend((1..=light).map(|index| member(index, 1)));
    members
}

/// Fleets mix versions of weir while they are upgraded: a change of these digests breaks their flows.
/// They come from independent models of the functions (Python, heapq, bisect and zlib).
#[test]
fn tables_of_known_backends_have_known_digests() {
    let mut mixed = vec![member(1, 100), member(2, 50), member(3, 1), member(4, 0)];
    mixed.push(Member {
        address: Address::from_v6([0x20; 16]),
        weight: u16::MAX,
    });
    let sets = [equal(3), mixed, equal(1000), unequal(1999), Vec::new()];
    let digests = |make| -> Vec<_> {
        let digests = sets.iter().map(|members| digest(make, members).to_string());
        digests.collect()
    };
    assert_eq!(
        digests(maglev),
        ["bd16a73d", "86cef74d", "815de330", "0e45fcd3", "a738ea1c"]
    );
    assert_eq!(
        digests(ring),
        ["41ab1a34", "437b0b6e", "533cfe34", "53ba17d4", "a738ea1c"]
    );
}

#[test]
fn nobody_owns_a_slot_where_no_weight_is_above_zero() {
    for make in BOTH {
        for members in [vec![], vec![member(1, 0), member(2, 0)]] {
            let owners = make(&vip(), SEED, &members);
            assert!(owners.iter().all(|owner| owner.is_none()));
            assert_eq!(owners.iter().count(), SLOTS);
        }
    }
}

#[test]
fn every_input_of_the_function_changes_the_table() {
    let members = equal(10);
    let VipKey { address, port, .. } = vip();
    for make in BOTH {
        let base = digest(make, &members);
        for other in [
            VipKey::new(Address::from_v4([203, 0, 113, 11]), port, 6),
            VipKey::new(address, 444u16.to_be_bytes(), 6),
            VipKey::new(address, port, 17),
        ] {
            assert_ne!(make(&other, SEED, &members).digest(&members), base);
        }
        assert_ne!(make(&vip(), SEED + 1, &members).digest(&members), base);
        let mut heavier = members.clone();
        heavier[3].weight += 1;
        assert_ne!(digest(make, &heavier), base);
    }
    assert_ne!(digest(maglev, &members), digest(ring, &members));
}

#[test]
fn the_digest_sees_addresses_and_not_ids() {
    let members = equal(3);
    let mut other = members.clone();
    other[1] = member(77, 100);
    for make in BOTH {
        assert_ne!(digest(make, &members), digest(make, &other));
    }
}

#[test]
fn the_least_weight_gets_a_slot_beside_the_greatest() {
    let members = unequal(1999);
    for make in BOTH {
        let counts = make(&vip(), SEED, &members).counts(members.len());
        assert!(counts.iter().all(|&count| count > 0));
        // 65,535 / (65,535 + 1,999) of the slots, less what lifts the others to one: over the ring, e⁻¹ of them.
        assert!(counts[0].abs_diff(63_597) <= 800, "{}", counts[0]);
    }
    let counts = maglev(&vip(), SEED, &members).counts(members.len());
    assert!(counts[0].abs_diff(63_597) <= 100, "{}", counts[0]);
}

#[test]
fn ten_thousand_backends_of_the_greatest_weight_each_get_a_slot() {
    let members: Vec<_> = (0..10_000).map(|index| member(index, u16::MAX)).collect();
    for make in BOTH {
        let counts = make(&vip(), SEED, &members).counts(members.len());
        assert!(counts.iter().all(|&count| count > 0));
        assert_eq!(counts.iter().sum::<u32>(), 65_536);
    }
    // About 15 are given their slot, in each of the tables.
    let moved = excess(ring, &members, &members[1..]);
    assert!(moved <= 60, "{moved}");
}

#[test]
fn more_members_than_the_slots_could_hold_fill_the_table() {
    let members: Vec<_> = (0..=u16::MAX).map(|index| member(index, 1)).collect();
    for make in BOTH {
        let owners = make(&vip(), SEED, &members);
        assert_eq!(owners.iter().flatten().count(), SLOTS);
        let counts = owners.counts(members.len());
        // The last one finds no place, so that one of the others has two slots.
        assert_eq!(counts.iter().filter(|&&count| count == 0).count(), 1);
    }
}

/// Slots that change hands between two backends which both are in both sets with the same weight.
fn excess(make: Make, before: &[Member], after: &[Member]) -> usize {
    let of = |members: &[Member]| -> HashSet<_> {
        members.iter().map(|m| (m.address, m.weight)).collect()
    };
    let stays: HashSet<_> = of(before)
        .intersection(&of(after))
        .map(|(address, _)| *address)
        .collect();
    let moved = |(old, new): &(Option<Address>, Option<Address>)| {
        old != new
            && [old, new]
                .iter()
                .all(|one| one.is_some_and(|one| stays.contains(&one)))
    };
    let slots = addresses(make, before)
        .into_iter()
        .zip(addresses(make, after));
    slots.filter(moved).count()
}

#[test]
fn a_backend_that_leaves_moves_few_slots_of_the_others() {
    let members = equal(100);
    for gone in 0..10 {
        let mut less = members.clone();
        less.remove(gone * 10);
        // 1.5 % of the slots.
        let moved = excess(maglev, &members, &less);
        assert!(moved < 983, "{moved}");
        assert_eq!(excess(ring, &members, &less), 0);
    }
}

#[test]
fn consecutive_addresses_permute_independently() {
    // Were two permutations alike, their owners would collide at every turn and be pushed on together.
    let members = equal(1000);
    let vip = hash_vip(&vip(), SEED);
    let mut offsets: Vec<_> = members
        .iter()
        .map(|m| mix(hash_address(vip, m.address) ^ GOLDEN) as u32)
        .collect();
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 1000);
}

/// Up to 60 members with distinct addresses of both families.
/// In order, so that whoever chooses among them chooses the same ones every time.
fn members(weight: impl Strategy<Value = u16>) -> impl Strategy<Value = Vec<Member>> {
    btree_map(any::<(bool, u32)>(), weight, 0..60).prop_map(|map| {
        map.into_iter()
            .map(|((v6, number), weight)| {
                let octets = number.to_be_bytes();
                let address = if v6 {
                    let mut long = [0x20; 16];
                    long[12..].copy_from_slice(&octets);
                    Address::from_v6(long)
                } else {
                    Address::from_v4(octets)
                };
                Member { address, weight }
            })
            .collect()
    })
}

/// What may happen to one of the members.
#[derive(Clone, Copy, Debug)]
enum Change {
    Leave,
    Weight(u16),
}

fn change(weight: impl Strategy<Value = u16>) -> impl Strategy<Value = Change> {
    prop_oneof![Just(Change::Leave), weight.prop_map(Change::Weight)]
}

impl Change {
    fn to(self, members: &[Member], which: prop::sample::Index) -> Vec<Member> {
        let mut other = members.to_vec();
        let at = which.index(other.len());
        match self {
            Self::Leave => {
                other.remove(at);
            }
            Self::Weight(weight) => other[at].weight = weight,
        }
        other
    }
}

/// Standard deviation of a ring's share in slots: of the slots drawn by lot, and of the lengths of the nodes' arcs.
fn deviation(share: f64) -> f64 {
    let slots = share * 65_536.0;
    let rest = 1.0 - share;
    (slots * rest + (slots * rest).powi(2) / f64::from(RING_NODES)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn order_does_not_matter(members in members(0..=200u16), rotate in any::<prop::sample::Index>()) {
        let mut other = members.clone();
        other.reverse();
        if !other.is_empty() {
            let at = rotate.index(other.len());
            other.rotate_left(at);
        }
        for make in BOTH {
            prop_assert_eq!(addresses(make, &members), addresses(make, &other));
            prop_assert_eq!(digest(make, &members), digest(make, &other));
        }
    }

    #[test]
    fn shares_follow_the_weights_to_within_one_slot(members in members(any::<u16>())) {
        let total: u32 = members.iter().map(|m| u32::from(m.weight)).sum();
        let counts = maglev(&vip(), SEED, &members).counts(members.len());
        let owned: u32 = counts.iter().sum();
        prop_assert_eq!(owned, if total > 0 { 65_536 } else { 0 });
        for (member, &count) in members.iter().zip(&counts) {
            if member.weight == 0 {
                prop_assert_eq!(count, 0);
                continue;
            }
            prop_assert!(count > 0);
            let share = f64::from(member.weight) / f64::from(total);
            let error = (f64::from(count) / 65_536.0 - share).abs();
            // One slot of rounding, and one for each member whom the guaranteed slot lifts.
            prop_assert!(error <= 60.0 / 65_536.0, "{count} for {share}");
            if members.iter().all(|m| m.weight == 0 || m.weight > 4096) {
                prop_assert!(error <= 1.01 / 65_536.0, "{count} for {share}");
            }
        }
    }

    #[test]
    fn shares_of_a_ring_stray_by_the_lot(members in members(any::<u16>())) {
        let total: u32 = members.iter().map(|m| u32::from(m.weight)).sum();
        let counts = ring(&vip(), SEED, &members).counts(members.len());
        let owned: u32 = counts.iter().sum();
        prop_assert_eq!(owned, if total > 0 { 65_536 } else { 0 });
        for (member, &count) in members.iter().zip(&counts) {
            prop_assert_eq!(count > 0, member.weight > 0);
            let share = f64::from(member.weight) / f64::from(total.max(1));
            let error = (f64::from(count) - share * 65_536.0).abs();
            // Up to 60 gifts, and weights that are rounded to a 1,024th.
            let bound = 6.0 * deviation(share) + 60.0 + share * 64.0;
            prop_assert!(error <= bound, "{count} for {share}: {error} > {bound}");
        }
    }

    /// To the other side, `before` and `after` are a backend that joins, or one whose weight goes back.
    #[test]
    fn no_slot_of_a_ring_moves_between_two_who_stay(
        members in members(1000..2000u16),
        which in any::<prop::sample::Index>(),
        change in change(0..4000u16),
    ) {
        prop_assume!(!members.is_empty());
        let other = change.to(&members, which);
        // Their shares are far above a slot, so that nobody is given one; at most the changed one, who is not counted.
        let gifts = usize::from(matches!(change, Change::Weight(_)));
        prop_assert!(excess(ring, &members, &other) <= gifts);
        prop_assert!(excess(ring, &other, &members) <= gifts);
    }
}

/// The same sets every time: of 20,000 random ones in a simulation, one in 1,400 had two permutations that go along with each other, and more.
#[test]
fn a_change_moves_few_slots_of_a_maglev_table_beyond_its_own() {
    let mut runner = TestRunner::deterministic();
    let sets = (members(Just(100)), any::<prop::sample::Index>());
    for _ in 0..48 {
        let (members, which) = sets.new_tree(&mut runner).unwrap().current();
        if members.is_empty() {
            continue;
        }
        let other = Change::Leave.to(&members, which);
        // 1.5 % of the slots.
        assert!(excess(maglev, &members, &other) < 983, "{members:?}");
        assert!(excess(maglev, &other, &members) < 983, "{members:?}");
    }
}
