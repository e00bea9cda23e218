//! Long-lived TCP connections: a backend that echoes lines, and a client that watches over each connection.
//!
//! The backend tells its name in the first line, and puts it before every line that it echoes.

pub mod client;
pub mod event;
pub mod server;

use anyhow::{Context as _, Result};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Lets this process open as many sockets as it may at all: many systems allow 1,024 unless asked.
fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

/// Now, in ms of the monotonic clock, which all processes of the lab share.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec) * 1000 + part(now.tv_nsec) / 1_000_000
}
