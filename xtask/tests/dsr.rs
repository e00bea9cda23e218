//! Health checks with `via = "dsr"`, end to end: through the forwarding path to one backend, for the VIP's own address.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{fs, net::IpAddr, time::Duration};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{Lab, Namespace, Plan, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, eventually};

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
            "[vip.health]\nvia = \"dsr\"\ninterval = \"300ms\"\ntimeout = \"200ms\"\nrise = 2\nfall = 2\n{keys}\n"
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
        let waited = eventually(&what, PATIENCE, || {
            let status: Value = serde_json::from_str(&self.weir.ask(&["status", "-o", "json"])?)?;
            let vips = status["vips"].as_array().unwrap();
            let vip = vips.iter().find(|vip| vip["name"] == name).unwrap();
            let backends = vip["backends"].as_array().unwrap();
            let found: Vec<_> = backends.iter().map(|b| b["healthy"].clone()).collect();
            ensure!(found == wanted, "{found:?}\n{}", self.log());
            Ok(())
        });
        waited.unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.weir.log()).unwrap()
    }

    /// The last thing that the log says of a failed backend.
    fn last_failure(&self, backend: IpAddr) -> String {
        let log = self.log();
        let address = std::net::SocketAddr::new(backend, 80).to_string();
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
        let ours = lines.filter(|line| line.contains("dsr") || line.contains("fwmark"));
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
