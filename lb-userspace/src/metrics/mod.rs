//! Prometheus metrics and health over HTTP.
//!
//! - `GET /metrics`: every metric of [`METRICS`], from a [`Status`](crate::api::Status) taken for this scrape, and what the daemon itself
//!   uses ([`PROCESS`]).
//! - `GET /healthz`: 200 if the daemon's task answers within a second.
//! - `GET /readyz`: 200 if the program is attached and the maps hold the configuration.
//! - `GET /fleet`: which tables this node has, for the others of its fleet ([`crate::agreement`]).
//!
//! Nothing is polled between scrapes: counters live in the kernel's maps, and times in the tasks that measure them
//! ([`MEASURED`]).

mod docs;
mod exposition;
mod measured;
mod process;
mod samples;
mod server;
mod table;

pub use docs::page;
pub use exposition::text;
pub use measured::{MEASURED, Measured};
pub use process::{PROCESS, Usage};
pub use server::{bind, serve};
pub use table::{Kind, METRICS, Metric};
