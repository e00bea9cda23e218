//! Fleet limits: the protocol in simulated time, its script against a real Redis, and nodes on a real Redis. And the roster of
//! nodes that compare their tables.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test panics where it fails, and says where"
)]
#![expect(
    clippy::print_stdout,
    reason = "what was seen is told with --nocapture"
)]

mod differential;
mod live;
mod many;
mod node;
mod roster;
mod scenarios;
mod sentinel;
mod server;
mod tls;
mod twin;
mod world;
