//! Limits of the whole fleet: what this node leases of them, and how the data plane comes to hold it.
//!
//! The task that leases asks, once a period, what came; its answers change limits in the maps at once, beside
//! reconciles: they come several times a second.

use std::{collections::HashMap, sync::Arc};

use lb_common::limit::Kind;
use tokio::sync::oneshot;

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
#[derive(Debug, Default)]
pub(super) struct FleetLimits {
    /// How the task that leases comes to ask; `None` before the daemon serves.
    handle: Option<Handle>,
    running: Option<(config::Redis, Fleet)>,
    /// The newest shares that the data plane holds.
    applied: u64,
    /// How many nodes the fleet was last known to have; 0 where nobody has counted.
    pub(super) nodes: u32,
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

    /// Waits for shares that are to be enforced.
    pub(super) async fn changed(&mut self) -> Arc<Shares> {
        if let Some((_, fleet)) = &mut self.running
            && fleet.shares.changed().await.is_ok()
        {
            return Arc::clone(&fleet.shares.borrow_and_update());
        }
        std::future::pending().await
    }

    /// What this node may let through.
    pub(super) fn parts(&self) -> Parts {
        let Some((_, fleet)) = &self.running else {
            return Parts::default();
        };
        parts(&fleet.shares.borrow())
    }

    /// Leases what a configuration wants to be kept by the whole fleet, and nothing else.
    fn follow(&mut self, config: &Config) {
        let wanted = wanted(config);
        let Some(redis) = config.redis.as_ref().filter(|_| !wanted.is_empty()) else {
            self.running = None;
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
    /// From now on limits of the whole fleet are leased, through a task that asks by this handle.
    pub(crate) fn lease_by(&mut self, handle: Handle) {
        self.fleet.handle = Some(handle);
        self.fleet.follow(&self.desired.config);
    }

    /// Leases what the configuration in force wants.
    pub(super) fn follow_fleet(&mut self) {
        self.fleet.follow(&self.desired.config);
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
        match self.write_parts(&parts(shares)) {
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

/// What a configuration wants the fleet to keep.
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
    Parts(parts.collect())
}
