//! What a fleet lets through in all kinds of weather: said aloud (`--nocapture`), and held to the bounds of
//! docs/fleet-limits.md.

use crate::{
    twin::Twin,
    world::{BURST, Conditions, LIMIT, Moment, World},
};

/// A window of a second, in moments.
const SECOND: usize = 1000;

/// What was seen from one moment on to another, in parts of the limit.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The most that was let through in a second, and in 100 ms.
    most: f64,
    most_short: f64,
    /// The least that was let through in a second, of what came or of the limit, whichever is less.
    least: f64,
    /// The largest sums in force.
    leased: f64,
    enforced: f64,
    /// The smallest share of a node in force, in parts of an even one.
    share: f64,
}

fn limit() -> f64 {
    f64::from(u32::try_from(LIMIT).unwrap())
}

fn window(moments: &[Moment], length: usize) -> impl Iterator<Item = (f64, f64)> {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let whole = limit() * length as f64 / 1000.0;
    moments.windows(length).step_by(10).map(move |window| {
        let admitted: f64 = window.iter().map(|moment| moment.admitted).sum();
        let offered: f64 = window.iter().map(|moment| moment.offered).sum();
        (admitted / whole, admitted / offered.min(whole).max(1.0))
    })
}

fn seen(world: &World, from: usize, to: usize, nodes: usize) -> Seen {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let nodes = nodes as f64;
    let moments = &world.history[from..to];
    let most = |of: &dyn Fn(&Moment) -> f64| moments.iter().map(of).fold(0.0, f64::max);
    Seen {
        most: window(moments, SECOND)
            .map(|(most, _)| most)
            .fold(0.0, f64::max),
        most_short: window(moments, 100)
            .map(|(most, _)| most)
            .fold(0.0, f64::max),
        least: window(moments, SECOND)
            .map(|(_, least)| least)
            .fold(f64::INFINITY, f64::min),
        leased: most(&|moment| moment.leased) / limit(),
        enforced: most(&|moment| moment.enforced) / limit(),
        share: moments
            .iter()
            .map(|moment| moment.least)
            .fold(f64::INFINITY, f64::min)
            / limit()
            * nodes,
    }
}

/// How many milliseconds after a moment 95 % of what is allowed got through, and went on to for half a second.
fn recovery(world: &World, from: usize) -> usize {
    let whole: Vec<bool> = window(&world.history[from..], 100)
        .map(|(_, part)| part >= 0.95)
        .collect();
    let good = whole
        .windows(50)
        .position(|good| good.iter().all(|good| *good));
    good.map_or(usize::MAX, |position| position * 10)
}

fn say(name: &str, seen: Seen) -> Seen {
    println!(
        "{name:48} most {:.3} (100 ms: {:.3}) least {:.3} leased {:.3} enforced {:.3} share {:.3}",
        seen.most, seen.most_short, seen.least, seen.leased, seen.enforced, seen.share
    );
    seen
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn even(nodes: usize, total: f64) -> Vec<f64> {
    vec![total / nodes as f64; nodes]
}

/// All of it on one node.
fn on(node: usize, nodes: usize, total: f64) -> Vec<f64> {
    let mut parts = vec![0.0; nodes];
    parts[node] = total;
    parts
}

#[test]
fn explore() {
    for nodes in [1, 2, 4, 16, 100] {
        let mut world = World::new(nodes, 1);
        world.load(&even(nodes, 10.0));
        world.run(5000);
        say(
            &format!("{nodes} nodes start, even 10x"),
            seen(&world, 0, 2000, nodes),
        );
        say(
            &format!("{nodes} nodes, even 10x"),
            seen(&world, 2000, 5000, nodes),
        );
        world.load(&on(0, nodes, 10.0));
        world.run(5000);
        say(
            &format!("{nodes} nodes, then on one"),
            seen(&world, 5000, 10000, nodes),
        );
        println!("    after {} ms", recovery(&world, 5000));
        for turn in 0..6 {
            world.load(&on((turn + 1) % nodes, nodes, 10.0));
            world.run(2000);
            println!("    after {} ms", recovery(&world, 10000 + turn * 2000));
        }
        say(
            &format!("{nodes} nodes, moving"),
            seen(&world, 10000, 22000, nodes),
        );
        for turn in 0..6 {
            world.load(&on((turn + 1) % nodes, nodes, 0.6));
            world.run(2000);
            println!("    after {} ms", recovery(&world, 22000 + turn * 2000));
        }
        say(
            &format!("{nodes} nodes, moving 0.6"),
            seen(&world, 22000, 34000, nodes),
        );
    }
    let _ = (BURST, Twin::default());
    for loss in [0.1, 0.3] {
        for nodes in [2, 4, 16] {
            let mut world = World::new(nodes, 2);
            world.conditions.loss = loss;
            world.load(&even(nodes, 10.0));
            world.run(3000);
            for turn in 0..10 {
                world.load(&on((turn + 1) % nodes, nodes, 10.0));
                world.run(2000);
            }
            say(
                &format!("{nodes} nodes, moving, loss {loss}"),
                seen(&world, 3000, 23000, nodes),
            );
        }
    }
    for (name, change) in [
        (
            "down",
            (|w: &mut World| w.conditions.is_redis_up = false) as fn(&mut World),
        ),
        ("slow", |w| w.conditions.delay = (60, 80)),
        ("flush", |w| w.redis.flush()),
        ("+1h", |w| w.conditions.clock += 3_600_000_000),
        ("-1h", |w| w.conditions.clock -= 3_600_000_000),
        ("+150ms", |w| w.conditions.clock += 150_000),
        ("+250ms", |w| w.conditions.clock += 250_000),
        ("-250ms", |w| w.conditions.clock -= 250_000),
    ] {
        for nodes in [2, 4, 16] {
            for skew in [false, true] {
                let mut world = World::new(nodes, 3);
                let old = world.conditions;
                world.load(&if skew {
                    on(0, nodes, 10.0)
                } else {
                    even(nodes, 10.0)
                });
                world.run(4000);
                change(&mut world);
                world.run(4000);
                say(
                    &format!("{nodes} nodes, skew {skew} {name}"),
                    seen(&world, 3000, 8000, nodes),
                );
                world.conditions = Conditions {
                    clock: world.conditions.clock,
                    ..old
                };
                if name == "down" {
                    world.redis.flush()
                }
                world.run(4000);
                say(
                    &format!("{nodes} nodes, {name} after"),
                    seen(&world, 8000, 12000, nodes),
                );
                println!("    after {} ms", recovery(&world, 8000));
            }
        }
    }
}
