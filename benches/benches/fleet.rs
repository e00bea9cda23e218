//! What a request of fleet limits costs Redis, by its own count: `cargo bench -p weir-benches --bench fleet`.
//!
//! Needs `redis-server`, and starts one of its own on a Unix socket.

#![expect(clippy::print_stdout, reason = "the table is the output")]

use std::{
    fmt::Write as _,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use lb_userspace::limits::fleet::{
    Key, Rate,
    redis::SCRIPT,
    wire::{Ask, Request},
};
use redis::{Connection, Script, cmd};

const NODES: [u64; 5] = [1, 4, 16, 64, 100];

const LIMITS: [usize; 3] = [1, 10, 64];

/// How long each case is called for.
const SPAN: Duration = Duration::from_millis(500);

/// A server; ended when dropped.
struct Server(Child);

impl Server {
    fn start(socket: &Path) -> anyhow::Result<Self> {
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .context("start redis-server: `cargo xtask setup` installs it")?;
        let server = Self(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(socket).is_err() {
            ensure!(Instant::now() < deadline, "redis-server does not listen");
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("redis.sock");
    let _server = Server::start(&socket)?;
    let client = redis::Client::open(format!("unix://{}", socket.display()))?;
    let mut connection = client.get_connection()?;
    println!("Redis's own time for a call, in µs, by nodes");
    println!(
        "limits {}",
        NODES.map(|nodes| format!("{nodes:>9}")).concat()
    );
    for limits in LIMITS {
        let mut line = format!("{limits:>6} ");
        for nodes in NODES {
            write!(line, "{:>9.1}", cost(&mut connection, nodes, limits)?)?;
        }
        println!("{line}");
    }
    Ok(())
}

/// Mean time of a call, in microseconds.
fn cost(connection: &mut Connection, nodes: u64, limits: usize) -> anyhow::Result<f64> {
    let script = Script::new(SCRIPT);
    cmd("FLUSHALL").exec(connection)?;
    let (mut sequence, mut began) = (0, Instant::now());
    // Until all nodes are known nothing counts.
    while sequence < 2 * nodes || began.elapsed() < SPAN {
        if sequence == 2 * nodes {
            cmd("CONFIG").arg("RESETSTAT").exec(connection)?;
            began = Instant::now();
        }
        sequence += 1;
        let request = request(sequence, nodes, limits);
        let mut invocation = script.prepare_invoke();
        for key in request.keys("edge") {
            invocation.key(key);
        }
        for argument in request.arguments() {
            invocation.arg(argument);
        }
        let _: Vec<i64> = invocation.invoke(connection)?;
    }
    let stats: String = cmd("INFO").arg("commandstats").query(connection)?;
    let line = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"));
    let field = line.and_then(|line| {
        line.split(',')
            .find_map(|part| part.strip_prefix("usec_per_call="))
    });
    Ok(field
        .context("INFO commandstats tells of EVALSHA")?
        .parse()?)
}

/// A turn of one of the nodes, each with a demand of its own.
fn request(sequence: u64, nodes: u64, limits: usize) -> Request {
    let node = sequence % nodes;
    let ask = |limit| Ask {
        key: Key::from(format!("vip{limit}/packets").as_str()),
        limit: Rate::per_second(100_000),
        want: Rate::per_second(100 + node % 7 * 5000),
        held: Rate::per_second(50),
        has: Rate::per_second(50),
        is_lease: true,
        lease: Duration::from_secs(30),
    };
    Request {
        node: node + 1,
        sequence,
        serial: 0,
        lease: Duration::from_secs(30),
        gap: Duration::from_secs(20),
        learn: Duration::from_micros(1),
        keep: Duration::from_mins(1),
        asks: (0..limits).map(ask).collect(),
    }
}
