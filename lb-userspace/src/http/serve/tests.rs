use std::net::SocketAddr;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

use super::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n";

struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server whose peers are privileged if they are IPv6's.
async fn start(limits: Limits, at: &str) -> Server {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let late = async || {
        let rest = futures_util::stream::once(async {
            tokio::time::sleep(3 * SHORT.head).await;
            Ok::<_, io::Error>("well")
        });
        axum::body::Body::from_stream(rest)
    };
    let router = Router::new()
        .route("/", get(async || "well"))
        .route("/late", get(late));
    let peer = |stream: &TcpStream| stream.peer_addr().unwrap();
    let is_privileged = |peer: &SocketAddr| peer.is_ipv6();
    let task = tokio::spawn(async move {
        let end = std::future::pending();
        serve(listener, router, limits, peer, is_privileged, end)
            .await
            .unwrap();
    });
    Server { address, task }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Sends a request on a connection that stays, and reads the answer.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(GET).await.unwrap();
    let mut answer = String::new();
    let mut part = [0; 1024];
    while !answer.ends_with("well") && !answer.ends_with('}') {
        let read = timeout(PATIENCE, stream.read(&mut part)).await;
        let length = read.unwrap().unwrap();
        assert_ne!(length, 0, "closed after {answer:?}");
        answer.push_str(str::from_utf8(&part[..length]).unwrap());
    }
    answer
}

/// Waits until the server ends a connection, and returns what it said and how long that took.
async fn end(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut said = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // What it has not read is thrown back, which is an end as well.
    read.unwrap().ok();
    (String::from_utf8(said).unwrap(), began.elapsed())
}

const SHORT: Limits = Limits {
    connections: 1024,
    head: Duration::from_millis(300),
};

#[tokio::test]
async fn who_sends_a_head_slowly_is_closed_and_others_are_served() {
    let server = start(SHORT, "127.0.0.1:0").await;
    let mut slow = server.connect().await;
    let began = Instant::now();
    // A byte now and then must not buy time.
    let drip = async {
        loop {
            for byte in b"GET / HTTP/1.1\r\nX: " {
                if slow.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(PATIENCE, drip).await.unwrap();
    assert!(began.elapsed() >= SHORT.head);
    assert!(ask(&mut server.connect().await).await.ends_with("well"));
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    let server = start(SHORT, "127.0.0.1:0").await;
    let (said, took) = end(&mut server.connect().await).await;
    assert_eq!(said, "");
    assert!(took >= SHORT.head, "{took:?}");
}

#[tokio::test]
async fn a_connection_that_is_idle_is_closed() {
    let server = start(SHORT, "127.0.0.1:0").await;
    let mut stream = server.connect().await;
    ask(&mut stream).await;
    ask(&mut stream).await;
    let (said, took) = end(&mut stream).await;
    assert_eq!(said, "");
    assert!(took >= SHORT.head / 2, "{took:?}");
}

#[tokio::test]
async fn an_answer_may_take_its_time() {
    let server = start(SHORT, "127.0.0.1:0").await;
    let mut stream = server.connect().await;
    let request = b"GET /late HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let (said, took) = end(&mut stream).await;
    assert!(said.ends_with("\r\n4\r\nwell\r\n0\r\n\r\n"), "{said}");
    assert!(took >= 3 * SHORT.head, "{took:?}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = start(Limits::default(), "127.0.0.1:0").await;
    let mut stream = server.connect().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(HEAD_LIMIT));
    stream.write_all(head.as_bytes()).await.ok();
    let (said, _) = end(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_comes_in_when_another_leaves() {
    const PLACES: usize = 3;
    let limits = Limits {
        connections: PLACES,
        ..Limits::default()
    };
    let server = start(limits, "127.0.0.1:0").await;
    let mut there = Vec::new();
    for _ in 0..PLACES {
        let mut stream = server.connect().await;
        ask(&mut stream).await;
        there.push(stream);
    }
    let mut late = server.connect().await;
    let answer = ask(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let text = r#"{"error":"there are 3 connections already: try again later"}"#;
    assert!(answer.ends_with(text), "{answer}");
    assert_eq!(end(&mut late).await.0, "");
    for stream in &mut there {
        assert!(ask(stream).await.ends_with("well"));
    }

    there.pop();
    let began = Instant::now();
    while !ask(&mut server.connect().await).await.ends_with("well") {
        assert!(began.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn the_privileged_need_no_place() {
    let limits = Limits {
        connections: 0,
        ..Limits::default()
    };
    let server = start(limits, "127.0.0.1:0").await;
    assert!(ask(&mut server.connect().await).await.contains(" 503 "));
    let server = start(limits, "[::1]:0").await;
    assert!(ask(&mut server.connect().await).await.ends_with("well"));
}

#[tokio::test]
async fn more_refusals_than_there_may_be_are_closed_without_a_word() {
    let limits = Limits {
        connections: 0,
        ..Limits::default()
    };
    let server = start(limits, "127.0.0.1:0").await;
    let mut silent = Vec::new();
    for _ in 0..REFUSALS {
        silent.push(server.connect().await);
    }
    let mut beyond = server.connect().await;
    let (said, _) = end(&mut beyond).await;
    assert_eq!(said, "");
    drop(silent);
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE);
        let mut stream = server.connect().await;
        stream.write_all(GET).await.ok();
        let (said, _) = end(&mut stream).await;
        if said.contains(" 503 ") {
            break;
        }
    }
}
