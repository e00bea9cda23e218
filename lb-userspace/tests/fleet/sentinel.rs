//! A node that finds its Redis by a Sentinel, which makes a replica the master when that dies.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use lb_userspace::config::Endpoint;
use redis::{FromRedisValue, Value};

use crate::{
    node::{LIMIT, Ledger, Node, until},
    server::Server,
    tls::free_port,
};

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What the Sentinel calls the master.
const MASTER: &str = "edge";

/// A Redis that others reach by TCP.
fn server(port: u16, arguments: &[&str]) -> Server {
    let port = port.to_string();
    let host = HOST.to_string();
    let own = [
        "--port",
        &port,
        "--bind",
        &host,
        "--repl-diskless-sync-delay",
        "0",
    ];
    Server::start_with(&[&own[..], arguments].concat())
}

/// A running Sentinel; killed when dropped.
struct Sentinel {
    port: u16,
    child: Child,
    /// It keeps what it knows in its configuration.
    _directory: tempfile::TempDir,
}

impl Sentinel {
    async fn start(master: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = directory.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind {HOST}\nsentinel monitor {MASTER} {HOST} {master} 1\n\
             sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 5000\n"
        );
        fs::write(&file, text).unwrap();
        let child = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        until("a Sentinel that listens", || {
            TcpStream::connect((HOST, port)).is_ok()
        })
        .await;
        Self {
            port,
            child,
            _directory: directory,
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::parse(&format!("redis+sentinel://{HOST}:{}/{MASTER}/0", self.port)).unwrap()
    }

    /// How many replicas it could make the master.
    fn replicas(&self) -> usize {
        let client = redis::Client::open(format!("redis://{HOST}:{}", self.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut ask = redis::cmd("SENTINEL");
        let replicas: Vec<Vec<String>> = ask
            .arg("replicas")
            .arg(MASTER)
            .query(&mut connection)
            .unwrap();
        let is_ready = |replica: &Vec<String>| {
            replica
                .chunks(2)
                .any(|pair| pair == ["master-link-status", "ok"])
        };
        replicas.into_iter().filter(is_ready).count()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_sentinel_makes_a_replica_the_master() {
    let port = free_port();
    let mut master = server(port, &[]);
    let replica = server(
        free_port(),
        &["--replicaof", &HOST.to_string(), &port.to_string()],
    );
    let sentinel = Sentinel::start(port).await;
    until("a replica that could be the master", || {
        sentinel.replicas() == 1
    })
    .await;

    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let node = Node::start(sentinel.endpoint(), 0, &ledger);
    node.load(10);
    until("a lease of all of it", || node.leased() == Some(100)).await;
    let before = node.status().answers;
    master.kill();
    until("a lease from the replica", || {
        // A Sentinel that makes it the master closes everybody's connections to it.
        let Ok(Value::Array(role)) = replica.try_command(&["ROLE"]) else {
            return false;
        };
        let is_master = role.first().is_some_and(|role| {
            String::from_redis_value_ref(role).is_ok_and(|role| role == "master")
        });
        is_master && node.status().answers > before && node.leased() == Some(100)
    })
    .await;
    let ledger = ledger.lock().unwrap();
    assert!(ledger.most <= LIMIT.thousandths(), "{ledger:?}");
}
