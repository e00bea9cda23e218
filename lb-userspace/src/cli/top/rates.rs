//! What two statuses tell together: rates. Pure.
//!
//! A rate that is not known is `None`, never 0 and never negative: of what was not there a sample ago, and of everything where
//! counters have begun anew. A backend is the same as before if its id is: an address that comes back under another has
//! other counters.

use std::{collections::HashMap, time::Duration};

use lb_common::slot::SLOTS;

use super::model::{Backend, BackendState, Interface, LimitUse, Rates, Reason, Top, Vip, VipState};
use crate::api::{
    BackendStatus, HealthState, LeavingStatus, LimitStatus, Limits, ReasonStatus, Status,
    VipLimits, VipStatus,
};

/// A status, and when it was.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// On any monotonic clock.
    pub(super) at: Duration,
    /// The same for people, in UTC (RFC 3339).
    pub(super) time: String,
    /// What the daemon said.
    pub(super) status: Status,
}

/// Counters at a moment; those that are not told are `None`.
#[derive(Clone, Copy, Default)]
struct Counts {
    packets: Option<u64>,
    bytes: Option<u64>,
    new_connections: Option<u64>,
}

impl From<&VipStatus> for Counts {
    fn from(vip: &VipStatus) -> Self {
        Self {
            packets: Some(vip.packets),
            bytes: Some(vip.bytes),
            new_connections: Some(vip.new_connections),
        }
    }
}

impl From<&BackendStatus> for Counts {
    fn from(backend: &BackendStatus) -> Self {
        Self {
            packets: Some(backend.packets),
            bytes: Some(backend.bytes),
            new_connections: Some(backend.new_connections),
        }
    }
}

impl From<&LeavingStatus> for Counts {
    fn from(leaving: &LeavingStatus) -> Self {
        Self {
            packets: Some(leaving.packets),
            ..Self::default()
        }
    }
}

/// What there was a sample ago, to be found by what it is.
struct Before<'a> {
    seconds: f64,
    vips: HashMap<(&'a str, u32), &'a VipStatus>,
    backends: HashMap<(&'a str, u16), Counts>,
    reasons: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Before<'a> {
    /// `None` where nothing of it is comparable: no time has passed, or the counters have begun anew.
    fn new(before: &'a Sample, now: &Sample) -> Option<Self> {
        let seconds = now.at.checked_sub(before.at)?.as_secs_f64();
        let of_vip = |vip: &'a VipStatus| {
            let name = vip.name.as_str();
            let own = vip.backends.iter().map(|one| (one.id, Counts::from(one)));
            let leaving = vip.leaving.iter().map(|one| (one.id, Counts::from(one)));
            own.chain(leaving)
                .map(move |(id, counts)| ((name, id), counts))
        };
        let status = &before.status;
        let this = Self {
            seconds,
            vips: status
                .vips
                .iter()
                .map(|vip| ((vip.name.as_str(), vip.id), vip))
                .collect(),
            backends: status.vips.iter().flat_map(of_vip).collect(),
            reasons: status
                .reasons
                .iter()
                .map(|reason| (name_of(reason), reason.packets))
                .collect(),
        };
        // The node's own counters never go back unless the maps are other ones.
        let went_back = |reason: &ReasonStatus| {
            let then = this.reasons.get(&name_of(reason));
            then.is_some_and(|then| *then > reason.packets)
        };
        let is_continuous = seconds > 0.0 && !now.status.reasons.iter().any(went_back);
        is_continuous.then_some(this)
    }

    fn rate(&self, now: Option<u64>, then: Option<u64>) -> Option<f64> {
        Some(float(now?.checked_sub(then?)?) / self.seconds)
    }

    fn rates(&self, now: Counts, then: Counts) -> Rates {
        Rates {
            packets_per_second: self.rate(now.packets, then.packets),
            bits_per_second: self.rate(now.bytes, then.bytes).map(|bytes| bytes * 8.0),
            new_connections_per_second: self.rate(now.new_connections, then.new_connections),
        }
    }
}

fn name_of(reason: &ReasonStatus) -> (&str, &str) {
    (&reason.reason, &reason.verdict)
}

impl Top {
    /// What has happened between two samples; of limits of sources, what the daemon measured.
    pub(super) fn new(before: Option<&Sample>, now: &Sample, measured: Option<&Limits>) -> Self {
        let before = before.and_then(|before| Before::new(before, now));
        let before = before.as_ref();
        let status = &now.status;
        let vips: Vec<_> = status
            .vips
            .iter()
            .map(|vip| {
                let measured = measured.and_then(|limits| of_vip(limits, &vip.name));
                vip_now(vip, before, measured)
            })
            .collect();
        let reasons: Vec<_> = status
            .reasons
            .iter()
            .map(|reason| reason_now(reason, before))
            .collect();
        let under = |verdict: &str| {
            let meant = reasons.iter().filter(|reason| reason.verdict == verdict);
            sum(before, meant.map(|reason| reason.packets_per_second))
        };
        let total =
            |rate: fn(&Rates) -> Option<f64>| sum(before, vips.iter().map(|vip| rate(&vip.rates)));
        Self {
            time: now.time.clone(),
            node: status.node.clone(),
            version: status.version.clone(),
            generation: status.generation,
            ready: status.ready,
            seconds: before.map(|before| before.seconds),
            forwarded: Rates {
                packets_per_second: total(|rates| rates.packets_per_second),
                bits_per_second: total(|rates| rates.bits_per_second),
                new_connections_per_second: total(|rates| rates.new_connections_per_second),
            },
            dropped_per_second: under("drop"),
            passed_per_second: under("pass"),
            interfaces: status
                .interfaces
                .iter()
                .map(|interface| Interface {
                    name: interface.name.clone(),
                    state: interface.state.as_str(),
                })
                .collect(),
            problems: status.problems.clone(),
            vips,
            reasons,
            sampled_sources: None,
        }
    }
}

fn of_vip<'a>(limits: &'a Limits, name: &str) -> Option<&'a VipLimits> {
    limits.vips.iter().find(|vip| vip.vip == name)
}

/// The sum of the rates that are known; `None` where no rate can be.
fn sum(before: Option<&Before<'_>>, rates: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    before.map(|_| rates.flatten().sum())
}

fn reason_now(reason: &ReasonStatus, before: Option<&Before<'_>>) -> Reason {
    let rate = before.and_then(|before| {
        let then = before.reasons.get(&name_of(reason));
        before.rate(Some(reason.packets), then.copied())
    });
    Reason {
        reason: reason.reason.clone(),
        verdict: reason.verdict.clone(),
        packets: reason.packets,
        packets_per_second: rate,
    }
}

fn vip_now(vip: &VipStatus, before: Option<&Before<'_>>, measured: Option<&VipLimits>) -> Vip {
    let then = before.and_then(|before| before.vips.get(&(vip.name.as_str(), vip.id)).copied());
    let rates = match (before, then) {
        (Some(before), Some(then)) => before.rates(vip.into(), then.into()),
        _ => Rates::default(),
    };
    let limits: Vec<_> = vip
        .limits
        .iter()
        .map(|limit| {
            let earlier = then.and_then(|then| {
                let same = then.limits.iter().find(|then| then.limit == limit.limit);
                before.zip(same)
            });
            limit_now(limit, earlier, &rates, measured)
        })
        .collect();
    let state = match (vip.is_served(), vip.fails_open) {
        (false, _) => VipState::NoBackend,
        (true, true) => VipState::FailsOpen,
        (true, false) => VipState::Ok,
    };
    let usable = vip
        .backends
        .iter()
        .filter(|one| one.resolved && one.slots > 0);
    let slots = vip.slots;
    Vip {
        name: vip.name.clone(),
        address: vip.address,
        port: vip.port,
        protocol: vip.protocol.as_str(),
        state,
        backends_in_use: usable.count(),
        rates,
        limit_used: limits
            .iter()
            .filter_map(|limit| limit.used)
            .reduce(f64::max),
        slots_changing: slots.holding + slots.moving + slots.settling,
        pins: vip.pins,
        limits,
        backends: backends_now(vip, before),
        top_sources: measured
            .and_then(|vip| vip.sources.as_ref())
            .map(|sources| sources.top.clone()),
    }
}

fn limit_now(
    limit: &LimitStatus,
    earlier: Option<(&Before<'_>, &LimitStatus)>,
    rates: &Rates,
    measured: Option<&VipLimits>,
) -> LimitUse {
    let rate = |count: fn(&LimitStatus) -> u64| {
        let (before, then) = earlier?;
        before.rate(Some(count(limit)), Some(count(then)))
    };
    let allowed_per_second = rate(|limit| limit.allowed);
    let passed = match limit.limit.as_str() {
        "bytes" => rates.bits_per_second.map(|bits| bits / 8.0),
        _ => allowed_per_second,
    };
    // Who is the busiest source only the daemon can tell.
    let used = if limit.limit.ends_with("_per_source") {
        let same = measured.and_then(|vip| {
            let mut all = vip.limits.iter();
            all.find(|measured| measured.status.limit == limit.limit)
        });
        same.map(|measured| measured.used)
    } else {
        passed.map(|passed| passed / limit.per_second)
    };
    LimitUse {
        limit: limit.limit.clone(),
        per_second: limit.per_second,
        action: limit.action.clone(),
        used,
        allowed_per_second,
        over_per_second: rate(|limit| limit.dropped + limit.observed),
    }
}

/// The backends of a VIP, also those that leave, with their shares.
fn backends_now(vip: &VipStatus, before: Option<&Before<'_>>) -> Vec<Backend> {
    let rates = |id: u16, now: Counts| {
        let before = before?;
        let then = before.backends.get(&(vip.name.as_str(), id))?;
        Some(before.rates(now, *then))
    };
    let weights: u32 = vip.backends.iter().map(|one| u32::from(one.weight)).sum();
    let own = vip.backends.iter().map(|one| Backend {
        id: one.id,
        address: one.address,
        state: state(one),
        weight: one.weight,
        weight_share: f64::from(one.weight) / f64::from(weights.max(1)),
        slots_share: f64::from(one.slots) / slots(),
        traffic_share: None,
        rates: rates(one.id, one.into()).unwrap_or_default(),
        pins: one.pins,
        mode: Some(one.forward.as_str()),
        last_error: one
            .health
            .as_ref()
            .and_then(|health| health.last_error.clone()),
    });
    let leaving = vip.leaving.iter().map(|one| Backend {
        id: one.id,
        address: one.address,
        state: if one.alive {
            BackendState::Leaving
        } else {
            BackendState::Dead
        },
        weight: 0,
        weight_share: 0.0,
        slots_share: 0.0,
        traffic_share: None,
        rates: rates(one.id, one.into()).unwrap_or_default(),
        pins: one.pins,
        mode: None,
        last_error: one
            .health
            .as_ref()
            .and_then(|health| health.last_error.clone()),
    });
    let mut all: Vec<_> = own.chain(leaving).collect();
    let total: f64 = all
        .iter()
        .filter_map(|one| one.rates.packets_per_second)
        .sum();
    if total > 0.0 {
        for one in &mut all {
            one.traffic_share = one.rates.packets_per_second.map(|rate| rate / total);
        }
    }
    all
}

fn state(backend: &BackendStatus) -> BackendState {
    let health = backend.health.as_ref().map(|health| health.state);
    if !backend.resolved {
        BackendState::Unresolved
    } else if health == Some(HealthState::Failed) {
        BackendState::Failed
    } else if backend.weight == 0 {
        BackendState::Drained
    } else if health == Some(HealthState::Unknown) {
        BackendState::Unchecked
    } else {
        BackendState::Ok
    }
}

fn slots() -> f64 {
    float(SLOTS as u64)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is told to a few digits; a number of 2^53 packets is off by one"
)]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
