//! Limits of the whole fleet: what this node leases of them, and how the data plane comes to hold it.
//!
//! The task that leases asks, once a period, what came; its answers change limits in the maps at once, beside
//! reconciles: they come several times a second.

mod sources;

use std::{collections::HashMap, sync::Arc};

use lb_common::limit::{Kind, OwnRate};
use tokio::sync::oneshot;

use self::sources::{Found, Limits, Sources};
use super::Reconciler;
use crate::{
    api::{FleetStatus, Handle},
    config::{self, Config},
    dataplane::DataPlane,
    limits::fleet::{
        FleetLimit, Key, Rate, Scope, Shares,
        protocol::Reading,
        task::{Fleet, Meter, Settings},
    },
    model::{
        limits::{Parts, limits},
        plan::Step,
    },
};

/// The longest frame, in bytes: so much must a share of bytes let through at once.
const LONGEST_FRAME: u64 = 65_536;

/// What the daemon's task has to do with the fleet.
#[derive(Default)]
pub(super) struct FleetLimits {
    /// How the task that leases comes to ask; `None` before the daemon serves.
    handle: Option<Handle>,
    running: Option<(config::Redis, Fleet)>,
    /// The newest shares that the data plane holds.
    applied: u64,
    /// How many nodes the fleet was last known to have; 0 where nobody has counted.
    pub(super) nodes: u32,
    /// The heaviest sources; `None` where no limit of sources is the whole fleet's.
    sources: Option<Sources>,
}

/// What there is to do.
pub(super) enum Turn {
    /// These shares are to be enforced.
    Shares(Arc<Shares>),
    /// The sources are to be scanned.
    Scan,
    /// They have been.
    Scanned(anyhow::Result<Found>),
}

/// Asks the daemon's task what came.
struct Asking(Handle);

impl Meter for Asking {
    async fn read(&self) -> Reading {
        self.0.fleet_reading().await.unwrap_or_default()
    }
}

impl FleetLimits {
    /// None yet, in a fleet that had so many nodes.
    pub(super) fn of(nodes: u32) -> Self {
        Self {
            nodes,
            ..Self::default()
        }
    }

    /// Waits for something to do.
    pub(super) async fn next(&mut self) -> Turn {
        let Self {
            running, sources, ..
        } = self;
        let Some((_, fleet)) = running else {
            return std::future::pending().await;
        };
        let scan = async {
            match sources {
                Some(sources) => sources.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = fleet.shares.changed() => {
                Turn::Shares(Arc::clone(&fleet.shares.borrow_and_update()))
            }
            scanned = scan => scanned.map_or(Turn::Scan, Turn::Scanned),
        }
    }

    /// What this node may let through.
    pub(super) fn parts(&self) -> Parts {
        let Some((_, fleet)) = &self.running else {
            return Parts::default();
        };
        parts(&fleet.shares.borrow())
    }

    /// Leases what a configuration wants to be kept by the whole fleet, and nothing else.
    fn follow(&mut self, config: &Config, limits: &Limits<'_>) {
        let mut wanted = wanted(config);
        let Some(redis) = config.redis.as_ref().filter(|_| !wanted.is_empty()) else {
            self.running = None;
            self.sources = None;
            return;
        };
        let Some(handle) = &self.handle else {
            return;
        };
        let is_same = |(running, _): &(config::Redis, Fleet)| running == redis;
        if !self.running.as_ref().is_some_and(is_same) {
            let settings = Settings {
                endpoint: redis.endpoint.clone(),
                fleet: redis.fleet.clone(),
                period: redis.period,
                timeout: redis.timeout,
                nodes: self.nodes.max(1),
            };
            let fleet = Fleet::start(settings, Asking(handle.clone()));
            self.running = Some((redis.clone(), fleet));
            self.applied = 0;
        }
        let has_sources = config.vips.iter().any(limits_sources);
        if has_sources {
            let sources = self.sources.get_or_insert_default();
            wanted.extend(sources.wanted(limits));
        } else {
            self.sources = None;
        }
        if let Some((_, fleet)) = &self.running {
            fleet.want(wanted);
        }
    }

    fn status(&self) -> Option<FleetStatus> {
        let (redis, fleet) = self.running.as_ref()?;
        let status = fleet.status.borrow();
        let shares = fleet.shares.borrow();
        Some(FleetStatus::new(&redis.fleet, &status, &shares))
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// From now on limits of the whole fleet are leased, and its nodes' tables compared, through tasks that ask by this
    /// handle.
    pub(crate) fn lease_by(&mut self, handle: Handle) {
        self.fleet.handle = Some(handle.clone());
        self.follow_fleet();
        self.compare_by(handle);
    }

    /// Leases what the configuration in force wants.
    pub(super) fn follow_fleet(&mut self) {
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let limits = Limits::new(vips, &self.desired.config);
        self.fleet.follow(&self.desired.config, &limits);
    }

    /// Does what there is to do for the fleet's limits.
    pub(super) fn lease(&mut self, turn: Turn) {
        match turn {
            Turn::Shares(shares) => self.enforce(&shares),
            Turn::Scan => match (self.plane.scan_sources(), &mut self.fleet.sources) {
                (Ok(scan), Some(sources)) => sources.begin(scan),
                (Ok(_), None) => {}
                (Err(error), sources) => {
                    if let Some(sources) = sources {
                        sources.put_off();
                    }
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the sources cannot be scanned"
                    );
                }
            },
            Turn::Scanned(Ok(found)) => self.promote(found),
            Turn::Scanned(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a scan of the sources was given up; another follows"
                );
            }
        }
    }

    /// Lets heavy sources have limits of their own, after a scan.
    fn promote(&mut self, found: Found) {
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let limits = Limits::new(vips, &self.desired.config);
        let Some(sources) = &mut self.fleet.sources else {
            return;
        };
        sources.take(found, &limits, self.fleet.nodes);
        let cleared = sources.strangers(&self.plane).and_then(|keys| {
            let none = OwnRate::default();
            let mut keys = keys.iter();
            keys.try_for_each(|key| self.plane.set_own_rates(key, none, none))
        });
        if let Err(error) = cleared {
            tracing::warn!(
                error = format!("{error:#}"),
                "sources keep an earlier daemon's limits"
            );
        }
        self.fleet.follow(&self.desired.config, &limits);
    }

    /// What is known of the fleet's limits; `None` where there are none.
    pub(super) fn fleet_status(&self) -> Option<FleetStatus> {
        self.fleet.status()
    }

    /// What came of what the fleet limits, and what is enforced.
    pub(super) fn answer_reading(&self, sender: oneshot::Sender<Reading>) {
        let mut offered = HashMap::new();
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        for (vip, config) in vips.zip(&self.desired.config.vips) {
            if !config.limits.by_kind.values().any(|limit| limit.is_cluster) {
                continue;
            }
            match self.plane.judged(vip.entry.id) {
                Ok(judged) => {
                    let kinds = config.limits.by_kind.iter();
                    for (kind, _) in kinds.filter(|(_, limit)| limit.is_cluster) {
                        offered.insert(key(&vip.name, *kind), judged.offered(*kind));
                    }
                }
                Err(error) => tracing::warn!(
                    vip = vip.name,
                    error = format!("{error:#}"),
                    "what came is not known"
                ),
            }
        }
        if let Some(sources) = &self.fleet.sources {
            let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
            let limits = Limits::new(vips, &self.desired.config);
            if let Err(error) = sources.read(&self.plane, &limits, &mut offered) {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "what came of heavy sources is not known"
                );
            }
        }
        let reading = Reading {
            offered,
            applied: self.fleet.applied,
        };
        drop(sender.send(reading));
    }

    /// Makes the data plane hold what this node may let through.
    pub(super) fn enforce(&mut self, shares: &Shares) {
        if self.fleet.nodes != shares.nodes {
            // For a start without Redis, which must not take the whole limit.
            self.fleet.nodes = shares.nodes;
            self.save_state();
        }
        match self
            .write_parts(&parts(shares))
            .and_then(|()| self.write_own(shares))
        {
            Ok(()) => self.fleet.applied = shares.generation,
            Err(error) => {
                // The next shares come within a period; those that are not applied are told of as such.
                tracing::error!(
                    error = format!("{error:#}"),
                    "the fleet's limits cannot be written"
                );
            }
        }
    }

    fn write_own(&mut self, shares: &Shares) -> anyhow::Result<()> {
        let Some(sources) = &mut self.fleet.sources else {
            return Ok(());
        };
        let vips = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let limits = Limits::new(vips, &self.desired.config);
        sources.enforce(&mut self.plane, &limits, shares)
    }

    fn write_parts(&mut self, parts: &Parts) -> anyhow::Result<()> {
        let cpus = self.plane.cpus();
        let vips = self.wanted.iter_mut().flat_map(|wanted| &mut wanted.vips);
        for (vip, config) in vips.zip(&self.desired.config.vips) {
            if !config.limits.by_kind.values().any(|limit| limit.is_cluster) {
                continue;
            }
            let made = limits(&config.limits, &vip.name, parts, cpus).map(Arc::new);
            if let Some(made) = made.filter(|made| vip.limits.as_ref() != Some(made)) {
                self.plane.set_limits(vip.entry.id, &made)?;
                self.held
                    .record(&Step::Limits(vip.entry.id, Arc::clone(&made)));
                vip.limits = Some(made);
            }
        }
        Ok(())
    }
}

/// A limit's name in the whole fleet.
fn key(vip: &str, kind: Kind) -> Key {
    format!("{vip}/{}", kind.as_str()).into()
}

/// What a configuration wants the fleet to keep. What stands there for a limit of sources is what all of them send: every node
/// asks for it, so that the nodes are counted.
fn wanted(config: &Config) -> Vec<FleetLimit> {
    let of_vip = |vip: &config::Vip| -> Vec<FleetLimit> {
        let kinds = vip.limits.by_kind.iter();
        let limits = kinds
            .filter(|(_, limit)| limit.is_cluster)
            .map(|(kind, limit)| FleetLimit {
                key: key(&vip.name, *kind),
                scope: Scope::Vip,
                rate: Rate::from_thousandths(limit.rate.thousandths()),
                burst: limit.burst,
                largest: if *kind == Kind::Bytes {
                    LONGEST_FRAME
                } else {
                    1
                },
            });
        limits.collect()
    };
    config.vips.iter().flat_map(of_vip).collect()
}

fn parts(shares: &Shares) -> Parts {
    let parts = shares.shares.iter().filter_map(|(key, share)| {
        let (vip, kind) = key.rsplit_once('/')?;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Some((
            (vip.to_owned(), kind),
            (share.rate.thousandths(), share.burst),
        ))
    });
    Parts {
        by_limit: parts.collect(),
        nodes: shares.nodes,
    }
}

/// Whether a limit of a VIP's sources is the whole fleet's.
fn limits_sources(vip: &config::Vip) -> bool {
    let mut limits = vip.limits.by_kind.iter();
    limits.any(|(kind, limit)| kind.is_per_source() && limit.is_cluster)
}
