//! Objects as a cluster has them, in JSON.

use serde_json::{Value, json};

/// A Service of type `LoadBalancer` with one port.
pub(crate) fn service(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": class, "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4"], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

/// A ready endpoint on a node.
pub(crate) fn endpoint(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true, "serving": true, "terminating": false}})
}

/// The slice of a Service with one port.
pub(crate) fn slice(service: &str, endpoints: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "default", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A node that is ready.
pub(crate) fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A pool of one prefix.
pub(crate) fn pool(name: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "VipPool", "metadata": {"name": name},
        "spec": {"cidrs": [prefix]},
    })
}
