use std::collections::HashSet;

use proptest::{collection::hash_map, prelude::*};

use super::*;

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

fn addresses(members: &[Member]) -> Vec<Option<Address>> {
    maglev(&vip(), SEED, members)
        .iter()
        .map(|place| place.map(|place| members[place].address))
        .collect()
}

fn digest(members: &[Member]) -> Digest {
    maglev(&vip(), SEED, members).digest(members)
}

/// Fleets mix versions of weir while they are upgraded: a change of these digests breaks their flows.
/// They come from an independent model of the function (Python, heapq and zlib).
#[test]
fn tables_of_known_backends_have_known_digests() {
    let mut mixed = vec![member(1, 100), member(2, 50), member(3, 1), member(4, 0)];
    mixed.push(Member {
        address: Address::from_v6([0x20; 16]),
        weight: u16::MAX,
    });
    let digests: Vec<_> = [&equal(3), &mixed, &equal(1000), &Vec::new()]
        .map(|members| digest(members).to_string())
        .into();
    assert_eq!(digests, ["bd16a73d", "86cef74d", "815de330", "a738ea1c"]);
}

#[test]
fn nobody_owns_a_slot_where_no_weight_is_above_zero() {
    for members in [vec![], vec![member(1, 0), member(2, 0)]] {
        let owners = maglev(&vip(), SEED, &members);
        assert!(owners.iter().all(|owner| owner.is_none()));
        assert_eq!(owners.iter().count(), SLOTS);
        let table = owners.slot_table(&[7, 8]);
        assert!(table.slots.iter().all(|slot| *slot == Slot::default()));
    }
}

#[test]
fn every_input_of_the_function_changes_the_table() {
    let members = equal(10);
    let base = digest(&members);
    let VipKey { address, port, .. } = vip();
    for other in [
        VipKey::new(Address::from_v4([203, 0, 113, 11]), port, 6),
        VipKey::new(address, 444u16.to_be_bytes(), 6),
        VipKey::new(address, port, 17),
    ] {
        assert_ne!(maglev(&other, SEED, &members).digest(&members), base);
    }
    assert_ne!(maglev(&vip(), SEED + 1, &members).digest(&members), base);
    let mut heavier = members.clone();
    heavier[3].weight += 1;
    assert_ne!(digest(&heavier), base);
}

#[test]
fn the_digest_sees_addresses_and_not_ids() {
    let members = equal(3);
    let mut other = members.clone();
    other[1] = member(77, 100);
    assert_ne!(digest(&members), digest(&other));
}

#[test]
fn a_table_takes_the_ids_of_its_members() {
    let members = equal(2);
    let owners = maglev(&vip(), SEED, &members);
    let table = owners.slot_table(&[40, 41]);
    for (slot, owner) in table.slots.iter().zip(owners.iter()) {
        assert_eq!(*slot, Slot::stable([40, 41][owner.unwrap()]));
    }
}

#[test]
fn the_least_weight_gets_a_slot_beside_the_greatest() {
    let mut members = vec![member(0, u16::MAX)];
    members.extend((1..2000).map(|index| member(index, 1)));
    let counts = maglev(&vip(), SEED, &members).counts(members.len());
    assert!(counts.iter().all(|&count| count > 0));
    // 65,535 / (65,535 + 1,999) of the slots.
    assert!(counts[0].abs_diff(63_597) <= 100, "{}", counts[0]);
}

#[test]
fn more_members_than_the_slots_could_hold_fill_the_table() {
    let members: Vec<_> = (0..=u16::MAX)
        .flat_map(|index| [member(index, 1)])
        .collect();
    let owners = maglev(&vip(), SEED, &members);
    assert_eq!(owners.iter().flatten().count(), SLOTS);
}

/// Slots that change hands between two backends which both stay, as a share of all slots.
fn excess(before: &[Member], after: &[Member]) -> f64 {
    let stays: HashSet<_> = after.iter().map(|m| m.address).collect();
    let moved = addresses(before)
        .into_iter()
        .zip(addresses(after))
        .filter(|(old, new)| old != new && old.is_some_and(|old| stays.contains(&old)))
        .count();
    f64::from(u32::try_from(moved).unwrap()) / 65_536.0
}

#[test]
fn a_backend_that_leaves_moves_few_slots_of_the_others() {
    let members = equal(100);
    for gone in 0..10 {
        let mut less = members.clone();
        less.remove(gone * 10);
        let excess = excess(&members, &less);
        assert!(excess < 0.03, "{excess}");
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
fn members(weight: impl Strategy<Value = u16>) -> impl Strategy<Value = Vec<Member>> {
    hash_map(any::<(bool, u32)>(), weight, 0..60).prop_map(|map| {
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
        prop_assert_eq!(addresses(&members), addresses(&other));
        prop_assert_eq!(digest(&members), digest(&other));
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
}
