//! `[vip.health]`: how it is found out which backends serve.

mod probe;
mod read;

use std::{net::IpAddr, time::Duration};

use hickory_proto::rr::Name;

use super::Protocol;
pub(super) use read::{Of, read, times};

/// `[vip.health]`: how the backends of a VIP are checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    /// What is asked, and which answer passes.
    pub probe: Probe,
    /// Which way the question goes.
    pub via: Via,
    /// The backend's port that is asked, never 0.
    pub port: u16,
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// How long a whole probe may take; at most the interval.
    pub timeout: Duration,
    /// Passed probes in a row that make a failed backend healthy, at least 1.
    pub rise: u16,
    /// Failed probes in a row that make a healthy backend failed, at least 1.
    pub fall: u16,
    /// Share of failed backends, in percent from 1 to 100, from which on all are used as if all were healthy.
    pub panic_threshold: u8,
}

/// How often a backend is asked, and how many answers in a row make a verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// How long a whole probe may take; at most the interval.
    pub timeout: Duration,
    /// Passed probes in a row that make a failed backend healthy, at least 1.
    pub rise: u16,
    /// Failed probes in a row that make a healthy backend failed, at least 1.
    pub fall: u16,
}

/// `via`: which way a check goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// To the backend's own address, as any packet of this node.
    Direct,
    /// To the VIP, through the forwarding path, as clients' packets go.
    Dsr {
        /// The VIP's address.
        vip: IpAddr,
    },
}

/// `type`, with the keys that belong to it: what is asked of a backend.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Probe {
    /// A TCP connection is made.
    Tcp,
    /// An HTTP/1.1 GET.
    Http(Http),
    /// The standard health service, `grpc.health.v1`.
    Grpc(Grpc),
    /// A datagram is answered.
    Udp(Udp),
    /// A DNS query is answered without an error.
    Dns(Dns),
}

impl Probe {
    /// Name of the type in config, JSON and tables.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(Http { tls: Some(_), .. }) => "https",
            Self::Grpc(_) => "grpc",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
        }
    }
}

/// An HTTP/1.1 GET.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Http {
    /// `https`, or not.
    pub tls: Option<Tls>,
    /// Whom the request is for.
    pub host: Host,
    /// Path, and query if any.
    pub path: String,
    /// The statuses that pass.
    pub expect_status: Statuses,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Grpc {
    /// Over TLS, or in the clear (HTTP/2 with prior knowledge).
    pub tls: Option<Tls>,
    /// Whom the call is for.
    pub host: Host,
    /// The service that is asked for; empty for the server as a whole.
    pub service: String,
}

/// A datagram, and what the answer must begin with.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Udp {
    /// What is sent.
    pub send: Vec<u8>,
    /// How the answer begins; empty for any answer.
    pub expect: Vec<u8>,
}

/// A DNS query of type A.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Dns {
    /// The name that is asked for.
    pub query: Name,
    /// What carries the query: the VIP's own protocol.
    pub transport: Protocol,
}

/// How TLS is spoken.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Tls {
    /// Whether the certificate must be valid for the host and lead to a root that this machine trusts.
    pub verify: bool,
}

/// Whom a request is for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Host {
    /// The Host header: a name or address, and a port if one was written.
    pub authority: String,
    /// The name or address alone, without brackets: for SNI and the certificate.
    pub name: String,
}

impl Host {
    /// An address, without a port.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        let authority = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let name = address.to_string();
        Self { authority, name }
    }
}

/// HTTP statuses: ranges in ascending order, both ends included.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Statuses(Vec<(u16, u16)>);

impl std::fmt::Display for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl Statuses {
    /// Whether a status is among them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&status))
    }
}
