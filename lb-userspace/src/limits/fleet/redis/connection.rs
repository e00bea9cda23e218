//! A connection to Redis that is made, and made anew, by whoever wants something of it.
//!
//! Works with Redis 6 or newer: one address, TLS, or Sentinels. The connection is kept by the client's connection
//! manager; after several failures in a row it is given up and made anew, Sentinels asked again.

use std::{future::Future, pin::Pin, time::Duration};

use ::redis::{
    Client, ConnectionAddr, FromRedisValue, RedisError, RedisResult, ServerErrorKind, TlsMode,
    ToRedisArgs,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cmd,
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::time::{error::Elapsed, timeout};

use super::Error;
use crate::config::{Endpoint, Sentinel};

/// After so many failures in a row a connection is made anew: what waits in an old one would be answered too late,
/// and Sentinels may know another master.
const MOST_FAILURES: u32 = 3;

/// How much longer than an answer a connection may take, with its handshakes.
const CONNECTING: u32 = 5;

type Connecting = Pin<Box<dyn Future<Output = RedisResult<ConnectionManager>> + Send>>;

/// A script, and the name that Redis knows it by.
pub(crate) struct Script {
    text: &'static str,
    known: ::redis::Script,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        let known = ::redis::Script::new(text);
        Self { text, known }
    }
}

/// A Redis, connected or not.
pub(crate) struct Connection {
    endpoint: Endpoint,
    timeout: Duration,
    kept: Option<ConnectionManager>,
    connecting: Option<Connecting>,
    failures: u32,
}

impl Connection {
    /// Nothing is connected yet. An answer may take `timeout`.
    pub(crate) fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self {
            endpoint,
            timeout,
            kept: None,
            connecting: None,
            failures: 0,
        }
    }

    /// Runs a script, within the timeout. A connection that takes longer goes on being made in the next call.
    pub(crate) async fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> Result<T, Error> {
        let result = timeout(self.timeout, self.exchange(script, keys, arguments)).await;
        self.judge(result)
    }

    fn judge<T>(&mut self, result: Result<RedisResult<T>, Elapsed>) -> Result<T, Error> {
        let result = match result {
            Ok(result) => result.map_err(|error| Error::from(&error)),
            Err(_elapsed) => Err(Error::Timeout(self.timeout)),
        };
        match &result {
            Ok(_) => self.failures = 0,
            Err(_) => self.failures += 1,
        }
        // Redis may have closed it, or the password may have been changed since.
        let is_refused = matches!(result, Err(Error::Authentication));
        if is_refused || self.failures >= MOST_FAILURES {
            self.kept = None;
            self.failures = 0;
        }
        result
    }

    async fn exchange<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[String],
        arguments: &[impl ToRedisArgs],
    ) -> RedisResult<T> {
        let mut connection = self.connected().await?;
        let run = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let by_hash = run("EVALSHA", script.known.get_hash());
        let answer = by_hash.query_async(&mut connection).await;
        // A new Redis, or SCRIPT FLUSH. EVAL also keeps the script.
        let is_unknown = |error: &RedisError| error.kind() == ServerErrorKind::NoScript.into();
        match answer {
            Err(error) if is_unknown(&error) => {
                run("EVAL", script.text).query_async(&mut connection).await
            }
            answer => answer,
        }
    }

    async fn connected(&mut self) -> RedisResult<ConnectionManager> {
        if let Some(connection) = &self.kept {
            return Ok(connection.clone());
        }
        let connecting = self.connecting.get_or_insert_with(|| {
            let connecting = connect(self.endpoint.clone(), self.timeout * CONNECTING);
            Box::pin(connecting)
        });
        let connected = connecting.as_mut().await;
        self.connecting = None;
        let connection = connected?;
        self.kept = Some(connection.clone());
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
