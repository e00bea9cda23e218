//! The lab: the API server is a host of the segment, the cluster's nodes are the backends.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use xtask::{
    lab::{Host, Lab, Observer, Plan, Topology, VIP_V4, Weir, WeirConfig, eventually},
    traffic::{client, steady::Steady},
};

use crate::{
    cluster::{endpoint, node, pool, service, slice},
    server::Server,
};

/// How long anything may take on a machine that does much else. Nothing waits so long where it works.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// How many nodes serve.
pub(crate) const NODES: u8 = 4;

/// Place of the API server on the segment.
const API: u8 = 20;

/// The VIP of HTTP, by its name.
pub(crate) const WEB: &str = "default.web.80-tcp";

pub(crate) struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    pub(crate) weirs: Vec<Weir>,
    pub(crate) server: Server,
    _runtime: Runtime,
    pub(crate) api: Host,
    pub(crate) topology: Topology,
    pub(crate) hosts: Vec<Host>,
    _observers: Vec<Observer>,
    lab: Lab,
}

/// How an endpoint is.
#[derive(Clone, Copy)]
pub(crate) enum Is {
    Ready,
    Draining,
}

impl Run {
    /// A cluster without Services, and two nodes that balance. Packets reach the serving nodes by `forward`.
    pub(crate) fn start(forward: &'static str) -> Self {
        Self::start_with(forward, "")
    }

    /// The same with more keys of `[kubernetes]`.
    pub(crate) fn start_with(forward: &'static str, keys: &str) -> Self {
        let lab = Lab::new().unwrap();
        let plan = Plan {
            near: NODES,
            far: 0,
            routed: 0,
        };
        let topology = Topology::build(&lab, &plan).unwrap();
        let (second, observer) = topology.second_lb(&lab).unwrap();
        let api = topology.another_host(&lab, "api", API).unwrap();
        let runtime = Runtime::new().unwrap();
        let server = api
            .namespace
            .inside(|| Ok(runtime.block_on(Server::start_on(api.v4))))
            .unwrap();
        server.put("vippools", pool("main", &format!("{VIP_V4}/32")));
        for (index, backend) in topology.backends.iter().enumerate() {
            let address = backend.v4.to_string();
            server.put("nodes", node(&format!("n{}", index + 1), &address));
            if forward == "ipip" {
                let pins = lab.bpffs().join(format!("decap-{index}"));
                let from = [topology.lb.v4, second.v4];
                Topology::decapsulate_from(&from, (backend, "eth0"), &pins).unwrap();
            }
        }
        let mut run = Self {
            weirs: Vec::new(),
            server,
            _runtime: runtime,
            api,
            hosts: vec![],
            topology,
            _observers: vec![observer],
            lab,
        };
        run.balance(second, forward, keys);
        run
    }

    /// Starts weir on both nodes.
    fn balance(&mut self, second: Host, forward: &'static str, keys: &str) {
        for number in 1..=2 {
            let host = if number == 1 {
                &self.topology.lb
            } else {
                &second
            };
            let node = format!("lb-{number}");
            let mut more = String::new();
            write!(
                more,
                "\n[kubernetes]\nnode = {node:?}\nforward = {forward:?}\nkubeconfig = \"{}\"\n{keys}",
                self.server.kubeconfig().display()
            )
            .unwrap();
            let config = WeirConfig {
                node,
                encap_source: vec![host.v4, host.v6],
                vips: Vec::new(),
                more,
                ..WeirConfig::for_topology(&self.topology, &[])
            };
            let weir = Weir::start(&self.lab, &host.namespace, &config);
            self.weirs
                .push(weir.unwrap_or_else(|error| panic!("{error:#}")));
        }
        self.hosts.push(second);
    }

    /// Makes the Service `web`, with its ports of HTTP and of connections that last.
    pub(crate) fn serve_web(&self) {
        let mut web = service("web", "weir.dev/xdp");
        web["spec"]["ports"] = json!([
            {"name": "http", "port": Topology::http(VIP_V4).port(), "protocol": "TCP"},
            {"name": "lasting", "port": Topology::lasting(VIP_V4).port(), "protocol": "TCP"},
        ]);
        self.server.put("services", web);
    }

    /// Sets the endpoints of `web`: the number of the node, and how each is.
    pub(crate) fn place(&self, endpoints: &[(u8, Is)]) {
        let endpoints = endpoints.iter().enumerate().map(|(index, (node, is))| {
            let mut object = endpoint(&format!("10.1.{node}.{index}"), &format!("n{node}"));
            if matches!(is, Is::Draining) {
                object["conditions"] =
                    json!({"ready": false, "serving": true, "terminating": true});
            }
            object
        });
        let mut slice = slice("web", &endpoints.collect::<Vec<_>>());
        slice["ports"] = json!([
            {"name": "http", "port": 80, "protocol": "TCP"},
            {"name": "lasting", "port": 7000, "protocol": "TCP"},
        ]);
        self.server.put("endpointslices", slice);
    }

    pub(crate) fn status(&self, weir: usize) -> Result<Value> {
        let text = self.weirs[weir].ask_degraded(&["status", "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until both nodes balance `web` so: the weight of each serving node, in order.
    pub(crate) fn come_to(&self, weights: &[(u8, u64)]) {
        let wanted: Vec<_> = weights
            .iter()
            .map(|(node, weight)| (self.address(*node), *weight))
            .collect();
        for weir in 0..self.weirs.len() {
            let what = format!("lb-{} to balance by {wanted:?}", weir + 1);
            eventually(&what, PATIENCE, || {
                let status = self.status(weir)?;
                let vips = status["vips"].as_array().context("VIPs")?;
                let web = vips.iter().find(|vip| vip["name"] == WEB);
                let backends = web.context("no such VIP")?["backends"].as_array();
                let found: Vec<_> = backends
                    .context("backends")?
                    .iter()
                    .map(|backend| {
                        ensure!(backend["resolved"] == true, "{backend}");
                        let address = backend["address"].as_str().context("an address")?;
                        let weight = backend["weight"].as_u64().context("a weight")?;
                        Ok((address.to_owned(), weight))
                    })
                    .collect::<Result<_>>()?;
                ensure!(found == wanted, "{found:?}");
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    /// The digests of a node's tables, by VIP.
    pub(crate) fn digests(&self, weir: usize) -> Vec<(String, String)> {
        let status = self.weirs[weir].status().unwrap();
        let vips = status.vips.into_iter();
        vips.map(|vip| (vip.name, vip.table_digest)).collect()
    }

    /// Waits until something is so of the way from a node to its cluster.
    pub(crate) fn stands(&self, weir: usize, what: &str, is: impl Fn(&Value) -> bool) {
        let text = format!("lb-{} {what}", weir + 1);
        eventually(&text, PATIENCE, || {
            let status = self.status(weir)?;
            ensure!(is(&status["kubernetes"]), "{}", status["kubernetes"]);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn address(&self, node: u8) -> String {
        let backend = &self.topology.backends[usize::from(node) - 1];
        backend.v4.to_string()
    }

    /// Has the client's packets go by a node.
    pub(crate) fn dial_by(&self, weir: usize) {
        let via = if weir == 0 {
            self.topology.lb.v4
        } else {
            self.hosts[0].v4
        };
        let route = format!("route replace {VIP_V4} via {via} dev eth0");
        self.topology.client.namespace.ip(&route).unwrap();
    }

    /// Who answers so many requests by a node; none may fail.
    pub(crate) fn answers_by(&self, weir: usize, requests: u32) -> client::Summary {
        self.dial_by(weir);
        let options = client::Options::new(Topology::http(VIP_V4), requests);
        let fetch = || client::fetch(&options);
        let summary = self.topology.client.namespace.inside(fetch).unwrap();
        assert_eq!(summary.failed, 0, "lb-{}: {:?}", weir + 1, summary.errors);
        summary
    }

    fn account(&self) -> String {
        let accounts: Vec<_> = self.weirs.iter().map(Weir::account).collect();
        accounts.join("\n")
    }

    /// Does something while the client asks without pause; returns how many requests were answered, none may fail.
    pub(crate) fn under_traffic(&self, work: impl FnOnce()) -> u64 {
        let steady = Steady::default();
        thread::scope(|scope| {
            scope.spawn(|| {
                let client = &self.topology.client.namespace;
                client.inside(|| {
                    steady.run_http(Topology::http(VIP_V4));
                    Ok(())
                })
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            steady.end();
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
        let total = steady.total();
        assert_eq!(total.failed, 0, "{:?}\n{}", total.errors, self.account());
        total.requests
    }

    /// Opens connections that last.
    pub(crate) fn connect(&self, count: usize) -> Vec<Lasting> {
        let client = &self.topology.client.namespace;
        let open = || (0..count).map(|_| Lasting::open()).collect::<Result<_>>();
        client
            .inside(open)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// A connection that lasts.
pub(crate) struct Lasting {
    stream: BufReader<TcpStream>,
    /// Who serves it.
    pub(crate) server: String,
    lines: u32,
}

impl Lasting {
    fn open() -> Result<Self> {
        let stream = TcpStream::connect_timeout(&Topology::lasting(VIP_V4), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut server = String::new();
        stream.read_line(&mut server)?;
        Ok(Self {
            stream,
            server: server.trim().to_owned(),
            lines: 0,
        })
    }

    /// Sends a line, which its own server must echo.
    pub(crate) fn lives(&mut self) {
        self.lines += 1;
        let line = format!("line {}", self.lines);
        writeln!(self.stream.get_mut(), "{line}").unwrap();
        let mut echo = String::new();
        self.stream.read_line(&mut echo).unwrap();
        assert_eq!(echo, format!("{} {line}\n", self.server));
    }
}
