//! When marks of flows are begun with, and when not yet.

use lb_common::{flow::HashKeys, pin::Inserted, tables::Node};

use super::*;

#[test]
fn marks_begin_when_no_slot_changes_hands_and_no_pin_is_left() {
    const HASH: u32 = 7;
    let flow = Flow {
        source: map_address(address(0)),
        destination: map_address(address(1)),
        ports: 0,
        protocol: 6,
    };
    let mut plane = Memory::default();
    let mut marking = Marking::default();
    let pin = Pin::default();
    assert_eq!(
        Pins::insert(&plane, Kind::Old, (&flow, HASH), &pin, 0),
        Inserted::New
    );
    let next = marking.follow(&mut plane, false).unwrap();
    assert!(next.is_some(), "a pin is left");
    assert_eq!(
        marking.follow(&mut plane, false).unwrap(),
        next,
        "before that nobody looks"
    );
    Pins::remove(&plane, Kind::Old, &flow);
    assert_eq!(marking.follow(&mut plane, true).unwrap(), None);
    assert!(
        Pins::is_marked(&plane, HASH),
        "slots move, and nothing is known"
    );
    assert_eq!(marking.follow(&mut plane, false).unwrap(), None);
    assert!(matches!(marking, Marking::Kept));
    assert!(!Pins::is_marked(&plane, HASH));
    plane
        .set_node(&Node::new(HashKeys { keys: [7; 11] }))
        .unwrap();
    assert!(!plane.are_marks_kept(), "flows have other hashes now");
    assert_eq!(marking.follow(&mut plane, false).unwrap(), None);
    assert!(plane.are_marks_kept());
    // What moves is marked from the beginning, and forgotten only at the end.
    assert_eq!(
        Pins::insert(&plane, Kind::Proven, (&flow, HASH), &pin, 0),
        Inserted::New
    );
    assert_eq!(marking.follow(&mut plane, false).unwrap(), None);
    assert_eq!(marking.follow(&mut plane, true).unwrap(), None);
    assert!(marking.follow(&mut plane, false).unwrap().is_some());
    assert!(Pins::is_marked(&plane, HASH));
}
