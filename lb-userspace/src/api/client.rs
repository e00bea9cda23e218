//! The API's client, as the CLI uses it.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use super::{Detached, Status};
use crate::http::ErrorBody;

/// How long a request may take, all in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer that is read, in bytes: a full node's status is under half of it.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Asks the daemon that listens on a socket; one connection a request.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon listens on {}: {source}", socket.display())]
    Away {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is there, but not for this user.
    #[error("{}: {source}; try it as root, or as a member of the socket's group", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the daemon on {} did not answer within {} s", socket.display(), PATIENCE.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon answered with an error.
    #[error("the daemon answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// The connection broke.
    #[error("talk to the daemon: {0}")]
    Http(#[from] hyper::Error),
    /// The answer is longer than any can be, or broke off.
    #[error("read the daemon's answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what this version knows: the daemon may be of another one.
    #[error("understand the daemon's answer (is it of another version?): {0}")]
    Json(#[from] serde_json::Error),
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// The daemon's state.
    ///
    /// # Errors
    /// No daemon, or no answer that makes sense.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.request(Method::GET, "/v1/status").await
    }

    /// Asks the daemon to take the program off, to remove every pin, and to end.
    ///
    /// # Errors
    /// No daemon, or it could not.
    pub async fn detach(&self) -> Result<Detached, ClientError> {
        self.request(Method::POST, "/v1/detach").await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &'static str,
    ) -> Result<T, ClientError> {
        let exchange = timeout(PATIENCE, self.exchange(method, path)).await;
        let Ok(answer) = exchange else {
            let socket = self.socket.clone();
            return Err(ClientError::Timeout { socket });
        };
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let message = serde_json::from_slice(&body).map_or_else(
            |_| String::from_utf8_lossy(&body).into_owned(),
            |body: ErrorBody| body.error,
        );
        let status = status.as_u16();
        Err(ClientError::Refused { status, message })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &'static str,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = hyper::Uri::from_static(path);
        let host = hyper::header::HeaderValue::from_static("weir");
        request.headers_mut().insert(hyper::header::HOST, host);
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT);
            let body = body.collect().await.map_err(ClientError::Body)?;
            Ok((status, body.to_bytes()))
        };
        let driven = async {
            // A connection that breaks shows in the answer.
            connection.await.ok();
        };
        let (answer, ()) = tokio::join!(answer, driven);
        answer
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let socket = self.socket.clone();
        match UnixStream::connect(&self.socket).await {
            Ok(stream) => Ok(stream),
            Err(source)
                if matches!(
                    source.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ClientError::Away { socket, source })
            }
            Err(source) => Err(ClientError::Connect { socket, source }),
        }
    }
}
