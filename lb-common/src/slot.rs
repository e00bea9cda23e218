//! Lookup tables: 65,536 slots a VIP, each with the backend that serves its flows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many slots a lookup table has.
pub const SLOTS: usize = 65536;

/// The backend id that means "nobody".
pub const NOBODY: u16 = 0;

/// One entry of a lookup table. Both fields are backend ids in host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Slot {
    /// Who serves the slot's flows.
    pub current: u16,
    /// Equal to `current` while the slot is Stable. The other states come with connection consistency.
    pub previous: u16,
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
