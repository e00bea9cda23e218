//! Breadth first through everything that can happen to one slot, to the end.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::world::{Broken, Scope, World};

/// What a search found.
struct Found {
    /// How many worlds were seen.
    worlds: usize,
    /// The shortest way to a connection that breaks though its backend lives.
    violation: Option<Vec<String>>,
}

fn search(scope: Scope, most: usize) -> Found {
    let start = World::new(scope);
    // By fingerprint: where it came from, and by what.
    let mut seen: HashMap<u128, (u128, usize)> = HashMap::new();
    let mut queue = VecDeque::from([start.clone()]);
    seen.insert(start.fingerprint(), (0, 0));
    while let Some(world) = queue.pop_front() {
        let from = world.fingerprint();
        for (index, event) in world.events().into_iter().enumerate() {
            if event.is_violation {
                return Found {
                    worlds: seen.len(),
                    violation: Some(way(start, &seen, from, index)),
                };
            }
            let fingerprint = event.after.fingerprint();
            if let Entry::Vacant(place) = seen.entry(fingerprint) {
                place.insert((from, index));
                queue.push_back(event.after);
                assert!(seen.len() <= most, "no end in sight");
            }
        }
    }
    Found {
        worlds: seen.len(),
        violation: None,
    }
}

/// The events that lead from the start to a world, and the last one.
fn way(
    start: World,
    seen: &HashMap<u128, (u128, usize)>,
    mut world: u128,
    last: usize,
) -> Vec<String> {
    let mut indexes = vec![last];
    while world != start.fingerprint() {
        let (from, index) = seen[&world];
        indexes.push(index);
        world = from;
    }
    let mut world = start.told();
    let steps = indexes.into_iter().rev().map(|index| {
        let event = world.events().swap_remove(index);
        world = event.after;
        event.text
    });
    steps.collect()
}

/// One flow, and all that can befall it.
const ONE_FLOW: Scope = Scope {
    flows: 1,
    held_up: true,
    forged: true,
    expiry: true,
    fin: false,
    told: false,
    broken: None,
};

/// Two flows, which meet in the slot's windows and in the scans.
const TWO_FLOWS: Scope = Scope {
    flows: 2,
    held_up: false,
    forged: false,
    expiry: false,
    ..ONE_FLOW
};

/// One flow that closes and opens again from the same port.
const CLOSING: Scope = Scope {
    held_up: false,
    expiry: false,
    fin: true,
    ..ONE_FLOW
};

/// More worlds than there are.
const MOST: usize = 20_000_000;

fn assert_nothing_breaks(scope: Scope) {
    let found = search(scope, MOST);
    println!("{} worlds", found.worlds);
    assert_eq!(found.violation, None, "{:#?}", found.violation);
    // Else the search has not got anywhere.
    assert!(found.worlds > 100_000);
}

#[test]
fn nothing_that_befalls_a_flow_breaks_it_while_its_backend_lives() {
    assert_nothing_breaks(ONE_FLOW);
}

#[test]
fn nothing_that_befalls_two_flows_breaks_one_while_its_backend_lives() {
    assert_nothing_breaks(TWO_FLOWS);
}

#[test]
fn a_flow_that_begins_anew_from_the_same_port_stays_with_its_backend() {
    assert_nothing_breaks(CLOSING);
}

#[test]
fn every_rule_is_needed() {
    for broken in Broken::ALL {
        let scope = Scope {
            broken: Some(broken),
            ..ONE_FLOW
        };
        let found = search(scope, MOST);
        println!("without {broken:?}: {:#?}", found.violation);
        assert!(found.violation.is_some(), "{broken:?} breaks nothing");
    }
}
