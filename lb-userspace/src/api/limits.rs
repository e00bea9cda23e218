//! `GET /v1/limits`: how near VIPs and sources come to their limits, measured while the question is answered.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    ops::ControlFlow,
    time::Duration,
};

use lb_common::{
    limit::{Judgement, Kind, Source, SourceKey},
    tables::Counters,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{self, Limit, Rate},
    dataplane::{Judged, Scan},
    model::ip_address,
};

/// How many sources of a VIP are listed where nothing else is asked for.
pub const DEFAULT_TOP: usize = 10;

/// How many at most.
const MOST: usize = 10_000;

/// How long is measured where nothing else is asked for, in seconds.
pub const DEFAULT_SECONDS: u64 = 1;

/// How long at most.
const LONGEST: u64 = 300;

/// What is to be measured.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LimitFilter {
    /// Only the VIP with this name.
    pub vip: Option<String>,
    /// How many of the busiest sources of a VIP are listed, 10 unless said, 10,000 at most.
    pub top: Option<usize>,
    /// For how many seconds is measured, 1 unless said, 300 at most.
    pub seconds: Option<u64>,
}

impl LimitFilter {
    /// How long is measured.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(DEFAULT_SECONDS).clamp(1, LONGEST))
    }

    fn top(&self) -> usize {
        self.top.unwrap_or(DEFAULT_TOP).min(MOST)
    }
}

/// The limits, and what was measured at them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Limits {
    /// For how long was measured, in seconds.
    pub seconds: f64,
    /// Every VIP that is meant, in the configuration's order.
    pub vips: Vec<VipLimits>,
}

/// The limits of a VIP.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct VipLimits {
    /// The VIP's name.
    pub vip: String,
    /// Frames forwarded, a second.
    pub packets_per_second: f64,
    /// Bytes of those frames, a second.
    pub bytes_per_second: f64,
    /// TCP SYNs among those frames, a second.
    pub new_connections_per_second: f64,
    /// Its limits.
    pub limits: Vec<LimitUse>,
    /// What its sources sent; `null` where no limit tells them apart.
    pub sources: Option<Sources>,
}

/// A limit, and what became of packets at it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct LimitStatus {
    /// Which: `packets`, `bytes`, `new_connections`, `packets_per_source` or `new_connections_per_source`.
    pub limit: String,
    /// How many are let through, a second: packets, bytes or connections.
    pub per_second: f64,
    /// How many may come at once.
    pub burst: u64,
    /// `drop`, or `observe`: what is over the limit is only counted.
    pub action: String,
    /// Packets within the limit.
    pub allowed: u64,
    /// Packets over it, thrown away.
    pub dropped: u64,
    /// Packets over it, and let through.
    pub observed: u64,
}

/// A limit, and what was measured at it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct LimitUse {
    /// The limit and its counts so far.
    #[serde(flatten)]
    pub status: LimitStatus,
    /// Packets within it, a second.
    pub allowed_per_second: f64,
    /// Packets over it, a second.
    pub over_per_second: f64,
    /// What was let through, as a part of the limit: 1 is all of it. Of a limit of sources, that of the busiest source.
    pub used: f64,
}

/// What the sources of a VIP sent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Sources {
    /// How many sent anything.
    pub active: u64,
    /// Packets a second of an active source.
    pub packets: Spread,
    /// TCP SYNs a second of an active source.
    pub new_connections: Spread,
    /// The busiest, by packets.
    pub top: Vec<SourceStatus>,
}

/// How sources differ: the rate that a part of them does not exceed, a second.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Spread {
    /// Half of them.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All of them.
    pub max: f64,
}

/// A source.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct SourceStatus {
    /// The prefix of its address.
    pub source: String,
    /// Packets that it sent, a second.
    pub packets_per_second: f64,
    /// TCP SYNs among them, a second.
    pub new_connections_per_second: f64,
    /// Packets over a limit, a second.
    pub over_per_second: f64,
}

impl LimitStatus {
    /// The limits of a VIP with their counts, in the order of [`Kind::ALL`].
    #[must_use]
    pub fn all(limits: &config::Limits, judged: &Judged) -> Vec<Self> {
        let all = limits.by_kind.iter();
        all.map(|(kind, limit)| Self::new(*kind, limit, judged))
            .collect()
    }

    fn new(kind: Kind, limit: &Limit, judged: &Judged) -> Self {
        Self {
            limit: kind.as_str().to_owned(),
            per_second: per_second(&limit.rate),
            burst: limit.burst,
            action: if limit.is_observed { "observe" } else { "drop" }.to_owned(),
            allowed: judged.count(kind, Judgement::Allowed),
            dropped: judged.count(kind, Judgement::Dropped),
            observed: judged.count(kind, Judgement::Observed),
        }
    }
}

fn per_second(rate: &Rate) -> f64 {
    float(rate.count) / rate.period.as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate is told to a few digits; a number of 2^53 packets is off by one"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

/// What the daemon's task knows of the limits at a moment.
pub struct LimitsBasis {
    /// The VIPs.
    pub vips: Vec<VipBasis>,
    /// Reads the sources.
    pub scan: Scan<(SourceKey, Source)>,
    /// Now, in ns of the monotonic clock.
    pub now_ns: u64,
}

/// The same of a VIP.
#[derive(Clone, Debug)]
pub struct VipBasis {
    /// Its number in the maps.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its limits.
    pub limits: config::Limits,
    /// What became of its packets at them.
    pub judged: Judged,
    /// What was forwarded.
    pub counters: Counters,
}

impl fmt::Debug for LimitsBasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitsBasis").finish_non_exhaustive()
    }
}

/// What is there at a moment.
pub(super) struct Moment {
    vips: Vec<VipBasis>,
    sources: HashMap<SourceKey, Source>,
    now_ns: u64,
}

impl LimitsBasis {
    /// Whether there is a VIP of that name.
    #[must_use]
    pub fn knows(&self, vip: &str) -> bool {
        self.vips.iter().any(|known| known.name == vip)
    }

    /// Reads the sources of the VIPs that are meant.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub(super) fn read(self, filter: &LimitFilter) -> anyhow::Result<Moment> {
        let mut vips = self.vips;
        vips.retain(|vip| filter.vip.as_ref().is_none_or(|name| *name == vip.name));
        let mut sources = HashMap::new();
        let is_meant = |key: &SourceKey| vips.iter().any(|vip| u64::from(vip.id) == key.vip);
        self.scan.walk(&mut |(key, source)| {
            if is_meant(&key) {
                sources.insert(key, source);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Moment {
            vips,
            sources,
            now_ns: self.now_ns,
        })
    }
}

impl Moment {
    /// What has happened since an earlier moment.
    pub(super) fn since(self, before: &Self, filter: &LimitFilter) -> Limits {
        let ns = self.now_ns.saturating_sub(before.now_ns).max(1);
        let seconds = Duration::from_nanos(ns).as_secs_f64();
        let rate = |now: u64, then: u64| float(now.saturating_sub(then)) / seconds;
        let mut sources = self.source_rates(before, rate);
        let vips = self.vips.iter().filter_map(|vip| {
            let then = before.vips.iter().find(|then| then.id == vip.id)?;
            let is_told = vip.limits.by_kind.keys().any(|kind| kind.is_per_source());
            let sources = is_told.then(|| {
                let rates = sources.remove(&u64::from(vip.id)).unwrap_or_default();
                Sources::new(&vip.limits, rates, filter.top())
            });
            let limits = vip.limits.by_kind.iter().map(|(kind, limit)| {
                let status = LimitStatus::new(*kind, limit, &vip.judged);
                let earlier = LimitStatus::new(*kind, limit, &then.judged);
                let over = status.dropped + status.observed;
                let allowed_per_second = rate(status.allowed, earlier.allowed);
                let passed = match kind {
                    Kind::Bytes => rate(vip.counters.bytes, then.counters.bytes),
                    Kind::PacketsPerSource => sources.as_ref().map_or(0.0, |s| s.packets.max),
                    Kind::NewConnectionsPerSource => {
                        sources.as_ref().map_or(0.0, |s| s.new_connections.max)
                    }
                    Kind::Packets | Kind::NewConnections => allowed_per_second,
                };
                LimitUse {
                    allowed_per_second,
                    over_per_second: rate(over, earlier.dropped + earlier.observed),
                    used: passed / status.per_second,
                    status,
                }
            });
            Some(VipLimits {
                vip: vip.name.clone(),
                packets_per_second: rate(vip.counters.packets, then.counters.packets),
                bytes_per_second: rate(vip.counters.bytes, then.counters.bytes),
                new_connections_per_second: rate(
                    vip.counters.new_connections,
                    then.counters.new_connections,
                ),
                limits: limits.collect(),
                sources,
            })
        });
        Limits {
            seconds,
            vips: vips.collect(),
        }
    }

    /// The sources that sent something, by their VIP's id.
    fn source_rates(
        &self,
        before: &Self,
        rate: impl Fn(u64, u64) -> f64,
    ) -> BTreeMap<u64, Vec<(SourceKey, SourceRate)>> {
        let mut by_vip: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for (key, now) in &self.sources {
            // One that went and came back counts from 0.
            let then = before.sources.get(key).copied();
            let then = then.filter(|then| then.packets <= now.packets);
            let then = then.unwrap_or_default();
            if now.packets == then.packets {
                continue;
            }
            let rates = SourceRate {
                packets: rate(now.packets, then.packets),
                new_connections: rate(
                    now.new_connections
                        .wrapping_sub(then.new_connections)
                        .into(),
                    0,
                ),
                over: rate(now.over, then.over),
            };
            by_vip.entry(key.vip).or_default().push((*key, rates));
        }
        by_vip
    }
}

/// What a source sent, a second.
#[derive(Clone, Copy)]
struct SourceRate {
    packets: f64,
    new_connections: f64,
    over: f64,
}

impl Sources {
    fn new(limits: &config::Limits, mut rates: Vec<(SourceKey, SourceRate)>, top: usize) -> Self {
        let packets = Spread::of(rates.iter().map(|(_, rate)| rate.packets));
        let new_connections = Spread::of(rates.iter().map(|(_, rate)| rate.new_connections));
        let active = rates.len() as u64;
        let by_rate = |(key, rate): &(SourceKey, SourceRate)| {
            (Reverse(rate.packets.to_bits()), key.prefix.octets())
        };
        rates.sort_unstable_by_key(by_rate);
        rates.truncate(top);
        let status = |(key, rate): (SourceKey, SourceRate)| SourceStatus {
            source: prefix(&key, limits),
            packets_per_second: rate.packets,
            new_connections_per_second: rate.new_connections,
            over_per_second: rate.over,
        };
        Self {
            active,
            packets,
            new_connections,
            top: rates.into_iter().map(status).collect(),
        }
    }
}

/// A source as people write it.
fn prefix(key: &SourceKey, limits: &config::Limits) -> String {
    let address = ip_address(key.prefix);
    let (length, whole) = if address.is_ipv4() {
        (limits.source_prefix_v4, 32)
    } else {
        (limits.source_prefix_v6, 128)
    };
    if length == whole {
        address.to_string()
    } else {
        format!("{address}/{length}")
    }
}

impl Spread {
    fn of(rates: impl Iterator<Item = f64>) -> Self {
        let mut rates: Vec<_> = rates.collect();
        rates.sort_unstable_by(f64::total_cmp);
        // The smallest rate that so many thousandths do not exceed.
        let at = |thousandths: usize| {
            let rank = (rates.len() * thousandths).div_ceil(1000);
            rates.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: at(1000),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "rates that are whole numbers are exact")]
mod tests {
    use super::*;
    use crate::model::map_address;

    fn source(packets: u64, new_connections: u32, over: u64) -> Source {
        Source {
            packets,
            new_connections,
            over,
            ..Source::default()
        }
    }

    fn key(text: &str) -> SourceKey {
        SourceKey {
            prefix: map_address(text.parse().unwrap()),
            vip: 3,
        }
    }

    fn moment(seconds: u64, allowed: u64, sources: &[(&str, Source)]) -> Moment {
        let limit = |count, is_observed| Limit {
            rate: Rate {
                count,
                period: Duration::from_secs(1),
            },
            burst: 50,
            is_observed,
            is_cluster: false,
        };
        let by_kind = [
            (Kind::Packets, limit(1000, false)),
            (Kind::PacketsPerSource, limit(100, true)),
        ];
        let mut judged = Judged::default();
        judged.packets[Kind::Packets as usize] = [allowed, allowed / 2, 0];
        judged.packets[Kind::PacketsPerSource as usize] = [allowed, 0, 7 * seconds];
        Moment {
            vips: vec![VipBasis {
                id: 3,
                name: "web".to_owned(),
                limits: config::Limits {
                    by_kind: by_kind.into(),
                    ..config::Limits::default()
                },
                judged,
                counters: Counters {
                    packets: allowed,
                    bytes: 100 * allowed,
                    new_connections: 0,
                    reserved: 0,
                },
            }],
            sources: sources.iter().map(|(text, s)| (key(text), *s)).collect(),
            now_ns: seconds * 1_000_000_000,
        }
    }

    #[test]
    fn rates_are_what_came_between_two_moments() {
        let before = moment(
            10,
            4000,
            &[
                ("192.0.2.1", source(100, 10, 0)),
                ("192.0.2.9", source(5, 5, 5)),
            ],
        );
        let after = moment(
            12,
            5000,
            &[
                ("192.0.2.1", source(500, 12, 40)),
                ("2001:db8::", source(20, 0, 0)),
                ("192.0.2.9", source(5, 5, 5)),
            ],
        );
        let limits = after.since(&before, &LimitFilter::default());
        assert_eq!(limits.seconds, 2.0);
        let vip = &limits.vips[0];
        assert_eq!(
            (vip.packets_per_second, vip.bytes_per_second),
            (500.0, 50_000.0)
        );
        let packets = &vip.limits[0];
        assert_eq!(packets.status.limit, "packets");
        assert_eq!(
            (packets.status.allowed, packets.status.dropped),
            (5000, 2500)
        );
        assert_eq!(
            (
                packets.allowed_per_second,
                packets.over_per_second,
                packets.used
            ),
            (500.0, 250.0, 0.5)
        );
        let per_source = &vip.limits[1];
        assert_eq!(per_source.status.action, "observe");
        assert_eq!((per_source.over_per_second, per_source.used), (7.0, 2.0));
        let sources = vip.sources.as_ref().unwrap();
        assert_eq!(sources.active, 2);
        assert_eq!((sources.packets.p50, sources.packets.max), (10.0, 200.0));
        let top: Vec<_> = sources.top.iter().map(|s| s.source.as_str()).collect();
        assert_eq!(top, ["192.0.2.1", "2001:db8::/64"]);
        assert_eq!(sources.top[0].over_per_second, 20.0);
    }

    #[test]
    fn a_source_that_was_forgotten_meanwhile_counts_from_nothing() {
        let before = moment(0, 0, &[("192.0.2.1", source(1000, 0, 0))]);
        let after = moment(1, 0, &[("192.0.2.1", source(30, 0, 0))]);
        let limits = after.since(&before, &LimitFilter::default());
        assert_eq!(limits.vips[0].sources.as_ref().unwrap().packets.max, 30.0);
    }

    #[test]
    fn a_spread_is_what_a_part_does_not_exceed() {
        let spread = Spread::of((1..=1000).map(f64::from));
        let Spread {
            p50,
            p90,
            p99,
            p999,
            max,
        } = spread;
        assert_eq!(
            [p50, p90, p99, p999, max],
            [500.0, 900.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
