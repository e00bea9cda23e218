//! The API's client, as the CLI uses it.

use std::{
    io::{self, ErrorKind},
    marker::PhantomData,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HOST, HeaderValue, IF_MATCH},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{
    Agreement, Base, BlockList, CaptureFilter, Changed, Detached, Event, FlowFilter, Flows,
    Generation, LimitFilter, Limits, NewBlock, NewConfig, NewWeight, OldBlock, PacketFilter,
    PacketSeen, Plan, Status, Target,
};
use crate::{config::Finding, http::ErrorBody};

/// How long a question may take, all in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a change may take, all in all.
const CHANGE_PATIENCE: Duration = Duration::from_secs(65);

/// Largest answer that is read, in bytes: a full node's status is half of it.
const ANSWER_LIMIT: usize = 128 * 1024 * 1024;

/// One request.
struct Call {
    method: Method,
    path: String,
    /// `If-Match`.
    base: Option<String>,
    body: Bytes,
    patience: Duration,
}

impl Call {
    fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            base: None,
            body: Bytes::new(),
            patience: PATIENCE,
        }
    }

    fn change(method: Method, path: String, base: Base) -> Self {
        let base = match base {
            Base::Any => "*".to_owned(),
            Base::Generation(generation) => format!("\"{generation}\""),
        };
        Self {
            method,
            path,
            base: Some(base),
            body: Bytes::new(),
            patience: CHANGE_PATIENCE,
        }
    }

    fn with(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        self.body = serde_json::to_vec(body)?.into();
        Ok(self)
    }
}

/// The body of an answer, all of it.
async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, ANSWER_LIMIT).collect().await;
    Ok(body.map_err(ClientError::Body)?.to_bytes())
}

fn refused(status: StatusCode, body: &Bytes) -> ClientError {
    let body = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        error: String::from_utf8_lossy(body).into_owned(),
        findings: Vec::new(),
    });
    ClientError::Refused {
        status: status.as_u16(),
        message: body.error,
        findings: body.findings,
    }
}

/// An answer that goes on for as long as it is read.
#[derive(Debug)]
pub struct Pieces {
    body: Incoming,
}

impl Pieces {
    /// What comes next; `None` once the daemon ends it.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// One thing after the other, each a line of JSON.
#[derive(Debug)]
pub struct Lines<T> {
    pieces: Pieces,
    /// What has come of a line that is not yet whole.
    rest: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

/// What happens, one event after the other.
pub type Events = Lines<Event>;

impl<T: DeserializeOwned> Lines<T> {
    const fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            rest: Vec::new(),
            of: PhantomData,
        }
    }

    /// The next; `None` once the daemon ends.
    ///
    /// # Errors
    /// The connection broke, or the line is not what this version knows.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let Some(data) = self.pieces.next().await? else {
                return Ok(None);
            };
            self.rest.extend_from_slice(&data);
        }
    }
}

/// A query of the values that are there.
fn query(path: &str, values: &[(&str, Option<String>)]) -> String {
    let given = values.iter().filter_map(|(name, value)| {
        let value = value.as_deref()?;
        Some(format!("{name}={}", escaped(value)))
    });
    format!("{path}?{}", given.collect::<Vec<_>>().join("&"))
}

/// Path of a backend of a VIP.
fn of_vip(vip: &str, backend: IpAddr) -> String {
    format!("/v1/vips/{}/backends/{backend}", escaped(vip))
}

/// A name as one segment of a path (RFC 3986, section 2.1).
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

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
    #[error("the daemon on {} did not answer within {} s", socket.display(), patience.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long that was waited for.
        patience: Duration,
    },
    /// The daemon answered with an error.
    #[error("the daemon answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its own words.
        message: String,
        /// Where a configuration is wrong.
        findings: Vec<Finding>,
    },
    /// The request cannot be put as HTTP.
    #[error("ask the daemon: {0}")]
    Request(#[from] hyper::http::Error),
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
        self.ask(Call::new(Method::GET, "/v1/status")).await
    }

    /// The flows that are remembered.
    ///
    /// # Errors
    /// No daemon, no such VIP, or no answer that makes sense.
    pub async fn flows(&self, filter: &FlowFilter) -> Result<Flows, ClientError> {
        let vip = filter
            .vip
            .as_ref()
            .map(|vip| format!("vip={}", escaped(vip)));
        let backend = filter.backend.map(|backend| format!("backend={backend}"));
        let limit = filter.limit.map(|limit| format!("limit={limit}"));
        let asked: Vec<_> = [vip, backend, limit].into_iter().flatten().collect();
        let mut call = Call::new(Method::GET, &format!("/v1/flows?{}", asked.join("&")));
        // The maps are read for it.
        call.patience = CHANGE_PATIENCE;
        self.ask(call).await
    }

    /// The limits, measured for as long as the filter asks for.
    ///
    /// # Errors
    /// No daemon, no such VIP, or no answer that makes sense.
    pub async fn limits(&self, filter: &LimitFilter) -> Result<Limits, ClientError> {
        let vip = filter
            .vip
            .as_ref()
            .map(|vip| format!("vip={}", escaped(vip)));
        let top = filter.top.map(|top| format!("top={top}"));
        let seconds = filter.seconds.map(|seconds| format!("seconds={seconds}"));
        let asked: Vec<_> = [vip, top, seconds].into_iter().flatten().collect();
        let mut call = Call::new(Method::GET, &format!("/v1/limits?{}", asked.join("&")));
        call.patience = CHANGE_PATIENCE + filter.time();
        self.ask(call).await
    }

    /// Asks the daemon to take the program off, to remove every pin, and to end.
    ///
    /// # Errors
    /// No daemon, or it could not.
    pub async fn detach(&self) -> Result<Detached, ClientError> {
        self.ask(Call::new(Method::POST, "/v1/detach")).await
    }

    /// The daemon's generation, which a change is based on.
    ///
    /// # Errors
    /// No daemon, or no answer that makes sense.
    pub async fn generation(&self) -> Result<u64, ClientError> {
        let Generation { generation } = self.ask(Call::new(Method::GET, "/v1/generation")).await?;
        Ok(generation)
    }

    /// Asks the daemon to take a configuration.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn apply(&self, base: Base, config: &NewConfig) -> Result<Changed, ClientError> {
        self.ask(Call::change(Method::PUT, "/v1/config".to_owned(), base).with(config)?)
            .await
    }

    /// What a configuration would change.
    ///
    /// # Errors
    /// No daemon, or the configuration is not valid there.
    pub async fn plan(&self, config: &NewConfig) -> Result<Plan, ClientError> {
        let mut call = Call::new(Method::POST, "/v1/plan").with(config)?;
        call.patience = CHANGE_PATIENCE;
        self.ask(call).await
    }

    /// Has the network find the address of a VIP at this node, or not any more.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn announce(
        &self,
        base: Base,
        vip: &str,
        is_on: bool,
    ) -> Result<Changed, ClientError> {
        let method = if is_on { Method::PUT } else { Method::DELETE };
        let path = format!("/v1/vips/{}/announcement", escaped(vip));
        self.ask(Call::change(method, path, base)).await
    }

    /// Asks the daemon to let a backend take no new flows, or to let it again.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn drain(
        &self,
        base: Base,
        target: &Target,
        is_drained: bool,
    ) -> Result<Changed, ClientError> {
        let method = if is_drained {
            Method::PUT
        } else {
            Method::DELETE
        };
        let path = match target {
            Target::OfVip(vip, backend) => format!("{}/drain", of_vip(vip, *backend)),
            Target::OfAll(backend) => format!("/v1/backends/{backend}/drain"),
        };
        self.ask(Call::change(method, path, base)).await
    }

    /// Asks the daemon to withdraw every address of its node, or to announce again.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn drain_node(&self, base: Base, is_drained: bool) -> Result<Changed, ClientError> {
        let method = if is_drained {
            Method::PUT
        } else {
            Method::DELETE
        };
        self.ask(Call::change(method, "/v1/node/drain".to_owned(), base))
            .await
    }

    /// Asks the daemon to give a backend of a VIP a weight, or the configuration's again.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn weight(
        &self,
        base: Base,
        vip: &str,
        backend: IpAddr,
        weight: Option<u16>,
    ) -> Result<Changed, ClientError> {
        let path = format!("{}/weight", of_vip(vip, backend));
        let call = match weight {
            Some(weight) => Call::change(Method::PUT, path, base).with(&NewWeight { weight })?,
            None => Call::change(Method::DELETE, path, base),
        };
        self.ask(call).await
    }

    /// Whether the nodes of the fleet have the same tables.
    ///
    /// # Errors
    /// No daemon, it compares no nodes, or no answer that makes sense.
    pub async fn agreement(&self) -> Result<Agreement, ClientError> {
        self.ask(Call::new(Method::GET, "/v1/fleet")).await
    }

    /// What is blocked by command.
    ///
    /// # Errors
    /// No daemon, or no answer that makes sense.
    pub async fn blocks(&self) -> Result<BlockList, ClientError> {
        self.ask(Call::new(Method::GET, "/v1/blocks")).await
    }

    /// Asks the daemon to block a prefix.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn block(&self, base: Base, block: &NewBlock) -> Result<Changed, ClientError> {
        let call = Call::change(Method::PUT, "/v1/blocks".to_owned(), base);
        self.ask(call.with(block)?).await
    }

    /// Asks the daemon to let a prefix send again.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn unblock(&self, base: Base, block: &OldBlock) -> Result<Changed, ClientError> {
        let prefix = format!("prefix={}", escaped(&block.prefix.to_string()));
        let vip = block
            .vip
            .as_ref()
            .map(|vip| format!("&vip={}", escaped(vip)));
        let path = format!("/v1/blocks?{prefix}{}", vip.unwrap_or_default());
        self.ask(Call::change(Method::DELETE, path, base)).await
    }

    /// The events from now on.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let call = Call::new(Method::GET, "/v1/events");
        self.follow(call).await.map(Lines::new)
    }

    /// Sampled packets from now on, and what becomes of them.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn packets(&self, filter: &PacketFilter) -> Result<Lines<PacketSeen>, ClientError> {
        let text = |number: Option<u32>| number.map(|number| number.to_string());
        let path = query(
            "/v1/packets",
            &[
                ("sample", text(filter.sample)),
                ("vip", filter.vip.clone()),
                ("reason", filter.reason.clone()),
                ("rate", text(filter.rate)),
            ],
        );
        let mut call = Call::new(Method::GET, &path);
        call.patience = CHANGE_PATIENCE;
        self.follow(call).await.map(Lines::new)
    }

    /// Packets as they came and as they left, as a pcapng file.
    ///
    /// # Errors
    /// No daemon, or it refused.
    pub async fn capture(&self, filter: &CaptureFilter) -> Result<Pieces, ClientError> {
        let path = query(
            "/v1/capture",
            &[
                ("vip", filter.vip.clone()),
                ("reason", filter.reason.clone()),
                ("from", filter.from.map(|prefix| prefix.to_string())),
                ("to", filter.to.map(|prefix| prefix.to_string())),
                ("count", filter.count.map(|count| count.to_string())),
                ("seconds", filter.seconds.map(|seconds| seconds.to_string())),
                ("rate", filter.rate.map(|rate| rate.to_string())),
                ("snaplen", filter.snaplen.map(|bytes| bytes.to_string())),
                ("side", filter.side.map(|side| side.as_str().to_owned())),
            ],
        );
        let mut call = Call::new(Method::GET, &path);
        // The program that observes may have to be loaded.
        call.patience = CHANGE_PATIENCE;
        self.follow(call).await
    }

    /// Sends a request whose answer goes on for as long as it is read.
    async fn follow(&self, call: Call) -> Result<Pieces, ClientError> {
        let patience = call.patience;
        let socket = self.socket.clone();
        let opened = timeout(patience, self.open(call)).await;
        let Ok(opened) = opened else {
            return Err(ClientError::Timeout { socket, patience });
        };
        let (response, connection) = opened?;
        if !response.status().is_success() {
            let status = response.status();
            let read = async { whole(response.into_body()).await };
            let (body, ()) = tokio::join!(read, connection);
            return Err(refused(status, &body?));
        }
        // It ends when the stream is dropped, which drops the other end of the connection.
        tokio::spawn(connection);
        Ok(Pieces {
            body: response.into_body(),
        })
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let patience = call.patience;
        let Ok(answer) = timeout(patience, self.exchange(call)).await else {
            let socket = self.socket.clone();
            return Err(ClientError::Timeout { socket, patience });
        };
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        Err(refused(status, &body))
    }

    async fn exchange(&self, call: Call) -> Result<(StatusCode, Bytes), ClientError> {
        let (response, connection) = self.open(call).await?;
        let status = response.status();
        let (body, ()) = tokio::join!(whole(response.into_body()), connection);
        Ok((status, body?))
    }

    /// Sends a request; the answer's body comes while the connection is driven.
    async fn open(
        &self,
        call: Call,
    ) -> Result<(Response<Incoming>, impl Future<Output = ()> + Send + use<>), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(HOST, HeaderValue::from_static("weir"));
        if let Some(base) = call.base {
            request = request.header(IF_MATCH, base);
        }
        let request = request.body(Full::new(call.body))?;
        let mut connection = Box::pin(async move {
            // A connection that breaks shows in the answer.
            connection.await.ok();
        });
        let mut answer = pin!(sender.send_request(request));
        let mut is_over = false;
        let response = tokio::select! {
            biased;
            response = &mut answer => response?,
            // Whoever ends after its answer closes the connection at once: that future must not be asked again.
            () = &mut connection => {
                is_over = true;
                answer.await?
            }
        };
        let rest = async move {
            if !is_over {
                connection.await;
            }
        };
        Ok((response, rest))
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
