//! Many limits, in turns, that come and go on the nodes as sources are promoted and given up.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use lb_userspace::limits::fleet::{
    FleetLimit, Key, Origin, Rate, Scope,
    protocol::{Node, Reading, Timing},
};

use crate::twin::Twin;

const NODES: usize = 8;

const SOURCES: usize = 300;

const PERIOD: u64 = 100;

const MILLISECONDS: u64 = 15_000;

const LIMIT: Rate = Rate::per_second(5000);

#[test]
fn the_leases_of_every_source_stay_below_its_limit() {
    let mut rng = Rng::with_seed(21);
    let keys: Vec<Key> = (0..SOURCES)
        .map(|i| Key::from(format!("web/source/{i}")))
        .collect();
    let timing = Timing {
        period: Duration::from_millis(PERIOD),
    };
    let mut nodes: Vec<_> = (0..NODES)
        .map(|_| Node::new(timing, rng.u64(1..1 << 48), 8))
        .collect();
    // What each node saw of each source, and which of them it has promoted.
    let mut offered = vec![vec![0_u64; SOURCES]; NODES];
    let mut wanted = vec![vec![false; SOURCES]; NODES];
    let (mut twin, mut redis_is_up, mut generations) = (Twin::default(), true, [0; NODES]);
    let (mut most, mut leases) = (0, 0_u64);
    for now in 1..=MILLISECONDS {
        if now % 3000 == 0 {
            redis_is_up = rng.u8(0..4) > 0;
        }
        let index = rng.usize(..NODES);
        if rng.u8(0..20) == 0 {
            let source = rng.usize(..SOURCES);
            wanted[index][source] = !wanted[index][source] || rng.u8(0..3) > 0;
            let limits = keys
                .iter()
                .zip(&wanted[index])
                .filter(|(_, is_wanted)| **is_wanted);
            let limits = limits.map(|(key, _)| FleetLimit {
                key: key.clone(),
                scope: Scope::Source,
                rate: LIMIT,
                burst: 50,
                largest: 1,
            });
            nodes[index].want(&limits.collect::<Vec<_>>());
        }
        for index in 0..NODES {
            if now % PERIOD != index as u64 * 12 {
                continue;
            }
            for count in &mut offered[index] {
                *count += rng.u64(0..400);
            }
            let reading = Reading {
                offered: keys
                    .iter()
                    .cloned()
                    .zip(offered[index].iter().copied())
                    .collect(),
                applied: generations[index],
            };
            let at = Duration::from_millis(now);
            nodes[index].observe(at, &reading);
            let Some(request) = nodes[index].request(at) else {
                continue;
            };
            if redis_is_up && rng.u8(0..10) > 0 {
                let values = twin.call(1_800_000_000_000_000 + now * 1000, &request);
                if rng.u8(0..10) > 0 {
                    nodes[index].reply(at, &values).unwrap();
                }
            }
        }
        let mut sums = BTreeMap::<Key, u64>::new();
        for (node, generation) in nodes.iter_mut().zip(&mut generations) {
            if let Some(shares) = node.publish(Duration::from_millis(now)) {
                *generation = shares.generation;
            }
            for (key, share) in &node.published().shares {
                if share.origin == Origin::Lease {
                    *sums.entry(key.clone()).or_default() += share.rate.thousandths();
                    leases += 1;
                }
            }
        }
        most = sums.values().copied().max().unwrap_or(0).max(most);
        assert!(most <= LIMIT.thousandths(), "{now}: {sums:?}");
    }
    let mean = leases / MILLISECONDS;
    println!(
        "{mean} leases on average; the largest sum was {most} of {}",
        LIMIT.thousandths()
    );
    assert!(mean > 100 && most > LIMIT.thousandths() * 9 / 10);
}
