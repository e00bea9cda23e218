//! The script that lists the nodes which compare their tables, in a real Redis, told the time.

use std::cell::Cell;

use lb_userspace::agreement::{REPORT_SCRIPT, ROSTER_SCRIPT};
use redis::{FromRedisValue, Value};

use crate::server::Server;

/// What the script is told: an entry of the same name is an earlier start after so long, and any is forgotten. In milliseconds.
const RESTARTED: u64 = 4_000;
const FORGOTTEN: u64 = 600_000;

/// How many others are told at most.
const MOST: &str = "3";

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

    /// A turn of a node; what it hears of others, and how many there are.
    fn told(&self, instance: &str, name: &str, tag: &str) -> (u64, Vec<Line>) {
        let report = format!("report:{instance}");
        let [instance, tag] = [instance, tag].map(number);
        let times = [RESTARTED, FORGOTTEN, self.now.get()].map(|time| time.to_string());
        let [restarted, forgotten, now] = &times;
        let answer = self.server.command(&[
            "EVAL",
            &self.script,
            "2",
            "roster",
            &report,
            &instance,
            name,
            &tag,
            "{}",
            restarted,
            forgotten,
            MOST,
            now,
        ]);
        FromRedisValue::from_redis_value(answer).unwrap()
    }

    /// A turn of a node that hears of all others.
    fn turn(&self, instance: &str, name: &str, tag: &str) -> Vec<Line> {
        let (count, mut lines) = self.told(instance, name, tag);
        assert_eq!(count, u64::try_from(lines.len()).unwrap());
        lines.sort();
        lines
    }

    fn wait(&self, milliseconds: u64) {
        self.now.set(self.now.get() + milliseconds);
    }

    fn hears(&self, instance: &str, name: &str, others: &[(&str, u64, &str)]) {
        let others: Vec<Line> = others
            .iter()
            .map(|(instance, age, tag)| (number(instance), *age, number(tag)))
            .collect();
        assert_eq!(self.turn(instance, name, "1"), others);
    }
}

/// An instance, or a tag, as weir makes them: 16 hexadecimal digits.
fn number(short: &str) -> String {
    format!("{short:0>16}")
}

#[test]
fn every_node_hears_of_the_others_and_since_when() {
    let roster = Roster::new();
    roster.hears("a", "lb-1", &[]);
    roster.wait(500);
    roster.hears("b", "lb-2", &[("a", 500, "1")]);
    roster.wait(2_000);
    roster.turn("a", "lb-1", "2");
    roster.hears("b", "lb-2", &[("a", 0, "2")]);
    roster.hears("c", "lb-3", &[("a", 0, "2"), ("b", 0, "1")]);
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
    roster.turn("a", "lb-1", "1");
    roster.turn("b", "lb-2", "1");
    // Another of the same name, while the first goes on telling: two nodes.
    roster.wait(2_000);
    roster.turn("b", "lb-2", "1");
    roster.hears("b2", "lb-2", &[("a", 2_000, "1"), ("b", 0, "1")]);
    // One that tells nothing more: an earlier start.
    roster.wait(RESTARTED + 1);
    roster.hears("b2", "lb-2", &[("a", RESTARTED + 2_001, "1")]);
    roster.wait(FORGOTTEN - RESTARTED - 2_002);
    roster.hears("b2", "lb-2", &[("a", FORGOTTEN - 1, "1")]);
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
        .arg(&["a", "lb-1", "1", "{}", "4000", "600000", MOST])
        .query(&mut connection)
        .unwrap();
    let mut read = |key: &str, most: usize| -> Option<String> {
        let mut command = redis::cmd("EVAL");
        command.arg(REPORT_SCRIPT).arg(1).arg(key).arg(most);
        command.query(&mut connection).unwrap()
    };
    assert_eq!(read(report, 2).as_deref(), Some("{}"));
    assert_eq!(read("weir:{edge}:agreement:1:report:b", 2), None);
    // Of what is too large no more comes than tells so.
    server.command(&["SET", report, &"x".repeat(3_000_000)]);
    assert_eq!(read(report, 3).as_deref(), Some("xxx"));
}

#[test]
fn of_too_many_nodes_the_same_ones_are_told_and_how_many_there_are() {
    let roster = Roster::new();
    for instance in ["f", "e", "d", "c", "b", "a"] {
        roster.told(instance, &format!("lb-{instance}"), "1");
        roster.wait(100);
    }
    for _ in 0..2 {
        let (count, lines) = roster.told("a", "lb-a", "1");
        let told: Vec<_> = lines.into_iter().map(|(instance, ..)| instance).collect();
        assert_eq!((count, told), (5, ["b", "c", "d"].map(number).to_vec()));
        // One more has its turn.
        roster.told("e", "lb-e", "1");
    }
    // Those that tell nothing more come last.
    roster.wait(RESTARTED);
    roster.told("e", "lb-e", "1");
    let (count, lines) = roster.told("a", "lb-a", "1");
    let told: Vec<_> = lines.into_iter().map(|(instance, ..)| instance).collect();
    assert_eq!((count, told), (5, ["e", "b", "c"].map(number).to_vec()));
}

#[test]
fn a_clock_that_goes_back_and_values_of_others_do_no_harm() {
    let roster = Roster::new();
    roster.turn("a", "lb-1", "1");
    roster.now.set(500_000);
    roster.hears("b", "lb-2", &[("a", 0, "1")]);
    roster.wait(1_000);
    roster.hears("b", "lb-2", &[("a", 1_000, "1")]);
    let large = "x".repeat(300_000);
    for value in ["", "x", "\u{81}\u{a1}x\u{1}", large.as_str()] {
        roster.server.command(&["SET", "roster", value]);
        roster.hears("b", "lb-2", &[]);
        roster.hears("a", "lb-1", &[("b", 0, "1")]);
    }
}

/// An error of the script would be one in every turn of every node, for as long as it is there.
#[test]
fn entries_that_no_weir_makes_are_as_if_they_were_not_there() {
    let roster = Roster::new();
    let id = |short: &str| format!("'{}'", number(short));
    let entry = |instance: &str, name: &str, at: &str, tag: &str| {
        roster.server.command(&[
            "EVAL",
            &format!(
                "redis.call('SET', KEYS[1], cmsgpack.pack({{{instance}, {name}, {at}, {tag}, {}, 'lb-3', 1000000, {}}}))",
                id("c"),
                id("1")
            ),
            "1",
            "roster",
        ]);
    };
    let (other, tag) = (id("b"), id("2"));
    let well = [other.as_str(), "'lb-2'", "1000000", tag.as_str()];
    for (place, value) in [
        (0, "1"),
        (0, "{}"),
        (0, "'b'"),
        (0, "'../../../../etc/'"),
        (0, "'\\129000000000000000'"),
        (1, "false"),
        (1, "{}"),
        (2, "'soon'"),
        (2, "{}"),
        (2, "true"),
        (2, "0/0"),
        (3, "2"),
        (3, "{}"),
        (3, "'\\255'"),
    ] {
        let mut told = well;
        told[place] = value;
        let [instance, name, at, tag] = told;
        entry(instance, name, at, tag);
        roster.hears("a", "lb-1", &[("c", 0, "1")]);
        // And they are gone.
        roster.hears("c", "lb-3", &[("a", 0, "1")]);
    }
    let [instance, name, at, tag] = well;
    entry(instance, name, at, tag);
    roster.hears("a", "lb-1", &[("b", 0, "2"), ("c", 0, "1")]);
}
