//! `weir top --once` against a daemon made by hand: one that samples packets, one that cannot, and none.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test panics where it fails"
)]

#[expect(dead_code, reason = "the helpers serve other tests, too")]
mod common;

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{Json, Router, body::Body, extract::RawQuery, routing::get};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::UnixListener, process::Command};

/// What was asked of `/v1/packets`.
type Asked = Arc<Mutex<Vec<String>>>;

/// Serves a status whose counters grow by so much each time it is asked for, and samples where it can.
fn serve(socket: &Path, grows_by: u64, samples: Option<&'static str>) -> Asked {
    let asked = Asked::default();
    let times = Arc::new(Mutex::new(0));
    let status = move || async move {
        let mut status = common::status();
        let mut times = times.lock().unwrap();
        *times += 1;
        let more = *times * grows_by;
        status.vips[0].packets += more;
        status.vips[0].backends[0].packets += more;
        status.reasons[0].packets += more;
        Json(status)
    };
    let mut router = Router::new().route("/v1/status", get(status)).route(
        "/v1/limits",
        get(async || Json(json!({"seconds": 1.0, "vips": []}))),
    );
    if let Some(samples) = samples {
        let asked = Arc::clone(&asked);
        let packets = async move |RawQuery(query): RawQuery| {
            asked.lock().unwrap().push(query.unwrap_or_default());
            // The stream goes on, in silence.
            let lines = stream::iter([Ok::<_, std::io::Error>(samples)]);
            Body::from_stream(stream::StreamExt::chain(lines, stream::pending()))
        };
        router = router.route("/v1/packets", get(packets));
    }
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    asked
}

async fn top(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(["top", "--socket"])
        .arg(socket)
        .args(arguments);
    command.stdin(Stdio::null());
    command.output().await.unwrap()
}

fn told(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

const ONCE: [&str; 6] = ["--once", "--interval", "0.5", "--sources", "-o", "json"];

/// Sampled packets, as a daemon tells them.
const SAMPLES: &str = concat!(
    r#"{"time":"2026-11-23T21:14:12.345Z","vip":"web","backend":"10.0.0.11","slot":7,"verdict":"tx","reason":"forwarded","source":"198.51.100.7","source_port":40000,"destination":"203.0.113.10","destination_port":443,"protocol":"tcp","length_bytes":1000,"sample":4,"skipped":0}"#,
    "\n",
    r#"{"time":"2026-11-23T21:14:12.345Z","vip":null,"backend":null,"slot":null,"verdict":"drop","reason":"malformed","source":"2001:db8::7","source_port":null,"destination":"203.0.113.10","destination_port":null,"protocol":"udp","length_bytes":100,"sample":4,"skipped":0}"#,
    "\n",
    r#"{"time":"2026-11-23T21:14:12.346Z","vip":"web","backend":"10.0.0.11","slot":7,"verdict":"tx","reason":"forwarded","source":"198.51.100.7","source_port":40000,"destination":"203.0.113.10","destination_port":443,"protocol":"tcp","length_bytes":500,"sample":4,"skipped":0}"#,
    "\n",
);

#[tokio::test]
async fn samples_become_the_top_sources() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("weir.sock");
    // Between the first two samples, 0.2 s apart, this is far more than is to be sampled whole.
    let asked = serve(&socket, 1_000_000, Some(SAMPLES));
    let told = told(&top(&socket, &ONCE).await);
    let sources = &told["sampled_sources"];
    assert_eq!(
        (&sources["unavailable"], &sources["samples"]),
        (&Value::Null, &json!(3))
    );
    let seconds = sources["seconds"].as_f64().unwrap();
    let top = &sources["top"];
    assert_eq!(
        (&top[0]["source"], &top[1]["source"]),
        (&json!("198.51.100.7"), &json!("2001:db8::7"))
    );
    let close =
        |value: &Value, wanted: f64| (value.as_f64().unwrap() * seconds - wanted).abs() < 1e-6;
    assert!(close(&top[0]["packets_per_second"], 8.0), "{top}");
    assert!(close(&top[0]["bits_per_second"], 8.0 * 6000.0), "{top}");
    assert!(close(&top[1]["packets_per_second"], 4.0), "{top}");
    let asked = asked.lock().unwrap().clone();
    let sample = asked[0].strip_prefix("sample=").unwrap();
    let sample: u32 = sample.strip_suffix("&rate=4000").unwrap().parse().unwrap();
    assert!(sample.is_power_of_two() && sample > 1, "{asked:?}");
}

#[tokio::test]
async fn samples_of_one_vip_are_asked_for_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("weir.sock");
    let asked = serve(&socket, 0, Some(""));
    let arguments = [&ONCE[..], &["--vip", "web"]].concat();
    let told = told(&top(&socket, &arguments).await);
    assert_eq!(told["vips"].as_array().unwrap().len(), 1);
    assert_eq!(told["vips"][0]["packets_per_second"], 0.0);
    assert_eq!(
        asked.lock().unwrap().as_slice(),
        ["sample=1&vip=web&rate=4000"]
    );
}

#[tokio::test]
async fn a_daemon_without_samples_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("weir.sock");
    serve(&socket, 1, None);
    let told = told(&top(&socket, &ONCE).await);
    let why = &told["sampled_sources"]["unavailable"];
    assert_eq!(why, "this daemon does not sample packets");
    let table = top(&socket, &["--once", "--interval", "0.2", "--sources"]).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("no sampled sources: this daemon"), "{table}");
}

#[tokio::test]
async fn without_a_daemon_a_vip_or_a_terminal_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("weir.sock");
    let said = |output: &Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, text) = said(&top(&socket, &["--once"]).await);
    assert!(
        code == Some(1) && text.contains("no daemon listens on"),
        "{code:?} {text}"
    );
    let (code, text) = said(&top(&socket, &[]).await);
    assert!(
        code == Some(1) && text.contains("weir top --once"),
        "{code:?} {text}"
    );
    serve(&socket, 0, None);
    let (code, text) = said(&top(&socket, &["--once", "--vip", "none"]).await);
    assert!(
        code == Some(1) && text.contains("there is no VIP none"),
        "{code:?} {text}"
    );
    // What concerns --once alone is no option of the screen.
    let (code, text) = said(&top(&socket, &["-o", "json"]).await);
    assert!(
        code == Some(2) && text.contains("--once"),
        "{code:?} {text}"
    );
}
