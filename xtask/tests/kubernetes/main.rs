//! Services of type `LoadBalancer`, end to end: an API server, two nodes that balance, four that serve, and real HTTP.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests, and what was measured is printed"
)]

#[path = "../../../lb-userspace/tests/kubernetes/cluster.rs"]
mod cluster;
mod handover;
mod run;
#[path = "../../../lb-userspace/tests/kubernetes/server.rs"]
#[expect(dead_code, reason = "the tests of the task that follows use the rest")]
mod server;
mod story;
