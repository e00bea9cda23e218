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

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{BoxFuture, Either, select};
use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Check, Failure, check::Through, task::Prober};
use crate::config::health::Probe;
use tls::Connectors;

/// The way of probes that go through the forwarding path.
pub trait Forwarding: std::fmt::Debug + Send + Sync {
    /// What a socket needs so that what it sends to a VIP's address goes to this backend, and to no other.
    fn aim(&self, vip: IpAddr, through: Through) -> BoxFuture<'_, Result<Aim, Failure>>;

    /// Why this node would not hear what the backend answers, if that is so.
    fn deafness(&self, vip: IpAddr, through: Through) -> BoxFuture<'_, Option<String>>;
}

/// What a socket needs to go another way than its destination tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Aim {
    /// The mark of its packets (`SO_MARK`).
    pub mark: Option<u32>,
    /// Its own address.
    pub source: Option<IpAddr>,
}

impl Aim {
    fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        match &self.mark {
            Some(mark) => Ok(setsockopt(socket, sockopt::Mark, mark)?),
            None => Ok(()),
        }
    }
}

/// Whom a probe asks, and the way there.
struct Target {
    address: SocketAddr,
    aim: Aim,
}

/// Makes probes with sockets of this node.
#[derive(Default)]
pub(super) struct Sockets {
    connectors: Connectors,
    forwarding: Option<Arc<dyn Forwarding>>,
}

impl Sockets {
    /// The same, with a way for probes that go through the forwarding path.
    pub(super) fn over(forwarding: Arc<dyn Forwarding>) -> Self {
        Self {
            connectors: Connectors::default(),
            forwarding: Some(forwarding),
        }
    }

    /// On the heap: TLS and HTTP together take 18 KiB.
    fn ask<'a>(&'a self, to: &'a Target, probe: &'a Probe) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            match probe {
                Probe::Tcp => tcp::connect(to).await.map(drop),
                Probe::Http(http) => http::probe(to, http, &self.connectors).await,
                Probe::Grpc(grpc) => grpc::probe(to, grpc, &self.connectors).await,
                Probe::Udp(udp) => udp::probe(to, udp).await,
                Probe::Dns(dns) => dns::probe(to, dns).await,
            }
        })
    }

    /// Asks for the VIP. Where that goes wrong, the backend's own address is asked as well, in what is left of the time:
    /// so one that does not accept the VIP is told from one that is down.
    async fn ask_through(&self, check: &Check, through: Through) -> Result<(), Failure> {
        let forwarding = self.forwarding.as_ref();
        let forwarding = forwarding
            .ok_or_else(|| Failure::NotAsked("there is no forwarding path".to_owned()))?;
        let to = Target {
            address: check.target,
            aim: forwarding.aim(check.target.ip(), through).await?,
        };
        let itself = Target {
            address: check.backend(),
            aim: Aim::default(),
        };
        let end = Instant::now() + check.timeout;
        let mut asked = pin!(within(check.timeout, self.ask(&to, &check.probe)));
        let ask_itself = async {
            let answered = timeout_at(end, self.ask(&itself, &check.probe)).await;
            answered.unwrap_or(Err(Failure::TimedOut(check.timeout)))
        };
        let (failure, itself) = match timeout(check.timeout / 2, &mut asked).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => (failure, ask_itself.await),
            Err(_half_time) => match select(asked, pin!(ask_itself)).await {
                Either::Left((Ok(()), _)) => return Ok(()),
                Either::Left((Err(failure), itself)) => (failure, itself.await),
                Either::Right((itself, asked)) => match asked.await {
                    Ok(()) => return Ok(()),
                    Err(failure) => (failure, itself),
                },
            },
        };
        // One that serves at its own address is not blamed for what this node throws away.
        if matches!((&failure, &itself), (Failure::TimedOut(_), Ok(())))
            && let Some(why) = forwarding.deafness(check.target.ip(), through).await
        {
            return Err(Failure::NotAsked(why));
        }
        Err(failure.beside(check.backend(), itself))
    }
}

impl Prober for Sockets {
    async fn probe(&self, check: &Check) -> Result<(), Failure> {
        if let Some(through) = check.through {
            return self.ask_through(check, through).await;
        }
        let to = Target {
            address: check.target,
            aim: Aim::default(),
        };
        within(check.timeout, self.ask(&to, &check.probe)).await
    }
}

/// What comes of a probe that may take so long.
pub(super) async fn within(
    time: Duration,
    probe: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let result = timeout(time, probe).await;
    result.unwrap_or(Err(Failure::TimedOut(time)))
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
mod tests;
