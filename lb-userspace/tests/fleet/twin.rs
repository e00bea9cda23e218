//! What script.lua does, in Rust, for simulated time. `differential` holds the two against each other.
//!
//! The same operations on the same doubles in the same order, so that the results are equal to the last bit.

#![expect(
    clippy::float_cmp,
    reason = "the numbers that are compared were never computed with"
)]

use std::collections::HashMap;

use lb_userspace::limits::fleet::{Key, wire::Request};

/// What Redis knows of a fleet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Twin {
    fleet: Option<Fleet>,
    limits: HashMap<Key, Vec<Entry>>,
}

#[derive(Clone, Debug)]
struct Fleet {
    serial: f64,
    last: f64,
    learning: f64,
    nodes: Vec<Live>,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    id: f64,
    at: f64,
    lease: f64,
    sequence: f64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: f64,
    at: f64,
    lease: f64,
    want: f64,
    grant: f64,
    held: f64,
}

impl Twin {
    /// Answers a request at a moment of Redis's clock, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "as in the script")]
    pub(crate) fn call(&mut self, now: u64, request: &Request) -> Vec<i64> {
        let arguments: Vec<f64> = request.arguments().iter().map(|a| *a as f64).collect();
        let [id, sequence, seen, lease, gap, learn, _keep, ref asks @ ..] = arguments[..] else {
            panic!("{arguments:?}")
        };
        let now = now as f64;

        let known = self.fleet.as_ref();
        let serial = known.map_or(0.0, |fleet| fleet.serial);
        let mut learning = known.map_or(0.0, |fleet| fleet.learning);
        if learning <= known.map_or(0.0, |fleet| fleet.last) {
            learning = 0.0;
        }
        if known.is_none_or(|fleet| seen > serial || now - fleet.last > gap) {
            learning = now + learn;
        }
        learning = learning.min(now + learn);

        let mut nodes = Vec::new();
        for node in known.map_or(&[][..], |fleet| &fleet.nodes) {
            let at = node.at.min(now);
            if node.id == id {
                if node.sequence >= sequence {
                    return vec![serial as i64];
                }
            } else if at + node.lease > now {
                nodes.push(Live { at, ..*node });
            }
        }
        nodes.push(Live {
            id,
            at: now,
            lease,
            sequence,
        });
        let live = nodes.len() as f64;
        let serial = serial.max(seen) + 1.0;
        self.fleet = Some(Fleet {
            serial,
            last: now,
            learning,
            nodes,
        });

        let is_learning = learning > now;
        let mut reply = vec![serial as i64, live as i64, i64::from(is_learning)];
        for (ask, numbers) in request.asks.iter().zip(asks.chunks_exact(6)) {
            let [limit, want, held, has, is_lease, lasts] = *numbers else {
                panic!("{numbers:?}")
            };
            let is_lease = is_lease == 1.0;
            let entries = self.limits.entry(ask.key.clone()).or_default();
            entries.retain_mut(|entry| {
                entry.at = entry.at.min(now);
                entry.id != id && entry.at + entry.lease > now
            });
            let others = entries.iter().map(|entry| entry.grant.max(entry.held));
            let others = others.fold(0.0, |sum, held| sum + held);
            let mut wants: Vec<f64> = entries.iter().map(|entry| entry.want).collect();
            wants.push(want);
            let target = fair(limit, wants);
            let free = (limit - others).max(0.0);
            let kept = if is_lease { has } else { has.min(limit / live) };
            let most = if is_learning { kept } else { free.max(kept) };
            let grant = target.min(most).floor();
            entries.push(Entry {
                id,
                at: now,
                lease: lasts,
                want,
                grant,
                held,
            });
            let is_leased = is_lease || grant <= free;
            reply.push(if is_leased {
                grant as i64
            } else {
                -1 - grant as i64
            });
        }
        reply
    }

    /// Forgets everything: FLUSHALL, or a restart without a disk.
    pub(crate) fn flush(&mut self) {
        *self = Self::default();
    }
}

#[expect(clippy::cast_precision_loss, reason = "as in the script")]
fn fair(limit: f64, mut wants: Vec<f64>) -> f64 {
    let count = wants.len() as f64;
    let least = limit / (50.0 * count);
    let mut sum = 0.0;
    for want in &mut wants {
        *want = want.max(least).min(limit);
        sum += *want;
    }
    let want = *wants.last().unwrap();
    if sum <= limit {
        return want + (limit - sum) / count;
    }
    wants.sort_unstable_by(f64::total_cmp);
    let mut left = limit;
    for (index, other) in wants.iter().enumerate() {
        let level = left / (count - index as f64);
        if *other > level {
            return want.min(level);
        }
        left -= other;
    }
    want
}
