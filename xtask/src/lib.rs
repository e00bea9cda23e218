//! weir's habits: setting a machine up, the demo, the tests, the measurements.
//!
//! [`lab`] is the part that other tests reuse: hosts made of network namespaces, wired by veth pairs
//! and bridges, gone again when the value is dropped. xtask uses weir as a process only.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    reason = "xtask talks to the person or CI job that started it"
)]

pub mod bench;
pub mod dashboard;
pub mod demo;
pub mod dist;
pub mod fleet;
pub mod fuzz;
pub mod lab;
pub mod limits;
pub mod progress;
pub mod restarts;
pub mod root;
pub mod scale;
pub mod setup;
pub mod soak;
pub mod tables;
pub mod test;
pub mod traffic;
pub mod workspace;
