//! Long-lived TCP connections: a backend that echoes lines, and a client that watches over each connection.
//!
//! The backend tells its name in the first line, and puts it before every line that it echoes.

pub mod client;
pub mod event;
pub mod server;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many sockets as it may at all: many systems allow 1,024 unless asked.
fn raise_open_files() -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}
