//! deploy/kubernetes: the definition of pools is made of the code, the rights are those of the calls, and the
//! configuration is one. What Kubernetes and Helm say of it is asked in xtask/tests/manifests.rs.
//!
//! `WEIR_UPDATE_EXPECTED=1 cargo test -p lb-userspace --test kubernetes` writes the definition anew.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use lb_userspace::{
    config::{Config, OnExit},
    kubernetes::vip_pool::definition,
};
use serde_json::{Value, json};

use crate::{
    cluster::service,
    follow::cluster,
    node::Node,
    server::{Call, until},
};

/// The definition of pools, once for each way to install it.
const DEFINITIONS: [&str; 2] = ["base/crd.yaml", "chart/crds/vippools.yaml"];

fn path(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../deploy/kubernetes").join(name)
}

#[test]
fn the_definition_of_pools_is_the_codes() {
    const HEAD: &str = "# Made from lb-userspace/src/kubernetes/vip_pool.rs: WEIR_UPDATE_EXPECTED=1 cargo test -p lb-userspace --test kubernetes\n";
    let wanted = definition();
    if std::env::var_os("WEIR_UPDATE_EXPECTED").is_some() {
        let text = serde_saphyr::to_string(&wanted).unwrap();
        for file in DEFINITIONS {
            fs::write(path(file), format!("{HEAD}{text}")).unwrap();
        }
    }
    for file in DEFINITIONS {
        let text = fs::read_to_string(path(file)).unwrap();
        let found: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(found, wanted, "{file}");
    }
}

/// What the manifests configure is read as the daemon reads it.
#[test]
fn the_configurations_are_valid() {
    for file in ["base", "overlays/ipip", "overlays/monitoring"] {
        let text = fs::read_to_string(path(&format!("{file}/config.yaml"))).unwrap();
        let map: Value = serde_saphyr::from_str(&text).unwrap();
        let text = map["data"]["weir.toml"].as_str().unwrap();
        let seed = "seed_file      = \"/etc/weir-seed/seed\"";
        assert!(text.contains(seed), "{text}");
        // The addresses come with the environment of the pod.
        let text = text.replace(seed, "seed = \"x\"\nencap_source = [\"10.0.0.1\"]");
        let config = Config::parse(&text, "weir.toml").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.node.on_exit, OnExit::Keep);
        assert_eq!(config.kubernetes.unwrap().class, "weir.dev/xdp");
    }
}

/// What the roles allow.
fn allowed() -> BTreeSet<Call> {
    let text = fs::read_to_string(path("base/rbac.yaml")).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let strings = |value: &Value| -> Vec<String> {
        let items = value.as_array().unwrap().iter();
        items
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let mut allowed = BTreeSet::new();
    for rule in documents
        .iter()
        .filter_map(|document| document["rules"].as_array())
        .flatten()
    {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    allowed.insert((verb, group.clone(), resource.clone()));
                }
            }
        }
    }
    allowed
}

#[tokio::test]
async fn the_rights_are_what_is_called_and_no_more() {
    let server = cluster().await;
    let mut asks = service("asks", "weir.dev/xdp");
    asks["metadata"]["annotations"] = json!({"weir.dev/addresses": "192.0.2.1"});
    server.put("services", asks);
    let lb = Node::start(&server, "lb-1", "announce = \"l2\"\n");
    let allowed = allowed();
    let what = format!("all of {allowed:?} is called");
    until(&what, Duration::from_secs(90), || {
        server.calls().is_superset(&allowed)
    })
    .await;
    lb.end().await;
    assert_eq!(server.calls(), allowed);
}
