//! What a fleet lets through in all kinds of weather: said aloud (`--nocapture`), and held to the bounds of
//! docs/fleet-limits.md.

use fastrand::Rng;

use crate::world::{LIMIT, Moment, World};

const SIZES: [usize; 4] = [2, 4, 16, 100];

/// The burst is 20 ms of the limit.
const BURST: f64 = 0.02;

/// What loads that nobody has, leave to those that have more.
const LEAST: f64 = 0.02;

/// What was seen in a span, in parts of the limit.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The most that was let through in a second, and in 100 ms, of the limit.
    most: f64,
    most_short: f64,
    /// The least that was let through in a second, of what came or of the limit, whichever is less; and on average.
    least: f64,
    mean: f64,
    /// The largest sum of leases, and of all that was in force.
    leased: f64,
    enforced: f64,
}

fn limit() -> f64 {
    f64::from(u32::try_from(LIMIT).unwrap())
}

fn of(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

/// Of every window of so many milliseconds: parts of the limit, and of what could be let through.
fn windows(moments: &[Moment], length: usize) -> impl Iterator<Item = (f64, f64)> {
    let whole = limit() * of(length) / 1000.0;
    moments.windows(length).step_by(10).map(move |window| {
        let admitted: f64 = window.iter().map(|moment| moment.admitted).sum();
        let offered: f64 = window.iter().map(|moment| moment.offered).sum();
        (admitted / whole, admitted / offered.min(whole).max(1.0))
    })
}

fn seen(name: &str, world: &World, from: usize) -> Seen {
    let moments = &world.history[from..];
    let most = |of: &dyn Fn(&Moment) -> f64| moments.iter().map(of).fold(0.0, f64::max);
    let seconds: Vec<_> = windows(moments, 1000).collect();
    let parts = seconds.iter().map(|(_, part)| *part);
    let seen = Seen {
        most: seconds.iter().map(|(most, _)| *most).fold(0.0, f64::max),
        most_short: windows(moments, 100)
            .map(|(most, _)| most)
            .fold(0.0, f64::max),
        least: parts.clone().fold(f64::INFINITY, f64::min),
        mean: parts.sum::<f64>() / of(seconds.len()),
        leased: most(&|moment| moment.leased) / limit(),
        enforced: most(&|moment| moment.enforced) / limit(),
    };
    println!(
        "{name:52} 1 s: most {:.3} least {:.3} mean {:.3}; 100 ms: most {:.3}; leases {:.3}, in force {:.3}",
        seen.most, seen.least, seen.mean, seen.most_short, seen.leased, seen.enforced
    );
    seen
}

/// How many milliseconds after a moment 95 % of what may is let through, and goes on to be for half a second.
fn recovery(world: &World, from: usize) -> usize {
    let whole = windows(&world.history[from..], 100);
    let whole: Vec<bool> = whole.map(|(_, part)| part >= 0.95).collect();
    let good = whole
        .windows(40)
        .position(|good| good.iter().all(|good| *good));
    good.map_or(usize::MAX, |position| position * 10)
}

fn even(nodes: usize, total: f64) -> Vec<f64> {
    vec![total / of(nodes); nodes]
}

/// All of it on one node.
fn on(node: usize, nodes: usize, total: f64) -> Vec<f64> {
    let mut parts = vec![0.0; nodes];
    parts[node % nodes] = total;
    parts
}

/// What no weather but a Redis that forgets or whose clock jumps may break: leases never sum above the limit.
#[track_caller]
fn assert_leases(seen: Seen) {
    assert!(seen.leased <= 1.000_001, "{seen:?}");
}

/// In any second at most the limit, the burst, and so much.
#[track_caller]
fn assert_most(seen: Seen, beyond: f64) {
    assert!(seen.most <= 1.000_001 + BURST + beyond, "{seen:?}");
}

#[test]
fn a_load_that_is_even_gets_the_whole_limit() {
    for nodes in [1, 2, 4, 16, 100] {
        for known in [1, nodes] {
            let mut world = World::new(0, 1);
            for _ in 0..nodes {
                world.join(u32::try_from(known).unwrap());
            }
            world.load(&even(nodes, 10.0));
            world.run(2000);
            // Nodes that come up together, taking themselves for alone.
            let start = seen(
                &format!("{nodes} nodes, even, start, {known} known"),
                &world,
                0,
            );
            assert_leases(start);
            assert_most(
                start,
                if known == nodes {
                    0.0
                } else {
                    0.02 * of(nodes)
                },
            );
            world.run(3000);
            let seen = seen(&format!("{nodes} nodes, even"), &world, 2000);
            assert_leases(seen);
            assert_most(seen, 0.0);
            assert!(seen.least >= 0.99, "{seen:?}");
        }
    }
}

#[test]
fn the_limit_follows_a_load_that_moves() {
    for nodes in SIZES {
        for total in [10.0, 0.6] {
            let mut world = World::new(nodes, 2);
            world.load(&on(0, nodes, total));
            world.run(3000);
            world.short();
            let mut slowest = 0;
            for turn in 1..10 {
                let moved = world.now();
                world.load(&on(turn, nodes, total));
                world.run(2000);
                slowest = slowest.max(recovery(&world, moved));
            }
            let short = world.short();
            let seen = seen(
                &format!("{nodes} nodes, {total} of the limit on one that changes"),
                &world,
                3000,
            );
            println!(
                "    follows within {slowest} ms; less than an even share for {short} ms at most"
            );
            assert_leases(seen);
            assert_most(seen, 0.0);
            assert!(slowest <= 600 && short <= 600, "{slowest} {short}");
            assert!(total < 1.0 || seen.least >= 0.5, "{seen:?}");
        }
    }
}

#[test]
fn loads_that_are_skewed_at_random() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 3);
        let (mut rng, mut slowest) = (Rng::with_seed(3), 0);
        world.load(&even(nodes, 2.0));
        world.run(2000);
        for _ in 0..30 {
            // A few nodes have the most of it.
            let weights: Vec<f64> = (0..nodes).map(|_| rng.f64().powi(6)).collect();
            let (sum, total) = (weights.iter().sum::<f64>(), rng.f64() * 4.0);
            let parts: Vec<f64> = weights.iter().map(|weight| weight / sum * total).collect();
            let changed = world.now();
            world.load(&parts);
            world.run(2000);
            slowest = slowest.max(recovery(&world, changed));
        }
        let seen = seen(
            &format!("{nodes} nodes, random skew every 2 s"),
            &world,
            2000,
        );
        println!("    follows within {slowest} ms");
        assert_leases(seen);
        assert_most(seen, 0.0);
        assert!(seen.mean >= 0.8 && slowest <= 700, "{seen:?} {slowest}");
    }
}

#[test]
fn messages_are_lost() {
    for nodes in SIZES {
        for (loss, mean) in [(0.01, 0.8), (0.1, 0.65), (0.3, 0.3)] {
            let mut world = World::new(nodes, 4);
            world.load(&even(nodes, 10.0));
            world.run(2000);
            world.conditions.loss = loss;
            world.run(5000);
            let steady = seen(
                &format!("{nodes} nodes, even, {loss} lost each way"),
                &world,
                2000,
            );
            assert_leases(steady);
            assert!(steady.least >= 0.9 - loss, "{steady:?}");
            let began = world.now();
            for turn in 0..10 {
                world.load(&on(turn, nodes, 10.0));
                world.run(2000);
            }
            let moving = seen(
                &format!("{nodes} nodes, moving, {loss} lost each way"),
                &world,
                began,
            );
            assert_leases(moving);
            // Nodes whose leases end for want of answers have an even share beside the leases of the others.
            assert_most(moving, 1.0);
            assert!(moving.mean >= mean, "{moving:?}");
        }
    }
}

/// Requests overtake each other, answers come too late.
#[test]
fn messages_are_late() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 5);
        world.conditions.delay = (0, 150);
        let mut rng = Rng::with_seed(5);
        for _ in 0..20 {
            world.load(&on(rng.usize(..nodes), nodes, 10.0));
            world.run(1000);
        }
        assert_leases(seen(
            &format!("{nodes} nodes, up to 150 ms each way"),
            &world,
            0,
        ));
    }
}

#[test]
fn nodes_die_and_join() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 6);
        world.load(&even(nodes, 10.0));
        world.run(3000);
        // Half of them at once; the network sends their packets to the others.
        let (died, left) = (world.now(), nodes / 2);
        for node in left..nodes {
            world.kill(node);
        }
        world.load(&even(left, 10.0));
        world.run(3000);
        let dead = seen(&format!("{nodes} nodes, half of them die"), &world, died);
        println!(
            "    the others have it all after {} ms",
            recovery(&world, died)
        );
        assert_leases(dead);
        assert_most(dead, 0.0);
        assert!(recovery(&world, died) <= 600);
        let joined = world.now();
        for _ in left..nodes {
            world.join(u32::try_from(left).unwrap());
        }
        // As many as there were, behind the dead.
        let mut parts = vec![0.0; nodes];
        let alive = (0..left).chain(nodes..nodes + nodes - left);
        parts.resize(nodes + nodes - left, 0.0);
        for node in alive {
            parts[node] = 10.0 / of(nodes);
        }
        world.load(&parts);
        world.short();
        world.run(3000);
        let short = world.short();
        let new = seen(&format!("{nodes} nodes, half of them new"), &world, joined);
        println!("    less than an even share for {short} ms at most");
        assert_leases(new);
        // Who joins begins with what it takes for an even share, until the others have made room.
        assert_most(new, 0.1);
        assert!(short <= 600, "{short}");
        assert!(new.least >= 0.9, "{new:?}");
    }
}

#[test]
fn redis_dies_and_comes_back_empty() {
    for nodes in SIZES {
        for parts in [even(nodes, 10.0), on(0, nodes, 10.0)] {
            let skew = if parts[1] > 0.0 { "even" } else { "on one" };
            let mut world = World::new(nodes, 7);
            world.load(&parts);
            world.run(4000);
            let died = world.now();
            world.conditions.is_redis_up = false;
            world.short();
            world.run(5000);
            let short = world.short();
            let away = seen(
                &format!("{nodes} nodes, {skew}, no Redis"),
                &world,
                died - 1000,
            );
            assert_leases(away);
            assert_most(away, 0.0);
            assert!(short <= 700, "{short}");
            assert!(away.least >= 0.95 / of(nodes), "{away:?}");
            let back = world.now();
            world.redis.flush();
            world.conditions.is_redis_up = true;
            world.run(4000);
            let after = seen(
                &format!("{nodes} nodes, {skew}, Redis is back"),
                &world,
                back - 1000,
            );
            println!("    as before after {} ms", recovery(&world, back));
            assert_leases(after);
            assert_most(after, 0.0);
            assert!(recovery(&world, back) <= 1500);
        }
    }
}

#[test]
fn redis_flaps() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 8);
        let mut rng = Rng::with_seed(8);
        world.load(&even(nodes, 10.0));
        world.run(2000);
        for _ in 0..20 {
            world.conditions.is_redis_up = false;
            world.run(rng.u64(50..900));
            if rng.bool() {
                world.redis.flush();
            }
            world.conditions.is_redis_up = true;
            world.run(rng.u64(50..900));
        }
        let seen = seen(&format!("{nodes} nodes, Redis flaps"), &world, 2000);
        assert_leases(seen);
        assert_most(seen, 0.0);
        assert!(seen.least >= 0.9, "{seen:?}");
    }
}

#[test]
fn redis_is_too_slow() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 9);
        world.load(&on(0, nodes, 10.0));
        world.run(3000);
        let began = world.now();
        world.conditions.delay = (60, 90);
        world.run(4000);
        world.conditions.delay = (0, 2);
        let quick = world.now();
        world.run(3000);
        let seen = seen(
            &format!("{nodes} nodes, Redis is too slow for 4 s"),
            &world,
            began,
        );
        println!("    as before after {} ms", recovery(&world, quick));
        assert_leases(seen);
        assert_most(seen, 0.0);
        assert!(seen.least >= 0.95 / of(nodes), "{seen:?}");
        assert!(recovery(&world, quick) <= 600);
    }
}

#[test]
fn redis_forgets_or_its_clock_steps() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 8] = [
        ("FLUSHALL", |world| world.redis.flush()),
        ("clock + 1 h", |world| {
            world.conditions.clock += 3_600_000_000
        }),
        ("clock - 1 h", |world| {
            world.conditions.clock -= 3_600_000_000
        }),
        ("clock + 50 ms", |world| world.conditions.clock += 50_000),
        ("clock + 150 ms", |world| world.conditions.clock += 150_000),
        ("clock + 210 ms", |world| world.conditions.clock += 210_000),
        ("clock + 290 ms", |world| world.conditions.clock += 290_000),
        ("clock - 290 ms", |world| world.conditions.clock -= 290_000),
    ];
    for (name, change) in changes {
        for nodes in SIZES {
            for parts in [even(nodes, 10.0), on(0, nodes, 10.0)] {
                let mut world = World::new(nodes, 10);
                world.load(&parts);
                world.run(3000);
                for _ in 0..5 {
                    change(&mut world);
                    world.run(1237);
                }
                let skew = if parts[1] > 0.0 { "even" } else { "on one" };
                let seen = seen(&format!("{nodes} nodes, {skew}, {name}"), &world, 2500);
                assert_leases(seen);
                assert_most(seen, 0.0);
                assert!(seen.least >= 1.0 - LEAST - 0.01, "{seen:?}");
            }
        }
    }
}

/// A dead node must not keep its lease for as long as a clock went back.
#[test]
fn a_node_dies_as_the_clock_goes_back() {
    let mut world = World::new(2, 11);
    world.load(&even(2, 10.0));
    world.run(3000);
    world.kill(1);
    world.load(&on(0, 2, 10.0));
    world.conditions.clock -= 3_600_000_000;
    let died = world.now();
    world.run(2000);
    assert_leases(seen(
        "2 nodes, one dies as the clock goes back 1 h",
        &world,
        died,
    ));
    assert!(recovery(&world, died) <= 600, "{}", recovery(&world, died));
}

/// Another Redis takes over that has not heard of the last calls.
#[test]
fn redis_fails_over_to_a_replica_that_lags() {
    for nodes in SIZES {
        for lag in [20, 90, 500, 5000] {
            let mut world = World::new(nodes, 12);
            world.load(&on(0, nodes, 10.0));
            world.run(6000);
            let replica = world.redis.clone();
            world.load(&on(1, nodes, 10.0));
            world.run(lag);
            world.redis = replica;
            let failed = world.now();
            world.run(3000);
            let seen = seen(
                &format!("{nodes} nodes, fail-over to {lag} ms ago"),
                &world,
                failed - 500,
            );
            assert_most(seen, 0.1);
            assert!(
                recovery(&world, failed) <= 1600,
                "{}",
                recovery(&world, failed)
            );
        }
    }
}

/// Some nodes do not reach Redis: an even share each, beside the leases of the others.
#[test]
fn some_nodes_are_cut_off() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 13);
        world.load(&even(nodes, 10.0));
        world.run(3000);
        let (began, cut) = (world.now(), nodes / 2);
        for node in 0..cut {
            world.connect(node, false);
        }
        world.run(4000);
        let apart = seen(
            &format!("{nodes} nodes, half of them cut off"),
            &world,
            began,
        );
        assert_leases(apart);
        assert_most(apart, of(cut) / of(nodes));
        let mended = world.now();
        for node in 0..cut {
            world.connect(node, true);
        }
        world.short();
        world.run(3000);
        let short = world.short();
        let mend = seen(&format!("{nodes} nodes, and back"), &world, mended + 1000);
        println!("    less than an even share for {short} ms at most");
        assert_leases(mend);
        assert_most(mend, 0.0);
        assert!(mend.least >= 0.99 && short <= 600, "{mend:?} {short}");
    }
}

/// What is published takes long to be enforced: Redis gives away only what is known to be free.
#[test]
fn the_data_plane_is_slow() {
    for nodes in SIZES {
        let mut world = World::new(nodes, 14);
        world.conditions.apply = 400;
        for turn in 0..10 {
            world.load(&on(turn, nodes, 10.0));
            world.run(2000);
        }
        let seen = seen(
            &format!("{nodes} nodes, 400 ms to the data plane"),
            &world,
            2000,
        );
        assert_leases(seen);
        assert_most(seen, 0.0);
    }
}
