//! `VipPool`: addresses that Services may have. Cluster-scoped; the API server itself refuses what makes no sense.

use std::borrow::Cow;

use k8s_openapi::{ClusterResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pools::Selector;

/// Group of weir's own kinds.
pub const GROUP: &str = "weir.dev";

/// Version of weir's own kinds.
pub const VERSION: &str = "v1alpha1";

/// A pool of addresses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VipPool {
    /// Its name, and what the cluster knows of it.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: PoolSpec,
    /// What has become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PoolStatus>,
}

/// What a pool holds, and for whom.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolSpec {
    /// Prefixes.
    pub cidrs: Vec<String>,
    /// Ranges that are no prefixes.
    pub ranges: Vec<PoolRange>,
    /// Whether Services that ask for no address get one of it.
    pub auto_assign: bool,
    /// Whether the first and the last address of each IPv4 prefix stay free, where it has more than two.
    pub avoid_first_last: bool,
    /// Which Services may have addresses of it; all where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_selector: Option<Selector>,
    /// The namespaces whose Services may have addresses of it; all where there are none.
    pub namespaces: Vec<String>,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            cidrs: Vec::new(),
            ranges: Vec::new(),
            auto_assign: true,
            avoid_first_last: false,
            service_selector: None,
            namespaces: Vec::new(),
        }
    }
}

/// Addresses from the first to the last.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PoolRange {
    /// The first address.
    pub first: String,
    /// The last address, of the same family.
    pub last: String,
}

/// What has become of a pool.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct PoolStatus {
    /// Addresses that Services have.
    pub used: i64,
    /// Addresses that are left; at most 2^53, which is as far as JSON counts.
    pub free: i64,
    /// What is wrong with it, or stands against another pool.
    pub conflicts: Vec<String>,
}

impl kube::Resource for VipPool {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "VipPool".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "vippools".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The definition that a cluster needs before it can have pools, as deploy/kubernetes/crd.yaml has it.
#[must_use]
pub fn definition() -> Value {
    let (spec, status) = (spec_schema(), status_schema());
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("vippools.{GROUP}")},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": "VipPool", "listKind": "VipPoolList", "plural": "vippools", "singular": "vippool"},
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Auto", "boolean", ".spec.autoAssign"),
                    column("Used", "integer", ".status.used"),
                    column("Free", "integer", ".status.free"),
                    column("Conflicts", "string", ".status.conflicts"),
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A pool of addresses for Services of type LoadBalancer that weir serves.",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec,
                        "status": status,
                    },
                }},
            }],
        },
    })
}

/// What the API server takes as a spec.
fn spec_schema() -> Value {
    let family = |text: &str| format!("ip({text}).family()");
    let strings = |description: &str, item: Value| json!({"type": "array", "description": description, "maxItems": 256, "items": item});
    let texts = |limit: u32| json!({"type": "array", "maxItems": limit, "items": {"type": "string", "maxLength": 253}});
    json!({
        "type": "object",
        "description": "Addresses that Services of type LoadBalancer may have.",
        "x-kubernetes-validations": [{
            "rule": "size(self.cidrs) + size(self.ranges) > 0",
            "message": "a pool needs one of cidrs and ranges",
        }],
        "properties": {
            "cidrs": with(strings("Prefixes, as 203.0.113.0/28 or 2001:db8::/112.", json!({
                "type": "string",
                "maxLength": 43,
                "x-kubernetes-validations": [{
                    "rule": "isCIDR(self) && cidr(self) == cidr(self).masked()",
                    "message": "must be a prefix without host bits, as 203.0.113.0/28",
                }],
            })), "default", json!([])),
            "ranges": with(strings("Addresses from first to last, both included.", json!({
                "type": "object",
                "required": ["first", "last"],
                "properties": {
                    "first": {"type": "string", "maxLength": 39},
                    "last": {"type": "string", "maxLength": 39},
                },
                "x-kubernetes-validations": [{
                    "rule": format!(
                        "isIP(self.first) && isIP(self.last) && {} == {}",
                        family("self.first"),
                        family("self.last"),
                    ),
                    "message": "first and last must be addresses of one family",
                }],
            })), "default", json!([])),
            "autoAssign": {
                "type": "boolean",
                "default": true,
                "description": "Whether Services that ask for no address get one of this pool.",
            },
            "avoidFirstLast": {
                "type": "boolean",
                "default": false,
                "description": "Whether the first and the last address of each IPv4 prefix stay free.",
            },
            "serviceSelector": {
                "type": "object",
                "description": "Which Services may have addresses of this pool, by their labels; without it all.",
                "properties": {
                    "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "matchExpressions": {
                        "type": "array",
                        "maxItems": 64,
                        "items": {
                            "type": "object",
                            "required": ["key", "operator"],
                            "properties": {
                                "key": {"type": "string", "maxLength": 317},
                                "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                                "values": texts(64),
                            },
                            "x-kubernetes-validations": [{
                                "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                                "message": "In and NotIn need values, Exists and DoesNotExist have none",
                            }],
                        },
                    },
                },
            },
            "namespaces": with(with(texts(256), "default", json!([])), "description",
                json!("The namespaces whose Services may have addresses of this pool; without them all.")),
        },
    })
}

fn status_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "used": {"type": "integer", "format": "int64", "description": "Addresses that Services have."},
            "free": {"type": "integer", "format": "int64", "description": "Addresses that are left."},
            "conflicts": {
                "type": "array",
                "description": "What is wrong with the pool, or stands against another one.",
                "items": {"type": "string"},
            },
        },
    })
}

fn with(mut value: Value, key: &str, what: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), what);
    }
    value
}
