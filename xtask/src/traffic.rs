//! The servers and clients of the lab: small, in Rust, so that no package is needed for them.

pub mod client;
pub mod lasting;
pub mod server;
pub mod steady;
pub mod udp;
