//! Health checks with `via = "dsr"`, end to end: through the forwarding path to one backend, for the VIP's own address.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

#[path = "../../lb-userspace/tests/health/server.rs"]
#[expect(dead_code, reason = "the unit tests of the checks use the rest")]
mod server;

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::Value;
use server::Server;
use tokio::sync::oneshot;
use xtask::lab::{
    Lab, Namespace, Plan, Protocol, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is said of a backend that serves at its own address alone.
const NOT_FOR_VIP: &str = "does not accept the VIP";

/// A lab in which weir balances HTTP over IPv4 and IPv6.
struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    topology: Topology,
    lab: Lab,
}

impl Run {
    fn start(forward: &'static str, near: u8) -> Self {
        Self::start_with(forward, near, |_| {})
    }

    fn start_with(forward: &'static str, near: u8, change: impl FnOnce(&mut WeirConfig)) -> Self {
        let lab = Lab::new().unwrap();
        let plan = Plan {
            near,
            far: 0,
            routed: 0,
        };
        let topology = Topology::build(&lab, &plan).unwrap();
        let mut config = WeirConfig::for_topology(&topology, &[]);
        config.forward = forward;
        config.vips.retain(|vip| vip.name.starts_with("web"));
        change(&mut config);
        if forward != "l2" {
            for backend in &topology.backends {
                let pins = format!("decap-{}", backend.namespace.host());
                topology
                    .decapsulate(backend, &lab.bpffs().join(pins))
                    .unwrap_or_else(|error| panic!("{error:#}"));
            }
        }
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            topology,
            lab,
        }
    }

    /// The configuration with a section of keys for health checks in every VIP.
    fn checked(&self, keys: &str) -> String {
        let text = fs::read_to_string(self.weir.config()).unwrap();
        let section = format!(
            "[vip.health]\nvia = \"dsr\"\ninterval = \"500ms\"\ntimeout = \"400ms\"\nrise = 2\nfall = 2\n{keys}\n"
        );
        let vips = text.split("[[vip]]");
        let checked: Vec<_> = vips
            .map(|vip| vip.replacen("[[vip.backend]]", &format!("{section}[[vip.backend]]"), 1))
            .collect();
        checked.join("[[vip]]")
    }

    fn check(&self, keys: &str) {
        let file = self.lab.write("checked.toml", &self.checked(keys)).unwrap();
        self.weir
            .ask(&["apply", &file.display().to_string()])
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the backends of a VIP pass their checks, or do not.
    fn comes_to(&self, vip: IpAddr, healthy: &[bool]) {
        let name = if vip.is_ipv4() { "web-v4" } else { "web-v6" };
        let wanted: Vec<_> = healthy
            .iter()
            .map(|healthy| Value::Bool(*healthy))
            .collect();
        let what = format!("{name} {healthy:?}");
        let reached = eventually(&what, PATIENCE, || {
            // Where all are drained it ends with 3, and tells all the same.
            let socket = self.weir.socket().display().to_string();
            let told = self
                .weir
                .output(&["status", "-o", "json", "--socket", &socket])?;
            let status: Value = serde_json::from_slice(&told.stdout)?;
            let vips = status["vips"].as_array().unwrap();
            let vip = vips.iter().find(|vip| vip["name"] == name).unwrap();
            let backends = vip["backends"].as_array().unwrap();
            let found: Vec<_> = backends.iter().map(|b| b["healthy"].clone()).collect();
            ensure!(found == wanted, "{found:?}\n{}", self.log());
            Ok(())
        });
        reached.unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.weir.log()).unwrap()
    }

    /// The last thing that the log says of a failed backend.
    fn last_failure(&self, backend: IpAddr) -> String {
        let log = self.log();
        let address = SocketAddr::new(backend, 0).to_string();
        let address = format!("backend={}", address.trim_end_matches('0'));
        let mut lines = log.lines().rev();
        let line = lines.find(|line| line.contains("backend failed") && line.contains(&address));
        line.unwrap_or_else(|| panic!("{address} did not fail:\n{log}"))
            .to_owned()
    }

    fn backend(&self, index: usize) -> &Namespace {
        &self.topology.backends[index].namespace
    }

    fn hold(&self, backend: usize, vip: IpAddr, verb: &str) {
        let (bits, flags) = if vip.is_ipv4() {
            (32, "")
        } else {
            (128, "nodad")
        };
        let flags = if verb == "add" { flags } else { "" };
        self.backend(backend)
            .ip(&format!("address {verb} {vip}/{bits} dev lo {flags}"))
            .unwrap();
    }

    /// One backend loses a VIP, and another one its cable: each is found out for what it is, and nobody else.
    fn assert_finds_out(&self, vip: IpAddr) {
        let [lacking, down] = [0, 1].map(|index| self.topology.backends[index].address(vip));
        self.comes_to(vip, &[true; 3]);
        self.hold(0, vip, "del");
        self.comes_to(vip, &[false, true, true]);
        let said = self.last_failure(lacking);
        assert!(said.contains(NOT_FOR_VIP), "{said}");
        let shown = ["status", "backend list"].map(|verb| {
            let words: Vec<_> = verb.split(' ').chain(["-o", "json"]).collect();
            self.weir.ask(&words).unwrap()
        });
        for text in shown.iter().chain([&self.weir.ask(&["status"]).unwrap()]) {
            assert!(text.contains(NOT_FOR_VIP), "{text}");
        }
        self.backend(1).ip("link set eth0 down").unwrap();
        self.comes_to(vip, &[false, false, true]);
        let said = self.last_failure(down);
        assert!(!said.contains(NOT_FOR_VIP), "{said}");
        self.hold(0, vip, "add");
        self.comes_to(vip, &[true, false, true]);
        self.backend(1).ip("link set eth0 up").unwrap();
        // IPv6 addresses went with the link.
        let v6 = self.topology.backends[1].v6;
        self.backend(1)
            .ip(&format!("address replace {v6}/64 dev eth0 nodad"))
            .unwrap();
        self.comes_to(vip, &[true; 3]);
    }

    /// What weir has in the load balancer's kernel for its checks.
    fn left(&self) -> String {
        let lb = &self.topology.lb.namespace;
        let found = [
            "link",
            "rule",
            "-6 rule",
            "route show table all",
            "-6 route show table all",
        ]
        .map(|what| lb.ip(what).unwrap());
        let lines = found.iter().flat_map(|text| text.lines());
        let ours = lines.filter(|line| line.contains("weir-dsr") || line.contains("fwmark"));
        ours.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn l2_tcp() {
    let run = Run::start("l2", 3);
    run.check("type = \"tcp\"");
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}

#[test]
fn l2_http() {
    let run = Run::start("l2", 3);
    run.check("type = \"http\"\npath = \"/healthz\"");
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}

#[test]
fn ipip() {
    let run = Run::start("ipip", 3);
    run.check("type = \"http\"");
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}

#[test]
fn gue() {
    let run = Run::start("gue", 3);
    run.check("type = \"tcp\"");
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}

/// With one backend a VIP and no clients, whatever a backend gets for the other VIP is astray.
#[test]
fn probes_reach_their_own_backend_and_no_other() {
    // The first VIP has the first backend, the second one the second.
    let run = Run::start_with("l2", 3, |config| {
        for (index, vip) in config.vips.iter_mut().enumerate() {
            vip.backends = vec![vip.backends[index].clone()];
        }
    });
    let mut recorders: Vec<_> = run
        .topology
        .backends
        .iter()
        .map(|backend| backend.nic.record().unwrap())
        .collect();
    run.check("type = \"tcp\"");
    run.comes_to(VIP_V4, &[true]);
    run.comes_to(VIP_V6, &[true]);
    // Who is drained, and then dead, owns no slot and is asked all the same.
    for (index, vip) in [(0, VIP_V4), (1, VIP_V6)] {
        let address = run.topology.backends[index].address(vip).to_string();
        run.weir.ask(&["drain", "--all", &address]).unwrap();
    }
    let mut passed = 0;
    for (index, vip) in [(0, VIP_V4), (1, VIP_V6)] {
        run.hold(index, vip, "del");
        run.comes_to(vip, &[false]);
        run.hold(index, vip, "add");
        run.comes_to(vip, &[true]);
    }
    for (index, recorder) in recorders.iter_mut().enumerate() {
        let mac = run.topology.backends[index].nic.mac_bytes().unwrap();
        let frames = recorder.take().into_iter();
        // A bridge floods frames for an address that it has not learnt yet.
        for frame in frames.filter(|frame| frame.starts_with(&mac)) {
            let to = destination(&frame);
            let own = [VIP_V4, VIP_V6].get(index).copied();
            if to.is_some() && to == own {
                passed += 1;
            }
            let is_astray = [VIP_V4, VIP_V6]
                .into_iter()
                .any(|vip| to == Some(vip) && own != to);
            assert!(!is_astray, "backend {index} got {to:?}: {frame:02x?}");
        }
    }
    assert!(
        passed > 20,
        "{passed} frames recorded: the test proves nothing"
    );
    assert_eq!(run.weir.status().unwrap().forwarded(), 0);
}

/// The destination of a plain IP packet in a frame.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let bytes = |at: usize| frame.get(at..);
    match frame.get(12..14)? {
        [8, 0] => bytes(30)?.first_chunk::<4>().map(|v4| IpAddr::from(*v4)),
        [0x86, 0xdd] => bytes(38)?.first_chunk::<16>().map(|v6| IpAddr::from(*v6)),
        _ => None,
    }
}

#[test]
fn what_it_takes_is_made_once_mended_and_removed_and_others_rules_stay() {
    let mut run = Run::start("l2", 2);
    let lb = run.topology.lb.namespace.clone();
    let before = run.left();
    assert_eq!(before, "");
    lb.ip("rule add fwmark 0x7 lookup 77 pref 49").unwrap();
    let others = run.left();
    let text = run.checked("type = \"tcp\"");
    fs::write(run.weir.config(), text).unwrap();
    run.weir.reload().unwrap();
    run.comes_to(VIP_V4, &[true; 2]);
    let made = run.left();
    // Two rules, two ends, a route for each family.
    assert!(made.lines().count() >= others.lines().count() + 6, "{made}");

    // A killed daemon leaves it; the next one goes on with one of each.
    run.weir.end_by(Signal::KILL).unwrap();
    assert_eq!(run.left().lines().count(), made.lines().count());
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to(VIP_V4, &[true; 2]);
    let again = eventually("the way to be made again", PATIENCE, || {
        let again = run.left();
        ensure!(again.lines().count() >= made.lines().count(), "{again}");
        Ok(again)
    });
    let again = again.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(again.lines().count(), made.lines().count(), "{again}");

    // Somebody takes a part away. Nobody fails for it, and it is made again.
    for damage in ["link del", "link set down dev"] {
        let near = near(&run.left());
        lb.ip(&format!("{damage} {near}")).unwrap();
        run.hold(0, VIP_V4, "del");
        run.comes_to(VIP_V4, &[false, true]);
        run.hold(0, VIP_V4, "add");
        run.comes_to(VIP_V4, &[true; 2]);
    }

    run.weir.terminate().unwrap();
    assert_eq!(run.left(), others);
    run.weir.restart().unwrap();
    let near = near(&eventually_made(&run));
    run.weir.end_by(Signal::KILL).unwrap();
    run.weir.detach().unwrap();
    assert_eq!(run.left(), others);

    // What is somebody else's under that name is left alone, and named.
    lb.ip(&format!("link add {near} type veth peer name other"))
        .unwrap();
    run.weir.restart().unwrap();
    let said = eventually("the problem", PATIENCE, || {
        let problems = run.weir.status()?.problems;
        ensure!(
            problems.iter().any(|said| said.contains(&near)),
            "{problems:?}"
        );
        Ok(())
    });
    said.unwrap_or_else(|error| panic!("{error:#}"));
    // Once it is gone, all is well.
    lb.ip("link del other").unwrap();
    run.comes_to(VIP_V4, &[true; 2]);
}

fn eventually_made(run: &Run) -> String {
    let made = eventually("the way to be made", PATIENCE, || {
        let left = run.left();
        ensure!(
            left.contains("weir-dsr0") && left.contains("default"),
            "{left}"
        );
        Ok(left)
    });
    made.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The end of the veth that probes leave by, in what `ip` tells.
fn near(left: &str) -> String {
    let start = left.find("weir-dsr0-").unwrap();
    left[start..]
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect()
}

#[test]
fn a_vip_that_the_node_holds_itself_is_refused() {
    let run = Run::start("l2", 1);
    let lb = &run.topology.lb.namespace;
    lb.ip(&format!("address add {VIP_V4}/32 dev lo")).unwrap();
    let file = run
        .lab
        .write("local.toml", &run.checked("type = \"tcp\""))
        .unwrap();
    let path = file.display().to_string();
    for verb in ["apply", "check"] {
        let error = match verb {
            "apply" => run.weir.ask(&["apply", &path]),
            _ => run.weir.cli(&["check", &path]),
        };
        let said = format!("{:#}", error.unwrap_err());
        assert!(said.contains("vip[0].health.via: found \"dsr\""), "{said}");
        assert!(
            said.contains(&format!("ip address del {VIP_V4}/32 dev lo")),
            "{said}"
        );
    }
    // The remedy helps.
    lb.ip(&format!("address del {VIP_V4}/32 dev lo")).unwrap();
    run.weir.ask(&["apply", &path]).unwrap();
    run.comes_to(VIP_V4, &[true]);
    // Should it come back, nobody fails for it, and nothing of this node answers in the backend's place.
    run.hold(0, VIP_V4, "del");
    run.comes_to(VIP_V4, &[false]);
    lb.ip(&format!("address add {VIP_V4}/32 dev lo")).unwrap();
    let told = eventually("the reason in the log", PATIENCE, || {
        let log = run.log();
        ensure!(log.contains("is an address of this node itself"), "{log}");
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to(VIP_V4, &[false]);
}

/// The lab's UDP servers have the VIPs' addresses alone, so that there is nobody to vouch for a backend that lacks one.
#[test]
fn l2_udp() {
    let run = Run::start_with("l2", 2, |config| {
        for vip in &mut config.vips {
            (vip.port, vip.protocol) = (UDP_PORT, Protocol::Udp);
        }
    });
    run.check("type = \"udp\"\nsend = \"are you there?\"");
    for vip in [VIP_V4, VIP_V6] {
        run.comes_to(vip, &[true; 2]);
        run.hold(0, vip, "del");
        run.comes_to(vip, &[false, true]);
        let itself: SocketAddr = (run.topology.backends[0].address(vip), UDP_PORT).into();
        let said = run.last_failure(itself.ip());
        let both = format!("no answer within 400ms; {itself} itself: ask: connection refused");
        assert!(said.contains(&both), "{said}");
        run.hold(0, vip, "add");
        run.comes_to(vip, &[true; 2]);
    }
}

const UDP_PORT: u16 = 9000;

#[test]
fn no_backend_is_blamed_for_answers_that_the_node_throws_away() {
    let run = Run::start("l2", 1);
    run.check("type = \"http\"");
    run.comes_to(VIP_V4, &[true]);
    // Nothing leads to the VIP, so that a strict filter takes its answers for forged.
    let lb = &run.topology.lb.namespace;
    lb.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
    let remedy = eventually("the reason in the log", PATIENCE, || {
        let log = run.log();
        let (_, after) = log
            .split_once("by rp_filter = 1, since there is no route to it: `")
            .with_context(|| log.clone())?;
        Ok(after.split('`').next().unwrap_or_default().to_owned())
    });
    let remedy = remedy.unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to(VIP_V4, &[true]);
    lb.run("sh", ["-c", &remedy]).unwrap();
    run.hold(0, VIP_V4, "del");
    run.comes_to(VIP_V4, &[false]);
    run.hold(0, VIP_V4, "add");
    run.comes_to(VIP_V4, &[true]);
}

/// Where backends answer checks over TLS and gRPC, for every address that they hold.
const CHECKED_PORT: u16 = 8443;

/// Starts a server of its own on every backend; they end when what is returned is dropped.
fn serve<F: Future<Output = Server>>(
    run: &Run,
    server: impl Fn() -> F + Copy + Send + Sync + 'static,
) -> Vec<oneshot::Sender<()>> {
    let backends = run.topology.backends.iter();
    let started = backends.map(|backend| {
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        // The thread, and what it opens, belong to the host.
        let start = || {
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let everywhere = (Ipv6Addr::UNSPECIFIED, CHECKED_PORT).into();
                    let _server = server().await.moved_to(everywhere).await;
                    ready.send(()).unwrap();
                    // An error says that the test is over.
                    ended.await.ok();
                });
            });
            Ok(())
        };
        backend.namespace.inside(start).unwrap();
        is_ready.recv_timeout(PATIENCE).unwrap();
        end
    });
    started.collect()
}

#[test]
fn l2_https() {
    let run = Run::start("l2", 3);
    let _servers = serve(&run, || async { Server::https(server::tls()).await });
    run.check(&format!(
        "type = \"https\"\nport = {CHECKED_PORT}\nhost = \"www.example.com\""
    ));
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}

#[test]
fn l2_grpc() {
    let run = Run::start("l2", 3);
    let _servers = serve(&run, || async { Server::grpc(None).await });
    run.check(&format!(
        "type = \"grpc\"\nport = {CHECKED_PORT}\nservice = \"{}\"",
        server::SERVICE
    ));
    for vip in [VIP_V4, VIP_V6] {
        run.assert_finds_out(vip);
    }
}
