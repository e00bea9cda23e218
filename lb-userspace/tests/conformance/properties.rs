//! What holds of every case.

use super::{all, differential::Differential, planes::World, world::Plan};

/// Every prefix of every case: no fault, the same from both, and counted once. The kernel takes no frame below 14
/// bytes; those run on the host.
#[test]
fn every_prefix_of_every_case_is_judged_alike() {
    let mut differential = Differential::new();
    for case in all() {
        // Beyond the headers one byte more or less changes nothing.
        let dense = case.frame.len().min(160);
        for len in (0..dense).chain((dense..case.frame.len()).step_by(251)) {
            differential.push_prefix(&case.frame[..len]);
        }
    }
    differential.finish();
}

/// Whatever passes through limits that let it through is treated as it is without them.
#[test]
fn packets_that_are_within_limits_go_where_they_go_without() {
    let mut world = World::of(&Plan::guarded());
    for case in all() {
        case.check(&mut world);
    }
}
