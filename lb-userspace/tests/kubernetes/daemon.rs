//! `weir run` itself, in a network namespace, against the test API server in another one.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use lb_userspace::api::{Status, client::Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    cluster::{endpoint, pool, service, slice},
    follow::cluster_on,
    netns::{Namespace, join},
    server::{Server, until},
};

const PATIENCE: Duration = Duration::from_secs(90);

/// A running daemon, dead when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(host: &Namespace, config: &Path, socket: PathBuf) -> Self {
        // A mount namespace of its own comes with this: its bpffs goes with it.
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &host.name,
                env!("CARGO_BIN_EXE_weir"),
                "run",
                "--config",
            ])
            .arg(config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    async fn status(&self) -> Option<Status> {
        Client::new(&self.socket).status().await.ok()
    }

    async fn comes_to(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        self.comes_within(PATIENCE, what, is).await
    }

    async fn comes_within(
        &self,
        patience: Duration,
        what: &str,
        is: impl Fn(&Status) -> bool,
    ) -> Status {
        let looking = async {
            loop {
                match self.status().await {
                    Some(status) if is(&status) => return status,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let found = tokio::time::timeout(patience, looking).await;
        match found {
            Ok(status) => status,
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("still not so: {what}: {:?}", self.status().await)
            }
        }
    }

    fn end(mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn served(status: &Status) -> Vec<String> {
    let vips = status.vips.iter().map(|vip| {
        let backends = vip
            .backends
            .iter()
            .map(|b| format!(" {}={}", b.address, b.weight));
        format!("{}{}", vip.name, backends.collect::<String>())
    });
    vips.collect()
}

#[test]
fn a_daemon_serves_services_over_a_kill_and_lets_go_at_its_end() {
    let (lb, nodes) = (Namespace::new("lb"), Namespace::new("nodes"));
    join(
        (&lb, "eth0", "10.0.0.1/24"),
        (&nodes, "eth0", "10.0.0.254/24 10.0.0.11/24 10.0.0.12/24"),
    );
    nodes.run(async || {
        let api: IpAddr = "10.0.0.254".parse().unwrap();
        let server = cluster_on(Server::start_on(api).await);
        story(&lb, &server).await;
    });
}

async fn story(lb: &Namespace, server: &Server) {
    let directory = server.directory();
    let config = directory.join("weir.toml");
    let socket = directory.join("weir.sock");
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\nxdp_mode = \"generic\"\nseed = \"x\"\nstate_file = \"{0}/state.json\"\n\
         pin_path = \"{0}/bpf\"\napi_socket = \"{1}\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         [kubernetes]\nnode = \"lb-1\"\nkubeconfig = \"{2}\"\n\
         [[vip]]\nname = \"own\"\naddress = \"203.0.113.1\"\nport = 80\nprotocol = \"tcp\"\n",
        directory.display(),
        socket.display(),
        server.kubeconfig().display(),
    );
    std::fs::write(&config, text).unwrap();
    let wanted = ["own", "default.web.80-tcp 10.0.0.11=2 10.0.0.12=1"];
    let daemon = Daemon::start(lb, &config, socket.clone());
    let is_so = |status: &Status| {
        let cluster = status.kubernetes.as_ref().unwrap();
        served(status) == wanted && cluster.writer && status.vips[1].backends[0].resolved
    };
    let status = daemon.comes_to("the Service is served", is_so).await;
    assert_eq!(status.generation, 1);
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    assert_eq!(
        status.vips[1].address,
        "203.0.113.0".parse::<IpAddr>().unwrap()
    );
    // The file's own address is nobody else's.
    server.put("services", service("next", "weir.dev/xdp"));
    let is_there = |status: &Status| status.vips.len() == 3;
    let status = daemon.comes_to("another is served", is_there).await;
    assert_eq!(status.vips[1].name, "default.next.80-tcp");
    assert_eq!(
        status.vips[1].address,
        "203.0.113.2".parse::<IpAddr>().unwrap()
    );
    server.remove("services", "default", "next");
    daemon
        .comes_to("it is gone", |status| served(status) == wanted)
        .await;

    daemon.end(Signal::KILL);
    server.go_away(true);
    let daemon = Daemon::start(lb, &config, socket);
    let status = daemon.comes_to("it is ready", |status| status.ready).await;
    assert_eq!(served(&status), wanted);
    let told = |status: &Status| status.problems.iter().any(|text| text.contains("is away"));
    let status = daemon.comes_to("the absence is told", told).await;
    assert_eq!(served(&status), wanted);
    assert!(!status.kubernetes.unwrap().synced);
    server.go_away(false);
    let is_back = |status: &Status| {
        status
            .kubernetes
            .as_ref()
            .is_some_and(|k| k.synced && k.writer)
    };
    let status = daemon.comes_to("it is back", is_back).await;
    assert_eq!(served(&status), wanted);

    tokio::task::spawn_blocking(|| daemon.end(Signal::TERM))
        .await
        .unwrap();
    let lease = || server.get("leases", "weir", "weir-writer").unwrap();
    until("the Lease is let go of", PATIENCE, || {
        lease()["spec"]["holderIdentity"] == json!("")
    })
    .await;
}

/// How much of a process lies in memory, in MB: now, and at most.
fn resident(daemon: &Daemon) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let kilobytes = |key: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kilobytes("VmRSS:") / 1000, kilobytes("VmHWM:") / 1000)
}

#[test]
fn a_daemon_takes_a_thousand_services_of_ten_endpoints() {
    const SERVICES: usize = 1000;
    let (lb, nodes) = (Namespace::new("lb"), Namespace::new("nodes"));
    join(
        (&lb, "eth0", "10.0.0.1/24"),
        (&nodes, "eth0", "10.0.0.254/24 10.0.0.11/24 10.0.0.12/24"),
    );
    nodes.run(async || {
        let api: IpAddr = "10.0.0.254".parse().unwrap();
        let server = cluster_on(Server::start_on(api).await);
        server.remove("services", "default", "web");
        server.put("vippools", pool("main", "203.0.112.0/21"));
        for index in 0..SERVICES {
            let name = format!("s{index}");
            let endpoints = (0..10)
                .map(|e| endpoint(&format!("10.2.{e}.{}", index % 250), ["n1", "n2"][e % 2]));
            server.put("services", service(&name, "weir.dev/xdp"));
            let endpoints = endpoints.collect::<Vec<_>>();
            server.put("endpointslices", slice(&name, &endpoints));
        }
        let directory = server.directory();
        let config = directory.join("weir.toml");
        let socket = directory.join("weir.sock");
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nxdp_mode = \"generic\"\nseed = \"x\"\nstate_file = \"{0}/state.json\"\n\
             pin_path = \"{0}/bpf\"\napi_socket = \"{1}\"\nmetrics_listen = \"127.0.0.1:0\"\n\
             [kubernetes]\nnode = \"lb-1\"\nkubeconfig = \"{2}\"\n",
            directory.display(),
            socket.display(),
            server.kubeconfig().display(),
        );
        std::fs::write(&config, text).unwrap();
        let began = Instant::now();
        let daemon = Daemon::start(&lb, &config, socket);
        until("all statuses are written", 4 * PATIENCE, || {
            server.writes().len() >= SERVICES
        })
        .await;
        let written = began.elapsed();
        let are_there = |status: &Status| status.vips.len() == SERVICES;
        // A machine that does much else builds tables slowly.
        daemon
            .comes_within(4 * PATIENCE, "all are served", are_there)
            .await;
        let (now, most) = resident(&daemon);
        println!(
            "{SERVICES} Services of 10 endpoints: statuses written after {:.1} s, all served after {:.1} s; \
             {now} MB resident, {most} MB at most",
            written.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
    });
}
