//! Access lists and blocks end to end: HTTP and UDP past the daemon, its file, its command line, and files of prefixes.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail like tests, and timings are for who runs them"
)]

mod three_backends;

use std::{
    fs,
    net::{IpAddr, TcpStream},
    time::Duration,
};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::Value;
use three_backends::Run;
use xtask::{
    lab::{Topology, VIP_V4, VIP_V6, eventually},
    traffic::udp,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client tries to connect before it counts as denied; the counters tell whether it was.
const CONNECT: Duration = Duration::from_millis(500);

/// The VIPs of the lab.
const VIPS: [&str; 4] = ["web-v4", "echo-v4", "web-v6", "echo-v6"];

impl Run {
    fn status(&self) -> Value {
        serde_json::from_str(&self.weir.ask(&["status", "-o", "json"]).unwrap()).unwrap()
    }

    /// Runs a verb against the daemon: exit code, standard output and standard error.
    fn says(&self, arguments: &[&str]) -> (i32, String) {
        let socket = self.weir.socket().display().to_string();
        let output = self
            .weir
            .output(&[arguments, &["--socket", &socket]].concat())
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(said).unwrap(),
        )
    }

    fn client(&self, vip: &str) -> IpAddr {
        self.topology.client.address(address(vip))
    }

    /// Puts the lab's configuration in force with keys for some VIPs, and more at its end.
    fn apply(&self, keys: &[(&str, String)], more: &str) {
        let mut text = fs::read_to_string(self.weir.config()).unwrap();
        for (vip, key) in keys {
            let line = text
                .lines()
                .find(|line| line.starts_with("name") && line.contains(&format!("\"{vip}\"")))
                .unwrap()
                .to_owned();
            text = text.replacen(&line, &format!("{line}\n{key}"), 1);
        }
        let file = self
            .lab
            .write("access.toml", &(text + "\n" + more))
            .unwrap();
        self.weir
            .ask(&["apply", &file.display().to_string()])
            .unwrap();
        eventually("the lists", PATIENCE, || {
            let status = self.status();
            ensure!(status["access"]["in_force"] == true, "{status}");
            Ok(())
        })
        .unwrap();
    }

    /// Whether the client reaches a VIP now.
    fn reaches(&self, vip: &str) -> bool {
        let address = address(vip);
        let ask = || {
            Ok(if vip.starts_with("web") {
                TcpStream::connect_timeout(&Topology::http(address), CONNECT).is_ok()
            } else {
                udp::echoes(Topology::udp(address), 1).is_ok()
            })
        };
        self.topology.client.namespace.inside(ask).unwrap()
    }

    /// Packets to a VIP that a list has decided on.
    fn counted(&self, vip: &str, list: &str) -> u64 {
        let status = self.status();
        let counts = status["access"]["counts"].as_array().unwrap().clone();
        let of = counts
            .iter()
            .find(|count| count["vip"] == vip && count["list"] == list);
        of.map_or(0, |count| count["packets"].as_u64().unwrap())
    }

    /// Waits until the client reaches just these VIPs; the others count what they deny under `list`.
    fn comes_to(&self, what: &str, reached: &[&str]) {
        eventually(what, PATIENCE, || {
            let now: Vec<_> = VIPS.into_iter().filter(|vip| self.reaches(vip)).collect();
            ensure!(now == reached, "{now:?} instead of {reached:?}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", self.status()["access"]));
    }

    fn denies(&self, vip: &str, list: &str) {
        let before = self.counted(vip, list);
        assert!(!self.reaches(vip), "{vip}");
        let after = self.counted(vip, list);
        assert!(
            after > before,
            "{vip}: {before} and then {after} under {list}"
        );
    }

    fn blocks(&self) -> Vec<Value> {
        let list: Value =
            serde_json::from_str(&self.weir.ask(&["block", "list", "-o", "json"]).unwrap())
                .unwrap();
        list["blocks"].as_array().unwrap().clone()
    }
}

fn address(vip: &str) -> IpAddr {
    if vip.ends_with("v4") { VIP_V4 } else { VIP_V6 }
}

#[test]
fn lists_of_the_configuration_hold_over_a_kill_and_go_with_it() {
    let mut run = Run::start();
    run.comes_to("all VIPs", &VIPS);
    let (v4, v6) = (run.client("web-v4"), run.client("web-v6"));
    run.apply(
        &[
            ("web-v4", format!("deny = [\"{v4}\"]")),
            // The longer prefix counts.
            (
                "echo-v4",
                format!("deny = [\"0.0.0.0/0\"]\nallow = [\"{v4}/32\"]"),
            ),
            ("web-v6", "allow = [\"2001:db8:ffff::/48\"]".to_owned()),
            // Before the node's.
            ("echo-v6", format!("allow = [\"{v6}\"]")),
        ],
        "[access]\ndeny = [\"::/0\"]\n",
    );
    run.comes_to("the lists", &["echo-v4", "echo-v6"]);
    run.denies("web-v4", "vip_deny");
    run.denies("web-v6", "node_deny");
    assert!(run.counted("echo-v4", "vip_allow") > 0);
    let labels = [
        ("list", "vip_deny"),
        ("result", "denied"),
        ("vip", "web-v4"),
    ];
    let metrics = run.weir.metrics().unwrap();
    let denied = metrics.sum("weir_access_packets_total", &labels);
    assert!(denied.is_some_and(|packets| packets > 0.0), "{denied:?}");

    // Without a daemon and with another one.
    run.weir.end_by(Signal::KILL).unwrap();
    assert!(!run.reaches("web-v4") && run.reaches("echo-v4"));
    fs::copy(run.lab.folder().join("access.toml"), run.weir.config()).unwrap();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to("the lists again", &["echo-v4", "echo-v6"]);

    let text = fs::read_to_string(run.weir.config()).unwrap();
    let is_list = |line: &&str| {
        !["allow", "deny", "[access]"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let plain: Vec<_> = text.lines().filter(is_list).collect();
    fs::write(run.weir.config(), plain.join("\n") + "\n").unwrap();
    run.apply(&[], "");
    run.comes_to("no lists", &VIPS);
}

#[test]
fn a_block_ends_by_time_and_by_command_and_holds_over_a_kill() {
    let mut run = Run::start();
    run.comes_to("all VIPs", &VIPS);
    let (v4, v6) = (run.client("web-v4"), run.client("web-v6"));
    let generation = run.weir.status().unwrap().generation;
    // Beats what the configuration allows.
    run.apply(&[("web-v4", format!("allow = [\"{v4}\"]"))], "");
    let wide = format!("{v4}/32");
    let (code, said) = run.says(&["block", &wide, "--vip", "web-v4", "--reason", "scans"]);
    assert_eq!(code, 0, "{said}");
    run.denies("web-v4", "vip_block");
    let (code, said) = run.says(&["block", &v6.to_string(), "--for", "1h"]);
    assert_eq!(code, 0, "{said}");
    run.denies("web-v6", "node_block");
    run.denies("echo-v6", "node_block");
    assert!(run.reaches("echo-v4"));
    assert_eq!(run.weir.status().unwrap().generation, generation + 3);
    let (_, table) = run.says(&["block", "list"]);
    assert!(
        table.contains("scans") && table.contains("until undone"),
        "{table}"
    );

    // Over a kill, with the time that is left.
    run.weir.end_by(Signal::KILL).unwrap();
    assert!(!run.reaches("web-v4") && !run.reaches("echo-v6"));
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    run.comes_to("the blocks again", &["echo-v4"]);
    let blocks = run.blocks();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    assert_eq!(blocks[0]["vip"], Value::Null);
    let left = blocks[0]["seconds_left"].as_f64().unwrap();
    assert!((3000.0..3600.0).contains(&left), "{blocks:?}");
    assert_eq!(
        (&blocks[1]["reason"], &blocks[1]["vip"]),
        (&"scans".into(), &"web-v4".into())
    );

    // Blocked once more, for less; that time ends by itself.
    let (code, said) = run.says(&["block", &v6.to_string(), "--for", "2s"]);
    assert_eq!(code, 0, "{said}");
    run.comes_to("the end of a block", &["echo-v4", "web-v6", "echo-v6"]);
    assert_eq!(run.blocks().len(), 1);

    // What is not blocked so is not unblocked, and what is, is told.
    let (code, said) = run.says(&["unblock", &wide]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("{wide} for VIP web-v4")), "{said}");
    let (code, said) = run.says(&["unblock", &wide, "--vip", "web-v4"]);
    assert_eq!(code, 0, "{said}");
    run.comes_to("no blocks", &VIPS);
    let (_, table) = run.says(&["block", "list"]);
    assert_eq!(table, "nothing is blocked by command\n");
    for (arguments, code, part) in [
        (vec!["block", "10.0.0.1/8"], 2, "write `10.0.0.0/8`"),
        (
            vec!["block", "10.0.0.0/8", "--vip", "nobody"],
            1,
            "there is no VIP nobody",
        ),
        (
            vec!["block", "10.0.0.0/8", "--vip", "web-v6"],
            1,
            "no client of 10.0.0.0/8",
        ),
        (
            vec!["block", "10.0.0.0/8", "--for", "0s"],
            1,
            "more than 0 s",
        ),
    ] {
        let (found, said) = run.says(&arguments);
        assert_eq!(found, code, "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_file_of_prefixes_is_followed_as_a_whole_or_not_at_all() {
    let run = Run::start();
    run.comes_to("all VIPs", &VIPS);
    let v4 = run.client("web-v4");
    let feed = run.lab.write("feed.txt", "# nobody yet\n").unwrap();
    run.apply(
        &[],
        &format!("[access]\ndeny_file = \"{}\"\n", feed.display()),
    );
    run.comes_to("an empty list", &VIPS);

    let fresh = run
        .lab
        .write("feed.new", &format!("192.0.2.0/24 # a net\n{v4}\n"))
        .unwrap();
    fs::rename(&fresh, &feed).unwrap();
    run.comes_to("the file's list", &["web-v6", "echo-v6"]);
    run.denies("web-v4", "node_deny");

    // One bad line: what was, is, and it is said.
    fs::write(&feed, "192.0.2.0/24\n192.0.2.1/24\n").unwrap();
    let problems = eventually("the refusal", PATIENCE, || {
        let problems = run.weir.status()?.problems.join("\n");
        ensure!(problems.contains("cannot be used"), "{problems}");
        Ok(problems)
    })
    .unwrap();
    assert!(
        problems.contains("feed.txt:2:1: prefix: found \"192.0.2.1/24\""),
        "{problems}"
    );
    run.denies("web-v4", "node_deny");
    assert_eq!(run.status()["access"]["refused_files"], 1);

    fs::write(&feed, "192.0.2.0/24\n").unwrap();
    run.comes_to("the mended file", &VIPS);
    let status = run.status();
    assert_eq!(status["access"]["refused_files"], 0);
    assert_eq!(status["access"]["lists"][0]["prefixes"], 1, "{status}");
    let problems = run.weir.status().unwrap().problems;
    assert!(!problems.join("\n").contains("feed.txt"), "{problems:?}");
}

/// Timings are printed; what counts is that nothing fails meanwhile.
#[test]
fn a_million_prefixes_load_while_the_daemon_forwards_and_answers() {
    use std::{fmt::Write as _, time::Instant};
    const PREFIXES: u32 = 1_000_000;
    /// Busy machines.
    const LONG: Duration = Duration::from_mins(2);
    let mut run = Run::start();
    let mut text = String::new();
    for index in 0..PREFIXES {
        // Every address once, the lab's own networks left out.
        let [a, b, c, d] = index.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let a = if matches!(a, 10 | 192 | 198 | 203) {
            11
        } else {
            a
        };
        writeln!(text, "{a}.{b}.{c}.{d}").unwrap();
    }
    let feed = run.lab.write("million.txt", &text).unwrap();
    let config = fs::read_to_string(run.weir.config()).unwrap();
    let config = format!("{config}\n[access]\ndeny_file = \"{}\"\n", feed.display());
    fs::write(run.weir.config(), &config).unwrap();
    let began = Instant::now();
    run.weir.ask(&["apply"]).unwrap();
    println!(
        "apply answered after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let in_force = |run: &Run| {
        eventually("the lists", LONG, || {
            assert_eq!(run.answering(100).len(), 3);
            let asked = Instant::now();
            let access = run.status()["access"].clone();
            ensure!(access["in_force"] == true, "{access}");
            Ok(asked.elapsed())
        })
        .unwrap()
    };
    let answered = in_force(&run);
    println!(
        "in force after {:.1} s; the status took {:.3} s",
        began.elapsed().as_secs_f64(),
        answered.as_secs_f64()
    );
    let listed = |run: &Run| {
        let status = run.status();
        let maps = status["maps"].as_array().unwrap().clone();
        let lists = maps.iter().find(|map| map["map"] == "lists").unwrap();
        lists["entries"].as_u64().unwrap()
    };
    let entries = listed(&run);
    assert!(entries > u64::from(PREFIXES) * 98 / 100, "{entries}");

    // A change of the file writes the difference.
    let client = run.client("web-v4");
    let began = Instant::now();
    writeln!(text, "{client}").unwrap();
    fs::write(&feed, &text).unwrap();
    run.comes_to("the longer file", &["web-v6", "echo-v6"]);
    println!(
        "one prefix more after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(listed(&run), entries + 1);

    run.weir.end_by(Signal::KILL).unwrap();
    let began = Instant::now();
    run.weir
        .restart()
        .unwrap_or_else(|error| panic!("{error:#}"));
    println!("taken over after {:.1} s", began.elapsed().as_secs_f64());
    assert!(!run.reaches("web-v4") && run.reaches("web-v6"));
    assert_eq!(listed(&run), entries + 1);
}
