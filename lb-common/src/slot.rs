//! Lookup tables: 65,536 slots a VIP, each with the backend that serves its flows, and the state in which a slot
//! changes hands ([`State`]; what packets do in each is in [`crate::pin`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many slots a lookup table has.
pub const SLOTS: usize = 65536;

/// The backend id that means "nobody".
pub const NOBODY: u16 = 0;

/// [`Slot::previous`] of a slot that is [`State::Holding`].
pub const HOLDING: u16 = 0xfffe;

/// [`Slot::previous`] of a slot that is [`State::Settling`].
pub const SETTLING: u16 = 0xffff;

/// One entry of a lookup table. Both fields are backend ids in host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Slot {
    /// Who serves the slot's new flows.
    pub current: u16,
    /// Tells the [`State`]: equal to `current`, [`HOLDING`], [`SETTLING`], or the id of the owner before.
    pub previous: u16,
}

/// How far a slot is in changing hands. Whole words, as everything that may lie on the stack.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum State {
    /// All flows are at `current`: nothing is remembered and nothing looked up.
    Stable,
    /// A change is near: flows are pinned to `current`, so that a handshake in flight stays where it began.
    Holding,
    /// New flows go to `current`, all others stay at `previous`; both are pinned.
    Moving,
    /// Pinned flows stay where they are, all others are at `current`; nothing more is pinned.
    Settling,
}

impl State {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Holding => "holding",
            Self::Moving => "moving",
            Self::Settling => "settling",
        }
    }
}

impl Slot {
    /// A slot that has always been `backend`'s.
    #[must_use]
    pub const fn stable(backend: u16) -> Self {
        Self {
            current: backend,
            previous: backend,
        }
    }

    /// A slot about to change hands.
    #[must_use]
    pub const fn holding(current: u16) -> Self {
        Self {
            current,
            previous: HOLDING,
        }
    }

    /// A slot that goes from `previous` to `current`, two backends that differ.
    #[must_use]
    pub const fn moving(current: u16, previous: u16) -> Self {
        Self { current, previous }
    }

    /// A slot that has changed hands, with pins that may be left.
    #[must_use]
    pub const fn settling(current: u16) -> Self {
        Self {
            current,
            previous: SETTLING,
        }
    }

    /// Whether all flows are at `current` without a lookup.
    #[must_use]
    #[inline(always)]
    pub const fn is_stable(self) -> bool {
        self.current == self.previous
    }

    /// Whether there is nobody who serves it, or ever did.
    #[must_use]
    #[inline(always)]
    pub const fn is_nobodys(self) -> bool {
        // NOBODY is 0: one comparison.
        self.current | self.previous == NOBODY
    }

    /// How far the slot is in changing hands.
    #[must_use]
    #[inline(always)]
    pub const fn state(self) -> State {
        match self.previous {
            previous if previous == self.current => State::Stable,
            HOLDING => State::Holding,
            SETTLING => State::Settling,
            _ => State::Moving,
        }
    }

    /// Where flows are that have no pin.
    #[must_use]
    #[inline(always)]
    pub const fn base(self) -> u16 {
        match self.state() {
            State::Moving => self.previous,
            State::Stable | State::Holding | State::Settling => self.current,
        }
    }
}

/// A whole lookup table, 256 KiB: one map value, so that one system call fills it.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SlotTable {
    /// Slot of each hash.
    pub slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<SlotTable>() == 256 * 1024);

impl SlotTable {
    /// The slot of a flow's hash.
    #[must_use]
    #[inline(always)]
    pub fn get(&self, hash: u32) -> Option<Slot> {
        self.slots
            .get((hash & (SLOTS as u32 - 1)) as usize)
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn previous_tells_the_state_and_the_base_is_where_unpinned_flows_are() {
        let cases = [
            (Slot::stable(7), State::Stable, 7),
            (Slot::stable(NOBODY), State::Stable, NOBODY),
            (Slot::holding(7), State::Holding, 7),
            (Slot::moving(7, 8), State::Moving, 8),
            (Slot::moving(NOBODY, 8), State::Moving, 8),
            (Slot::settling(7), State::Settling, 7),
            (Slot::settling(NOBODY), State::Settling, NOBODY),
        ];
        for (slot, state, base) in cases {
            assert_eq!((slot.state(), slot.base()), (state, base), "{slot:?}");
            assert_eq!(slot.is_stable(), state == State::Stable);
        }
    }
}
