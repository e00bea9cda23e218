//! The tables that are measured: algorithms and sets of backends.

use lb_common::{flow::Address, vip::VipKey};
use lb_userspace::model::table::{Member, Owners, RING_NODES, maglev, ring_of};

/// How many backends a table has.
pub const BACKENDS: [u32; 4] = [10, 100, 1000, 10_000];

/// A way of making tables.
#[derive(Clone, Copy)]
pub enum Algorithm {
    /// Maglev hashing.
    Maglev,
    /// A ring with so many virtual nodes of a backend.
    Ring(u16),
}

impl Algorithm {
    /// What is measured; the ring with other numbers of nodes than weir's too.
    pub const ALL: [Self; 6] = [
        Self::Maglev,
        Self::Ring(1),
        Self::Ring(10),
        Self::Ring(100),
        Self::Ring(RING_NODES),
        Self::Ring(1000),
    ];

    /// Name in plots and tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Maglev => "maglev".to_owned(),
            Self::Ring(RING_NODES) => format!("ring, {RING_NODES} (weir's)"),
            Self::Ring(nodes) => format!("ring, {nodes}"),
        }
    }

    /// The table of one VIP under one seed.
    #[must_use]
    pub fn table(self, seed: u64, members: &[Member]) -> Owners {
        let vip = VipKey::new(Address::from_v4([203, 0, 113, 10]), 443u16.to_be_bytes(), 6);
        match self {
            Self::Maglev => maglev(&vip, seed, members),
            Self::Ring(nodes) => ring_of(nodes, &vip, seed, members),
        }
    }
}

/// Backends with addresses one after the other, as operators give them.
///
/// The weight is a power of two, so that over a ring each has exactly the number of nodes that is asked for.
#[must_use]
pub fn equal(count: u32) -> Vec<Member> {
    (0..count).map(|index| member(index, 64)).collect()
}

/// The same backends with weights from 1 to 100.
#[must_use]
pub fn unequal(count: u32) -> Vec<Member> {
    (0..count)
        // 37 and 100 share no divisor: every weight comes equally often.
        .map(|index| member(index, (index * 37 % 100 + 1) as u16))
        .collect()
}

fn member(index: u32, weight: u16) -> Member {
    let [_, b, c, d] = index.to_be_bytes();
    Member {
        address: Address::from_v4([10, b, c, d]),
        weight,
    }
}
