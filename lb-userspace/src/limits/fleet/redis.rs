//! Carries requests to the script in Redis, and its answers back.

mod connection;
mod error;

use std::time::Duration;

pub(crate) use connection::{Connection, Script};
pub use error::Error;

use super::wire::Request;
use crate::config::Endpoint;

/// The script's text. It needs the right to run `GET`, `SET` and `TIME`, on keys that begin with `weir:`.
pub const SCRIPT: &str = include_str!("script.lua");

/// A Redis, connected or not.
pub struct Redis {
    connection: Connection,
    fleet: String,
    script: Script,
}

impl Redis {
    /// Nothing is connected yet. An answer may take `timeout`.
    #[must_use]
    pub fn new(endpoint: Endpoint, fleet: String, timeout: Duration) -> Self {
        Self {
            connection: Connection::new(endpoint, timeout),
            fleet,
            script: Script::new(SCRIPT),
        }
    }

    /// Has a request answered, within the timeout. A connection that takes longer goes on being made in the next call.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call(&mut self, request: &Request) -> Result<Vec<i64>, Error> {
        let (keys, arguments) = (request.keys(&self.fleet), request.arguments());
        self.connection.run(&self.script, &keys, &arguments).await
    }
}
