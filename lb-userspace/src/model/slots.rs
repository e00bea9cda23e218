//! A VIP's slots as packets read them, and how they change hands without breaking a connection.
//!
//! A slot is in one of four states ([`State`]), and [`next`] is the only function that takes it from one to another:
//!
//! ```text
//!           another owner            hold over            window over           hold over           no foreign pin
//!  Stable ───────────────▶ Holding ────────────▶ Moving ─────────────▶ Holding ───────────▶ Settling ──────────▶ Stable
//!     │                       │                     │                                         ▲
//!     └── owner dead ─────────┴── owner dead ───────┴── owner before dead, or wanted again ───┘
//! ```
//!
//! **Invariant:** over any sequence of changes, a connection breaks only if its own backend died, provided that it is
//! not silent for the whole window. What packets do in each state is [`lb_common::pin::route`]; both functions
//! together are searched exhaustively in tests/consistency.

use std::{collections::HashSet, ops::Deref};

use lb_common::slot::{NOBODY, SLOTS, Slot, SlotTable, State};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::places::{NONE, Places};

/// How long slots stay in the states that end by time, in milliseconds; less than 2³¹.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// Holding: longer than a handshake, with one SYN lost, takes.
    pub hold_ms: u32,
    /// Moving: longer than live flows are silent.
    pub move_ms: u32,
}

impl Times {
    /// How long a slot is [`State::Holding`]: a SYN is repeated after one second (RFC 6298, section 2), then after two.
    pub const HOLD_MS: u32 = 3000;
}

/// What a slot becomes.
///
/// `wanted` is who should own it, `is_alive` tells whether a backend serves its flows (leaving ones do), and
/// `elapsed_ms` is how long the slot has been in its state ([`is_same_state`]). [`State::Settling`] ends by
/// [`Slots::settle`] instead: by what the maps hold, not by time.
#[must_use]
pub fn next(
    slot: Slot,
    elapsed_ms: u32,
    wanted: u16,
    is_alive: &impl Fn(u16) -> bool,
    times: &Times,
) -> Slot {
    let serves = |id: u16| id != NOBODY && is_alive(id);
    match slot.state() {
        State::Stable | State::Settling if wanted == slot.current => slot,
        // Whoever was there is gone: nothing to be kept, nothing to wait for.
        State::Stable | State::Settling | State::Holding if !serves(slot.current) => {
            Slot::settling(wanted)
        }
        State::Holding if elapsed_ms < times.hold_ms => slot,
        State::Holding if wanted == slot.current => Slot::settling(wanted),
        State::Holding => Slot::moving(wanted, slot.current),
        // Flows without a pin are at `previous`: nobody to keep them, or the very owner that is wanted.
        State::Moving if !serves(slot.previous) || wanted == slot.previous => {
            Slot::settling(wanted)
        }
        State::Moving if wanted != slot.current => Slot::moving(wanted, slot.previous),
        State::Moving if elapsed_ms < times.move_ms => slot,
        // A handshake in flight is pinned where it began, so that a repeated SYN follows it: before a move and after it.
        State::Stable | State::Settling | State::Moving => Slot::holding(slot.current),
    }
}

/// Whether a slot that became another is still in the state that it was in, so that its time runs on. The window of
/// a move is not started again by another target.
#[must_use]
pub fn is_same_state(before: Slot, after: Slot) -> bool {
    before.previous == after.previous
        && match after.state() {
            State::Moving => true,
            State::Stable | State::Holding | State::Settling => before.current == after.current,
        }
}

/// Since when each slot of a VIP is in its state, in milliseconds of the monotonic clock, modulo 2³²: 256 KiB.
///
/// The kernel keeps it beside the lookup table for as long as that, so that a new daemon goes on where the old one was.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Since {
    /// By slot.
    pub slots: [u32; SLOTS],
}

/// What a whole scan of the pins has shown.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// When the scan began, in milliseconds of the monotonic clock, modulo 2³².
    pub began_ms: u32,
    /// Slots (VIP id and index) with a pin to another backend than their owner.
    pub foreign: HashSet<(u32, u16)>,
}

/// How many slots are in each state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Census {
    /// [`State::Stable`].
    pub stable: u32,
    /// [`State::Holding`].
    pub holding: u32,
    /// [`State::Moving`].
    pub moving: u32,
    /// [`State::Settling`].
    pub settling: u32,
}

impl Census {
    const fn count(&mut self, state: State) {
        match state {
            State::Stable => self.stable += 1,
            State::Holding => self.holding += 1,
            State::Moving => self.moving += 1,
            State::Settling => self.settling += 1,
        }
    }
}

/// A set of backends' ids: a bit each.
struct Named([u64; 1 << 10]);

impl Default for Named {
    fn default() -> Self {
        Self([0; 1 << 10])
    }
}

impl Named {
    fn add(&mut self, id: u16) {
        if let Some(word) = self.0.get_mut(usize::from(id / 64)) {
            *word |= 1 << (id % 64);
        }
    }

    /// In ascending order.
    fn ids(&self) -> Vec<u16> {
        let mut ids = Vec::new();
        for (first, word) in (0..=u16::MAX).step_by(64).zip(self.0) {
            let mut left = word;
            while left != 0 {
                ids.push(first + left.trailing_zeros() as u16);
                left &= left - 1;
            }
        }
        ids
    }
}

/// Who owns each slot.
enum Kept {
    /// While some slot is not Stable: as packets read it, 256 KiB.
    Whole(Box<SlotTable>),
    /// While all are: each owner's place among [`Slots::named`], a byte each as a rule.
    Stable(Places),
}

/// A table as packets read it: kept so, or made for the moment.
pub enum Whole<'a> {
    /// As it is kept.
    Kept(&'a SlotTable),
    /// Made of less.
    Made(Box<SlotTable>),
}

impl Deref for Whole<'_> {
    type Target = SlotTable;

    fn deref(&self) -> &SlotTable {
        match self {
            Self::Kept(table) => table,
            Self::Made(table) => table,
        }
    }
}

/// A VIP's slots and since when they are as they are.
///
/// What is asked at every turn, of 500 VIPs in the middle of a move, is known without looking at 65,536 slots each.
pub struct Slots {
    table: Kept,
    /// `None` while all slots are Stable.
    since: Option<Box<Since>>,
    census: Census,
    /// Since when the first of those that are Holding is, and of those that are Moving.
    first_holding_ms: Option<u32>,
    first_moving_ms: Option<u32>,
    /// Every backend that a slot names, once.
    named: Vec<u16>,
}

impl Slots {
    /// Slots that nobody's flows have ever used: Stable, whoever `owners` gives them to.
    #[must_use]
    pub fn new(owners: &[u16]) -> Self {
        let mut table = zeroed::<SlotTable>();
        for (slot, owner) in table.slots.iter_mut().zip(owners) {
            *slot = Slot::stable(*owner);
        }
        Self::count(table, None)
    }

    /// Slots that an earlier daemon left. Where it is not known since when they are as they are, their time starts now:
    /// it is never taken as over.
    #[must_use]
    pub fn adopt(table: Box<SlotTable>, since: Option<Box<Since>>, now_ms: u32) -> Self {
        let since = since.unwrap_or_else(|| {
            let mut since = zeroed::<Since>();
            since.slots.fill(now_ms);
            since
        });
        Self::count(table, Some(since))
    }

    /// The slots after what has come to pass, or `None` where all of them stay as they are.
    ///
    /// `owners` is who should own each slot; see [`next`] for the rest.
    #[must_use]
    pub fn advance(
        &self,
        owners: &[u16],
        is_alive: &impl Fn(u16) -> bool,
        now_ms: u32,
        times: &Times,
    ) -> Option<Self> {
        self.map(now_ms, |index, slot, elapsed_ms| {
            let wanted = owners.get(index).copied().unwrap_or(NOBODY);
            next(slot, elapsed_ms, wanted, is_alive, times)
        })
    }

    /// Makes Stable what is Settling since before `scan_ms` and has no pin to another backend, as a scan that began
    /// then has shown: `is_foreign` tells of a slot whether it found one. `None` where that changes nothing.
    #[must_use]
    pub fn settle(
        &self,
        scan_ms: u32,
        is_foreign: impl Fn(u16) -> bool,
        now_ms: u32,
    ) -> Option<Self> {
        let scan_age_ms = now_ms.wrapping_sub(scan_ms);
        self.map(now_ms, |index, slot, elapsed_ms| {
            let is_settled = slot.state() == State::Settling
                && elapsed_ms > scan_age_ms
                && !is_foreign(index as u16);
            if is_settled {
                Slot::stable(slot.current)
            } else {
                slot
            }
        })
    }

    fn map(&self, now_ms: u32, mut change: impl FnMut(usize, Slot, u32) -> Slot) -> Option<Self> {
        let elapsed = |index: usize| {
            let since = self
                .since
                .as_ref()
                .and_then(|s| s.slots.get(index).copied());
            now_ms.wrapping_sub(since.unwrap_or(now_ms))
        };
        let mut changed: Option<(Box<SlotTable>, Box<Since>)> = None;
        for (index, before) in self.iter().enumerate() {
            let after = change(index, before, elapsed(index));
            if after == before {
                continue;
            }
            let (table, since) = changed.get_or_insert_with(|| {
                let table = self.copy();
                let mut since = zeroed::<Since>();
                if let Some(known) = &self.since {
                    since.slots.copy_from_slice(&known.slots);
                }
                (table, since)
            });
            if let (Some(slot), Some(since)) =
                (table.slots.get_mut(index), since.slots.get_mut(index))
            {
                *slot = after;
                if !is_same_state(before, after) {
                    *since = now_ms;
                }
            }
        }
        let (table, since) = changed?;
        Some(Self::count(table, Some(since)))
    }

    /// Puts the numbers to a table.
    fn count(table: Box<SlotTable>, since: Option<Box<Since>>) -> Self {
        let mut census = Census::default();
        let mut named = Named::default();
        for slot in &table.slots {
            let state = slot.state();
            census.count(state);
            named.add(slot.current);
            if state == State::Moving {
                named.add(slot.previous);
            }
        }
        let since = since.filter(|_| census.stable != SLOTS as u32);
        let (mut first_holding_ms, mut first_moving_ms) = (None, None);
        if let Some(since) = &since {
            for (slot, since_ms) in table.slots.iter().zip(&since.slots) {
                let first = match slot.state() {
                    State::Stable | State::Settling => continue,
                    State::Holding => &mut first_holding_ms,
                    State::Moving => &mut first_moving_ms,
                };
                *first = earlier(*first, Some(*since_ms));
            }
        }
        let named = named.ids();
        let table = if since.is_none() && census.stable == SLOTS as u32 {
            Kept::Stable(places(&table, &named))
        } else {
            Kept::Whole(table)
        };
        Self {
            table,
            since,
            census,
            first_holding_ms,
            first_moving_ms,
            named,
        }
    }

    /// The slots, in their order.
    fn iter(&self) -> impl Iterator<Item = Slot> {
        (0..=u16::MAX).map(|index| self.slot(index))
    }

    /// The table as packets read it, made anew.
    fn copy(&self) -> Box<SlotTable> {
        let mut table = zeroed::<SlotTable>();
        for (slot, now) in table.slots.iter_mut().zip(self.iter()) {
            *slot = now;
        }
        table
    }

    /// How many slots have another owner than before.
    #[must_use]
    pub fn moved_since(&self, before: &Self) -> u64 {
        let slots = self.iter().zip(before.iter());
        let moved = slots.filter(|(now, then)| now.current != then.current);
        moved.count() as u64
    }

    /// The table as packets read it.
    #[must_use]
    pub fn table(&self) -> Whole<'_> {
        match &self.table {
            Kept::Whole(table) => Whole::Kept(table),
            Kept::Stable(_) => Whole::Made(self.copy()),
        }
    }

    /// Since when its slots are in their states; `None` while all are Stable.
    #[must_use]
    pub fn since(&self) -> Option<&Since> {
        self.since.as_deref()
    }

    /// How many slots are in each state.
    #[must_use]
    pub const fn census(&self) -> Census {
        self.census
    }

    /// Whether every slot is Stable.
    #[must_use]
    pub const fn is_stable(&self) -> bool {
        self.census.stable == SLOTS as u32
    }

    /// When the next slot changes by time alone, in milliseconds of the monotonic clock, modulo 2³².
    #[must_use]
    pub fn deadline_ms(&self, times: &Times) -> Option<u32> {
        let end = |first: Option<u32>, lasts_ms| Some(first?.wrapping_add(lasts_ms));
        earlier(
            end(self.first_holding_ms, times.hold_ms),
            end(self.first_moving_ms, times.move_ms),
        )
    }

    /// Whether some slot changes by time alone, now.
    #[must_use]
    pub fn is_due(&self, now_ms: u32, times: &Times) -> bool {
        let end = self.deadline_ms(times);
        end.is_some_and(|end| now_ms.wrapping_sub(end) <= u32::MAX / 2)
    }

    /// Whether a slot is Settling since before a time.
    #[must_use]
    pub fn settles_since(&self, index: u16, before_ms: u32, now_ms: u32) -> bool {
        let since = self
            .since
            .as_ref()
            .and_then(|since| since.slots.get(usize::from(index)));
        self.slot(index).state() == State::Settling
            && since.is_some_and(|since_ms| {
                now_ms.wrapping_sub(*since_ms) > now_ms.wrapping_sub(before_ms)
            })
    }

    /// Every backend that a slot names, once, in the order of their ids; [`NOBODY`] too.
    #[must_use]
    pub fn named(&self) -> &[u16] {
        &self.named
    }

    /// One slot.
    #[must_use]
    pub fn slot(&self, index: u16) -> Slot {
        let index = usize::from(index);
        match &self.table {
            Kept::Whole(table) => table.slots.get(index).copied().unwrap_or_default(),
            Kept::Stable(places) => {
                let owner = self.named.get(usize::from(places.get(index)));
                Slot::stable(owner.copied().unwrap_or(NOBODY))
            }
        }
    }
}

/// Each owner's place among `named`, which is sorted.
fn places(table: &SlotTable, named: &[u16]) -> Places {
    let place = |slot: &Slot| {
        let place = named.binary_search(&slot.current).ok();
        place
            .and_then(|place| u16::try_from(place).ok())
            .unwrap_or(NONE)
    };
    Places::new(table.slots.iter().map(place).collect())
}

/// The earlier of two times, modulo 2³².
#[must_use]
pub fn earlier(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) if a.wrapping_sub(b) > u32::MAX / 2 => Some(a),
        (Some(_), Some(b)) => Some(b),
        (a, b) => a.or(b),
    }
}

/// 256 KiB on the heap.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "too large for the stack, which it must never be on"
)]
fn zeroed<T: FromZeros>() -> Box<T> {
    #[expect(clippy::expect_used, reason = "as any allocation that fails")]
    T::new_box_zeroed().expect("256 KiB for a lookup table")
}
