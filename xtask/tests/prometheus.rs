//! Prometheus' own programs against what deploy/ has for them: rules and their tests, and a server that scrapes a real weir,
//! judges the rules, and answers every query of the dashboard.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::ensure;
use rustix::process::Signal;
use three_backends::Run;
use xtask::{
    dashboard::Dashboard,
    lab::{Process, Prometheus, Topology, eventually},
    workspace,
};

const PATIENCE: Duration = Duration::from_mins(1);

fn rules() -> String {
    fs::read_to_string(workspace::root().join("deploy/prometheus/rules.yml")).unwrap()
}

/// Runs promtool in deploy/prometheus.
fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    command.args(arguments);
    command.current_dir(workspace::root().join("deploy/prometheus"));
    let output = command.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(
        output.status.success(),
        "promtool {arguments:?}: {}",
        said.concat()
    );
}

#[test]
fn promtool_takes_the_rules_and_every_alert_fires_when_it_should() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "rules_test.yml"]);
}

/// The alerts with shorter waits, so that a test need not wait for minutes.
fn hasty(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s"),
        _ => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// A weir whose backends are checked, and a server that scrapes it and judges the rules.
struct Scraped {
    // Dropped in order: what runs in the lab's hosts ends before the lab does.
    prometheus: Prometheus,
    checked: Vec<Process>,
    run: Run,
}

impl Scraped {
    fn start(rules: &str) -> Self {
        let run = Run::start();
        let checked = answer_checks(&run);
        let text = fs::read_to_string(run.weir.config()).unwrap();
        let section = format!(
            "[vip.health]\ntype = \"tcp\"\nport = {}\ninterval = \"200ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 2\n\
             [vip.limit]\npackets_per_source = \"1000/s\"\nburst = 100\n[[vip.backend]]",
            Topology::checked()
        );
        let name = "name     = \"web-v4\"";
        let (head, rest) = text.split_once(name).unwrap();
        let rest = rest.replacen("[[vip.backend]]", &section, 1);
        fs::write(run.weir.config(), format!("{head}{name}{rest}")).unwrap();
        run.weir.reload().unwrap();

        let host = &run.topology.lb.namespace;
        let target: SocketAddr = "127.0.0.1:9407".parse().unwrap();
        let prometheus = Prometheus::start(&run.lab, host, &[target], rules).unwrap();
        eventually("weir to be scraped", PATIENCE, || {
            let up = prometheus.query("up{job=\"weir\"} == 1")?;
            ensure!(up.len() == 1, "{}", prometheus.ask("targets")?);
            let healthy = prometheus.query("sum(weir_backend_healthy{vip=\"web-v4\"}) == 3")?;
            ensure!(healthy.len() == 1, "not all are healthy");
            Ok(())
        })
        .unwrap();
        Self {
            prometheus,
            checked,
            run,
        }
    }

    /// Waits until an alert fires, or does not.
    fn fires(&self, alert: &str, is_to: bool) {
        eventually(&format!("{alert} to fire: {is_to}"), PATIENCE, || {
            let firing = self.prometheus.firing()?;
            ensure!(
                firing.contains(&alert.to_owned()) == is_to,
                "firing: {firing:?}"
            );
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn answer_checks(run: &Run) -> Vec<Process> {
    let backends = run.topology.backends.iter();
    backends
        .map(|host| Topology::answer_checks(host).unwrap())
        .collect()
}

#[test]
fn every_query_of_the_dashboard_is_answered_by_a_real_server() {
    let scraped = Scraped::start(&rules());
    // Every query of the dashboard is answered; those that must have a value do.
    scraped.run.answering(200);
    let empty = eventually("rates of what was sent", PATIENCE, || {
        let mut empty = Vec::new();
        for (title, query) in Dashboard::read(&workspace::root())?.queries("1m") {
            if scraped.prometheus.query(&query)?.is_empty() {
                empty.push(title);
            }
        }
        let traffic = scraped
            .prometheus
            .query("sum(rate(weir_vip_packets_total{vip=\"web-v4\"}[1m])) > 0")?;
        ensure!(!traffic.is_empty(), "no traffic yet");
        Ok(empty)
    })
    .unwrap();
    for title in [
        "Nodes that answer",
        "Packets",
        "Packets by VIP",
        "Packets by backend",
        "Share of packets",
        "Share of new flows against share of weight",
        "Backends",
        "VIPs",
        "Time of checks",
        "Slots that change hands",
        "How full maps are",
        "Allowed",
        "Agreement on tables",
        "Tables",
        "Builds",
        "Program on interfaces",
        "CPU of the daemon",
        "Memory of the daemon",
        "Reconciles",
        "Generation",
        "Uptime of the daemon",
    ] {
        assert!(
            !empty.contains(&title.to_owned()),
            "{title} shows nothing: {empty:?}"
        );
    }
}

#[test]
fn alerts_fire_and_end_on_a_real_server() {
    let rules = hasty(&rules());
    let mut scraped = Scraped::start(&rules);
    // All rules are loaded, and all of them can be judged.
    eventually("the rules to be judged", PATIENCE, || {
        let loaded = scraped.prometheus.ask("rules")?;
        let groups = loaded["groups"].as_array().unwrap();
        let alerts: Vec<_> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap())
            .collect();
        assert_eq!(alerts.len(), rules.matches("- alert: ").count());
        ensure!(
            alerts.iter().all(|alert| alert["health"] == "ok"),
            "{loaded}"
        );
        Ok(())
    })
    .unwrap();
    // Nothing is wrong; the lab's interfaces run the program as their driver.
    eventually("no alert to fire", PATIENCE, || {
        let firing = scraped.prometheus.firing()?;
        ensure!(firing.is_empty(), "{firing:?}");
        Ok(())
    })
    .unwrap();

    scraped
        .checked
        .remove(0)
        .end_by(Signal::KILL, PATIENCE)
        .unwrap();
    scraped.fires("WeirBackendDown", true);
    let down = scraped
        .prometheus
        .query("ALERTS{alertname=\"WeirBackendDown\", alertstate=\"firing\"}")
        .unwrap();
    let labels = &down.first().unwrap().labels;
    let backend = scraped
        .run
        .topology
        .backends
        .first()
        .unwrap()
        .v4
        .to_string();
    assert_eq!(
        (labels["vip"].as_str(), &labels["backend"]),
        ("web-v4", &backend)
    );
    for process in &mut scraped.checked {
        process.end_by(Signal::KILL, PATIENCE).unwrap();
    }
    scraped.fires("WeirVipFailsOpen", true);
    scraped.checked = answer_checks(&scraped.run);
    scraped.fires("WeirVipFailsOpen", false);
    scraped.fires("WeirBackendDown", false);

    // A configuration that is refused, and a daemon that is gone.
    let good = fs::read_to_string(scraped.run.weir.config()).unwrap();
    fs::write(
        scraped.run.weir.config(),
        good.replace("[node]", "[node]\nnonsense = 1"),
    )
    .unwrap();
    scraped.run.weir.signal(Signal::HUP).unwrap();
    scraped.fires("WeirConfigRefused", true);
    fs::write(scraped.run.weir.config(), good).unwrap();
    scraped.run.weir.reload().unwrap();
    scraped.fires("WeirConfigRefused", false);
    scraped.run.weir.end_by(Signal::KILL).unwrap();
    scraped.fires("WeirDown", true);
    scraped.run.weir.restart().unwrap();
    scraped.fires("WeirDown", false);
}
