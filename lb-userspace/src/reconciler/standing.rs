//! How the backends stand from moment to moment: who is dead, who starts slowly, whose time is up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_common::backend::Backend;

use crate::{
    config::{Config, Health, Vip, health::Via},
    dsr::Asked,
    health::{Check, Snapshot, Through, Verdict, usable},
    model::{
        forward_of,
        ids::Ids,
        ip_address,
        leaving::Leaving,
        overrides::BackendName,
        wanted::{Standing, Wanted, id_of},
    },
};

/// Steps in which a backend comes to its whole weight: each is a change of the table.
const START_STEPS: u32 = 10;

const SECOND_NS: u64 = 1_000_000_000;

/// Memory of what has a duration.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Backends that took new flows the last time; `None` before the first.
    serving: Option<BTreeSet<BackendName>>,
    /// When backends that start slowly began.
    started: BTreeMap<BackendName, Instant>,
    /// Since when backends take no new flows, by id: drained ones, and leaving ones. One that is drained and taken out
    /// then, or put back, goes on where it was.
    quiet: BTreeMap<u16, Instant>,
    /// Those times of which there is a note.
    noted: BTreeMap<u16, Instant>,
    /// VIPs that use all backends because too many have failed.
    pub(super) failing_open: BTreeSet<String>,
    /// When something of this changes by time alone.
    pub(super) wake: Option<Instant>,
}

impl Keeper {
    /// A keeper that goes on with an earlier one's [`Self::note`], at `now`, which is `now_ns` of the monotonic clock.
    pub(super) fn adopt(note: &Leaving, now: Instant, now_ns: u64) -> Self {
        let quiet = note.times().filter_map(|(id, since_s)| {
            // What has not come yet was noted before the host started anew, or by nobody: its time begins again.
            let elapsed_ns = now_ns.checked_sub(u64::from(since_s) * SECOND_NS)?;
            Some((id, now.checked_sub(Duration::from_nanos(elapsed_ns))?))
        });
        let quiet: BTreeMap<_, _> = quiet.collect();
        Self {
            noted: quiet.clone(),
            quiet,
            ..Self::default()
        }
    }

    /// Begins the times of those who take no new flows from `now` on, and ends those of others.
    pub(super) fn follow(&mut self, wanted: &Wanted, now: Instant) {
        let quiet = wanted.quiet();
        self.quiet = quiet
            .map(|id| (id, self.quiet.get(&id).copied().unwrap_or(now)))
            .collect();
    }

    /// Whether what is noted for a later daemon is out of date.
    ///
    /// It is noted before the maps follow: a daemon that is killed in between leaves a time that begins too early by that
    /// moment, or one that begins again.
    pub(super) fn is_unnoted(&self) -> bool {
        self.quiet != self.noted
    }

    /// What to note for a later daemon; nothing, where all backends take new flows.
    pub(super) fn note(&self, now: Instant, now_ns: u64) -> Option<Box<Leaving>> {
        let times = self.quiet.iter().map(|(id, since)| {
            let elapsed_ns = now.saturating_duration_since(*since).as_nanos();
            let began_ns = now_ns.saturating_sub(u64::try_from(elapsed_ns).unwrap_or(u64::MAX));
            // Rounded up: no time shall be taken as over too early.
            let since_s = began_ns.div_ceil(SECOND_NS);
            (*id, u32::try_from(since_s).unwrap_or(u32::MAX))
        });
        (!self.quiet.is_empty()).then(|| Leaving::new(times))
    }

    /// What [`Self::note`] told has been noted.
    pub(super) fn noted(&mut self) {
        self.noted.clone_from(&self.quiet);
    }

    /// How long a backend has taken no new flows.
    pub(super) fn quiet_for(&self, id: u16, now: Instant) -> Option<Duration> {
        let since = self.quiet.get(&id)?;
        Some(now.saturating_duration_since(*since))
    }

    /// How the backends stand `now`, which is `now_ms` for the data plane. `before` is what was wanted the last time.
    pub(super) fn stand(
        &mut self,
        config: &Config,
        health: &Snapshot,
        (before, ids): (Option<&Wanted>, &Ids),
        now: Instant,
        now_ms: u32,
    ) -> Standing {
        self.wake = None;
        self.failing_open.clear();
        let mut standing = Standing {
            now_ms,
            ..Standing::default()
        };
        for vip in &config.vips {
            let usable = usable(vip, |check| health.verdict(check));
            if usable.fails_open {
                self.failing_open.insert(vip.name.clone());
            }
            let unusable = vip
                .backends
                .iter()
                .filter(|backend| !usable.addresses.contains(&backend.address));
            standing
                .dead
                .extend(unusable.map(|backend| name(vip, backend.address)));
        }
        self.end_drains(config, ids, now, &mut standing);
        self.start_slowly(config, now, &mut standing);
        self.end_leaving(config, health, before, now, &mut standing);
        standing
    }

    /// A backend that has been drained for as long as it may counts as dead.
    fn end_drains(&mut self, config: &Config, ids: &Ids, now: Instant, standing: &mut Standing) {
        for vip in &config.vips {
            let Some(timeout) = vip.flows.drain_timeout else {
                continue;
            };
            for backend in vip.backends.iter().filter(|backend| backend.weight == 0) {
                let since = id_of(vip, backend, ids).and_then(|id| self.quiet.get(&id));
                let since = since.copied().unwrap_or(now);
                if self.is_over(since, timeout, now) {
                    standing.dead.insert(name(vip, backend.address));
                }
            }
        }
    }

    /// A backend that comes, or comes back, gets its weight in steps. The first time all have theirs at once: it is the
    /// daemon that comes then.
    fn start_slowly(&mut self, config: &Config, now: Instant, standing: &mut Standing) {
        let mut serving = BTreeSet::new();
        let mut started = BTreeMap::new();
        for vip in &config.vips {
            for backend in vip.backends.iter().filter(|backend| backend.weight > 0) {
                let name = name(vip, backend.address);
                if standing.dead.contains(&name) {
                    continue;
                }
                let was_serving = self.serving.as_ref().is_none_or(|was| was.contains(&name));
                serving.insert(name.clone());
                let Some(whole) = vip.flows.slow_start else {
                    continue;
                };
                let since = match self.started.get(&name) {
                    Some(since) if was_serving => *since,
                    None if was_serving => continue,
                    _ => now,
                };
                let step = whole / START_STEPS;
                let done = now.duration_since(since).as_nanos() / step.as_nanos().max(1);
                let steps = u32::try_from(done).unwrap_or(START_STEPS) + 1;
                if steps >= START_STEPS {
                    continue;
                }
                let weight = u32::from(backend.weight) * steps / START_STEPS;
                let weight = u16::try_from(weight).unwrap_or(backend.weight).max(1);
                standing.starting.insert(name.clone(), weight);
                self.wake_at(since + step * steps);
                started.insert(name, since);
            }
        }
        self.serving = Some(serving);
        self.started = started;
    }

    /// A leaving backend that fails its checks, or has been leaving for as long as it may, counts as dead.
    fn end_leaving(
        &mut self,
        config: &Config,
        health: &Snapshot,
        before: Option<&Wanted>,
        now: Instant,
        standing: &mut Standing,
    ) {
        for (id, backend) in before.iter().flat_map(|before| &before.leaving) {
            let since = self.quiet.get(id).copied().unwrap_or(now);
            let Some(vip) = before.and_then(|before| vip_of(config, before, backend)) else {
                continue;
            };
            let check = vip
                .health
                .as_ref()
                .and_then(|checks| check_of(checks, backend));
            let has_failed = check.is_some_and(|check| health.verdict(&check) == Verdict::Failed);
            let is_over = vip
                .flows
                .drain_timeout
                .is_some_and(|timeout| self.is_over(since, timeout, now));
            if has_failed || is_over {
                standing.expired.insert(*id);
            }
        }
    }

    /// Whether a time is up; if not, there is a wake at its end.
    fn is_over(&mut self, since: Instant, timeout: Duration, now: Instant) -> bool {
        let end = since + timeout;
        if end <= now {
            return true;
        }
        self.wake_at(end);
        false
    }

    fn wake_at(&mut self, time: Instant) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }
}

/// The VIP in the configuration that a backend is, or was, of.
fn vip_of<'a>(config: &'a Config, wanted: &Wanted, backend: &Backend) -> Option<&'a Vip> {
    let vip = wanted
        .vips
        .iter()
        .find(|vip| vip.entry.id == u32::from(backend.vip))?;
    config.vips.iter().find(|config| config.name == vip.name)
}

/// What is checked: the configuration's backends, and the leaving ones of VIPs that are checked.
pub(super) fn checks(
    config: &Config,
    wanted: Option<&Wanted>,
    verdict: impl Fn(&BackendName) -> Verdict,
) -> BTreeMap<Check, Verdict> {
    let mut checks: BTreeMap<Check, Verdict> = BTreeMap::new();
    for ((vip, backend), check) in crate::health::checks_of(config) {
        let known = verdict(&BackendName { vip, backend });
        let merged = checks.entry(check).or_insert(known);
        // Several VIPs share a check: what one of them knows of a failure counts.
        if known == Verdict::Failed || *merged == Verdict::Unknown {
            *merged = known;
        }
    }
    if let Some(wanted) = wanted {
        for backend in wanted.leaving.values() {
            let vip = vip_of(config, wanted, backend);
            let health = vip.and_then(|vip| vip.health.as_ref());
            if let Some(check) = health.and_then(|health| check_of(health, backend)) {
                checks.entry(check).or_insert(Verdict::Unknown);
            }
        }
    }
    checks
}

/// Under which ids the backends are in the maps that are checked through the forwarding path.
pub(super) fn ids(config: &Config, wanted: &Wanted) -> HashMap<Asked, u16> {
    let mut ids = HashMap::new();
    let by_id = config.vips.iter().zip(&wanted.vips);
    let asked: HashMap<u32, IpAddr> = by_id
        .filter_map(|(vip, wanted)| match vip.health.as_ref()?.via {
            Via::Direct => None,
            Via::Dsr { vip } => Some((wanted.entry.id, vip)),
        })
        .collect();
    if asked.is_empty() {
        return ids;
    }
    let own = wanted.vips.iter().flat_map(|vip| &vip.backends);
    let own = own.map(|backend| (backend.id, &backend.entry));
    // The living first: who died and is there again is leaving under the id of before.
    let leaving = wanted.leaving.iter().map(|(id, entry)| (*id, entry));
    for (id, entry) in own.chain(leaving) {
        if let Some(vip) = asked.get(&u32::from(entry.vip))
            && let Some(forward) = forward_of(entry.mode)
        {
            let backend = ip_address(entry.address);
            // Several VIPs of one address lead the same way.
            ids.entry((*vip, Through { backend, forward }))
                .or_insert(id);
        }
    }
    ids
}

/// The check of a backend that the maps hold.
fn check_of(health: &Health, backend: &Backend) -> Option<Check> {
    let forward = forward_of(backend.mode)?;
    Some(Check::new(health, ip_address(backend.address), forward))
}

fn name(vip: &Vip, backend: IpAddr) -> BackendName {
    BackendName {
        vip: vip.name.clone(),
        backend,
    }
}

#[cfg(test)]
mod tests;
