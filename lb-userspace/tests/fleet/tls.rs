//! Over TLS, and by way of Sentinels: on ports of the loopback interface.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lb_userspace::config::Endpoint;
use tempfile::TempDir;

use crate::node::{Ledger, Node, until};

/// Longer than any start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says that this process is the one that trusts the test's certificates.
const INNER: &str = "WEIR_TEST_REDIS_URL";

/// A server on a port; killed when dropped.
struct Listener(Child);

impl Listener {
    fn start(port: u16, directory: &TempDir, arguments: &[&str]) -> Self {
        let child = Command::new("redis-server")
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs: `cargo xtask setup` installs it");
        let mut listener = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let is_gone = listener.0.try_wait().unwrap();
            assert_eq!(is_gone, None, "redis-server ended");
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn node(url: &str) -> Node {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    Node::start(Endpoint::parse(url).unwrap(), 0, &ledger)
}

#[tokio::test]
async fn over_tls_only_with_a_certificate_that_is_trusted() {
    // Trust comes from the environment, which only a new process can have as it wants it.
    if let Ok(url) = std::env::var(INNER) {
        let node = node(&url);
        until("a lease", || node.leased().is_some()).await;
        return;
    }
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("certificate.pem", certified.cert.pem());
    let key = file("key.pem", certified.signing_key.serialize_pem());
    let port_text = port.to_string();
    let _server = Listener::start(
        port,
        &directory,
        &[
            "--port",
            "0",
            "--tls-port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ],
    );
    let url = format!("rediss://localhost:{port}");
    let name = "tls::over_tls_only_with_a_certificate_that_is_trusted";
    let status = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(INNER, &url)
        .env("SSL_CERT_FILE", &certificate)
        .status();
    assert!(status.await.unwrap().success());
    // This process does not trust it.
    let node = node(&url);
    node.fails("connection").await;
    assert!(node.falls_back_to(25));
}

#[tokio::test]
async fn sentinels_name_the_master() {
    let (directory, master, sentinel) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let text = master.to_string();
    let arguments = [
        "--port",
        &text,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--requirepass",
        "x",
    ];
    let _master = Listener::start(master, &directory, &arguments);
    let configuration = format!(
        "port {sentinel}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\nsentinel auth-pass main x\n"
    );
    fs::write(directory.path().join("sentinel.conf"), configuration).unwrap();
    let _sentinel = Listener::start(sentinel, &directory, &["sentinel.conf", "--sentinel"]);
    // One that is not there is passed over.
    let dead = free_port();
    let hosts = format!("127.0.0.1:{dead},127.0.0.1:{sentinel}");
    let found = node(&format!("redis+sentinel://:x@{hosts}/main"));
    until("a lease", || found.leased().is_some()).await;
    let unknown = node(&format!("redis+sentinel://:x@{hosts}/other"));
    unknown.fails("sentinel").await;
}
