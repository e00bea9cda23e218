//! A Redis that dies, hangs, forgets, or is not the one that it was.

use fastrand::Rng;

use super::{LEAST, SIZES, assert_leases, assert_most, even, of, on, recovery, seen};
use crate::world::World;

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
            world.conditions.clock += 3_600_000_000;
        }),
        ("clock - 1 h", |world| {
            world.conditions.clock -= 3_600_000_000;
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
