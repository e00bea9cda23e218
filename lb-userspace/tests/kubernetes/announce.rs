//! One owner for each address, as several nodes agree on it through the test API server.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use lb_userspace::announce::{HANDOVER, TERM};
use serde_json::json;

use crate::{
    follow::cluster,
    node::Node,
    server::{Server, until},
};

const PATIENCE: Duration = Duration::from_mins(1);
/// What a loaded machine may take from an end to being seen.
const SLACK: Duration = Duration::from_secs(1);
const ANNOUNCED: &str = "announce = \"l2\"\n";

/// A cluster with the addresses 203.0.113.0 to 203.0.113.15.
async fn many() -> (Server, Vec<IpAddr>) {
    let server = cluster().await;
    for number in 0..15 {
        let name = format!("more-{number:02}");
        server.put("services", crate::cluster::service(&name, "weir.dev/xdp"));
    }
    let addresses = (0..16).map(|last| IpAddr::from([203, 0, 113, last]));
    (server, addresses.collect())
}

/// How many addresses each node announces; no two the same.
fn shares(nodes: &[&Node], addresses: &[IpAddr]) -> Vec<usize> {
    let owned: Vec<BTreeSet<_>> = nodes
        .iter()
        .map(|node| {
            let own = addresses.iter().filter(|address| node.announces(**address));
            own.copied().collect()
        })
        .collect();
    for address in addresses {
        let owners = owned.iter().filter(|own| own.contains(address)).count();
        assert!(owners < 2, "{address} has {owners} owners");
    }
    owned.iter().map(BTreeSet::len).collect()
}

#[tokio::test]
async fn every_address_has_one_owner_and_a_node_that_dies_leaves_its_own_to_the_other() {
    let (server, addresses) = many().await;
    let first = Node::start(&server, "lb-1", ANNOUNCED);
    until("the one node announces everything", PATIENCE, || {
        shares(&[&first], &addresses) == [16]
    })
    .await;
    server.put("nodes", crate::cluster::node("lb-2", "10.0.0.2"));
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    until("the two share it", PATIENCE, || {
        let shares = shares(&[&first, &second], &addresses);
        shares.iter().sum::<usize>() == 16 && shares.iter().all(|share| *share > 0)
    })
    .await;
    eprintln!("shares: {:?}", shares(&[&first, &second], &addresses));
    assert_eq!(second.status().announcers, ["lb-1", "lb-2"]);
    let lease = server.get("leases", "weir", "weir-node-lb-2").unwrap();
    assert_eq!(
        lease["metadata"]["labels"]["weir.dev/group"],
        json!("weir-writer")
    );
    assert_eq!(lease["spec"]["holderIdentity"], json!("lb-2"));
    // The cluster takes it away with the Node that it is of; the first one is of none.
    let node = server.get("nodes", "", "lb-2").unwrap();
    assert_eq!(
        lease["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Node", "name": "lb-2", "uid": node["metadata"]["uid"]}])
    );
    assert!(node["metadata"]["uid"].is_string());
    let lease = server.get("leases", "weir", "weir-node-lb-1").unwrap();
    assert_eq!(lease["metadata"].get("ownerReferences"), None);

    second.kill();
    let died = Instant::now();
    until(
        "the first announces everything",
        Duration::from_secs(20),
        || shares(&[&first], &addresses) == [16],
    )
    .await;
    eprintln!("taken over {:?} after the death", died.elapsed());

    // Who ends in order lets go at once: nobody waits for the end of its Lease.
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    until("the two share it again", PATIENCE, || {
        let shares = shares(&[&first, &second], &addresses);
        shares.iter().sum::<usize>() == 16 && shares.iter().all(|share| *share > 0)
    })
    .await;
    second.end().await;
    let lease = server.get("leases", "weir", "weir-node-lb-2").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], json!(""));
    let ended = Instant::now();
    until(
        "the first announces everything",
        Duration::from_secs(20),
        || shares(&[&first], &addresses) == [16],
    )
    .await;
    eprintln!("taken over {:?} after the end", ended.elapsed());
    first.end().await;
}

/// Looks at the shares until something is so of them; returns the longest time for which somebody did not announce what somebody
/// should, and for which two announced the same.
async fn watched(
    nodes: &[&Node],
    addresses: &[IpAddr],
    is_so: impl Fn(&[usize]) -> bool,
) -> (Duration, Duration) {
    let begun = Instant::now();
    let (mut nobody, mut two) = (Duration::ZERO, Duration::ZERO);
    let mut since = [begun; 2];
    loop {
        let now = Instant::now();
        let owners = addresses.iter().map(|address| {
            let owners = nodes.iter().filter(|node| node.announces(*address));
            owners.count()
        });
        let owners: Vec<_> = owners.collect();
        let [free, shared] = &mut since;
        if owners.contains(&0) {
            nobody = nobody.max(now - *free);
        } else {
            *free = now;
        }
        if owners.iter().any(|owners| *owners > 1) {
            two = two.max(now - *shared);
        } else {
            *shared = now;
        }
        let counts = nodes.iter().map(|node| {
            let own = addresses.iter().filter(|address| node.announces(**address));
            own.count()
        });
        if is_so(&counts.collect::<Vec<_>>()) {
            return (nobody, two);
        }
        assert!(begun.elapsed() < PATIENCE, "still {owners:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_node_that_is_drained_gives_its_share_away_without_a_gap() {
    let (server, addresses) = many().await;
    let first = Node::start(&server, "lb-1", ANNOUNCED);
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    let both = [&first, &second];
    let are_shared = |shares: &[usize]| {
        shares.iter().sum::<usize>() == 16 && shares.iter().all(|share| *share > 0)
    };
    watched(&both, &addresses, are_shared).await;

    second.is_willing(false);
    let begun = Instant::now();
    let (nobody, two) = watched(&both, &addresses, |shares| shares == [16, 0]).await;
    eprintln!(
        "given away in {:?}: {two:?} with two answers, {nobody:?} with none",
        begun.elapsed()
    );
    assert_eq!(nobody, Duration::ZERO);
    assert!(two <= HANDOVER + SLACK, "{two:?}");
    let lease = || server.get("leases", "weir", "weir-node-lb-2").unwrap();
    assert_eq!(lease()["spec"]["holderIdentity"], json!(""));
    let is_told = |node: &Node, wanted: &[&str]| node.status().announcers == wanted;
    until("both tell who is left", PATIENCE, || {
        both.iter().all(|node| is_told(node, &["lb-1"]))
    })
    .await;
    assert!(second.status().problems.is_empty());

    // The last one, too, does as it was told; the status says what that means.
    first.is_willing(false);
    watched(&both, &addresses, |shares| shares == [0, 0]).await;
    let is_problem = |node: &Node| {
        let problems = node.status().problems;
        problems
            .iter()
            .any(|text| text.contains("nobody announces Services"))
    };
    until("that nobody announces is told", PATIENCE, || {
        both.iter().all(|node| is_problem(node))
    })
    .await;

    first.is_willing(true);
    watched(&both, &addresses, |shares| shares == [16, 0]).await;
    second.is_willing(true);
    let begun = Instant::now();
    let (nobody, two) = watched(&both, &addresses, |shares| {
        are_shared(shares) && shares[1] > 0
    })
    .await;
    eprintln!(
        "taken again in {:?}: {two:?} with two answers",
        begun.elapsed()
    );
    assert_eq!(two, Duration::ZERO);
    // The look that does not find the newcomer's Lease yet comes up to 2 s before it.
    eprintln!("{nobody:?} with none");
    assert!(nobody <= Duration::from_secs(2) + SLACK, "{nobody:?}");
    assert_eq!(lease()["spec"]["holderIdentity"], json!("lb-2"));
    until("the problem is gone", PATIENCE, || {
        !both.iter().any(|node| is_problem(node))
    })
    .await;
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn who_is_back_before_the_others_look_is_missed_for_no_longer_than_a_look() {
    const GAP: Duration = Duration::from_secs(2).saturating_add(SLACK);
    let (server, addresses) = many().await;
    let first = Node::start(&server, "lb-1", ANNOUNCED);
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    let are_shared = |shares: &[usize]| {
        shares.iter().sum::<usize>() == 16 && shares.iter().all(|share| *share > 0)
    };
    // Until the one that is back has been replaced, and until it announces again.
    let comes_back = async |second: &Node, how: &str| {
        let both = [&first, second];
        let (away, _) = watched(&both, &addresses, |shares| shares == [16, 0]).await;
        let (back, two) = watched(&both, &addresses, are_shared).await;
        eprintln!("{how}: {away:?}, then {back:?} with nobody");
        assert!(away <= GAP && back <= GAP, "{how}: {away:?}, {back:?}");
        assert_eq!(two, Duration::ZERO, "{how}");
    };
    watched(&[&first, &second], &addresses, are_shared).await;

    second.is_willing(false);
    let lease = || server.get("leases", "weir", "weir-node-lb-2").unwrap();
    until("it lets go", PATIENCE, || {
        lease()["spec"]["holderIdentity"] == json!("")
    })
    .await;
    second.is_willing(true);
    comes_back(&second, "drained for a moment").await;

    second.kill();
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    comes_back(&second, "killed and started again").await;
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn who_cannot_serve_yet_takes_no_share() {
    let (server, addresses) = many().await;
    let first = Node::start(&server, "lb-1", ANNOUNCED);
    until("the one node announces everything", PATIENCE, || {
        shares(&[&first], &addresses) == [16]
    })
    .await;
    server.lose("nodes");
    let second = Node::start(&server, "lb-2", ANNOUNCED);
    until("it cannot read everything", PATIENCE, || {
        let problems = second.status().problems;
        problems
            .iter()
            .any(|text| text.contains("nodes cannot be read"))
    })
    .await;
    // Longer than the first would wait for one that comes.
    let begun = Instant::now();
    let (nobody, _) = watched(&[&first, &second], &addresses, |_| {
        begun.elapsed() > TERM + SLACK
    })
    .await;
    assert_eq!(nobody, Duration::ZERO);
    assert_eq!(shares(&[&first, &second], &addresses), [16, 0]);
    assert!(server.get("leases", "weir", "weir-node-lb-2").is_none());
    assert!(!second.status().synced);
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_node_that_begins_drained_lets_go_of_what_an_earlier_daemon_held() {
    let (server, addresses) = many().await;
    let node = Node::start(&server, "lb-1", ANNOUNCED);
    until("it announces everything", PATIENCE, || {
        shares(&[&node], &addresses) == [16]
    })
    .await;
    node.kill();
    let node = Node::start_drained(&server, "lb-1", ANNOUNCED);
    let lease = || server.get("leases", "weir", "weir-node-lb-1").unwrap();
    until("it lets go", PATIENCE, || {
        lease()["spec"]["holderIdentity"] == json!("")
    })
    .await;
    until("it serves everything", PATIENCE, || {
        node.serves().len() == 16
    })
    .await;
    assert_eq!(shares(&[&node], &addresses), [0]);
    node.end().await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_falls_silent_before_its_lease_ends() {
    let (server, addresses) = many().await;
    let node = Node::start(&server, "lb-1", ANNOUNCED);
    until("it announces everything", PATIENCE, || {
        shares(&[&node], &addresses) == [16]
    })
    .await;
    server.go_away(true);
    // Renewed a moment ago at the latest.
    let cut = Instant::now();
    until("it is silent", Duration::from_secs(10), || {
        shares(&[&node], &addresses) == [0]
    })
    .await;
    eprintln!("silent {:?} after the API server went", cut.elapsed());
    server.go_away(false);
    until("it announces everything again", PATIENCE, || {
        shares(&[&node], &addresses) == [16]
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn who_is_not_to_announce_holds_no_lease_and_owns_nothing() {
    let (server, addresses) = many().await;
    let node = Node::start(&server, "lb-1", "");
    until("it serves everything", PATIENCE, || {
        node.serves().len() == 16
    })
    .await;
    assert_eq!(shares(&[&node], &addresses), [0]);
    assert!(server.get("leases", "weir", "weir-node-lb-1").is_none());
    assert!(node.status().announcers.is_empty());
    node.end().await;
}
