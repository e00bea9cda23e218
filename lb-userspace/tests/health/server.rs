//! Servers whose mood can be changed.

use std::{
    convert::Infallible,
    future::pending,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tonic_health::ServingStatus;

/// How long an address may be in use.
const PATIENCE: Duration = Duration::from_secs(10);

/// The gRPC service that servers have.
pub(crate) const SERVICE: &str = "weir.test.Service";

/// How a server does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mood {
    /// It answers what it should.
    Well,
    /// It answers, but not that all is well.
    Wrong,
    /// It takes connections and says nothing.
    Silent,
    /// It answers in another protocol.
    Garbage,
    /// It ends in the middle of its answer.
    BreaksOff,
    /// Nobody listens.
    Gone,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Future = Pin<Box<dyn std::future::Future<Output = ()> + Send>>;

/// What serves one TCP connection.
type Handler = Arc<dyn Fn(Box<dyn Stream>, Mood) -> Future + Send + Sync>;

/// What answers one datagram.
type Answerer = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

#[derive(Clone)]
enum Kind {
    Tcp(Option<TlsAcceptor>, Handler),
    Udp(Answerer),
}

/// A server, on a port of its own on the loopback interface unless it is moved.
pub(crate) struct Server {
    address: SocketAddr,
    kind: Kind,
    running: Option<JoinHandle<()>>,
    asked: Arc<Mutex<Vec<String>>>,
    names: Arc<Mutex<Vec<String>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Server {
    async fn start(kind: Kind) -> Self {
        let mut server = Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            kind,
            running: None,
            asked: Arc::default(),
            names: Arc::default(),
        };
        server.set(Mood::Well).await;
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same server at another address.
    pub(crate) async fn moved_to(mut self, address: SocketAddr) -> Self {
        self.set(Mood::Gone).await;
        self.address = address;
        self.set(Mood::Well).await;
        self
    }

    /// The requests of all probes, each once.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The names that were asked for by SNI, each once.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }

    /// Changes the mood, for all connections that come.
    pub(crate) async fn set(&mut self, mood: Mood) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Aborted: the socket is closed then.
            running.await.unwrap_err();
        }
        if mood == Mood::Gone {
            return;
        }
        self.running = Some(match self.kind.clone() {
            Kind::Tcp(tls, handler) => {
                let listener = listen(self.address).await;
                self.address = listener.local_addr().unwrap();
                let names = Arc::clone(&self.names);
                tokio::spawn(serve_tcp(listener, tls, handler, mood, names))
            }
            Kind::Udp(answerer) => {
                let socket = UdpSocket::bind(self.address).await.unwrap();
                self.address = socket.local_addr().unwrap();
                tokio::spawn(serve_udp(socket, answerer, mood))
            }
        });
    }

    pub(crate) async fn tcp() -> Self {
        let handler: Handler = Arc::new(|stream, _| {
            drop(stream);
            Box::pin(async {})
        });
        Self::start(Kind::Tcp(None, handler)).await
    }

    pub(crate) async fn http() -> Self {
        Self::start_http(None, StatusCode::NO_CONTENT).await
    }

    pub(crate) async fn https(tls: TlsAcceptor) -> Self {
        Self::start_http(Some(tls), StatusCode::OK).await
    }

    async fn start_http(tls: Option<TlsAcceptor>, well: StatusCode) -> Self {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = Arc::clone(&asked);
        let handler: Handler = Arc::new(move |stream, mood| {
            let list = Arc::clone(&list);
            let answer = move |request: Request<Incoming>| {
                let host = request.headers()["host"].to_str().unwrap();
                note(
                    &list,
                    format!("{} {} {host}", request.method(), request.uri()),
                );
                async move {
                    let status = match mood {
                        Mood::Wrong => StatusCode::SERVICE_UNAVAILABLE,
                        Mood::Silent => pending().await,
                        _ => well,
                    };
                    let mut response = Response::new(Full::<Bytes>::default());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            };
            Box::pin(async move {
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                connection.await.ok();
            })
        });
        let mut server = Self::start(Kind::Tcp(tls, handler)).await;
        server.asked = asked;
        server
    }

    pub(crate) async fn grpc(tls: Option<TlsAcceptor>) -> Self {
        let handler: Handler = Arc::new(|stream, mood| {
            Box::pin(async move {
                let (reporter, service) = tonic_health::server::health_reporter();
                let status = match mood {
                    Mood::Wrong => ServingStatus::NotServing,
                    _ => ServingStatus::Serving,
                };
                reporter.set_service_status(SERVICE, status).await;
                if mood == Mood::Silent {
                    let _open = stream;
                    return pending().await;
                }
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
                connection.await.ok();
            })
        });
        Self::start(Kind::Tcp(tls, handler)).await
    }

    pub(crate) async fn udp(answerer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Kind::Udp(Arc::new(answerer))).await
    }

    pub(crate) async fn dns_tcp(name: &'static str) -> Self {
        let handler: Handler = Arc::new(move |mut stream, mood| {
            Box::pin(async move {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = match mood {
                    Mood::Silent => pending().await,
                    Mood::Wrong => WRONG.to_vec(),
                    _ => dns_answer(&question, name),
                };
                let length = u16::try_from(answer.len()).unwrap();
                stream.write_u16(length).await.unwrap();
                stream.write_all(&answer).await.unwrap();
                // The client ends it.
                stream.read_u8().await.ok();
            })
        });
        Self::start(Kind::Tcp(None, handler)).await
    }
}

/// Listens, as soon as nobody else does: a process that is just being started holds what was open for a moment.
async fn listen(address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                let may_end = error.kind() == ErrorKind::AddrInUse;
                assert!(may_end && began.elapsed() < PATIENCE, "{address}: {error}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn note(list: &Mutex<Vec<String>>, item: String) {
    let mut list = list.lock().unwrap();
    if !list.contains(&item) {
        list.push(item);
    }
}

/// What nobody expects.
const WRONG: &[u8] = &[0xff; 8];

async fn serve_tcp(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    mood: Mood,
    names: Arc<Mutex<Vec<String>>>,
) {
    // Ends with this task.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, handler, names) = (tls.clone(), Arc::clone(&handler), Arc::clone(&names));
        connections.spawn(async move {
            match mood {
                Mood::Garbage => speak(stream, b"220 mail.example.com ESMTP\r\n").await,
                Mood::BreaksOff => {
                    speak(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await;
                }
                _ => match tls {
                    None => handler(Box::new(stream), mood).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else {
                            return;
                        };
                        let name = stream.get_ref().1.server_name().unwrap_or_default();
                        note(&names, name.to_owned());
                        handler(Box::new(stream), mood).await;
                    }
                },
            }
        });
    }
}

/// Says something, whatever it is asked.
async fn speak(mut stream: TcpStream, text: &[u8]) {
    let mut question = [0; 1024];
    if stream.read(&mut question).await.is_ok() {
        stream.write_all(text).await.ok();
    }
}

async fn serve_udp(socket: UdpSocket, answerer: Answerer, mood: Mood) {
    let mut question = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut question).await.unwrap();
        let answer = match mood {
            Mood::Silent => continue,
            Mood::Wrong => WRONG.to_vec(),
            _ => answerer(&question[..length]),
        };
        socket.send_to(&answer, from).await.unwrap();
    }
}

/// The answer of a DNS server that knows one name, and no address of it.
pub(crate) fn dns_answer(question: &[u8], name: &str) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    if question.queries[0].name().to_string() != name {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    answer.add_queries(question.queries);
    answer.to_vec().unwrap()
}

/// TLS with a certificate that nobody trusts.
pub(crate) fn tls() -> TlsAcceptor {
    let names = ["somebody.example.net".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    tls_with(
        signed.cert.der().clone(),
        signed.signing_key.serialize_der(),
    )
}

/// TLS with a certificate and its key (PKCS #8, DER).
pub(crate) fn tls_with(certificate: CertificateDer<'static>, key: Vec<u8>) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
