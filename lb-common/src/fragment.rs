//! Fragments: the later ones follow the first.
//!
//! Only the first fragment has ports. It pins the packet to a backend, and the later ones look the pin up. One
//! that comes without its first (ECMP can split them, and the network can swap them) is hashed by addresses
//! alone and counted under a reason of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::{Address, Flow};

/// How many fragmented packets are remembered; the least recently used go first.
pub const MAX_FRAGMENTED: usize = 65536;

/// What the fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct FragmentKey {
    /// The client's address.
    pub source: Address,
    /// The VIP's address.
    pub destination: Address,
    /// Identification as it lies on the wire; of IPv4 the lower two bytes.
    pub id: u32,
    /// IP protocol number of the whole packet, as wide as the room that is left. Host order.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

impl FragmentKey {
    /// The key of the packet that a fragment of this flow belongs to, ports aside; `id` as it lies on the wire.
    #[must_use]
    #[inline(always)]
    pub const fn new(flow: &Flow, id: u32) -> Self {
        Self {
            source: flow.source,
            destination: flow.destination,
            id,
            protocol: flow.protocol,
        }
    }
}
