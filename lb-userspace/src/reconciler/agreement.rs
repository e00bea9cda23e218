//! Whether the nodes of the fleet have the same tables: what this node tells of itself, and what it hears of others. The
//! maps know nothing of it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::Reconciler;
use crate::{
    agreement::{AgreementBasis, AgreementStatus, Exchange, Own, Report, VipReport, Way},
    api::{Handle, HandleError},
    config::{self, Config},
    dataplane::DataPlane,
};

/// How long the task that exchanges reports waits for this one, which may be busy with the maps.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the daemon's task has to do with the fleet's agreement.
pub(super) struct FleetAgreement {
    /// Tells this start of the daemon from all others.
    instance: String,
    /// How the task that exchanges reports comes to ask; `None` before the daemon serves.
    handle: Option<Handle>,
    /// With what of the configuration it was started.
    running: Option<(Option<config::Redis>, config::Fleet, Exchange)>,
}

/// Asks the daemon's task for its report.
struct Asking(Handle);

impl Own for Asking {
    async fn report(&self) -> Option<Report> {
        loop {
            match self.0.fleet_report(PATIENCE).await {
                Ok(report) => return Some(report),
                Err(HandleError::Timeout(_)) => {}
                Err(_) => return None,
            }
        }
    }
}

impl FleetAgreement {
    /// Nobody is heard yet.
    pub(super) fn new() -> Self {
        Self {
            instance: format!("{:016x}", RandomState::new().hash_one(())),
            handle: None,
            running: None,
        }
    }

    /// Exchanges reports as a configuration has it.
    fn follow(&mut self, config: &Config) {
        let way = match &config.redis {
            Some(redis) => Some(Way::Redis(redis.endpoint.clone(), redis.fleet.clone())),
            None if config.fleet.peers.is_empty() => None,
            None => Some(Way::Peers(config.fleet.peers.clone())),
        };
        let (Some(way), Some(handle)) = (way, &self.handle) else {
            self.running = None;
            return;
        };
        let is_same = self
            .running
            .as_ref()
            .is_some_and(|(redis, fleet, _)| *redis == config.redis && *fleet == config.fleet);
        if !is_same {
            let exchange = Exchange::start(way, Asking(handle.clone()));
            self.running = Some((config.redis.clone(), config.fleet.clone(), exchange));
        }
    }
}

impl<D: DataPlane> Reconciler<D> {
    /// From now on this node is compared with others, through a task that asks by this handle.
    pub(super) fn compare_by(&mut self, handle: Handle) {
        self.agreement.handle = Some(handle);
        self.follow_agreement();
    }

    /// Exchanges reports as the configuration in force has it.
    pub(super) fn follow_agreement(&mut self) {
        self.agreement.follow(self.desired.file());
    }

    /// What other nodes may know of this one.
    pub(super) fn fleet_report(&self) -> Report {
        let wanted = self.wanted.iter().flat_map(|wanted| &wanted.vips);
        let vips = wanted.zip(&self.desired.config.vips);
        let mut vips: Vec<_> = vips
            .map(|(vip, config)| VipReport {
                name: vip.name.clone(),
                address: config.address,
                port: config.port,
                protocol: config.protocol,
                affinity: config.affinity,
                table_digest: vip.table.digest().to_string(),
                stable: self
                    .held
                    .slots(vip.entry.id)
                    .is_some_and(|slots| slots.is_stable()),
            })
            .collect();
        // Nodes may list their VIPs in any order.
        vips.sort_by_key(|vip| (vip.address, vip.port, vip.protocol));
        Report {
            node: self.desired.config.node.name.clone(),
            instance: self.agreement.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: self.generation,
            vips,
        }
    }

    /// What whoever wants to know whether the fleet has the same tables compares; `None` where nodes are not compared.
    pub(super) fn agreement(&self) -> Option<AgreementBasis> {
        let (.., exchange) = self.agreement.running.as_ref()?;
        Some(AgreementBasis {
            own: self.fleet_report(),
            heard: Arc::clone(&exchange.view.borrow().heard),
        })
    }

    /// In numbers, what came of the last exchange of reports: nothing is compared here, whatever others tell.
    pub(super) fn agreement_status(&self) -> Option<AgreementStatus> {
        let (.., exchange) = self.agreement.running.as_ref()?;
        Some(exchange.view.borrow().summary.status(Instant::now()))
    }
}
