use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const REPORT: &str =
    r#"{"node":"lb-2","instance":"0123456789abcdef","version":"0.1.0","generation":7,"vips":[]}"#;

/// A peer that gives one answer after the other, and then lets nobody in. What it was asked comes back.
async fn peer(answers: Vec<Vec<u8>>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.push(String::from_utf8(head).unwrap());
            // Whoever has read enough goes.
            stream.write_all(&answer).await.ok();
        }
        asked
    });
    (address, task)
}

fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nETag: \"7\"\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The only node that is known after each of some turns.
async fn turns(answers: Vec<Vec<u8>>) -> (Vec<Node>, Vec<String>) {
    let count = answers.len();
    let (address, asked) = peer(answers).await;
    let mut peers = Peers::new([address]);
    let mut nodes = peers.heard().nodes;
    assert_eq!(nodes[0].error.as_deref(), Some("not asked yet"));
    nodes.clear();
    for _ in 0..count {
        peers.turn().await;
        nodes.append(&mut peers.heard().nodes);
    }
    (nodes, asked.await.unwrap())
}

#[tokio::test]
async fn a_report_is_read_once() {
    let same = b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec();
    let (nodes, asked) = turns(vec![ok(REPORT), same]).await;
    for node in &nodes {
        assert_eq!(node.error, None);
        assert_eq!(node.report.as_ref().unwrap().node, "lb-2");
    }
    assert!(nodes[0].heard < nodes[1].heard, "{nodes:?}");
    assert!(asked[0].starts_with("GET /fleet HTTP/1.1\r\n"), "{asked:?}");
    assert!(!asked[0].contains("if-none-match"), "{asked:?}");
    assert!(asked[1].contains("if-none-match: \"7\"\r\n"), "{asked:?}");
}

#[tokio::test]
async fn what_is_no_report_is_told_and_what_was_told_before_is_kept() {
    let mut endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    endless.extend(chunk.repeat(LARGEST / 0x10000 + 1));
    let (nodes, _) = turns(vec![
        ok(REPORT),
        ok("\u{1b}[2J"),
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec(),
        b"SSH-2.0\r\n".to_vec(),
        endless,
        ok(REPORT),
    ])
    .await;
    let errors = nodes.iter().map(|node| node.error.as_deref().unwrap_or(""));
    let errors: Vec<_> = errors.collect();
    for (error, wanted) in errors.iter().zip([
        "",
        "the answer is not the report of a weir (line 1, column 1)",
        "the answer is 404 Not Found; is it the `metrics_listen` of a weir that knows `/fleet`?",
        "the answer broke off",
        "ask: ",
        "the report is larger than 2097152 bytes",
        "",
    ]) {
        assert!(error.starts_with(wanted), "{errors:?}");
        assert_eq!(error.is_empty(), wanted.is_empty(), "{errors:?}");
    }
    assert!(nodes.iter().all(|node| node.report.is_some()));
    let heard = nodes[0].heard;
    assert!(nodes[..6].iter().all(|node| node.heard == heard));
    assert!(nodes[6].heard > heard);
}

#[tokio::test]
async fn who_says_nothing_holds_up_nobody() {
    let (silent, _) = peer(vec![Vec::new()]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = listener.local_addr().unwrap();
    let (well, _task) = peer(vec![ok(REPORT)]).await;
    let mut peers = Peers::new([deaf, silent, well]);
    peers.turn().await;
    let nodes = peers.heard().nodes;
    assert_eq!(nodes[0].error.as_deref(), Some("no answer within 1 s"));
    assert!(nodes[1].error.as_deref().unwrap().starts_with("ask: "));
    assert_eq!(nodes[2].error, None);
    drop(listener);
    peers.turn().await;
    let nodes = peers.heard().nodes;
    assert_eq!(
        nodes[0].error.as_deref(),
        Some("connect: connection refused")
    );
    assert_eq!(nodes[0].called, deaf.to_string());
}
