//! Which of the VIPs' addresses this node tells the network to send here, and the telling (docs/announce.md, docs/fleet.md).
//!
//! [`decide`] says what health and node allow, whatever the way they are told by: pure. `kernel` and `route` tell by routes that a
//! BGP speaker exports; [`watchdog`] takes routes away whose daemon is gone for good. [`on`] says, without I/O or a clock, which
//! addresses are told on the node's segments: a VIP's `announce_at_start`, commands, and, for VIPs of Services, which node owns
//! them. [`l2`] carries that out: the data plane answers ARP and neighbour solicitations for these addresses (a flag of the VIP),
//! and gratuitous messages tell of them unasked.

pub mod decide;
pub(crate) mod kernel;
pub mod l2;
pub mod on;
pub(crate) mod route;
pub mod watchdog;

pub(crate) use kernel::{Place, Routes};
pub use on::{Announcement, Because, Commands, HANDOVER, Owned, TERM};
pub(crate) use route::{Op, Publisher};
