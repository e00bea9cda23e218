//! Services of type `LoadBalancer`: the rules, and the task that follows a cluster against a test API server.

#![cfg(feature = "kubernetes")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test panics where it fails, and prints what it has measured"
)]

mod announce;
mod cluster;
mod daemon;
mod follow;
mod manifests;
#[path = "../netns/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod netns;
mod node;
mod owners;
mod properties;
mod real;
mod rules;
mod server;
mod world;
