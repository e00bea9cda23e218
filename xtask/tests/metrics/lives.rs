//! What becomes of counters when daemons, backends and configurations come and go.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::{
    FlowTimes, Labels, Metrics, Namespace, Plan, Protocol, Topology, VIP_V4, eventually,
};

use crate::{PATIENCE, Run, frames::Wire};

/// The VIP that gets the packets.
const VIP: &str = "echo-v4";

const PLAN: Plan = Plan {
    near: 3,
    far: 0,
    routed: 0,
};

/// Short enough for slots that move to come to rest in a test.
const SHORT: FlowTimes = FlowTimes {
    move_window: 1,
    flow_idle: 10,
};

/// Scrapes as fast as it can, and sees to it that no counter goes back.
struct Sampler {
    before: BTreeMap<(String, Labels), f64>,
    started: Option<f64>,
    scrapes: u64,
}

impl Sampler {
    const fn new() -> Self {
        Self {
            before: BTreeMap::new(),
            started: None,
            scrapes: 0,
        }
    }

    /// Holds a scrape against the one before: series that both have may only have grown. Those that say so begin anew with
    /// another daemon.
    fn look(&mut self, metrics: &Metrics) {
        let families = metrics.families();
        let started = metrics.sum("process_start_time_seconds", &[]);
        let is_same_daemon = self.started == started;
        let mut now = BTreeMap::new();
        for (name, labels, value) in metrics.series() {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| families.get(name.strip_suffix(part)?))
                .or_else(|| families.get(name));
            let (kind, help) = family.unwrap_or_else(|| panic!("{name} has no type"));
            if *kind == "gauge" {
                continue;
            }
            let key = (name.to_owned(), labels.clone());
            let survives = is_same_daemon || !help.contains("Starts at 0");
            if let Some(before) = self.before.get(&key).filter(|_| survives) {
                assert!(value >= *before, "{key:?}: {before}, and then {value}");
            }
            now.insert(key, value);
        }
        self.before = now;
        self.started = started;
        self.scrapes += 1;
    }
}

/// Sends datagrams to the VIP, and samples, until `stop`.
fn under_traffic(run: &mut Run, work: impl FnOnce(&mut Run, &dyn Fn(&str))) {
    let wire = Wire::new(&run.topology);
    let host: Namespace = run.topology.lb.namespace.clone();
    let (stop, sent, scrapes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let before = counted(run);
    thread::scope(|scope| {
        // However this ends, the others shall.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopping = Stop(&stop);
        scope.spawn(|| {
            let port = Topology::udp(VIP_V4).port();
            for from in (10_000..60_000).cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                wire.send(&wire.udp(VIP_V4, port, from, 20));
                // No more at a time than a veth's queue holds.
                if sent.fetch_add(1, Ordering::Relaxed) % 16 == 15 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        scope.spawn(|| {
            let mut sampler = Sampler::new();
            while !stop.load(Ordering::Relaxed) {
                // There are times without a daemon.
                if let Ok(metrics) = Metrics::scrape(&host, ([127, 0, 0, 1], 9407).into()) {
                    sampler.look(&metrics);
                    scrapes.store(sampler.scrapes, Ordering::Relaxed);
                }
            }
        });
        let sampled = |what: &str| {
            let before = scrapes.load(Ordering::Relaxed);
            eventually(what, PATIENCE, || {
                ensure!(scrapes.load(Ordering::Relaxed) >= before + 3);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error:#}"));
        };
        sampled("the first scrapes");
        work(run, &sampled);
        drop(stopping);
    });
    // Whoever counted them, nothing was counted twice and nothing was lost.
    let sent = sent.load(Ordering::Relaxed);
    eventually("all to be counted", PATIENCE, || {
        let now = counted(run);
        let grown = [now[0] - before[0], now[1] - before[1], now[2] - before[2]];
        ensure!(
            grown == [sent as f64; 3],
            "{sent} were sent, {grown:?} were counted"
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// Packets of the VIP, of its backends, and of the reason, which must be the same.
fn counted(run: &Run) -> [f64; 3] {
    let metrics = run.weir.metrics().unwrap();
    [
        metrics.sum("weir_vip_packets_total", &[("vip", VIP)]),
        metrics.sum("weir_backend_packets_total", &[("vip", VIP)]),
        metrics.sum("weir_packets_total", &[("reason", "forwarded")]),
    ]
    .map(Option::unwrap)
}

impl Run {
    fn status_of(&self, vip: &str) -> Value {
        let status = self.weir.ask_degraded(&["status", "-o", "json"]).unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        let vips = status["vips"].as_array().unwrap();
        let vip = vips.iter().find(|found| found["name"] == vip);
        vip.cloned().unwrap_or_default()
    }

    fn apply(&self, text: &str) {
        fs::write(self.weir.config(), text).unwrap();
        self.weir.ask_degraded(&["apply"]).unwrap();
    }

    /// Waits until nobody is leaving the VIP.
    fn is_left(&self, vip: &str) {
        eventually("nobody to be leaving", PATIENCE, || {
            let status = self.status_of(vip);
            let is_left = status["leaving"].as_array().is_some_and(Vec::is_empty);
            ensure!(is_left, "{status}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn backend(address: IpAddr) -> String {
    format!("[[vip.backend]]\naddress = \"{address}\"\nweight  = 100\n")
}

#[test]
fn counters_never_go_back_over_restarts_kills_and_reloads() {
    let mut run = Run::start(&PLAN, |config| {
        config
            .vips
            .retain(|vip| vip.name == VIP || vip.protocol == Protocol::Tcp);
    });
    let text = fs::read_to_string(run.weir.config()).unwrap();
    under_traffic(&mut run, |run, sampled| {
        let last = backend(run.topology.backends[2].v4);
        // It is leaving, for it may have flows, and has its series for as long.
        run.apply(&text.replace(&last, ""));
        sampled("scrapes without a backend");
        run.weir.end_by(Signal::KILL).unwrap();
        run.weir.restart().unwrap();
        sampled("scrapes after a kill");
        run.apply(&text.replacen(&last, &last.replace("100", "250"), 2));
        sampled("scrapes with a backend that is back");
        run.weir.terminate().unwrap();
        run.weir.restart().unwrap();
        sampled("scrapes after a restart");
        fs::write(run.weir.config(), &text).unwrap();
        run.weir.reload().unwrap();
        sampled("scrapes after a reload");
        // Another VIP comes and goes.
        let other = format!(
            "{text}\n[[vip]]\nname = \"other\"\naddress = \"{VIP_V4}\"\nport = 7\nprotocol = \"udp\"\n{last}"
        );
        run.apply(&other);
        sampled("scrapes with another VIP");
        run.apply(&text);
        sampled("scrapes without it");
        let told = run.weir.metrics().unwrap();
        let gone = told
            .series()
            .filter(|(_, labels, _)| labels.get("vip").is_some_and(|vip| vip == "other"));
        assert_eq!(gone.count(), 0, "{}", told.text());
    });
}

#[test]
fn a_backend_that_comes_back_under_another_id_goes_on_counting() {
    let mut run = Run::start(&PLAN, |config| {
        config.vips.retain(|vip| vip.name == VIP);
        for vip in &mut config.vips {
            vip.flows = Some(SHORT);
            vip.checked = Some(Topology::checked());
        }
    });
    let backends = run.topology.backends.iter();
    let mut checked: Vec<_> = backends
        .map(|backend| Topology::answer_checks(backend).unwrap())
        .collect();
    let address = run.topology.backends[0].v4.to_string();
    let id = |run: &Run| run.status_of(VIP)["backends"][0]["id"].clone();
    let is_healthy = |run: &Run, wanted: bool| {
        eventually("the checks to tell", PATIENCE, || {
            let status = run.status_of(VIP);
            let backend = &status["backends"][0];
            // The verdict is told as soon as it is there, and the tables follow it.
            ensure!(
                backend["healthy"] == wanted && (backend["slots"] != 0) == wanted,
                "{status}"
            );
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    };
    is_healthy(&run, true);
    let first = id(&run);
    under_traffic(&mut run, |run, sampled| {
        sampled("scrapes before");
        // Its server ends, and another one begins.
        checked.remove(0).end_by(Signal::TERM, PATIENCE).unwrap();
        is_healthy(run, false);
        sampled("scrapes of a dead one");
        checked.push(Topology::answer_checks(&run.topology.backends[0]).unwrap());
        is_healthy(run, true);
        sampled("scrapes of one that is back");
        // Its old id is leaving for as long as something names it.
        run.is_left(VIP);
        sampled("scrapes without its old id");
        run.weir.end_by(Signal::KILL).unwrap();
        run.weir.restart().unwrap();
        sampled("scrapes after a kill");
    });
    assert_ne!(id(&run), first, "it came back under its own id");
    let metrics = run.weir.metrics().unwrap();
    let counted = metrics.sum("weir_backend_packets_total", &[("backend", &address)]);
    assert!(counted.unwrap() > 0.0);
}

#[test]
fn whoever_gets_an_id_that_was_anothers_counts_from_zero() {
    let mut run = Run::start(&PLAN, |config| {
        config.vips.retain(|vip| vip.protocol == Protocol::Udp);
        for vip in &mut config.vips {
            vip.flows = Some(SHORT);
        }
        config.vips.sort_by_key(|vip| vip.name != VIP);
    });
    let wire = Wire::new(&run.topology);
    let port = Topology::udp(VIP_V4).port();
    let send = |from: u16| wire.send(&wire.udp(VIP_V4, port, from, 20));
    (30_000..30_060).for_each(send);
    eventually("the frames to be counted", PATIENCE, || {
        ensure!(counted(&run)[0] == 60.0);
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    // All backends of both VIPs have been sent something; drops of the first.
    let text = fs::read_to_string(run.weir.config()).unwrap();
    let (node, _) = text.split_once("[[vip]]").unwrap();
    let vip = |name: &str, port: u16, address: IpAddr, weight: u16| {
        format!(
            "[[vip]]\nname = {name:?}\naddress = \"{VIP_V4}\"\nport = {port}\nprotocol = \"udp\"\n\
             move_window = \"1s\"\nflow_idle = \"10s\"\n[[vip.backend]]\naddress = \"{address}\"\nweight = {weight}\n"
        )
    };
    let [first, second, third] = [0, 1, 2].map(|at| run.topology.backends[at].v4);
    // Alone, and with a drop to its name.
    run.apply(&format!("{node}{}", vip("left", 7002, first, 0)));
    let before = run.status_of("left");
    wire.send(&wire.udp(VIP_V4, 7002, 30_000, 20));
    let of = |run: &Run, name: &str, metric: &str| {
        let metrics = run.weir.metrics().unwrap();
        metrics.sum(metric, &[("vip", name)])
    };
    let dropped = "weir_vip_dropped_packets_total";
    eventually("a drop", PATIENCE, || {
        ensure!(of(&run, "left", dropped) == Some(1.0));
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    run.apply(&format!("{node}{}", vip("left", 7002, second, 100)));
    wire.send(&wire.udp(VIP_V4, 7002, 30_000, 20));
    eventually("a packet", PATIENCE, || {
        ensure!(of(&run, "left", "weir_vip_packets_total") == Some(1.0));
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    let held = run.status_of("left");
    assert_eq!(held["id"], before["id"]);

    // It goes, and nothing of it is left: the next daemon gives its ids to whoever comes.
    run.apply(node);
    eventually("nothing to be left", PATIENCE, || {
        let left = run
            .weir
            .metrics()?
            .sum("weir_map_entries", &[("map", "backends")]);
        ensure!(left == Some(0.0), "{left:?} backends");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    run.weir.terminate().unwrap();
    run.weir.restart().unwrap();
    let ids = |run: &Run, name: &str| {
        let status = run.status_of(name);
        (status["id"].clone(), status["backends"][0]["id"].clone())
    };
    // Ids begin anew with a daemon that finds none.
    let mut given = Vec::new();
    let mut all = node.to_owned();
    for number in 0..20_u16 {
        let name = format!("new-{number}");
        all += &vip(&name, 7100 + number, third, 100);
        run.apply(&all);
        given.push(ids(&run, &name));
        for metric in [
            "weir_vip_packets_total",
            "weir_backend_packets_total",
            dropped,
        ] {
            assert_eq!(of(&run, &name, metric), Some(0.0), "{name}: {metric}");
        }
    }
    let was = (held["id"].clone(), held["backends"][0]["id"].clone());
    assert!(
        given.iter().any(|(vip, _)| *vip == was.0),
        "{was:?} {given:?}"
    );
    assert!(
        given.iter().any(|(_, backend)| *backend == was.1),
        "{was:?} {given:?}"
    );
}
