//! Telling the network where VIPs are (docs/announce.md).
//!
//! `on` decides, without I/O or a clock, which addresses are announced: a VIP's `announce_at_start`, commands, and, for VIPs of
//! Services, which node owns them. `l2` carries it out on the segments of the node's interfaces: the data plane answers ARP
//! and neighbour solicitations for these addresses (a flag of the VIP), and gratuitous messages tell of them unasked.

pub mod l2;
pub mod on;

pub use on::{Announcement, Because, Commands, Owned};
