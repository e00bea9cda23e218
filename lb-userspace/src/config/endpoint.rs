//! Where Redis is, by URL.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

/// Where a Sentinel listens unless the URL says otherwise.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is and how to get in. Holds secrets, so `Debug` shows nothing.
#[derive(Clone)]
pub enum Endpoint {
    /// One address: `redis://`, `rediss://` (TLS) or `unix://`.
    Single(Box<ConnectionInfo>),
    /// Sentinels that know the address: `redis+sentinel://` or `rediss+sentinel://`.
    Sentinel(Box<Sentinel>),
}

/// How to ask Sentinels, and how to get into the Redis that they name.
#[derive(Clone)]
pub struct Sentinel {
    /// The Sentinels, with their ports.
    pub hosts: Vec<(String, u16)>,
    /// What they call the master.
    pub master: String,
    /// Whether Redis and the Sentinels are reached over TLS.
    pub is_tls: bool,
    /// The number of the database.
    pub database: i64,
    /// Who to be, for Redis.
    pub username: Option<String>,
    /// The password, for Redis.
    pub password: Option<String>,
    /// The password, for the Sentinels.
    pub sentinel_password: Option<String>,
}

/// What is wrong with a URL; never the URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(&'static str);

impl Endpoint {
    /// What a URL may look like.
    pub(super) const WANTED: &str = "`redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `rediss+sentinel://` and where Redis is";

    /// Reads a URL.
    ///
    /// # Errors
    /// What it has that it may not have, or lacks.
    pub fn parse(url: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = url.split_once("://").ok_or(Wrong("no scheme"))?;
        let is_tls = match scheme {
            "redis+sentinel" => false,
            "rediss+sentinel" => true,
            "redis" | "rediss" | "unix" => return single(url),
            _ => return Err(Wrong("another scheme")),
        };
        sentinel(rest, is_tls).map(|sentinel| Self::Sentinel(Box::new(sentinel)))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

fn single(url: &str) -> Result<Endpoint, Wrong> {
    if url.contains('#') {
        return Err(Wrong(
            "a `#`: certificates are always checked, and in a password it is written %23",
        ));
    }
    let info = url
        .into_connection_info()
        .map_err(|error| Wrong(reason(&error)))?;
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }
            if host.is_empty() || *port == 0 =>
        {
            Err(Wrong("no host, or port 0"))
        }
        _ => Ok(Endpoint::Single(Box::new(info))),
    }
}

/// The client's own words could hold a part of the URL.
fn reason(error: &redis::RedisError) -> &'static str {
    let text = error.to_string();
    if text.contains("database") {
        "a database that is no number"
    } else if text.contains("wildcard") {
        "an address that stands for all addresses"
    } else {
        "no host, a port that is none, or a character that must be written as %XX"
    }
}

fn sentinel(rest: &str, is_tls: bool) -> Result<Sentinel, Wrong> {
    let (rest, query) = rest
        .split_once('?')
        .map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (user, rest) = rest
        .rsplit_once('@')
        .map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (hosts, path) = rest
        .split_once('/')
        .ok_or(Wrong("no name of a master after the Sentinels"))?;
    let (master, database) = path.split_once('/').unwrap_or((path, "0"));
    if master.is_empty() {
        return Err(Wrong("no name of a master after the Sentinels"));
    }
    let (username, password) = match user.map(|user| user.split_once(':')) {
        None => (None, None),
        Some(None) => return Err(Wrong("a user without `:` and a password")),
        Some(Some((username, password))) => (decoded(username)?, decoded(password)?),
    };
    let mut sentinel_password = None;
    for pair in query.into_iter().flat_map(|query| query.split('&')) {
        match pair.split_once('=') {
            Some(("sentinel_password", value)) => sentinel_password = decoded(value)?,
            _ => return Err(Wrong("something else than `sentinel_password` after `?`")),
        }
    }
    Ok(Sentinel {
        hosts: hosts.split(',').map(host).collect::<Result<_, _>>()?,
        master: decoded(master)?.unwrap_or_default(),
        is_tls,
        database: database
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or(Wrong("a database that is no number"))?,
        username,
        password,
        sentinel_password,
    })
}

fn host(text: &str) -> Result<(String, u16), Wrong> {
    let wrong = Wrong("a Sentinel that is no `host` or `host:port` (`[address]:port` for IPv6)");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(wrong)?;
            let port = if port.is_empty() {
                None
            } else {
                Some(port.strip_prefix(':').ok_or(wrong)?)
            };
            (host, port)
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None => SENTINEL_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(wrong)?,
    };
    let is_host = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
    is_host.then(|| (host.to_owned(), port)).ok_or(wrong)
}

/// A part of a URL, without %XX; none if it is empty.
fn decoded(text: &str) -> Result<Option<String>, Wrong> {
    const WRONG: Wrong = Wrong("a `%` without two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push(if byte == b'%' {
            let (high, low) = digit().zip(digit()).ok_or(WRONG)?;
            u8::try_from(high * 16 + low).unwrap_or_default()
        } else {
            byte
        });
    }
    let text = String::from_utf8(bytes).map_err(|_error| WRONG)?;
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_address() {
        for (url, is_tls) in [
            ("redis://127.0.0.1:6379", false),
            ("redis://:pass%23word@cache.example:7000/2", false),
            ("redis://[2001:db8::1]", false),
            ("rediss://weir:secret@cache.example", true),
        ] {
            let Ok(Endpoint::Single(info)) = Endpoint::parse(url) else {
                panic!("{url}")
            };
            let found = matches!(
                info.addr(),
                ConnectionAddr::TcpTls {
                    insecure: false,
                    ..
                }
            );
            assert_eq!(found, is_tls, "{url}");
        }
        let Ok(Endpoint::Single(info)) = Endpoint::parse("unix:///run/redis.sock") else {
            panic!("a socket")
        };
        assert!(matches!(info.addr(), ConnectionAddr::Unix(_)));
    }

    #[test]
    fn reads_sentinels() {
        let url =
            "rediss+sentinel://weir:a%2Fb@s1,s2:1234,[2001:db8::1]:7/main/3?sentinel_password=x%26";
        let Ok(Endpoint::Sentinel(found)) = Endpoint::parse(url) else {
            panic!("Sentinels")
        };
        let hosts = [("s1", 26379), ("s2", 1234), ("2001:db8::1", 7)];
        assert_eq!(
            found.hosts,
            hosts.map(|(host, port)| (host.to_owned(), port))
        );
        assert_eq!((found.master.as_str(), found.database), ("main", 3));
        assert_eq!(found.username.as_deref(), Some("weir"));
        assert_eq!(found.password.as_deref(), Some("a/b"));
        assert_eq!(found.sentinel_password.as_deref(), Some("x&"));
        assert!(found.is_tls);
    }

    #[test]
    fn refuses_all_else_and_shows_nothing() {
        for url in [
            "",
            "127.0.0.1:6379",
            "http://hidden:hidden@cache.example",
            "redis://",
            "redis://hidden@",
            "redis://cache.example:hidden",
            "redis://cache.example/hidden",
            "redis://0.0.0.0",
            "rediss://hidden@cache.example#insecure",
            "redis+sentinel://s1",
            "redis+sentinel://s1/",
            "redis+sentinel://s1/main/hidden",
            "redis+sentinel://hidden@s1/main",
            "redis+sentinel://s1,/main",
            "redis+sentinel://s1:0/main",
            "redis+sentinel://:%h@s1/main",
            "redis+sentinel://s1/main?hidden=1",
        ] {
            let Err(Wrong(wrong)) = Endpoint::parse(url) else {
                panic!("{url}")
            };
            assert!(!wrong.contains("hidden"), "{url}: {wrong}");
        }
        let endpoint = Endpoint::parse("redis://hidden:hidden@cache.example").unwrap();
        assert!(!format!("{endpoint:?}").contains("hidden"));
    }
}
