//! Fragments: the later ones follow the first.
//!
//! Only the first fragment has ports. It pins the packet to a backend, and the later ones look the pin up. One
//! that comes without its first (ECMP can split them, and the network can swap them) is hashed by addresses
//! alone and counted under a reason of its own.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::{Address, Flow},
    parse::Payload,
};

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

/// The key of the packet that a fragment belongs to.
#[must_use]
#[inline(always)]
pub const fn key(payload: &Payload, id: u32) -> FragmentKey {
    FragmentKey {
        source: payload.source,
        destination: payload.destination,
        id,
        protocol: payload.protocol as u32,
    }
}

impl FragmentKey {
    /// What is hashed of a fragment whose first was not seen: addresses and protocol.
    #[must_use]
    #[inline(always)]
    pub const fn flow(&self) -> Flow {
        Flow {
            source: self.source,
            destination: self.destination,
            source_port: [0; 2],
            destination_port: [0; 2],
            protocol: self.protocol,
        }
    }
}
