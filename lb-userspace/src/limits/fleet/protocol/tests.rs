use std::collections::BTreeSet;

use super::*;
use crate::limits::fleet::Rate;

const PERIOD: Duration = Duration::from_millis(100);

const LIMIT: Rate = Rate::per_second(8000);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn limit(key: &str, scope: Scope) -> FleetLimit {
    FleetLimit {
        key: Key::from(key),
        scope,
        rate: LIMIT,
        burst: 800,
        largest: 1,
    }
}

fn node(limits: &[FleetLimit], nodes: u32) -> Node {
    let mut node = Node::new(Timing { period: PERIOD }, 7, nodes);
    node.want(limits);
    node
}

/// A node with one limit, in a fleet of four.
fn one() -> Node {
    node(&[limit("web/packets", Scope::Vip)], 4)
}

fn rate(node: &mut Node, now: Duration) -> (u64, Origin) {
    node.publish(now);
    let share = node.published.shares.values().next().unwrap();
    (share.rate.thousandths() / 1000, share.origin)
}

#[test]
fn a_lease_ends_by_the_nodes_own_clock_and_then_an_even_share_is_kept() {
    let mut node = one();
    assert_eq!(rate(&mut node, at(0)), (2000, Origin::Fallback));
    node.request(at(1000)).unwrap();
    node.reply(at(1020), &[1, 4, 0, 5_000_000]).unwrap();
    assert_eq!(rate(&mut node, at(1020)), (5000, Origin::Lease));
    // Three periods less a quarter, from when it was asked for.
    assert_eq!(node.next_change(), Some(at(1275)));
    assert_eq!(rate(&mut node, at(1274)), (5000, Origin::Lease));
    assert_eq!(rate(&mut node, at(1275)), (2000, Origin::Fallback));
    assert_eq!(rate(&mut node, at(9999)), (2000, Origin::Fallback));
}

#[test]
fn a_small_lease_grows_to_an_even_share_only_when_the_others_have_ended() {
    let mut node = one();
    node.request(at(1000)).unwrap();
    node.reply(at(1001), &[1, 4, 0, 500_000]).unwrap();
    assert_eq!(rate(&mut node, at(1274)), (500, Origin::Lease));
    assert_eq!(rate(&mut node, at(1275)), (500, Origin::Fallback));
    assert_eq!(rate(&mut node, at(1574)), (500, Origin::Fallback));
    assert_eq!(rate(&mut node, at(1575)), (2000, Origin::Fallback));
    assert_eq!(node.next_change(), None);
}

#[test]
fn what_is_no_lease_is_followed_as_far_as_an_even_share() {
    let mut node = one();
    for (answer, share) in [(-1_000_001, 1000), (-7_000_001, 2000)] {
        node.request(at(1000)).unwrap();
        node.reply(at(1001), &[1, 4, 0, answer]).unwrap();
        assert_eq!(rate(&mut node, at(1002)), (share, Origin::Fallback));
    }
}

#[test]
fn asks_for_what_came_and_tells_what_it_holds() {
    let mut node = one();
    let ask = |node: &mut Node, now| node.request(now).unwrap().asks.remove(0);
    node.publish(at(0));
    // Nothing is known yet.
    let first = ask(&mut node, at(0));
    assert_eq!(
        (first.want, first.held, first.is_lease),
        (LIMIT.part(4), LIMIT.part(4), false)
    );
    node.reply(at(1), &[1, 4, 0, 6_000_000]).unwrap();
    node.publish(at(1));
    let reading = |cells, applied| Reading {
        offered: [(Key::from("web/packets"), cells)].into(),
        applied,
    };
    node.observe(at(0), &reading(0, 1));
    node.observe(at(100), &reading(50, 2));
    let second = ask(&mut node, at(100));
    assert_eq!(second.want, Rate::per_second(500));
    assert_eq!(
        (second.held, second.has),
        (Rate::per_second(6000), Rate::per_second(6000))
    );
    assert!(second.is_lease);
    // Less, which the data plane has not heard of.
    node.reply(at(101), &[2, 4, 0, 1_000_000]).unwrap();
    node.publish(at(101));
    node.observe(at(200), &reading(100_000, 2));
    let third = ask(&mut node, at(200));
    assert_eq!(
        (third.held, third.has),
        (Rate::per_second(6000), Rate::per_second(1000))
    );
    // More than the limit is not more than all.
    assert_eq!(third.want, LIMIT);
    node.observe(at(300), &reading(100_000, 3));
    let fourth = ask(&mut node, at(300));
    assert_eq!(fourth.held, Rate::per_second(1000));
}

#[test]
fn a_data_plane_that_applies_nothing_may_hold_all_that_it_was_told() {
    let mut node = one();
    node.publish(at(0));
    for turn in 1..200_u64 {
        node.observe(at(turn * 100), &Reading::default());
        node.request(at(turn * 100)).unwrap();
        let grant = if turn == 1 {
            7_000_000
        } else {
            i64::try_from(turn).unwrap()
        };
        node.reply(at(turn * 100), &[1, 4, 0, grant]).unwrap();
        node.publish(at(turn * 100));
    }
    let ask = node.request(at(20_000)).unwrap().asks.remove(0);
    assert_eq!(ask.held, Rate::per_second(7000));
}

#[test]
fn an_answer_counts_once_and_only_to_the_last_request() {
    let mut node = one();
    assert_eq!(node.reply(at(0), &[1, 4, 0, 1]), Err(Nonsense::Overtaken));
    node.request(at(0)).unwrap();
    assert_eq!(node.reply(at(1), &[1, 4, 0]), Err(Nonsense::Malformed));
    assert_eq!(node.reply(at(1), &[1, 4, 0, 1]), Err(Nonsense::Overtaken));
    assert_eq!(rate(&mut node, at(1)), (2000, Origin::Fallback));
    node.request(at(2)).unwrap();
    node.reply(at(3), &[9, 4, 0, 1]).unwrap();
    let next = node.request(at(4)).unwrap();
    assert_eq!((next.sequence, next.serial, next.node), (3, 9, 7));
}

#[test]
fn only_changes_are_published() {
    let mut node = one();
    let first = node.publish(at(0)).unwrap();
    assert_eq!((first.generation, first.nodes), (1, 4));
    assert_eq!(node.publish(at(0)), None);
    node.request(at(0)).unwrap();
    node.reply(at(1), &[1, 5, 0, 2_000_000]).unwrap();
    let second = node.publish(at(1)).unwrap();
    assert_eq!((second.generation, second.nodes), (2, 5));
    node.want(&[]);
    assert_eq!(node.publish(at(2)).unwrap().shares.len(), 0);
    assert_eq!(node.request(at(2)), None);
}

#[test]
fn a_limit_that_changes_keeps_its_lease_as_far_as_it_goes() {
    let mut node = one();
    node.request(at(0)).unwrap();
    node.reply(at(1), &[1, 4, 0, 6_000_000]).unwrap();
    let lower = FleetLimit {
        rate: Rate::per_second(4000),
        ..limit("web/packets", Scope::Vip)
    };
    node.want(&[lower]);
    assert_eq!(rate(&mut node, at(2)), (4000, Origin::Lease));
    node.want(&[limit("web/packets", Scope::Vip)]);
    assert_eq!(rate(&mut node, at(2)), (6000, Origin::Lease));
}

#[test]
fn many_limits_take_turns_and_new_ones_come_first() {
    let vips: Vec<_> = (0..3)
        .map(|i| limit(&format!("v{i}"), Scope::Vip))
        .collect();
    let sources = (0..640).map(|i| limit(&format!("s{i}"), Scope::Source));
    let all: Vec<_> = vips.iter().cloned().chain(sources).collect();
    let mut node = node(&all, 1);
    let mut seen = BTreeSet::new();
    // 640 sources: each in one turn of ten, and the new ones as fast as requests of a size take them.
    for turn in 0..40 {
        let request = node.request(at(turn * 100)).unwrap();
        assert!(request.asks.len() <= MOST_ASKS);
        for vip in &vips {
            assert!(request.asks.iter().any(|ask| ask.key == vip.key), "{turn}");
        }
        for ask in &request.asks {
            let turns = if ask.key.starts_with('v') { 1 } else { 10 };
            assert_eq!(ask.lease, PERIOD * 3 * turns, "{}", ask.key);
        }
        if turn >= 10 {
            assert_eq!(request.asks.len(), 64 + 3, "{turn}");
            assert_eq!(seen.len(), all.len());
        }
        seen.extend(request.asks.iter().map(|ask| ask.key.clone()));
        // While sources are told one after another, Redis must wait for all.
        assert!(request.learn >= PERIOD * 20);
    }
}

/// Redis has as much to do for a large fleet as for one of sixteen.
#[test]
fn many_nodes_ask_for_fewer_limits_in_a_turn() {
    let limits: Vec<_> = (0..64)
        .map(|i| limit(&format!("v{i:02}"), Scope::Vip))
        .collect();
    for (nodes, asks) in [
        (1, 64),
        (16, 64),
        (32, 16),
        (64, 4),
        (100, 2),
        (1_000_000, 2),
    ] {
        let mut node = node(&limits, nodes);
        let requests = (0..100).map(|turn| node.request(at(turn * 100)).unwrap());
        let last = requests.last().unwrap();
        assert_eq!(last.asks.len(), asks, "{nodes}");
        let turns = u32::try_from(64 / asks).unwrap();
        assert_eq!(last.asks[0].lease, PERIOD * 3 * turns);
    }
}

#[test]
fn bursts_are_shared_as_rates_are_and_a_packet_always_passes() {
    let burst = |rate, largest| {
        let limit = FleetLimit {
            largest,
            ..limit("web/packets", Scope::Vip)
        };
        Share::new(Rate::per_second(rate), &limit, Origin::Lease).burst
    };
    let rates = [8000, 2000, 11, 0];
    assert_eq!(rates.map(|rate| burst(rate, 1)), [800, 200, 2, 1]);
    assert_eq!(rates.map(|rate| burst(rate, 250)), [800, 250, 250, 250]);
}
