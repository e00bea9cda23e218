//! Balance, disruption and time of tables.

use std::{collections::HashSet, hint::black_box, time::Instant};

use lb_userspace::model::table::{Member, Owners};
use serde::Serialize;

use weir_benches::sets::{Algorithm, equal, unequal};

/// What was measured of one algorithm and one number of backends.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) algorithm: String,
    pub(crate) backends: u32,
    /// With equal weights.
    pub(crate) equal: Balance,
    /// With weights from 1 to 100.
    pub(crate) unequal: Balance,
    /// When one of the backends leaves.
    pub(crate) leave: Moved,
    /// When one more comes.
    pub(crate) join: Moved,
    /// Of one table on one core.
    pub(crate) build_ms: Spread,
}

/// Slots against the exact share of each backend by its weight.
#[derive(Serialize)]
pub(crate) struct Balance {
    /// Standard deviation of slots / share over the backends; root of the mean square over the seeds.
    pub(crate) deviation: f64,
    /// Greatest slots / share; mean over the seeds.
    pub(crate) peak: f64,
    /// The same, of the worst seed.
    pub(crate) worst_peak: f64,
}

/// Slots that change hands, mean over the seeds.
#[derive(Serialize)]
pub(crate) struct Moved {
    /// The slots of the backend that comes or goes: they must.
    pub(crate) needed: f64,
    /// Slots that move between two others.
    pub(crate) excess: f64,
    /// The same, of the worst seed.
    pub(crate) worst_excess: u32,
}

#[derive(Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Measures under so many seeds, and times so many builds.
pub(crate) fn row(algorithm: Algorithm, backends: u32, seeds: u32, builds: usize) -> Row {
    let members = equal(backends);
    let more = equal(backends + 1);
    let (mut leave, mut join) = (Vec::new(), Vec::new());
    for seed in 0..u64::from(seeds) {
        let with = algorithm.table(seed, &members);
        // Another one for each seed.
        let mut rest = members.clone();
        rest.remove((seed % u64::from(backends)) as usize);
        leave.push(moved(
            (&with, &members),
            (&algorithm.table(seed, &rest), &rest),
        ));
        join.push(moved(
            (&with, &members),
            (&algorithm.table(seed, &more), &more),
        ));
    }
    Row {
        algorithm: algorithm.name(),
        backends,
        equal: balance(algorithm, &members, seeds),
        unequal: balance(algorithm, &unequal(backends), seeds),
        leave: Moved::of(&leave),
        join: Moved::of(&join),
        build_ms: time(algorithm, &members, builds),
    }
}

fn balance(algorithm: Algorithm, members: &[Member], seeds: u32) -> Balance {
    let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    let (mut squares, mut peaks) = (0.0, Vec::new());
    for seed in 0..u64::from(seeds) {
        let counts = algorithm.table(seed, members).counts(members.len());
        let slots = f64::from(counts.iter().sum::<u32>());
        let ratios: Vec<_> = members
            .iter()
            .zip(counts)
            .map(|(member, owned)| f64::from(owned) * total / (f64::from(member.weight) * slots))
            .collect();
        squares += mean(ratios.iter().map(|ratio| (ratio - 1.0).powi(2)));
        peaks.push(ratios.into_iter().fold(0.0, f64::max));
    }
    Balance {
        deviation: (squares / f64::from(seeds)).sqrt(),
        peak: mean(peaks.iter().copied()),
        worst_peak: peaks.into_iter().fold(0.0, f64::max),
    }
}

/// Slots whose owner changed: those of backends in only one of the sets, and the others.
fn moved(before: (&Owners, &[Member]), after: (&Owners, &[Member])) -> (u32, u32) {
    let of = |(_, members): (&Owners, &[Member])| -> HashSet<_> {
        members.iter().map(|member| member.address).collect()
    };
    let (old, new) = (of(before), of(after));
    let owners = |(owners, members): (&Owners, &[Member])| -> Vec<_> {
        owners
            .iter()
            .map(|place| Some(members.get(place?)?.address))
            .collect()
    };
    let (mut needed, mut excess) = (0, 0);
    for slot in owners(before).into_iter().zip(owners(after)) {
        match slot {
            (Some(from), Some(to)) if from != to => {
                let both_stay = new.contains(&from) && old.contains(&to);
                *(if both_stay { &mut excess } else { &mut needed }) += 1;
            }
            _ => {}
        }
    }
    (needed, excess)
}

impl Moved {
    fn of(seeds: &[(u32, u32)]) -> Self {
        Self {
            needed: mean(seeds.iter().map(|(needed, _)| f64::from(*needed))),
            excess: mean(seeds.iter().map(|(_, excess)| f64::from(*excess))),
            worst_excess: seeds.iter().map(|(_, excess)| *excess).max().unwrap_or(0),
        }
    }
}

fn time(algorithm: Algorithm, members: &[Member], builds: usize) -> Spread {
    let mut times: Vec<_> = (0..builds)
        .map(|_| {
            let began = Instant::now();
            black_box(algorithm.table(0, black_box(members)));
            began.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or(f64::NAN);
    Spread {
        median: at(builds / 2),
        min: at(0),
        max: at(builds.saturating_sub(1)),
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}
