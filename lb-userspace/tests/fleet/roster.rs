//! The script that lists the nodes which compare their tables, in a real Redis, told the time.

use std::cell::Cell;

use lb_userspace::agreement::ROSTER_SCRIPT;
use redis::{FromRedisValue as _, Value};

use crate::server::Server;

/// What the script is told: an entry of the same name is an earlier start after so long, and any is forgotten. In milliseconds.
const RESTARTED: u64 = 4_000;
const FORGOTTEN: u64 = 600_000;

/// Of another node: instance, milliseconds since it told of itself, tag.
type Line = (String, u64, String);

struct Roster {
    server: Server,
    script: String,
    now: Cell<u64>,
}

impl Roster {
    fn new() -> Self {
        let script = ROSTER_SCRIPT.replace(
            "redis.call('TIME')",
            "{math.floor(ARGV[#ARGV] / 1000), ARGV[#ARGV] % 1000 * 1000}",
        );
        assert_ne!(
            script, ROSTER_SCRIPT,
            "the script asks for the time otherwise now"
        );
        Self {
            server: Server::start(),
            script,
            now: Cell::new(1_000_000),
        }
    }

    /// A turn of a node; what it hears of others.
    fn turn(&self, instance: &str, name: &str, tag: &str) -> Vec<Line> {
        let report = format!("report:{instance}");
        let times = [RESTARTED, FORGOTTEN, self.now.get()].map(|time| time.to_string());
        let [restarted, forgotten, now] = &times;
        let answer = self.server.command(&[
            "EVAL",
            &self.script,
            "2",
            "roster",
            &report,
            instance,
            name,
            tag,
            "{}",
            restarted,
            forgotten,
            now,
        ]);
        let mut lines = Vec::<Line>::from_redis_value(answer).unwrap();
        lines.sort();
        lines
    }

    fn wait(&self, milliseconds: u64) {
        self.now.set(self.now.get() + milliseconds);
    }

    fn hears(&self, instance: &str, name: &str, others: &[(&str, u64, &str)]) {
        let others: Vec<Line> = others
            .iter()
            .map(|(instance, age, tag)| ((*instance).to_owned(), *age, (*tag).to_owned()))
            .collect();
        assert_eq!(self.turn(instance, name, "t"), others);
    }
}

#[test]
fn every_node_hears_of_the_others_and_since_when() {
    let roster = Roster::new();
    roster.hears("a", "lb-1", &[]);
    roster.wait(500);
    roster.hears("b", "lb-2", &[("a", 500, "t")]);
    roster.wait(2_000);
    roster.turn("a", "lb-1", "new");
    roster.hears("b", "lb-2", &[("a", 0, "new")]);
    roster.hears("c", "lb-3", &[("a", 0, "new"), ("b", 0, "t")]);
    assert_eq!(
        roster.server.command(&["GET", "report:c"]),
        Value::BulkString(b"{}".to_vec())
    );
    // Everything ends by itself.
    for key in ["roster", "report:c"] {
        let left = u64::from_redis_value(roster.server.command(&["PTTL", key])).unwrap();
        assert!((1..=FORGOTTEN).contains(&left), "{key}: {left}");
    }
}

#[test]
fn a_node_that_is_silent_is_forgotten_and_an_earlier_start_sooner() {
    let roster = Roster::new();
    roster.turn("a", "lb-1", "t");
    roster.turn("b", "lb-2", "t");
    // Another of the same name, while the first goes on telling: two nodes.
    roster.wait(2_000);
    roster.turn("b", "lb-2", "t");
    roster.hears("b2", "lb-2", &[("a", 2_000, "t"), ("b", 0, "t")]);
    // One that tells nothing more: an earlier start.
    roster.wait(RESTARTED + 1);
    roster.hears("b2", "lb-2", &[("a", RESTARTED + 2_001, "t")]);
    roster.wait(FORGOTTEN - RESTARTED - 2_002);
    roster.hears("b2", "lb-2", &[("a", FORGOTTEN - 1, "t")]);
    roster.wait(1);
    roster.hears("b2", "lb-2", &[]);
}

/// As docs/fleet-limits.md has the user's rights.
#[test]
fn the_rights_that_limits_need_are_enough() {
    let server = Server::start();
    let rights = "+evalsha +eval +get +set +time ~weir:*";
    let head = ["ACL", "SETUSER", "weir", "on", ">do-not-print"];
    let words: Vec<_> = head.into_iter().chain(rights.split(' ')).collect();
    server.command(&words);
    let url = format!(
        "unix://{}?user=weir&pass=do-not-print",
        server.socket().display()
    );
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let report = "weir:{edge}:agreement:1:report:a";
    let _: () = redis::cmd("EVAL")
        .arg(ROSTER_SCRIPT)
        .arg(2)
        .arg(&["weir:{edge}:agreement:1:roster", report])
        .arg(&["a", "lb-1", "t", "{}", "4000", "600000"])
        .query(&mut connection)
        .unwrap();
    let read: String = redis::cmd("GET")
        .arg(report)
        .query(&mut connection)
        .unwrap();
    assert_eq!(read, "{}");
}

#[test]
fn a_clock_that_goes_back_and_values_of_others_do_no_harm() {
    let roster = Roster::new();
    roster.turn("a", "lb-1", "t");
    roster.now.set(500_000);
    roster.hears("b", "lb-2", &[("a", 0, "t")]);
    roster.wait(1_000);
    roster.hears("b", "lb-2", &[("a", 1_000, "t")]);
    for value in ["", "x", "\u{81}\u{a1}x\u{1}"] {
        roster.server.command(&["SET", "roster", value]);
        roster.hears("b", "lb-2", &[]);
        roster.hears("a", "lb-1", &[("b", 0, "t")]);
    }
}
