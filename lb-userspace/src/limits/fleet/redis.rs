//! Carries requests to the script in Redis, and its answers back.
//!
//! Works with Redis 6 or newer: one address, TLS, or Sentinels. The connection is kept by the client's connection
//! manager; after several failures in a row it is given up and made anew, Sentinels asked again.

mod error;

use std::{future::Future, pin::Pin, time::Duration};

use ::redis::{
    Client, ConnectionAddr, RedisError, RedisResult, ServerErrorKind, TlsMode,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cmd,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::time::timeout;

pub use error::Error;

use super::wire::Request;
use crate::config::{Endpoint, Sentinel};

/// The script's text. It needs the right to run `GET`, `SET` and `TIME`, on keys that begin with `weir:`.
pub const SCRIPT: &str = include_str!("script.lua");

/// After so many failures in a row a connection is made anew: what waits in an old one would be answered too late,
/// and Sentinels may know another master.
const MOST_FAILURES: u32 = 3;

/// How much longer than an answer a connection may take, with its handshakes.
const CONNECTING: u32 = 5;

type Connecting = Pin<Box<dyn Future<Output = RedisResult<ConnectionManager>> + Send>>;

/// A Redis, connected or not.
pub struct Redis {
    endpoint: Endpoint,
    fleet: String,
    timeout: Duration,
    script: ::redis::Script,
    connection: Option<ConnectionManager>,
    connecting: Option<Connecting>,
    failures: u32,
}

impl Redis {
    /// Nothing is connected yet. An answer may take `timeout`.
    #[must_use]
    pub fn new(endpoint: Endpoint, fleet: String, timeout: Duration) -> Self {
        Self {
            endpoint,
            fleet,
            timeout,
            script: ::redis::Script::new(SCRIPT),
            connection: None,
            connecting: None,
            failures: 0,
        }
    }

    /// Has a request answered, within the timeout. A connection that takes longer goes on being made in the next call.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn call(&mut self, request: &Request) -> Result<Vec<i64>, Error> {
        let limit = self.timeout;
        let result = match timeout(limit, self.exchange(request)).await {
            Ok(result) => result.map_err(|error| Error::from(&error)),
            Err(_elapsed) => Err(Error::Timeout(limit)),
        };
        match &result {
            Ok(_) => self.failures = 0,
            Err(_) => self.failures += 1,
        }
        // Redis may have closed it, or the password may have been changed since.
        let is_refused = matches!(result, Err(Error::Authentication));
        if is_refused || self.failures >= MOST_FAILURES {
            self.connection = None;
            self.failures = 0;
        }
        result
    }

    async fn exchange(&mut self, request: &Request) -> RedisResult<Vec<i64>> {
        let mut connection = self.connected().await?;
        let (keys, arguments) = (request.keys(&self.fleet), request.arguments());
        let run = |command: &str, script: &str| {
            let mut command = cmd(command);
            command
                .arg(script)
                .arg(keys.len())
                .arg(&keys)
                .arg(&arguments);
            command
        };
        let by_hash = run("EVALSHA", self.script.get_hash());
        let answer = by_hash.query_async(&mut connection).await;
        // A new Redis, or SCRIPT FLUSH. EVAL also keeps the script.
        let is_unknown = |error: &RedisError| error.kind() == ServerErrorKind::NoScript.into();
        match answer {
            Err(error) if is_unknown(&error) => {
                run("EVAL", SCRIPT).query_async(&mut connection).await
            }
            answer => answer,
        }
    }

    async fn connected(&mut self) -> RedisResult<ConnectionManager> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let connecting = self.connecting.get_or_insert_with(|| {
            let connecting = connect(self.endpoint.clone(), self.timeout * CONNECTING);
            Box::pin(connecting)
        });
        let connected = connecting.as_mut().await;
        self.connecting = None;
        let connection = connected?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }
}

async fn connect(endpoint: Endpoint, within: Duration) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        // Every call is another try.
        .set_number_of_retries(0)
        .set_connection_timeout(Some(within))
        // Calls have their own.
        .set_response_timeout(None);
    let client = match endpoint {
        Endpoint::Single(info) => Client::open(*info)?,
        Endpoint::Sentinel(sentinel) => match timeout(within, master(*sentinel)).await {
            Ok(client) => client?,
            Err(_elapsed) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        },
    };
    ConnectionManager::new_with_config(client, config).await
}

/// Asks the Sentinels.
async fn master(sentinel: Sentinel) -> RedisResult<Client> {
    let Sentinel {
        hosts,
        master,
        is_tls,
        database,
        username,
        password,
        sentinel_password,
    } = sentinel;
    let addresses = hosts.into_iter().map(|(host, port)| {
        if is_tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    });
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_db(database);
    if is_tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(username) = username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(password) = sentinel_password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    builder.build()?.async_get_client().await
}
