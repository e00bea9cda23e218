//! What a status tells of the cluster whose Services are served (docs/kubernetes.md).

use serde::{Deserialize, Serialize};

use crate::config::Kubernetes;

/// How this node stands with its cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct KubernetesStatus {
    /// The `loadBalancerClass` of the Services that are served.
    pub class: String,
    /// This node's name in the cluster.
    pub node: String,
    /// Whether the API server answered the last time that it was asked, which is every two seconds.
    pub connected: bool,
    /// Whether Services, slices and nodes have all been read since the daemon started; until then what an earlier one served is.
    pub synced: bool,
    /// Whether this node is the one that writes statuses and Events.
    pub writer: bool,
    /// The nodes that share the announcing of Services' addresses out: this one too, unless it has given its share away; none where
    /// they are not announced.
    #[serde(default)]
    pub announcers: Vec<String>,
    /// What has been read.
    pub objects: Vec<ObjectCount>,
    /// What an operator should know.
    pub problems: Vec<String>,
}

/// How many objects of a kind matter here.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ObjectCount {
    /// `services`, `endpointslices`, `nodes` or `vippools`.
    pub kind: String,
    /// How many.
    pub objects: u64,
}

impl KubernetesStatus {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown(settings: &Kubernetes) -> Self {
        Self {
            class: settings.class.clone(),
            node: settings.node.clone(),
            ..Self::default()
        }
    }

    /// Nobody can be asked.
    #[must_use]
    pub fn away(settings: &Kubernetes, problem: String) -> Self {
        Self {
            problems: vec![problem],
            ..Self::unknown(settings)
        }
    }
}
