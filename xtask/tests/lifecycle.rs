//! Starts that are not the first: what a new daemon keeps of the old one, and what it does not.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod three_backends;

use std::{fs, time::Duration};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::Value;
use three_backends::Run;
use xtask::lab::{Nic, Observer, VIP_V4, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

impl Run {
    /// Exit code and JSON of `weir status`.
    fn status(&self) -> (Option<i32>, Value) {
        let socket = self.weir.socket().display().to_string();
        let arguments = ["status", "-o", "json", "--socket", &socket];
        let output = self.weir.output(&arguments).unwrap();
        let status = serde_json::from_slice(&output.stdout);
        (output.status.code(), status.unwrap())
    }

    /// Waits until an interface, by its place in the configuration, stands so; returns the status.
    fn stands(&self, index: usize, state: &str) -> (Option<i32>, Value) {
        eventually(&format!("{state} at {index}"), PATIENCE, || {
            let (code, status) = self.status();
            ensure!(status["interfaces"][index]["state"] == state, "{status}");
            Ok((code, status))
        })
        .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Wires the load balancer to the segment, once more or again.
    fn plug(&self, nic: &str, addresses: &[String]) -> (Nic, Observer) {
        let (segment, lb) = (&self.topology.segment, &self.topology.lb.namespace);
        let nic = segment.plug(lb, nic, addresses).unwrap();
        let observer = nic.observe().unwrap();
        (nic, observer)
    }

    fn pull(&self, nic: &str) {
        let lb = &self.topology.lb.namespace;
        lb.ip(&format!("link del {nic}")).unwrap();
    }

    /// Writes the configuration with these interfaces.
    fn set_interfaces(&self, interfaces: &[&str]) {
        let text = fs::read_to_string(self.weir.config()).unwrap();
        let lines = text.lines().map(|line| {
            if line.starts_with("interfaces ") {
                format!("interfaces = {interfaces:?}")
            } else {
                line.to_owned()
            }
        });
        let text = lines.collect::<Vec<_>>().join("\n") + "\n";
        assert_eq!(
            self.lab.write("lb-1.toml", &text).unwrap(),
            self.weir.config()
        );
    }
}

#[test]
fn a_fresh_start_forgets_commands_pins_and_counters() {
    let mut run = Run::start();
    let names = run.topology.backend_names();
    let backend = run.topology.backends[0].address(VIP_V4).to_string();
    run.weir.ask(&["drain", "--all", &backend]).unwrap();
    run.answering(100);
    let before = run.weir.status().unwrap();
    run.weir.end_by(Signal::KILL).unwrap();
    run.weir
        .restart_with(&["--fresh"])
        .unwrap_or_else(|error| panic!("{error:#}"));
    let after = run.weir.status().unwrap();
    // Changes that were based on what is gone are refused: the generation goes on.
    assert!(after.generation > before.generation);
    let web = after.vip("web-v4").unwrap();
    assert_eq!((web.packets, web.backends[0].drained), (0, false));
    assert!(before.vip("web-v4").unwrap().packets > 0);
    // At once: nothing holds or moves after a fresh start.
    assert_eq!(run.answering(300), names);

    // And the next start is as fresh: the command is gone for good.
    run.weir.terminate().unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!run.weir.status().unwrap().vip("web-v4").unwrap().backends[0].drained);
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let run = Run::start();
    let (_, before) = run.status();
    run.pull("eth0");
    let (code, status) = run.stands(0, "absent");
    assert_eq!(code, Some(3));
    assert_eq!(status["interfaces"][0]["ifindex"], Value::Null);
    let problems = status["problems"].to_string();
    assert!(
        problems.contains("interface eth0 is not there"),
        "{problems}"
    );

    let lb = &run.topology.lb;
    let addresses = [format!("{}/24", lb.v4), format!("{}/64", lb.v6)];
    let _cable = run.plug("eth0", &addresses);
    let (_, after) = run.stands(0, "attached");
    assert_ne!(
        after["interfaces"][0]["ifindex"],
        before["interfaces"][0]["ifindex"]
    );
    // It has another MAC address, which the client learns in its own time.
    let client = &run.topology.client.namespace;
    client.ip("neigh flush dev eth0").unwrap();
    eventually("all backends resolved", PATIENCE, || {
        let (code, status) = run.status();
        ensure!(code == Some(0), "{status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(run.answering(300), run.topology.backend_names());
}

#[test]
fn interfaces_come_and_go_by_reload_and_nobodys_program_is_replaced() {
    let mut run = Run::start();
    let names = run.topology.backend_names();
    let lb = run.topology.lb.namespace.clone();
    // A second interface on one segment must not answer for the first one's addresses.
    lb.sysctl("net/ipv4/conf/all/arp_ignore", "1").unwrap();
    let (nic, _observer) = run.plug("eth1", &[]);
    let recorder = nic.record().unwrap();

    // Somebody else's program is on it: refused as a whole, and named.
    run.set_interfaces(&["eth0", "eth1"]);
    let socket = run.weir.socket().display().to_string();
    let apply = ["apply", "--socket", &socket];
    let refused = run.weir.output(&apply).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another XDP program is attached to eth1 (id ") && said.contains("record"),
        "{said}"
    );
    let (code, status) = run.status();
    assert_eq!(
        (code, status["interfaces"].as_array().unwrap().len()),
        (Some(0), 1)
    );
    assert_eq!(run.answering(100), names);

    // A daemon starts all the same, says what is missing, and attaches once the other program has gone.
    run.weir.end_by(Signal::KILL).unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    let (code, status) = run.stands(1, "foreign");
    assert_eq!(code, Some(3));
    assert!(status["interfaces"][1]["foreign"]["id"].as_u64().unwrap() > 0);
    assert_eq!(run.answering(100), names);
    lb.ip("link set dev eth1 xdpdrv off").unwrap();
    drop(recorder);
    let (code, _) = run.stands(1, "attached");
    assert_eq!(code, Some(0));
    assert!(run.weir.xdp_on("eth1").unwrap());

    // One that does not exist is refused with its line; one that is taken out is given back.
    run.set_interfaces(&["eth0", "eth1", "eth7"]);
    let refused = run.weir.output(&apply).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("node.interfaces[2]: found \"eth7\""),
        "{said}"
    );
    run.set_interfaces(&["eth0"]);
    run.weir.ask(&["apply"]).unwrap();
    assert!(!run.weir.xdp_on("eth1").unwrap());
    assert!(run.weir.xdp_on("eth0").unwrap());
    assert_eq!(run.answering(100), names);
    run.set_interfaces(&["eth0", "eth1"]);
    run.weir.ask(&["apply"]).unwrap();
    assert!(run.weir.xdp_on("eth1").unwrap());
}

#[test]
fn without_a_daemon_the_status_is_read_from_the_pins() {
    let mut run = Run::start();
    run.answering(100);
    let (_, before) = run.status();
    run.weir.end_by(Signal::KILL).unwrap();
    // Forwarded on, and counted.
    run.answering(100);
    let socket = run.weir.socket().display().to_string();
    let pins = run.weir.pin_path().display().to_string();
    let status = |more: &[&str]| {
        let arguments = [&["status", "--socket", &socket], more].concat();
        let output = run.weir.output(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8(output.stdout).unwrap()
    };
    let left: Value = serde_json::from_str(&status(&["--pin-path", &pins, "-o", "json"])).unwrap();
    assert_eq!(left["ready"], false);
    assert_eq!(left["interfaces"], before["interfaces"]);
    // VIPs and backends as they were, but for what counts on.
    for (then, now) in before["vips"]
        .as_array()
        .unwrap()
        .iter()
        .zip(left["vips"].as_array().unwrap())
    {
        for key in ["id", "address", "port", "protocol", "slots"] {
            assert_eq!(now[key], then[key], "{key}");
        }
        for (index, then) in then["backends"].as_array().unwrap().iter().enumerate() {
            for key in [
                "id", "address", "forward", "slots", "resolved", "mac", "mtu",
            ] {
                assert_eq!(now["backends"][index][key], then[key], "{key}");
            }
        }
    }
    let packets = |status: &Value| status["vips"][0]["packets"].as_u64().unwrap();
    assert!(packets(&left) > packets(&before));
    let text = status(&["--pin-path", &pins]);
    assert!(
        text.starts_with("no daemon runs") && text.contains("VIP 203.0.113.10 port 80 tcp"),
        "{text}"
    );
    // Without knowing where the pins are, only that.
    assert_eq!(status(&[]), "");
}
