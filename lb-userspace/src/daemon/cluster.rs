//! The cluster whose Services are served: what of it a daemon begins with, and the task that follows it.

use crate::config::Config;

#[cfg(feature = "kubernetes")]
pub(super) use with::{Start, check};
#[cfg(not(feature = "kubernetes"))]
pub(super) use without::{Start, check};

#[cfg(feature = "kubernetes")]
mod with {
    use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

    use tokio::{sync::watch, task::JoinHandle};

    use super::Config;
    use crate::{
        announce::Owned,
        api::{Handle, KubernetesStatus},
        dataplane::DataPlane,
        kubernetes,
        reconciler::Reconciler,
    };

    /// Whether this weir can do what the configuration wants.
    #[expect(clippy::unnecessary_wraps, reason = "a weir without Kubernetes cannot")]
    pub(in super::super) fn check(_config: &Config) -> anyhow::Result<()> {
        Ok(())
    }

    /// What a daemon begins with.
    pub(in super::super) struct Start {
        start: kubernetes::Start,
        unknown: KubernetesStatus,
    }

    /// What is served already, and will be followed.
    pub(in super::super) struct Begun {
        start: kubernetes::Start,
        /// The addresses of the configuration's own VIPs, and whether this node announces Services.
        node: (
            watch::Receiver<Arc<BTreeSet<IpAddr>>>,
            watch::Receiver<bool>,
        ),
        status: watch::Sender<KubernetesStatus>,
        owned: watch::Sender<Owned>,
    }

    impl Start {
        pub(in super::super) fn new(config: &Config, is_fresh: bool) -> Option<Self> {
            let start = kubernetes::Start::new(config, is_fresh)?;
            Some(Self {
                unknown: KubernetesStatus::unknown(config.kubernetes.as_ref()?),
                start,
            })
        }

        /// Serves what an earlier daemon served.
        pub(in super::super) fn begin<D: DataPlane>(self, reconciler: &mut Reconciler<D>) -> Begun {
            let (status, told) = watch::channel(self.unknown);
            let (owned, receiver) = watch::channel(Owned::default());
            let services = self.start.services();
            tracing::info!(vips = services.len(), "Services of before are served");
            Begun {
                node: reconciler.begin_with(services, (told, receiver)),
                start: self.start,
                status,
                owned,
            }
        }
    }

    impl Begun {
        /// Follows the cluster until `stop` ends.
        pub(in super::super) fn follow(
            self,
            handle: Handle,
            stop: impl Future<Output = ()> + Send + 'static,
        ) -> JoinHandle<()> {
            let Self {
                start,
                node,
                status,
                owned,
            } = self;
            tokio::spawn(kubernetes::run(start, handle, node, (status, owned), stop))
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
mod without {
    use tokio::task::JoinHandle;

    use super::Config;
    use crate::{api::Handle, dataplane::DataPlane, reconciler::Reconciler};

    /// Whether this weir can do what the configuration wants.
    pub(in super::super) fn check(config: &Config) -> anyhow::Result<()> {
        anyhow::ensure!(
            config.kubernetes.is_none(),
            "this weir was built without the feature `kubernetes`: take `[kubernetes]` out, or build one with it"
        );
        Ok(())
    }

    /// There is none.
    pub(in super::super) enum Start {}

    impl Start {
        pub(in super::super) const fn new(_config: &Config, _is_fresh: bool) -> Option<Self> {
            None
        }

        pub(in super::super) fn begin<D: DataPlane>(self, _: &mut Reconciler<D>) -> Self {
            self
        }

        pub(in super::super) fn follow(
            self,
            _handle: Handle,
            _stop: impl Future<Output = ()> + Send + 'static,
        ) -> JoinHandle<()> {
            match self {}
        }
    }
}
