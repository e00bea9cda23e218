//! What a fleet lets through in all kinds of weather: said aloud (`--nocapture`), and held to the bounds of
//! docs/fleet-limits.md.

mod nodes;
mod redis;

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
