//! What the operator wants, all of it: exchanged as a whole, so that a change is made or not made.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::{
    announce::Commands,
    config::{Backend, Config},
    model::{
        blocks::Blocks,
        overrides::{BackendName, Override, Overrides},
        seed::Keys,
        services::Services,
    },
};

/// The configuration, commands, and what follows from them.
#[derive(Clone)]
pub(super) struct Desired {
    /// The configuration as it was read.
    read: Config,
    /// What Services add to it.
    services: Services,
    /// Why some of that is not served.
    refused: Vec<String>,
    /// The two together.
    file: Config,
    /// What commands have changed of it.
    overrides: Overrides,
    /// Whom commands block.
    blocks: Arc<Blocks>,
    /// Whether a command withdraws every address of this node.
    is_node_drained: bool,
    /// Which addresses commands have announced, or not.
    announce: Commands,
    /// The configuration as it counts.
    pub(super) config: Config,
    /// Keys from the fleet's seed.
    pub(super) keys: Keys,
}

impl Desired {
    pub(super) fn new(
        read: Config,
        services: Services,
        overrides: Overrides,
        blocks: Arc<Blocks>,
        is_node_drained: bool,
        announce: Commands,
    ) -> Self {
        let (file, refused) = services.beside(&read);
        Self {
            config: overrides.apply(&file),
            keys: Keys::derive(file.node.seed.expose()),
            read,
            services,
            refused,
            file,
            overrides,
            blocks,
            is_node_drained,
            announce,
        }
    }

    /// The same configuration under other overrides.
    pub(super) fn with_overrides(&self, overrides: Overrides) -> Self {
        Self {
            config: overrides.apply(&self.file),
            overrides,
            ..self.clone()
        }
    }

    /// The same, with other blocks.
    pub(super) fn with_blocks(&self, blocks: Arc<Blocks>) -> Self {
        Self {
            blocks,
            ..self.clone()
        }
    }

    /// The same, drained or not.
    pub(super) fn with_node_drained(&self, is_node_drained: bool) -> Self {
        Self {
            is_node_drained,
            ..self.clone()
        }
    }

    /// The same, with other announcements.
    pub(super) fn with_announce(&self, announce: Commands) -> Self {
        Self {
            announce,
            ..self.clone()
        }
    }

    /// Another configuration under the same overrides.
    pub(super) fn with_file(&self, read: Config) -> Self {
        let services = self.services.clone();
        Self::new(
            read,
            services,
            self.overrides.clone(),
            Arc::clone(&self.blocks),
            self.is_node_drained,
            self.announce.clone(),
        )
    }

    /// The same configuration, with other VIPs of Services.
    pub(super) fn with_services(&self, services: Services) -> Self {
        let read = self.read.clone();
        Self::new(
            read,
            services,
            self.overrides.clone(),
            Arc::clone(&self.blocks),
            self.is_node_drained,
            self.announce.clone(),
        )
    }

    /// The configuration as it was read, without what Services add to it.
    pub(super) const fn read(&self) -> &Config {
        &self.read
    }

    /// What Services add to it.
    pub(super) const fn services(&self) -> &Services {
        &self.services
    }

    /// Why some of what Services want is not served.
    pub(super) fn refused(&self) -> &[String] {
        &self.refused
    }

    /// The configuration as it was read, with the VIPs of Services behind its own.
    pub(super) const fn file(&self) -> &Config {
        &self.file
    }

    pub(super) const fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    pub(super) const fn blocks(&self) -> &Arc<Blocks> {
        &self.blocks
    }

    /// Whether a command withdraws every address of this node.
    pub(super) const fn is_node_drained(&self) -> bool {
        self.is_node_drained
    }

    /// Which addresses commands have announced, or not.
    pub(super) const fn announce(&self) -> &Commands {
        &self.announce
    }

    /// The backends whose way the network must tell.
    pub(super) fn watched(&self) -> BTreeSet<IpAddr> {
        let backends = self.config.vips.iter().flat_map(|vip| &vip.backends);
        let unknown = backends.filter(|backend| backend.mac.is_none());
        unknown.map(|backend| backend.address).collect()
    }

    /// Whether the configuration has a backend.
    pub(super) fn has(&self, name: &BackendName) -> bool {
        let vip = self.file.vips.iter().find(|vip| vip.name == name.vip);
        vip.is_some_and(|vip| vip.backends.iter().any(|b| b.address == name.backend))
    }

    /// Overrides of backends that the configuration does not have.
    pub(super) fn idle_overrides(&self) -> impl Iterator<Item = (&BackendName, Override)> {
        self.overrides.iter().filter(|(name, _)| !self.has(name))
    }

    /// Each VIP's backends as the configuration has them, and what commands have changed of them, in its order.
    pub(super) fn backends(&self) -> impl Iterator<Item = Vec<(&Backend, Override)>> {
        self.file.vips.iter().map(|vip| {
            let backends = vip.backends.iter().map(|backend| {
                let name = BackendName {
                    vip: vip.name.clone(),
                    backend: backend.address,
                };
                (backend, self.overrides.get(&name))
            });
            backends.collect()
        })
    }
}
