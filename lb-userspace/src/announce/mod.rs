//! Which of the VIPs' addresses this node tells the network to send here, and the telling (docs/fleet.md).
//!
//! [`decide`] says which: pure, whatever the way they are told by. `kernel` and `route` tell by routes that a BGP speaker exports;
//! ARP and neighbour discovery are the data plane's. [`watchdog`] takes routes away whose daemon is gone for good.

pub mod decide;
pub(crate) mod kernel;
pub(crate) mod route;
pub mod watchdog;

pub(crate) use kernel::Place;
pub(crate) use route::{Op, Publisher};
