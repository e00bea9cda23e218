//! The task that follows a cluster, against the test API server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cluster::{endpoint, node, pool, service, slice},
    node::{Node, is_kept},
    server::{Server, until},
};

/// How long anything may take on a machine that does much else. Nothing waits so long where it works.
const PATIENCE: Duration = Duration::from_secs(90);

const WEB: &str = "default.web.80-tcp 203.0.113.0:80 10.0.0.11=2 10.0.0.12=1";

/// A pool, two nodes, and the Service `web` with two endpoints on one and one on the other.
pub(crate) async fn cluster() -> Server {
    cluster_on(Server::start().await)
}

/// The same, on a server.
pub(crate) fn cluster_on(server: Server) -> Server {
    server.put("vippools", pool("main", "203.0.113.0/28"));
    server.put("nodes", node("n1", "10.0.0.11"));
    server.put("nodes", node("n2", "10.0.0.12"));
    server.put("services", service("web", "weir.dev/xdp"));
    server.put("endpointslices", slice("web", &three()));
    server
}

fn three() -> [Value; 3] {
    [
        endpoint("10.1.1.1", "n1"),
        endpoint("10.1.1.2", "n1"),
        endpoint("10.1.2.1", "n2"),
    ]
}

async fn serves(node: &Node, wanted: &[&str]) {
    let what = format!("{wanted:?} is served");
    until(&what, PATIENCE, || node.serves() == wanted).await;
}

fn ingress(server: &Server, name: &str) -> Value {
    let service = server.get("services", "default", name).unwrap();
    service["status"]["loadBalancer"]["ingress"].clone()
}

#[tokio::test]
async fn a_service_is_made_scaled_drained_and_deleted() {
    let server = cluster().await;
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    let written =
        json!([{"ip": "203.0.113.0", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}]);
    assert_eq!(ingress(&server, "web"), written);
    until("the assignment is told", PATIENCE, || {
        !server.all("events").is_empty()
    })
    .await;
    let event = &server.all("events")[0];
    assert_eq!(event["reason"], "AddressAssigned");
    assert_eq!(event["regarding"]["name"], "web");
    assert_eq!(event["type"], "Normal");
    until("the pool is counted", PATIENCE, || {
        server.get("vippools", "", "main").unwrap()["status"]
            == json!({"used": 1, "free": 15, "conflicts": []})
    })
    .await;

    let mut endpoints = three().to_vec();
    endpoints.push(endpoint("10.1.2.2", "n2"));
    server.put("endpointslices", slice("web", &endpoints));
    serves(
        &lb,
        &["default.web.80-tcp 203.0.113.0:80 10.0.0.11=2 10.0.0.12=2"],
    )
    .await;

    for draining in &mut endpoints[2..] {
        draining["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    }
    server.put("endpointslices", slice("web", &endpoints));
    serves(
        &lb,
        &["default.web.80-tcp 203.0.113.0:80 10.0.0.11=2 10.0.0.12=0"],
    )
    .await;
    server.put("endpointslices", slice("web", &endpoints[..2]));
    serves(&lb, &["default.web.80-tcp 203.0.113.0:80 10.0.0.11=2"]).await;

    server.remove("services", "default", "web");
    serves(&lb, &[]).await;
    lb.end().await;
    let lease = &server.all("leases")[0];
    assert_eq!(lease["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_foreign_class_is_never_touched_and_a_type_that_changes_is_cleaned_up() {
    let server = cluster().await;
    let mut other = service("other", "example.com/lb");
    other["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.0"}]}});
    server.put("services", other);
    server.put("services", service("classless", "weir.dev/xdp"));
    server.edit("services", "default", "classless", |service| {
        service["spec"]
            .as_object_mut()
            .unwrap()
            .remove("loadBalancerClass");
    });
    let untouched = |name: &str| server.get("services", "default", name).unwrap();
    let before = [untouched("other"), untouched("classless")];
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    server.edit("services", "default", "web", |service| {
        service["spec"]["type"] = json!("ClusterIP");
        service["spec"]
            .as_object_mut()
            .unwrap()
            .remove("loadBalancerClass");
    });
    until("the status is taken back", PATIENCE, || {
        ingress(&server, "web").is_null()
    })
    .await;
    serves(&lb, &[]).await;
    assert_eq!([untouched("other"), untouched("classless")], before);
}

#[tokio::test]
async fn cuts_lost_history_and_absence_change_nothing() {
    let server = cluster().await;
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    until("all is written", PATIENCE, || {
        server.all("events").len() == 1
    })
    .await;
    let turns = lb.turns();

    server.cut();
    server.put("services", service("second", "weir.dev/xdp"));
    until("a watch goes on", PATIENCE, || lb.turns() == turns + 1).await;
    assert_eq!(lb.serves().len(), 2);

    let lists = server.lists("services");
    server.cut();
    server.forget();
    until("all is listed again", PATIENCE, || {
        server.lists("services") > lists
    })
    .await;
    server.go_away(true);
    until("the absence is told", PATIENCE, || !lb.status().connected).await;
    let problems = lb.status().problems;
    assert!(
        problems[0].contains("the API server is away"),
        "{problems:?}"
    );
    until("it writes no more", PATIENCE, || !lb.status().writer).await;
    assert_eq!(lb.turns(), turns + 1);
    // What happens meanwhile is caught up with.
    server.remove("services", "default", "second");
    server.forget();
    server.go_away(false);
    until("it is back", PATIENCE, || {
        lb.status().connected && lb.status().writer
    })
    .await;
    serves(&lb, &[WEB]).await;
    assert_eq!(lb.turns(), turns + 2);
}

#[tokio::test]
async fn a_restart_serves_what_was_served_before_anybody_answers() {
    let server = cluster().await;
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    until("it is kept", PATIENCE, || is_kept(&server, "lb-1")).await;
    lb.kill();
    server.go_away(true);
    let lb = Node::start(&server, "lb-1", "");
    assert_eq!(lb.serves(), [WEB]);
    until("the absence is told", PATIENCE, || {
        !lb.status().problems.is_empty()
    })
    .await;
    server.go_away(false);
    until("all is read", PATIENCE, || {
        lb.status().synced && lb.turns() == 2
    })
    .await;
    assert_eq!(lb.serves(), [WEB]);
    assert_eq!(ingress(&server, "web")[0]["ip"], "203.0.113.0");
}

#[tokio::test]
async fn of_two_nodes_one_writes_and_the_other_takes_over() {
    let server = cluster().await;
    let first = Node::start(&server, "lb-1", "");
    until("the first writes", PATIENCE, || first.status().writer).await;
    let second = Node::start(&server, "lb-2", "");
    serves(&first, &[WEB]).await;
    serves(&second, &[WEB]).await;
    assert!(!second.status().writer);
    // A kill leaves the Lease to run out.
    first.kill();
    until("the second writes", PATIENCE, || second.status().writer).await;
    server.put("services", service("second", "weir.dev/xdp"));
    until("it assigns", PATIENCE, || {
        !ingress(&server, "second").is_null()
    })
    .await;
    assert_eq!(ingress(&server, "second")[0]["ip"], "203.0.113.1");
    assert_eq!(ingress(&server, "web")[0]["ip"], "203.0.113.0");
    assert_eq!(server.writes(), ["lb-1", "lb-2"]);
    // An orderly end lets go of it.
    let third = Node::start(&server, "lb-3", "");
    until("the third follows", PATIENCE, || third.status().synced).await;
    second.end().await;
    until("the third writes", PATIENCE, || third.status().writer).await;
    let lease = server.get("leases", "weir", "weir-writer").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
}

#[tokio::test]
async fn a_conflict_is_tried_again() {
    let server = cluster().await;
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    server.conflict(3);
    server.put("services", service("second", "weir.dev/xdp"));
    until("it is written all the same", PATIENCE, || {
        !ingress(&server, "second").is_null()
    })
    .await;
    until("nothing is wrong", PATIENCE, || {
        lb.status().problems.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_an_event_and_told_once() {
    let server = cluster().await;
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    let mut asks = service("asks", "weir.dev/xdp");
    asks["metadata"]["annotations"] = json!({"weir.dev/addresses": "192.0.2.1"});
    server.put("services", asks);
    let refusals = || {
        let events = server.all("events").into_iter();
        events
            .filter(|event| event["regarding"]["name"] == "asks")
            .collect::<Vec<_>>()
    };
    until("it is told", PATIENCE, || !refusals().is_empty()).await;
    let problems = || lb.status().problems;
    until("the status tells it too", PATIENCE, || {
        problems().len() == 1
    })
    .await;
    assert!(problems()[0].contains("Service default/asks: 192.0.2.1 is refused: rule pool"));
    let turns = lb.turns();
    server.put("services", service("third", "weir.dev/xdp"));
    until("another is served", PATIENCE, || lb.turns() > turns).await;
    assert_eq!(refusals().len(), 1);
    assert_eq!(refusals()[0]["reason"], "AddressNotInPool");
    assert_eq!(refusals()[0]["type"], "Warning");
}

#[tokio::test]
async fn a_cluster_without_the_definition_of_pools_serves_what_has_addresses() {
    let server = cluster().await;
    let mut web = service("web", "weir.dev/xdp");
    web["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.0"}]}});
    server.put("services", web);
    server.lose("vippools");
    let lb = Node::start(&server, "lb-1", "");
    serves(&lb, &[WEB]).await;
    until("it is told", PATIENCE, || {
        lb.status()
            .problems
            .iter()
            .any(|text| text.starts_with("vippools cannot be read"))
    })
    .await;
}

#[tokio::test]
async fn a_thousand_services_of_ten_endpoints() {
    let server = cluster().await;
    server.put("vippools", pool("main", "203.0.112.0/21"));
    for index in 0..1000 {
        let name = format!("s{index}");
        let endpoints =
            (0..10).map(|e| endpoint(&format!("10.2.{e}.{}", index % 250), ["n1", "n2"][e % 2]));
        server.put("services", service(&name, "weir.dev/xdp"));
        server.put(
            "endpointslices",
            slice(&name, &endpoints.collect::<Vec<_>>()),
        );
    }
    let began = std::time::Instant::now();
    let lb = Node::start(&server, "lb-1", "");
    until("all are served", 3 * PATIENCE, || lb.serves().len() == 1001).await;
    let took = began.elapsed();
    let writes = || server.writes().len();
    until("all is written", PATIENCE, || writes() >= 1001).await;
    tracing::info!(
        ?took,
        turns = lb.turns(),
        version = server.version(),
        "a thousand Services served"
    );
}
