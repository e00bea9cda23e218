//! One probe: a question and its answer, over a connection of its own.
//!
//! A probe goes the whole way that a new client goes: nothing is kept from one to the next, neither connections nor
//! TLS sessions. Connections that a probe made end without `TIME_WAIT` on either side.

mod dns;
mod grpc;
mod http;
mod tcp;
mod tls;
mod udp;

use std::{io, pin::pin, time::Duration};

use rustix::io::Errno;
use tokio::time::timeout;

use super::{Check, Failure, task::Prober};
use crate::config::health::Probe;
use tls::Connectors;

/// Makes probes with sockets of this node.
#[derive(Default)]
pub(super) struct Sockets {
    connectors: Connectors,
}

impl Prober for Sockets {
    async fn probe(&self, check: &Check) -> Result<(), Failure> {
        let target = check.target;
        match &check.probe {
            Probe::Tcp => tcp::connect(target).await.map(drop),
            Probe::Http(http) => http::probe(target, http, &self.connectors).await,
            Probe::Grpc(grpc) => grpc::probe(target, grpc, &self.connectors).await,
            Probe::Udp(udp) => udp::probe(target, udp).await,
            Probe::Dns(dns) => dns::probe(target, dns).await,
        }
    }
}

/// How long a connection may take to say goodbye (a TLS alert, HTTP/2's GOAWAY) when the answer is there.
const GOODBYE: Duration = Duration::from_millis(50);

/// Keeps a connection going while something is done over it, then has it end.
async fn over<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let mut connection = pin!(connection);
    let mut exchange = pin!(exchange);
    let done = tokio::select! {
        biased;
        done = &mut exchange => done,
        // It is over, and the exchange will find out how.
        _ = &mut connection => return exchange.await,
    };
    // A peer that keeps it open keeps nobody waiting.
    timeout(GOODBYE, connection).await.ok();
    done
}

/// What an error of a socket says: of the backend, or of this node, which has run out of something.
fn failure(doing: &str, error: &io::Error) -> Failure {
    let text = error.to_string();
    let text = text
        .split_once(" (os error")
        .map_or(text.as_str(), |(text, _)| text);
    let text = format!("{doing}: {}", text.to_lowercase());
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRNOTAVAIL) => {
            Failure::NotAsked(text)
        }
        _ => Failure::Failed(text),
    }
}

/// What an error of a library says, down to its last cause.
fn failed(doing: &str, error: &dyn std::error::Error) -> Failure {
    let mut text = format!("{doing}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    Failure::Failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_node_lacks_is_no_failure_of_the_backend() {
        let of = |errno: Errno| failure("connect", &io::Error::from(errno));
        assert_eq!(
            of(Errno::CONNREFUSED),
            Failure::Failed("connect: connection refused".to_owned())
        );
        for errno in [Errno::MFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
            assert!(matches!(of(errno), Failure::NotAsked(_)), "{errno}");
        }
    }
}
