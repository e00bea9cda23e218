//! Loads that move, a network that loses, nodes that come and go.

use fastrand::Rng;

use super::{SIZES, assert_leases, assert_most, even, of, on, recovery, seen};
use crate::world::World;

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
