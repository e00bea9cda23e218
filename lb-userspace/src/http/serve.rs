//! Serves HTTP/1.1 to many peers, none of which can keep the others out: not by connections, not by silence.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Extension, Router, http::StatusCode, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error;

/// How long requests under way may take once the server is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// Largest head of a request, in bytes; hyper wants 8 KiB at least.
const HEAD_LIMIT: usize = 16 * 1024;

/// Connections that are told at a time that there are too many. Those beyond are closed without a word.
const REFUSALS: usize = 64;

/// How often it is said that there are too many connections.
const COMPLAINT: Duration = Duration::from_secs(10);

/// What peers may take of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// How long the head of a request may take to arrive, from the connection or the last answer on: a connection that
    /// is idle for so long is closed.
    pub(crate) head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            // Longer than the usual intervals of scrapes, which keep their connections.
            head: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown`, then gives requests under way a moment.
///
/// `peer` tells who is at the other end of a connection, which its requests have as an extension; whoever
/// `is_privileged` gets a connection however many there are.
pub(crate) async fn serve<L, P>(
    mut listener: L,
    router: Router,
    limits: Limits,
    peer: impl Fn(&L::Io) -> P,
    is_privileged: impl Fn(&P) -> bool,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    L: Listener,
    P: Clone + Send + Sync + 'static,
{
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_LIMIT);
    let mut doors = Doors::new(limits.connections);
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let peer = peer(&stream);
        let Some(entry) = doors.admit(is_privileged(&peer)) else {
            continue;
        };
        let router = match entry {
            Entry::Served(_) => router.clone(),
            Entry::Refused(_) => full(limits.connections),
        };
        let service = TowerToHyperService::new(router.layer(Extension(peer)));
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A peer that breaks off is the peer's affair.
            connection.await.ok();
            drop(entry);
        });
    }
    drop(listener);
    timeout(GRACE, connections.shutdown()).await.ok();
    Ok(())
}

/// What a connection holds for as long as it lasts.
enum Entry {
    /// A place, if it needs one.
    Served(#[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>),
    /// It is told that there is none.
    Refused(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
}

/// Who comes in.
struct Doors {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// How many were refused since that was last said, and when it may be said again.
    refused: u64,
    quiet: Instant,
}

impl Doors {
    fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            refused: 0,
            quiet: Instant::now(),
        }
    }

    /// Lets a connection in, or has it told that there are too many; `None` where there are too many of those as well.
    fn admit(&mut self, is_privileged: bool) -> Option<Entry> {
        if is_privileged {
            return Some(Entry::Served(None));
        }
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(Entry::Served(Some(place)));
        }
        self.refused += 1;
        let now = Instant::now();
        if now >= self.quiet {
            let refused = std::mem::take(&mut self.refused);
            tracing::warn!(
                refused,
                "too many connections at a time: new ones are refused"
            );
            self.quiet = now + COMPLAINT;
        }
        let refusal = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some(Entry::Refused(refusal))
    }
}

/// Tells every request that there are too many connections, and ends the connection.
fn full(connections: usize) -> Router {
    Router::new().fallback(async move || {
        let text = format!("there are {connections} connections already: try again later");
        let mut response = error(StatusCode::SERVICE_UNAVAILABLE, text);
        let headers = response.headers_mut();
        headers.insert(
            axum::http::header::CONNECTION,
            axum::http::HeaderValue::from_static("close"),
        );
        response
    })
}

#[cfg(test)]
mod tests;
