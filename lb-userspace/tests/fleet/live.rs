//! Nodes on a real Redis, in real time.

use std::sync::{Arc, Mutex};

use lb_userspace::config::Endpoint;

use crate::{
    node::{LIMIT, Ledger, Node, until},
    server::Server,
};

fn fleet(server: &Server, nodes: usize) -> (Vec<Node>, Arc<Mutex<Ledger>>) {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let nodes = (0..nodes).map(|index| Node::start(server.endpoint(""), index, &ledger));
    (nodes.collect(), ledger)
}

fn alone(endpoint: Endpoint) -> Node {
    Node::start(endpoint, 0, &Arc::new(Mutex::new(Ledger::default())))
}

/// Whether all have a lease of an even share.
fn are_even(nodes: &[Node]) -> bool {
    let part = 100 / nodes.len() as u64;
    nodes.iter().all(|node| node.leased() == Some(part))
}

#[tokio::test]
async fn four_nodes_share_a_limit_and_it_follows_the_load() {
    let server = Server::start();
    let (nodes, ledger) = fleet(&server, 4);
    for node in &nodes {
        node.load(10);
    }
    until("an even lease on every node", || are_even(&nodes)).await;
    for loaded in [0, 2] {
        for (index, node) in nodes.iter().enumerate() {
            node.load(if index == loaded { 10 } else { 0 });
        }
        let node = &nodes[loaded];
        until("nearly all of it where the load is", || {
            node.leased().is_some_and(|part| part >= 97)
        })
        .await;
    }
    // All the while.
    let ledger = ledger.lock().unwrap();
    assert!(ledger.most_leased <= LIMIT.thousandths(), "{ledger:?}");
    let status = nodes[0].status();
    assert!(
        status.is_connected && status.live == 4 && status.leased == 1,
        "{status:?}"
    );
}

#[tokio::test]
async fn redis_dies_and_comes_back_empty() {
    let mut server = Server::start();
    let (nodes, ledger) = fleet(&server, 4);
    nodes[0].load(10);
    until("nearly all of it where the load is", || {
        nodes[0].leased().is_some_and(|part| part >= 97)
    })
    .await;
    *ledger.lock().unwrap() = Ledger::default();
    server.kill();
    until("an even share without Redis", || {
        nodes.iter().all(|node| node.falls_back_to(25))
    })
    .await;
    until("known", || {
        nodes.iter().all(|node| node.error() == Some("connection"))
    })
    .await;
    server.restart();
    until("nearly all of it where the load is", || {
        nodes[0].leased().is_some_and(|part| part >= 97)
    })
    .await;
    let ledger = ledger.lock().unwrap();
    assert!(ledger.most <= LIMIT.thousandths(), "{ledger:?}");
}

#[tokio::test]
async fn a_node_that_goes_leaves_its_share_to_the_others() {
    let server = Server::start();
    let (mut nodes, ledger) = fleet(&server, 2);
    for node in &nodes {
        node.load(10);
    }
    until("an even lease on every node", || are_even(&nodes)).await;
    drop(nodes.pop());
    until("all of it on the other", || are_even(&nodes)).await;
    assert_eq!(nodes[0].status().live, 1);
    // For the fallback it still counts.
    assert_eq!(nodes[0].status().nodes, 4);
    let ledger = ledger.lock().unwrap();
    assert!(ledger.most_leased <= LIMIT.thousandths(), "{ledger:?}");
}

#[tokio::test]
async fn redis_forgets_leases_and_scripts() {
    let server = Server::start();
    let (nodes, ledger) = fleet(&server, 2);
    for node in &nodes {
        node.load(10);
    }
    until("an even lease on every node", || are_even(&nodes)).await;
    let failures = || {
        nodes
            .iter()
            .map(|node| node.status().failures.iter().sum::<u64>())
            .sum::<u64>()
    };
    let before = failures();
    for forget in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"]] {
        server.command(forget);
        let answers = nodes[0].status().answers;
        until("three more answers", || {
            nodes[0].status().answers >= answers + 3
        })
        .await;
        assert!(are_even(&nodes), "{forget:?}");
    }
    assert!(
        failures() == before,
        "a script that is not known costs no turn"
    );
    let ledger = ledger.lock().unwrap();
    assert!(ledger.most_leased <= LIMIT.thousandths(), "{ledger:?}");
}

#[tokio::test]
async fn redis_hangs() {
    let server = Server::start();
    let (nodes, _) = fleet(&server, 2);
    for node in &nodes {
        node.load(10);
    }
    until("an even lease on every node", || are_even(&nodes)).await;
    server.freeze();
    // Four nodes were said to be known at the start, and count for a while.
    until("an even share without Redis", || {
        nodes.iter().all(|node| node.falls_back_to(25))
    })
    .await;
    assert_eq!(nodes[0].error(), Some("timeout"));
    server.thaw();
    until("an even lease on every node", || are_even(&nodes)).await;
    server.command(&["CLIENT", "PAUSE", "2500", "ALL"]);
    until("an even share without Redis", || {
        nodes.iter().all(|node| node.falls_back_to(25))
    })
    .await;
    until("an even lease on every node", || are_even(&nodes)).await;
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_it_needs() {
    let server = Server::start();
    let user = |name: &str, rules: &[&str]| {
        let head = ["ACL", "SETUSER", name, "on", ">do-not-print"];
        server.command(&[&head[..], rules].concat());
        server.endpoint(&format!("?user={name}&pass=do-not-print"))
    };
    let no_scripts = user("a", &["~*", "+@all", "-@scripting"]);
    let no_time = user("b", &["~*", "+@all", "-time"]);
    let no_keys = user("c", &["~other:*", "+@all"]);
    for endpoint in [no_scripts, no_time, no_keys] {
        let node = alone(endpoint);
        node.fails("permission").await;
        let error = node.status().error.as_ref().unwrap().to_string();
        assert!(
            error.contains("+evalsha +eval +get +set +time ~weir:*"),
            "{error}"
        );
        assert!(!error.contains("do-not-print"), "{error}");
        assert!(node.falls_back_to(25));
    }
    let enough = user(
        "d",
        &["+evalsha", "+eval", "+get", "+set", "+time", "~weir:*"],
    );
    let node = alone(enough);
    until("a lease", || node.leased().is_some()).await;
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let server = Server::start_with(&["--requirepass", "other"]);
    for query in ["", "?pass=do-not-print"] {
        let node = alone(server.endpoint(query));
        node.fails("authentication").await;
        let status = format!("{:?}", node.status());
        assert!(!status.contains("do-not-print"), "{status}");
    }
    let node = alone(server.endpoint("?pass=other"));
    until("a lease", || node.leased().is_some()).await;
}

#[tokio::test]
async fn nobody_listens() {
    let mut server = Server::start();
    let node = alone(server.endpoint(""));
    server.kill();
    node.fails("connection").await;
    until("an even share", || node.falls_back_to(25)).await;
}

#[tokio::test]
async fn a_replica_is_told_from_a_master() {
    let server = Server::start();
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let node = alone(server.endpoint(""));
    node.fails("unready").await;
    server.command(&["REPLICAOF", "NO", "ONE"]);
    until("a lease", || node.leased().is_some()).await;
}

/// Nobody's keys are overwritten in silence.
#[tokio::test]
async fn keys_of_somebody_else_are_told() {
    let server = Server::start();
    server.command(&["LPUSH", "weir:{edge}:1:limit:web/packets", "x"]);
    let node = alone(server.endpoint(""));
    node.fails("refused").await;
    let error = node.status().error.as_ref().unwrap().to_string();
    assert!(error.contains("WRONGTYPE"), "{error}");
    // What is not packed counts as nothing.
    server.command(&["SET", "weir:{edge}:1:limit:web/packets", "x"]);
    until("a lease", || node.leased().is_some()).await;
}
