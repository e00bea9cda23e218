//! Reports by asking: every peer's metrics listener has its own at `/fleet`.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, ETAG, HOST, IF_NONE_MATCH, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{By, Heard, LARGEST, Malformed, Node, PATIENCE, Report};

#[cfg(test)]
mod tests;

/// The peers, and what they have told.
pub(super) struct Peers(Vec<Peer>);

struct Peer {
    address: SocketAddr,
    /// The tag of the report that was read.
    tag: Option<String>,
    node: Node,
}

/// Why a peer told nothing. Of what it sent nothing is in it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("connect: {}", .0.kind())]
    Connect(io::Error),
    #[error("ask: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}; is it the `metrics_listen` of a weir that knows `/fleet`?")]
    Status(StatusCode),
    #[error("the answer broke off")]
    Body,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// An answer.
enum Answer {
    /// As before.
    Same,
    /// This report, and its tag.
    New(Report, Option<String>),
}

impl Peers {
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let peers = addresses.into_iter().map(|address| Peer {
            address,
            tag: None,
            node: Node {
                called: address.to_string(),
                address: Some(address),
                error: Some("not asked yet".to_owned()),
                ..Node::default()
            },
        });
        Self(peers.collect())
    }

    /// Asks all of them at once.
    pub(super) async fn turn(&mut self) {
        join_all(self.0.iter_mut().map(Peer::turn)).await;
    }

    /// What is known of them.
    pub(super) fn heard(&self) -> Heard {
        Heard {
            nodes: self.0.iter().map(|peer| peer.node.clone()).collect(),
            ..Heard::nobody(By::Peers)
        }
    }
}

impl Peer {
    async fn turn(&mut self) {
        let asked = timeout(PATIENCE, ask(self.address, self.tag.as_deref())).await;
        match asked.unwrap_or(Err(Error::Timeout)) {
            Ok(answer) => {
                if let Answer::New(report, tag) = answer {
                    self.tag = tag;
                    self.node.report = Some(Arc::new(report));
                }
                self.node.heard = Some(Instant::now());
                self.node.error = None;
            }
            Err(error) => {
                tracing::debug!(address = %self.address, %error, "a peer tells nothing of itself");
                self.node.error = Some(error.to_string());
            }
        }
    }
}

async fn ask(address: SocketAddr, tag: Option<&str>) -> Result<Answer, Error> {
    let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static("/fleet");
    let headers = request.headers_mut();
    let agent = concat!("weir/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, hyper::header::HeaderValue::from_static(agent));
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    // Addresses and tags that were headers before are headers.
    for (name, value) in [
        (HOST, Some(address.to_string())),
        (IF_NONE_MATCH, tag.map(str::to_owned)),
    ] {
        if let Some(value) = value.and_then(|value| value.try_into().ok()) {
            headers.insert(name, value);
        }
    }
    let exchange = async move {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED => return Ok(Answer::Same),
            StatusCode::OK => {}
            other => return Err(Error::Status(other)),
        }
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let body = read(response.into_body()).await?;
        Ok(Answer::New(Report::from_json(&body)?, tag))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // Whoever ends after its answer closes the connection at once: that future must not be asked again.
        _ended = &mut connection => exchange.await,
    }
}

async fn read(body: Incoming) -> Result<Bytes, Error> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Malformed::Large.into()),
        Err(_) => Err(Error::Body),
    }
}
