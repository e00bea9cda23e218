//! The heaviest sources of VIPs whose limits of sources hold for the whole fleet: who they are, and the shares that they have.
//!
//! All other sources are held to an even share. A scan of the sources once a second, or less often where it takes
//! long, tells who is heavy (`limits::fleet::promote`).

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    time::{Duration, Instant},
};

use lb_common::limit::{Kind, OwnRate, Source, SourceKey};
use tokio::task::JoinHandle;

use crate::{
    config::{self, Config},
    dataplane::{DataPlane, Scan},
    limits::fleet::{
        FleetLimit, Key, Rate, Scope, Shares,
        promote::{Candidate, MOST, Promoted},
    },
    model::{ip_address, limits::own_rate, wanted::WantedVip},
};

/// From one scan to the next, at least.
const PAUSE: Duration = Duration::from_secs(1);

/// A scan takes no more than this part of the time.
const PART: u32 = 20;

/// A source of a VIP, and the kind of its limit. Orders as the map's keys do.
type Name = (u64, [u8; 16], Kind);

/// What a scan has found.
pub(in crate::reconciler) struct Found {
    at: Instant,
    took: Duration,
    sources: Vec<(SourceKey, Source)>,
}

/// The heavy sources.
pub(super) struct Sources {
    promoted: Promoted<Name>,
    began: Instant,
    scan: Option<JoinHandle<anyhow::Result<Found>>>,
    next_scan: Instant,
    /// Packets and SYNs of each source, and when they were counted.
    last: (Option<Instant>, HashMap<SourceKey, (u64, u32)>),
    /// Sources that have limits of their own.
    own: HashMap<SourceKey, (OwnRate, OwnRate)>,
}

impl Default for Sources {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            promoted: Promoted::new(MOST),
            began: now,
            scan: None,
            next_scan: now,
            last: (None, HashMap::new()),
            own: HashMap::new(),
        }
    }
}

impl Sources {
    /// Begins a scan.
    pub(super) fn begin(&mut self, scan: Scan<(SourceKey, Source)>) {
        self.scan = Some(tokio::task::spawn_blocking(move || {
            let at = Instant::now();
            let mut sources = Vec::new();
            scan.walk(&mut |source| {
                sources.push(source);
                ControlFlow::Continue(())
            })?;
            Ok(Found {
                at,
                took: at.elapsed(),
                sources,
            })
        }));
    }

    /// Lets a scan wait that could not be begun.
    pub(super) fn put_off(&mut self) {
        self.next_scan = Instant::now() + PAUSE;
    }

    /// Waits until a scan is due (`None`) or done.
    pub(super) async fn next(&mut self) -> Option<anyhow::Result<Found>> {
        let Some(scan) = &mut self.scan else {
            tokio::time::sleep_until(self.next_scan.into()).await;
            return None;
        };
        let found = scan.await;
        self.scan = None;
        self.next_scan = Instant::now() + PAUSE;
        Some(found.unwrap_or_else(|error| Err(error.into())))
    }

    /// Takes what a scan has found, in a fleet of so many nodes.
    pub(super) fn take(&mut self, found: Found, limits: &Limits<'_>, nodes: u32) {
        let Found { at, took, sources } = found;
        self.next_scan = Instant::now() + PAUSE.max(took * PART);
        let counts = sources
            .iter()
            .map(|(key, source)| (*key, (source.packets, source.new_connections)));
        let counts: HashMap<_, _> = counts.collect();
        let (then, before) = std::mem::replace(&mut self.last, (Some(at), counts));
        let Some(millis) = then.map(|then| (at - then).as_millis().max(1)) else {
            return;
        };
        let rate = |cells: u64| {
            let cells = u128::from(cells);
            Rate::from_thousandths(u64::try_from(cells * 1_000_000 / millis).unwrap_or(u64::MAX))
        };
        let candidates = sources.iter().flat_map(|(key, source)| {
            let then = before.get(key).copied();
            // One that goes back has begun again.
            let then = then.filter(|(packets, _)| *packets <= source.packets);
            let (packets, connections) = then.unwrap_or_default();
            let connections = source.new_connections.wrapping_sub(connections);
            let kinds = [
                (Kind::PacketsPerSource, rate(source.packets - packets)),
                (Kind::NewConnectionsPerSource, rate(connections.into())),
            ];
            kinds.into_iter().filter_map(|(kind, rate)| {
                Some(Candidate {
                    source: (key.vip, key.prefix.octets(), kind),
                    rate,
                    limit: limits.rate(key.vip, kind)?,
                })
            })
        });
        self.promoted.scan(at - self.began, candidates, nodes);
    }

    /// Sources that have limits of their own which nobody knows of: an earlier daemon's.
    pub(super) fn strangers(&self, plane: &impl DataPlane) -> anyhow::Result<Vec<SourceKey>> {
        let mut keys = plane.own_rate_keys()?;
        keys.retain(|key| !self.own.contains_key(key));
        Ok(keys)
    }

    /// The limits that the heavy sources have for themselves.
    pub(super) fn wanted(&self, limits: &Limits<'_>) -> Vec<FleetLimit> {
        let wanted = self.promoted.sources().filter_map(|name| {
            let (vip, config) = limits.of(name.0)?;
            let limit = config
                .limits
                .by_kind
                .get(&name.2)
                .filter(|limit| limit.is_cluster)?;
            Some(FleetLimit {
                key: key(&vip.name, config, name),
                scope: Scope::Source,
                rate: Rate::from_thousandths(limit.rate.thousandths()),
                burst: limit.burst,
                largest: 1,
            })
        });
        wanted.collect()
    }

    /// What came of the heavy sources, let through or not.
    pub(super) fn read(
        &self,
        plane: &impl DataPlane,
        limits: &Limits<'_>,
        offered: &mut HashMap<Key, u64>,
    ) -> anyhow::Result<()> {
        for name in self.promoted.sources() {
            let Some((vip, config)) = limits.of(name.0) else {
                continue;
            };
            let Some(source) = plane.source(&entry(name))? else {
                continue;
            };
            let count = match name.2 {
                Kind::NewConnectionsPerSource => source.new_connections.into(),
                _ => source.packets,
            };
            offered.insert(key(&vip.name, config, name), count);
        }
        Ok(())
    }

    /// Gives every heavy source the share that this node has of its limits, and takes it from those that are none any more.
    pub(super) fn enforce(
        &mut self,
        plane: &mut impl DataPlane,
        limits: &Limits<'_>,
        shares: &Shares,
    ) -> anyhow::Result<()> {
        let mut own: HashMap<SourceKey, (OwnRate, OwnRate)> = HashMap::new();
        for name in self.promoted.sources() {
            let Some((vip, config)) = limits.of(name.0) else {
                continue;
            };
            let Some(share) = shares.shares.get(&key(&vip.name, config, name)) else {
                continue;
            };
            let rate = own_rate(share.rate.thousandths(), share.burst);
            let rates = own.entry(entry(name)).or_default();
            match name.2 {
                Kind::NewConnectionsPerSource => rates.1 = rate,
                _ => rates.0 = rate,
            }
        }
        for (key, (packets, connections)) in &own {
            plane.set_own_rates(key, *packets, *connections)?;
        }
        let gone = self.own.keys().filter(|key| !own.contains_key(*key));
        for key in gone {
            plane.set_own_rates(key, OwnRate::default(), OwnRate::default())?;
        }
        self.own = own;
        Ok(())
    }
}

/// The limits of the configuration in force, by the VIPs' ids.
pub(super) struct Limits<'a>(BTreeMap<u64, (&'a WantedVip, &'a config::Vip)>);

impl<'a> Limits<'a> {
    pub(super) fn new(vips: impl Iterator<Item = &'a WantedVip>, config: &'a Config) -> Self {
        let vips = vips.zip(&config.vips);
        Self(
            vips.map(|(vip, config)| (u64::from(vip.entry.id), (vip, config)))
                .collect(),
        )
    }

    fn of(&self, vip: u64) -> Option<(&'a WantedVip, &'a config::Vip)> {
        self.0.get(&vip).copied()
    }

    fn rate(&self, vip: u64, kind: Kind) -> Option<Rate> {
        let (_, config) = self.of(vip)?;
        let limit = config.limits.by_kind.get(&kind)?;
        limit
            .is_cluster
            .then(|| Rate::from_thousandths(limit.rate.thousandths()))
    }
}

/// Where a source is kept.
fn entry((vip, prefix, _): &Name) -> SourceKey {
    SourceKey {
        prefix: lb_common::flow::Address::from_v6(*prefix),
        vip: *vip,
    }
}

/// A source's limit in the whole fleet: `web/packets_per_source/192.0.2.7/32`.
fn key(vip: &str, config: &config::Vip, name: &Name) -> Key {
    let address = ip_address(entry(name).prefix);
    let length = if address.is_ipv4() {
        config.limits.source_prefix_v4
    } else {
        config.limits.source_prefix_v6
    };
    format!("{vip}/{}/{address}/{length}", name.2.as_str()).into()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use lb_common::limit::Known as _;

    use super::*;
    use crate::{
        dataplane::memory::Memory,
        limits::fleet::{Origin, Share},
        model::{
            ids::Ids,
            map_address,
            plan::Held,
            seed::Keys,
            wanted::{Inputs, Standing, Wanted},
        },
    };

    const CONFIG: &str = include_str!("../../../tests/configs/good/cluster_limits.toml");

    fn config() -> Config {
        Config::parse(CONFIG, "weir.toml").unwrap()
    }

    fn wanted(config: &Config) -> Wanted {
        let inputs = Inputs {
            config,
            keys: &Keys::derive("x"),
            ports: &[],
            next_hops: &BTreeMap::new(),
            locals: &BTreeSet::new(),
            standing: &Standing::default(),
            cpus: 1,
        };
        Wanted::new(&inputs, &Held::default(), &mut Ids::default()).unwrap()
    }

    fn client(vip: u32, last: u8) -> SourceKey {
        SourceKey {
            prefix: map_address([192, 0, 2, last].into()),
            vip: u64::from(vip),
        }
    }

    /// Sends packets of a source.
    fn send(plane: &Memory, key: &SourceKey, packets: u32) {
        let known = lb_common::limit::LimitTables::source(plane, key, 0).unwrap();
        for _ in 0..packets {
            known.count(false, false);
        }
    }

    fn scan(plane: &Memory, began: Instant, seconds: u64) -> Found {
        let mut sources = Vec::new();
        let scan = plane.scan_sources().unwrap();
        scan.walk(&mut |source| {
            sources.push(source);
            ControlFlow::Continue(())
        })
        .unwrap();
        Found {
            at: began + Duration::from_secs(seconds),
            took: Duration::ZERO,
            sources,
        }
    }

    #[test]
    fn a_heavy_source_has_a_limit_of_its_own_until_it_is_light_again() {
        let config = config();
        let wanted = wanted(&config);
        let vip = wanted.vips.first().unwrap().entry.id;
        let limits = Limits::new(wanted.vips.iter(), &config);
        let mut plane = Memory::default();
        let mut sources = Sources::default();
        let began = Instant::now();
        let (heavy, light) = (client(vip, 1), client(vip, 2));
        send(&plane, &heavy, 1);
        send(&plane, &light, 1);
        // Nothing is known of rates yet.
        sources.take(scan(&plane, began, 0), &limits, 2);
        assert!(sources.wanted(&limits).is_empty());

        // Two nodes, 500 a second: past a quarter of an even share are 63.
        send(&plane, &heavy, 400);
        send(&plane, &light, 50);
        sources.take(scan(&plane, began, 1), &limits, 2);
        let asked = sources.wanted(&limits);
        let keys: Vec<_> = asked.iter().map(|limit| &*limit.key).collect();
        assert_eq!(keys, ["web/packets_per_source/192.0.2.1/32"]);
        let mut offered = HashMap::new();
        sources.read(&plane, &limits, &mut offered).unwrap();
        assert_eq!(offered.values().copied().collect::<Vec<_>>(), [401]);

        let key = asked.first().unwrap().key.clone();
        let share = Share {
            rate: Rate::per_second(300),
            burst: 30,
            origin: Origin::Lease,
        };
        let shares = Shares {
            shares: [(key, share)].into(),
            ..Shares::default()
        };
        sources.enforce(&mut plane, &limits, &shares).unwrap();
        let own = |plane: &Memory, key| {
            let own = lb_common::limit::LimitTables::own_rates(plane, key);
            own.copied().unwrap_or_default().packets
        };
        assert_eq!(own(&plane, &heavy), own_rate(300_000, 30));
        assert_eq!(own(&plane, &light), OwnRate::default());

        // It has been silent for long.
        for second in 2..20 {
            sources.take(scan(&plane, began, second), &limits, 2);
        }
        assert!(sources.wanted(&limits).is_empty());
        sources.enforce(&mut plane, &limits, &shares).unwrap();
        assert_eq!(own(&plane, &heavy), OwnRate::default());
    }

    #[test]
    fn limits_that_an_earlier_daemon_gave_are_found() {
        let mut plane = Memory::default();
        let source = client(7, 1);
        plane
            .set_own_rates(&source, own_rate(1, 1), OwnRate::default())
            .unwrap();
        assert_eq!(Sources::default().strangers(&plane).unwrap(), [source]);
    }
}
