//! What the cluster's objects say that matters here, and no more: a node's image list is a hundred times its address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use k8s_openapi::api::{
    core::v1 as core,
    discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice},
};
use kube::ResourceExt as _;

use super::{
    PREFIX, WRITER,
    pools::Selector,
    vip_pool::{PoolStatus, VipPool},
};

/// A namespace and a name in it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything that was read of the cluster, by name, so that the order in which it came is forgotten.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct World {
    /// Services that concern load balancers.
    pub services: BTreeMap<Key, Service>,
    /// `EndpointSlice`s of Services.
    pub slices: BTreeMap<Key, Slice>,
    /// Nodes.
    pub nodes: BTreeMap<String, Node>,
    /// Pools of addresses.
    pub pools: BTreeMap<String, Pool>,
}

/// An IP family.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// Kubernetes' name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A Service.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are what a Service says, each by itself"
)]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// Which of all that had this name.
    pub uid: String,
    /// Grows with every change.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// Whether it is of type `LoadBalancer`, and not being deleted.
    pub is_balanced: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// Those of weir's annotations that it has, without their prefix.
    pub annotations: BTreeMap<String, String>,
    /// Its labels, which pools select by.
    pub labels: BTreeMap<String, String>,
    /// Which pods it selects.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `externalTrafficPolicy: Local`.
    pub is_local: bool,
    /// `healthCheckNodePort`; 0 where it has none.
    pub health_port: u16,
    /// `sessionAffinity: ClientIP`.
    pub is_sticky: bool,
    /// The families that it wants addresses of, in its order.
    pub families: Vec<Family>,
    /// `loadBalancerSourceRanges`.
    pub sources: Vec<String>,
    /// `spec.loadBalancerIP`.
    pub requested: Option<String>,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// Whether weir wrote that status.
    pub is_written: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port {
    /// Its name, which slices tell ports by; empty where it is the only one.
    pub name: String,
    /// What clients dial.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// An address in a Service's status.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ingress {
    /// The address.
    pub ip: String,
    /// `ipMode`.
    pub mode: Option<String>,
    /// Ports and protocols, and what is wrong with them.
    pub ports: Vec<(u16, String, Option<String>)>,
}

/// An `EndpointSlice`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slice {
    /// Whose endpoints.
    pub service: Key,
    /// Of which family.
    pub family: Family,
    /// Names and protocols of its ports.
    pub ports: Vec<(String, String)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Its address: endpoints of one address are one.
    pub address: String,
    /// The node that it is on, if it is known.
    pub node: Option<String>,
    /// Takes new flows.
    pub is_ready: bool,
    /// Serves, and is about to end.
    pub is_draining: bool,
}

/// A node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Node {
    /// Which of all nodes that ever had its name it is.
    pub uid: Option<String>,
    /// Its `InternalIP`s.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether it may never serve: excluded by its label, or about to be taken away.
    pub is_excluded: bool,
    /// Whether it is `Ready`.
    pub is_ready: bool,
}

/// A pool of addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pool {
    /// Its ranges, both ends included, in its order.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    /// Whether Services that ask for no address get one of it.
    pub is_automatic: bool,
    /// Which Services may have addresses of it.
    pub selector: Selector,
    /// The namespaces whose Services may have addresses of it; empty: all.
    pub namespaces: BTreeSet<String>,
    /// What cannot be understood of it.
    pub wrong: Vec<String>,
    /// What its status says now.
    pub status: PoolStatus,
}

fn key(namespace: Option<&String>, name: Option<&String>) -> Option<Key> {
    Some(Key {
        namespace: namespace?.clone(),
        name: name?.clone(),
    })
}

fn u16_of(number: i32) -> Option<u16> {
    u16::try_from(number).ok()
}

impl Service {
    /// What of a Service matters; nothing of one that is no load balancer's and never was weir's.
    #[must_use]
    pub fn read(service: &core::Service) -> Option<(Key, Self)> {
        let meta = &service.metadata;
        let spec = service.spec.as_ref()?;
        let key = key(meta.namespace.as_ref(), meta.name.as_ref())?;
        let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
        let balancer = service
            .status
            .as_ref()
            .and_then(|s| s.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref());
        let ingress: Vec<_> = ingress
            .unwrap_or_default()
            .iter()
            .filter_map(ingress_of)
            .collect();
        let is_written = meta.managed_fields.iter().flatten().any(|entry| {
            entry.manager.as_deref() == Some(WRITER)
                && entry.subresource.as_deref() == Some("status")
        });
        let is_to_be_taken_back = is_written && !ingress.is_empty();
        if !is_balanced && !is_to_be_taken_back {
            return None;
        }
        let annotations = service.annotations().iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(PREFIX)?;
            Some((name.to_owned(), value.clone()))
        });
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                port: u16_of(port.port)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            })
        });
        let families = spec.ip_families.iter().flatten();
        let mut families: Vec<_> = families.filter_map(|text| Family::parse(text)).collect();
        if families.is_empty() {
            families.push(Family::V4);
        }
        Some((
            key,
            Self {
                uid: meta.uid.clone().unwrap_or_default(),
                version: meta.resource_version.clone().unwrap_or_default(),
                created: service
                    .creation_timestamp()
                    .map_or(0, |time| time.0.as_second()),
                is_balanced: is_balanced && meta.deletion_timestamp.is_none(),
                class: spec.load_balancer_class.clone(),
                annotations: annotations.collect(),
                labels: service.labels().clone(),
                selector: spec.selector.clone().unwrap_or_default(),
                ports: ports.collect(),
                is_local: spec.external_traffic_policy.as_deref() == Some("Local"),
                health_port: spec.health_check_node_port.and_then(u16_of).unwrap_or(0),
                is_sticky: spec.session_affinity.as_deref() == Some("ClientIP"),
                families,
                sources: spec.load_balancer_source_ranges.clone().unwrap_or_default(),
                requested: spec
                    .load_balancer_ip
                    .clone()
                    .filter(|text| !text.is_empty()),
                ingress,
                is_written,
            },
        ))
    }
}

fn ingress_of(ingress: &core::LoadBalancerIngress) -> Option<Ingress> {
    let ports = ingress.ports.iter().flatten().filter_map(|port| {
        Some((
            u16_of(port.port)?,
            port.protocol.clone(),
            port.error.clone(),
        ))
    });
    Some(Ingress {
        ip: ingress.ip.clone()?,
        mode: ingress.ip_mode.clone(),
        ports: ports.collect(),
    })
}

impl Slice {
    /// What of a slice matters; nothing of one of no Service, or of names.
    #[must_use]
    pub fn read(slice: &EndpointSlice) -> Option<(Key, Self)> {
        let meta = &slice.metadata;
        let own = key(meta.namespace.as_ref(), meta.name.as_ref())?;
        let service = key(
            meta.namespace.as_ref(),
            slice.labels().get("kubernetes.io/service-name"),
        )?;
        let ports = slice.ports.iter().flatten().map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            )
        });
        Some((
            own,
            Self {
                service,
                family: Family::parse(&slice.address_type)?,
                ports: ports.collect(),
                endpoints: slice.endpoints.iter().filter_map(Endpoint::read).collect(),
            },
        ))
    }
}

impl Endpoint {
    /// kube-proxy's rules: ready unless it says otherwise, serving as ready unless it says otherwise, and terminating only if it says so.
    fn read(endpoint: &ApiEndpoint) -> Option<Self> {
        let conditions = endpoint.conditions.as_ref();
        let is_ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let is_serving = conditions.and_then(|c| c.serving).unwrap_or(is_ready);
        let is_terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
        Some(Self {
            address: endpoint.addresses.first()?.clone(),
            node: endpoint.node_name.clone(),
            is_ready,
            is_draining: is_serving && is_terminating,
        })
    }
}

impl Node {
    /// What of a node matters.
    #[must_use]
    pub fn read(node: &core::Node) -> Option<(String, Self)> {
        let status = node.status.as_ref();
        let addresses = status.and_then(|status| status.addresses.as_deref());
        let addresses = addresses.unwrap_or_default().iter();
        let addresses = addresses.filter(|address| address.type_ == "InternalIP");
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        let is_dying = taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler");
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let is_excluded = node
            .labels()
            .contains_key("node.kubernetes.io/exclude-from-external-load-balancers");
        Some((
            node.metadata.name.clone()?,
            Self {
                uid: node.metadata.uid.clone(),
                addresses: addresses.filter_map(|a| a.address.parse().ok()).collect(),
                is_excluded: is_excluded || is_dying || node.metadata.deletion_timestamp.is_some(),
                is_ready: conditions
                    .unwrap_or_default()
                    .iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            },
        ))
    }
}

impl Pool {
    /// What of a pool matters.
    #[must_use]
    pub fn read(pool: &VipPool) -> Option<(String, Self)> {
        let spec = &pool.spec;
        let mut wrong = Vec::new();
        let mut ranges = Vec::new();
        for text in &spec.cidrs {
            match super::pools::cidr(text, spec.avoid_first_last) {
                Some(range) => ranges.push(range),
                None => wrong.push(format!("{text:?} is no CIDR")),
            }
        }
        for range in &spec.ranges {
            match super::pools::range(&range.first, &range.last) {
                Some(range) => ranges.push(range),
                None => wrong.push(format!("{:?} to {:?} is no range", range.first, range.last)),
            }
        }
        Some((
            pool.metadata.name.clone()?,
            Self {
                ranges,
                is_automatic: spec.auto_assign,
                selector: spec.service_selector.clone().unwrap_or_default(),
                namespaces: spec.namespaces.iter().cloned().collect(),
                wrong,
                status: pool.status.clone().unwrap_or_default(),
            },
        ))
    }
}
