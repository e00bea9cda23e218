//! How slots change hands: every arrow of the diagram in [`lb_userspace::model::slots`], and the clock they go by.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lb_common::slot::{NOBODY, SLOTS, Slot, SlotTable, State};
use lb_userspace::model::slots::{Since, Slots, Times, earlier, is_same_state, next};
use zerocopy::FromZeros as _;

const A: u16 = 1;
const B: u16 = 2;
const C: u16 = 3;
const DEAD: u16 = 9;
const TIMES: Times = Times {
    hold_ms: 3000,
    move_ms: 60_000,
};
/// Just before the clock starts anew.
const LATE: u32 = u32::MAX - 1000;

fn is_alive(id: u16) -> bool {
    id != DEAD
}

#[test]
fn every_arrow_leads_where_it_is_drawn() {
    // Slot, time in its state, who is wanted; what becomes of it.
    let cases = [
        (Slot::stable(A), u32::MAX, A, Slot::stable(A)),
        (Slot::stable(A), 0, B, Slot::holding(A)),
        (Slot::stable(A), 0, NOBODY, Slot::holding(A)),
        (Slot::stable(DEAD), 0, B, Slot::settling(B)),
        (Slot::stable(NOBODY), 0, B, Slot::settling(B)),
        (Slot::holding(A), 2999, B, Slot::holding(A)),
        (Slot::holding(A), 3000, B, Slot::moving(B, A)),
        (Slot::holding(A), 3000, NOBODY, Slot::moving(NOBODY, A)),
        (Slot::holding(A), 2999, A, Slot::holding(A)),
        (Slot::holding(A), 3000, A, Slot::settling(A)),
        (Slot::holding(DEAD), 0, B, Slot::settling(B)),
        (Slot::moving(B, A), 59_999, B, Slot::moving(B, A)),
        (Slot::moving(B, A), 60_000, B, Slot::holding(B)),
        (Slot::moving(B, A), 0, C, Slot::moving(C, A)),
        // Over already, and yet the new target is tried at least until the next step.
        (Slot::moving(B, A), 60_000, C, Slot::moving(C, A)),
        (Slot::moving(B, A), 0, A, Slot::settling(A)),
        (Slot::moving(B, DEAD), 0, B, Slot::settling(B)),
        (Slot::moving(B, DEAD), 0, C, Slot::settling(C)),
        // Nobody is at the target yet but its pins: they fall with it.
        (Slot::moving(DEAD, A), 0, B, Slot::moving(B, A)),
        (Slot::settling(A), u32::MAX, A, Slot::settling(A)),
        (Slot::settling(A), 0, B, Slot::holding(A)),
        (Slot::settling(DEAD), 0, B, Slot::settling(B)),
    ];
    for (slot, elapsed_ms, wanted, expected) in cases {
        assert_eq!(
            next(slot, elapsed_ms, wanted, &is_alive, &TIMES),
            expected,
            "{slot:?} after {elapsed_ms} ms, wanted {wanted}"
        );
    }
}

#[test]
fn only_a_new_target_of_a_move_leaves_the_time_running() {
    assert!(is_same_state(Slot::moving(B, A), Slot::moving(C, A)));
    assert!(!is_same_state(Slot::moving(B, A), Slot::moving(B, C)));
    assert!(!is_same_state(Slot::settling(A), Slot::settling(B)));
    assert!(!is_same_state(Slot::holding(A), Slot::moving(B, A)));
    assert!(is_same_state(Slot::holding(A), Slot::holding(A)));
}

fn advance(slots: &Slots, wanted: u16, now_ms: u32) -> Option<Slots> {
    slots.advance(&vec![wanted; SLOTS], &is_alive, now_ms, &TIMES)
}

#[test]
fn a_move_takes_its_time_while_the_clock_starts_anew() {
    let stable = Slots::new(&vec![A; SLOTS]);
    assert!(stable.is_stable() && stable.since().is_none());
    assert_eq!(stable.deadline_ms(&TIMES), None);
    assert!(advance(&stable, A, LATE).is_none());

    let mut now_ms = LATE;
    let holding = advance(&stable, B, now_ms).unwrap();
    assert_eq!(holding.slot(7), Slot::holding(A));
    assert_eq!(holding.deadline_ms(&TIMES), Some(1999));
    assert!(advance(&holding, B, 1998).is_none());
    now_ms = now_ms.wrapping_add(3000);
    let moving = advance(&holding, B, now_ms).unwrap();
    assert_eq!(moving.census().moving, SLOTS as u32);
    // Another target does not start the window again.
    let moving = advance(&moving, C, now_ms + 30_000).unwrap();
    assert_eq!(moving.slot(0), Slot::moving(C, A));
    assert_eq!(moving.deadline_ms(&TIMES), Some(now_ms + 60_000));
    assert!(advance(&moving, C, now_ms + 59_999).is_none());
    let holding = advance(&moving, C, now_ms + 60_000).unwrap();
    let settling = advance(&holding, C, now_ms + 63_000).unwrap();
    assert_eq!(settling.slot(65_535), Slot::settling(C));
    assert_eq!(settling.deadline_ms(&TIMES), None);
}

fn settling(since_ms: u32) -> Slots {
    let mut table = SlotTable::new_box_zeroed().unwrap();
    table.slots.fill(Slot::stable(A));
    for slot in &mut table.slots[..2] {
        *slot = Slot::settling(A);
    }
    let mut since = Since::new_box_zeroed().unwrap();
    since.slots.fill(since_ms);
    Slots::adopt(table, Some(since), since_ms)
}

#[test]
fn only_a_scan_that_began_later_and_found_nobody_else_settles_a_slot() {
    let slots = settling(LATE);
    let now_ms = LATE.wrapping_add(5000);
    for scan_ms in [LATE, LATE - 1] {
        assert!(slots.settle(scan_ms, |_| false, now_ms).is_none());
        assert!(!slots.settles_since(0, scan_ms, now_ms));
    }
    let scan_ms = LATE.wrapping_add(1001);
    assert!(slots.settles_since(0, scan_ms, now_ms));
    assert!(!slots.settles_since(2, scan_ms, now_ms), "it is Stable");
    let one = slots.settle(scan_ms, |slot| slot == 1, now_ms).unwrap();
    assert_eq!(one.slot(0), Slot::stable(A));
    assert_eq!(one.slot(1), Slot::settling(A));
    let both = one.settle(scan_ms, |_| false, now_ms).unwrap();
    assert!(both.is_stable() && both.since().is_none());
}

#[test]
fn a_time_that_nobody_noted_starts_again_and_is_never_over() {
    let mut table = SlotTable::new_box_zeroed().unwrap();
    table.slots.fill(Slot::moving(B, A));
    let now_ms = 5_000_000;
    let slots = Slots::adopt(table, None, now_ms);
    assert!(advance(&slots, B, now_ms + 59_999).is_none());
    let after = advance(&slots, B, now_ms + 60_000).unwrap();
    assert_eq!(after.slot(0).state(), State::Holding);
}

#[test]
fn a_time_that_was_noted_goes_on() {
    let mut table = SlotTable::new_box_zeroed().unwrap();
    table.slots.fill(Slot::moving(B, A));
    let mut since = Since::new_box_zeroed().unwrap();
    since.slots.fill(LATE);
    let slots = Slots::adopt(table, Some(since), LATE.wrapping_add(59_000));
    let end = LATE.wrapping_add(60_000);
    assert_eq!(slots.deadline_ms(&TIMES), Some(end));
    assert!(advance(&slots, B, end - 1).is_none());
    assert!(advance(&slots, B, end).is_some());
}

#[test]
fn of_two_times_the_earlier_is_known_across_the_end_of_the_clock() {
    assert_eq!(earlier(Some(LATE), Some(5)), Some(LATE));
    assert_eq!(earlier(Some(5), Some(LATE)), Some(LATE));
    assert_eq!(earlier(Some(4), Some(5)), Some(4));
    assert_eq!(earlier(None, Some(5)), Some(5));
    assert_eq!(earlier(Some(5), None), Some(5));
    assert_eq!(earlier(None, None), None);
}

#[test]
fn whom_slots_name_and_whether_one_is_due_is_known() {
    let stable = Slots::new(&vec![A; SLOTS]);
    assert_eq!(
        (stable.named(), stable.is_due(5, &TIMES)),
        (&[A][..], false)
    );
    let mut table = SlotTable::new_box_zeroed().unwrap();
    table.slots.fill(Slot::stable(A));
    table.slots[3] = Slot::moving(B, C);
    table.slots[4] = Slot::holding(DEAD);
    let mut since = Since::new_box_zeroed().unwrap();
    since.slots[3] = LATE;
    since.slots[4] = LATE.wrapping_add(58_000);
    let slots = Slots::adopt(table, Some(since), LATE);
    assert_eq!(slots.named(), [A, B, C, DEAD]);
    // The move ends first, across the end of the clock.
    let end = LATE.wrapping_add(60_000);
    assert_eq!(slots.deadline_ms(&TIMES), Some(end));
    assert!(!slots.is_due(end - 1, &TIMES));
    assert!(slots.is_due(end, &TIMES) && slots.is_due(end + 5, &TIMES));
}
