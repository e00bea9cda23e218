//! Time goes by in arguments: nothing here waits.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc};

use lb_common::flow::Address;

use super::*;
use crate::{
    health::State,
    model::{
        ids::Ids,
        next_hop::Port,
        plan::Held,
        seed::Keys,
        wanted::{Inputs, WantedVip},
    },
};

/// How long the host had been up when a node began.
const BOOTED_S: u64 = 5000;
const FIRST: &str = "10.0.0.11";
const SECOND: &str = "10.0.0.12";

/// A VIP `web` with `keys` of its own, and a backend of each weight, from 10.0.0.11 on.
fn config(keys: &str, weights: &[u16]) -> Config {
    let mut text = format!(
        "[node]\ninterfaces = [\"lo\"]\nseed = \"x\"\n[[vip]]\nname = \"web\"\naddress = \"203.0.113.10\"\nport = 80\n\
         protocol = \"tcp\"\n{keys}\n"
    );
    for (weight, host) in weights.iter().zip(11..) {
        writeln!(
            text,
            "[[vip.backend]]\naddress = \"10.0.0.{host}\"\nmac = \"02:00:00:00:00:{host}\"\nweight = {weight}"
        )
        .unwrap();
    }
    Config::parse(&text, "weir.toml").unwrap()
}

fn web(backend: &str) -> BackendName {
    BackendName {
        vip: "web".into(),
        backend: backend.parse().unwrap(),
    }
}

fn dead(standing: &Standing) -> Vec<String> {
    let names = standing.dead.iter();
    names.map(|name| name.backend.to_string()).collect()
}

/// All checks of `config` as they are when exactly `failed` fail.
fn health(config: &Config, failed: &[&str]) -> Snapshot {
    let checks = crate::health::checks_of(config);
    let states = checks.into_iter().map(|((_, backend), check)| {
        let verdict = if failed.contains(&backend.to_string().as_str()) {
            Verdict::Failed
        } else {
            Verdict::Healthy
        };
        let state = State {
            verdict,
            since: std::time::SystemTime::UNIX_EPOCH,
            reason: None,
            flaps: 0,
            record: Arc::default(),
        };
        (Arc::new(check), state)
    });
    Snapshot {
        states: states.collect(),
    }
}

/// A node in the hands of a keeper, at seconds since it began.
struct Node {
    keeper: Keeper,
    ids: Ids,
    began: Instant,
}

impl Node {
    fn new() -> Self {
        Self {
            keeper: Keeper::default(),
            ids: Ids::default(),
            began: Instant::now(),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.began + Duration::from_secs_f64(seconds)
    }

    fn stand(&mut self, config: &Config, failed: &[&str], seconds: f64) -> Standing {
        self.stand_after(config, failed, None, seconds)
    }

    fn stand_after(
        &mut self,
        config: &Config,
        failed: &[&str],
        before: Option<&Wanted>,
        seconds: f64,
    ) -> Standing {
        let now = self.at(seconds);
        let health = health(config, failed);
        let basis = (before, &self.ids);
        let standing = self.keeper.stand(config, &health, basis, now, 0);
        // What is wanted then, and what of it is noted.
        let wanted = match before {
            Some(before) => before.clone(),
            None => wanted(config, &standing, &mut self.ids),
        };
        self.keeper.follow(&wanted, now);
        self.keeper.noted();
        standing
    }

    /// Another daemon goes on with the note of this one, when the clock says so.
    fn restart(&mut self, seconds: f64, clock_s: u64) {
        let now = self.at(seconds);
        let now_ns = (BOOTED_S + clock_s) * SECOND_NS;
        let note = self.keeper.note(now, now_ns);
        self.keeper = note.map_or_else(Keeper::default, |note| Keeper::adopt(&note, now, now_ns));
    }

    fn wakes_at(&self, seconds: f64) -> bool {
        self.keeper.wake == Some(self.at(seconds))
    }
}

const CHECKED: &str = "[vip.health]\ntype = \"tcp\"\nport = 80\n";

#[test]
fn who_fails_its_checks_is_dead_unless_all_do() {
    let config = config(CHECKED, &[100, 100]);
    let mut node = Node::new();
    assert_eq!(dead(&node.stand(&config, &[], 0.0)), [""; 0]);
    assert_eq!(dead(&node.stand(&config, &[SECOND], 1.0)), [SECOND]);
    assert!(node.keeper.failing_open.is_empty());
    assert_eq!(dead(&node.stand(&config, &[FIRST, SECOND], 2.0)), [""; 0]);
    assert!(node.keeper.failing_open.contains("web"));
    assert_eq!(dead(&node.stand(&config, &[FIRST], 3.0)), [FIRST]);
    assert!(node.keeper.failing_open.is_empty());
    assert_eq!(node.keeper.wake, None);
}

#[test]
fn a_drained_backend_is_dead_when_its_time_is_up() {
    let serving = config("drain_timeout = \"60s\"", &[100, 100]);
    let draining = config("drain_timeout = \"60s\"", &[100, 0]);
    let mut node = Node::new();
    node.stand(&serving, &[], 0.0);
    assert_eq!(dead(&node.stand(&draining, &[], 10.0)), [""; 0]);
    assert!(node.wakes_at(70.0));
    // Whatever else happens meanwhile, the time goes on.
    assert_eq!(dead(&node.stand(&draining, &[], 69.9)), [""; 0]);
    assert!(node.wakes_at(70.0));
    assert_eq!(dead(&node.stand(&draining, &[], 70.0)), [SECOND]);
    assert_eq!(node.keeper.wake, None);

    // Taken back into service, it has all of its time the next time.
    assert_eq!(dead(&node.stand(&serving, &[], 80.0)), [""; 0]);
    assert_eq!(dead(&node.stand(&draining, &[], 90.0)), [""; 0]);
    assert!(node.wakes_at(150.0));
}

#[test]
fn the_time_of_a_drain_goes_on_after_a_restart() {
    let draining = config("drain_timeout = \"60s\"", &[100, 0]);
    let mut node = Node::new();
    node.stand(&draining, &[], 10.25);
    node.restart(40.0, 40);
    // At the very first, when nothing has been wanted yet. It may last longer by the second that is noted, never shorter.
    assert_eq!(dead(&node.stand(&draining, &[], 40.0)), [""; 0]);
    assert!(node.wakes_at(71.0));
    node.restart(65.0, 65);
    assert_eq!(dead(&node.stand(&draining, &[], 70.25)), [""; 0]);
    assert_eq!(dead(&node.stand(&draining, &[], 72.0)), [SECOND]);
    node.restart(100.0, 100);
    assert_eq!(dead(&node.stand(&draining, &[], 100.0)), [SECOND]);
    // In service again, it has none.
    node.stand(&config("drain_timeout = \"60s\"", &[100, 100]), &[], 101.0);
    assert_eq!(node.keeper.note(node.at(101.0), 0).map(|_| ()), None);
}

#[test]
fn a_time_that_is_not_known_begins_again_and_is_never_over() {
    let draining = config("drain_timeout = \"60s\"", &[100, 0]);
    let mut node = Node::new();
    node.stand(&draining, &[], 0.0);
    let noted = node.keeper.note(node.at(50.0), (BOOTED_S + 50) * SECOND_NS);
    // The host has been up for less long than the note says.
    let since_boot_ns = (BOOTED_S - 1000) * SECOND_NS;
    node.keeper = Keeper::adopt(&noted.unwrap(), node.at(1000.0), since_boot_ns);
    assert_eq!(dead(&node.stand(&draining, &[], 1000.0)), [""; 0]);
    assert!(node.wakes_at(1060.0));
    node.keeper = Keeper::default();
    assert_eq!(dead(&node.stand(&draining, &[], 2000.0)), [""; 0]);
    assert!(node.wakes_at(2060.0));
}

#[test]
fn without_a_drain_timeout_a_drain_never_ends() {
    let config = config("drain_timeout = \"off\"", &[100, 0]);
    let mut node = Node::new();
    node.stand(&config, &[], 0.0);
    assert_eq!(dead(&node.stand(&config, &[], 1e6)), [""; 0]);
    assert_eq!(node.keeper.wake, None);
}

#[test]
fn who_comes_or_comes_back_starts_in_ten_steps() {
    let slow = format!("slow_start = \"30s\"\n{CHECKED}");
    let one = config(&slow, &[200]);
    let two = config(&slow, &[200, 200]);
    let mut node = Node::new();
    // The daemon's start is nobody's.
    assert!(node.stand(&one, &[], 0.0).starting.is_empty());
    assert_eq!(node.keeper.wake, None);

    let second = |standing: &Standing| standing.starting.get(&web(SECOND)).copied();
    assert_eq!(second(&node.stand(&two, &[], 100.0)), Some(20));
    assert!(node.wakes_at(103.0));
    for step in 1..9u16 {
        let at = 100.0 + 3.0 * f64::from(step);
        let standing = node.stand(&two, &[], at + 0.1);
        assert_eq!(second(&standing), Some(20 * (step + 1)), "{step}");
        assert_eq!(standing.starting.len(), 1, "the first serves in full");
        assert!(node.wakes_at(at + 3.0), "{step}");
    }
    assert_eq!(second(&node.stand(&two, &[], 127.1)), None);
    assert_eq!(node.keeper.wake, None);

    // It fails amid nothing, and is back.
    assert_eq!(second(&node.stand(&two, &[SECOND], 200.0)), None);
    assert_eq!(second(&node.stand(&two, &[], 300.0)), Some(20));
    // It fails amid its start, and begins anew.
    assert_eq!(second(&node.stand(&two, &[], 310.0)), Some(80));
    assert_eq!(second(&node.stand(&two, &[SECOND], 311.0)), None);
    assert_eq!(second(&node.stand(&two, &[], 312.0)), Some(20));
    assert!(node.wakes_at(315.0));
}

#[test]
fn a_backend_that_starts_slowly_weighs_one_at_least() {
    let slow = "slow_start = \"30s\"";
    let mut node = Node::new();
    node.stand(&config(slow, &[3]), &[], 0.0);
    let standing = node.stand(&config(slow, &[3, 3]), &[], 1.0);
    assert_eq!(standing.starting.get(&web(SECOND)), Some(&1));
}

/// What is wanted with backends that stand like this.
fn wanted(config: &Config, standing: &Standing, ids: &mut Ids) -> Wanted {
    let port = Port {
        ifindex: 1,
        mac: [2, 0, 0, 0, 0, 1],
    };
    let inputs = Inputs {
        config,
        keys: &Keys::derive("x"),
        ports: &[port],
        next_hops: &BTreeMap::new(),
        locals: &BTreeSet::new(),
        standing,
        cpus: 1,
    };
    Wanted::new(&inputs, &Held::default(), ids).unwrap()
}

/// What was wanted when 10.0.0.12 had just left `web`, as id 9.
fn after_leaving(config: &Config) -> Wanted {
    let mut wanted = wanted(config, &Standing::default(), &mut Ids::default());
    let vip: &WantedVip = wanted.vips.first().unwrap();
    let backend = Backend {
        vip: vip.entry.id as u16,
        address: Address::from_v4([10, 0, 0, 12]),
        mode: 1,
        ..Backend::default()
    };
    wanted.leaving.insert(9, backend);
    wanted
}

#[test]
fn a_leaving_backend_expires_by_time() {
    let config = config("drain_timeout = \"60s\"", &[100]);
    let before = after_leaving(&config);
    let mut node = Node::new();
    let expired = |node: &mut Node, seconds| {
        let standing = node.stand_after(&config, &[], Some(&before), seconds);
        standing.expired.into_iter().collect::<Vec<u16>>()
    };
    assert_eq!(expired(&mut node, 5.0), [0; 0]);
    assert!(node.wakes_at(65.0));
    node.restart(30.0, 30);
    assert_eq!(expired(&mut node, 64.0), [0; 0]);
    assert!(node.wakes_at(65.0));
    assert_eq!(expired(&mut node, 65.0), [9]);
}

#[test]
fn a_leaving_backend_expires_by_its_checks_and_is_still_asked() {
    let config = config(CHECKED, &[100]);
    let before = after_leaving(&config);
    let asked = checks(&config, Some(&before), |_| Verdict::Healthy);
    let (check, verdict) = asked
        .iter()
        .find(|(check, _)| check.target.ip().to_string() == SECOND)
        .unwrap();
    assert_eq!(*verdict, Verdict::Unknown);
    assert_eq!(asked.len(), 2);

    let mut node = Node::new();
    let standing = node.stand_after(&config, &[], Some(&before), 0.0);
    assert!(standing.expired.is_empty());
    let mut snapshot = health(&config, &[]);
    let failed = State {
        verdict: Verdict::Failed,
        since: std::time::SystemTime::UNIX_EPOCH,
        reason: None,
        flaps: 0,
        record: Arc::default(),
    };
    snapshot.states.insert(Arc::new(check.clone()), failed);
    let now = node.at(1.0);
    let basis = (Some(&before), &node.ids);
    let standing = node.keeper.stand(&config, &snapshot, basis, now, 0);
    assert_eq!(standing.expired.into_iter().collect::<Vec<u16>>(), [9]);
}

#[test]
fn what_one_vip_knows_of_a_failure_counts_for_all_that_ask_the_same() {
    let mut two = config(CHECKED, &[100]);
    let mut other = two.vips[0].clone();
    other.name = "tls".into();
    other.port = 443;
    two.vips.push(other);
    for failed in ["web", "tls"] {
        let merged = checks(&two, None, |name| {
            if name.vip == failed {
                Verdict::Failed
            } else {
                Verdict::Healthy
            }
        });
        let verdicts: Vec<_> = merged.values().collect();
        assert_eq!(verdicts, [&Verdict::Failed], "{failed}");
    }
}
