//! Next hops from the kernel's own routes and neighbours, in network namespaces. Needs root.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod netns;

use std::{fmt::Write as _, net::IpAddr, sync::Arc, time::Duration};

use lb_userspace::neighbours::{Neighbours, NextHop, Problem, Snapshot};
use netns::{Namespace, join};
use tokio::{sync::watch, time::timeout};

const V4: &str = "10.0.0.2";
const V6: &str = "2001:db8::2";

#[test]
fn resolves_what_is_on_the_link_and_follows_its_mac_address() {
    let (lb, peer) = pair();
    // The peer tells at once that its MAC address is another.
    peer.sysctl("ipv4/conf/eth0/arp_notify", "1");
    peer.sysctl("ipv6/conf/eth0/ndisc_notify", "1");
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([address(V4), address(V6)].into());
        let (own, first) = (mac(&lb, "eth0"), mac(&peer, "eth0"));
        for to in [V4, V6] {
            let hop = resolved(&mut snapshots, to, first).await;
            assert_eq!(hop.gateway, address(to));
            assert_eq!(hop.mac_source, own);
            let ifindex = hop.ifindex;
            assert_eq!(snapshots.borrow().links[&ifindex].name, "eth0");
        }
        assert!(snapshots.borrow().problems.is_empty());
        peer.ip("link set eth0 address 02:00:00:00:00:77");
        for to in [V4, V6] {
            resolved(&mut snapshots, to, [2, 0, 0, 0, 0, 0x77]).await;
        }
        lb.ip("link set eth0 address 02:00:00:00:00:88");
        until(&mut snapshots, "own MAC address", |s| {
            let [v4, v6] = [V4, V6].map(|to| s.next_hops[&address(to)].mac_source);
            v4 == [2, 0, 0, 0, 0, 0x88] && v6 == v4
        })
        .await;
    });
}

#[test]
fn a_backend_that_falls_silent_keeps_its_last_mac_address() {
    let (lb, peer) = pair();
    impatient(&lb);
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([address(V4), address(V6)].into());
        let first = mac(&peer, "eth0");
        for to in [V4, V6] {
            resolved(&mut snapshots, to, first).await;
        }
        peer.ip(&format!("addr del {V4}/24 dev eth0"));
        peer.ip(&format!("addr del {V6}/64 dev eth0"));
        let silent = |s: &Snapshot, to| matches!(problem(s, to), Some(Problem::Silent { .. }));
        until(&mut snapshots, "silence", |s| {
            silent(s, V4) && silent(s, V6)
        })
        .await;
        for to in [V4, V6] {
            resolved(&mut snapshots, to, first).await;
        }
        // Managed: the kernel asks again on its own, without any packet.
        peer.ip(&format!("addr add {V4}/24 dev eth0"));
        peer.ip(&format!("addr add {V6}/64 dev eth0 nodad"));
        until(&mut snapshots, "answers", |s| s.problems.is_empty()).await;
    });
}

#[test]
fn a_backend_behind_a_router_takes_the_routers_mac_address() {
    let (lb, router) = pair();
    let other = Namespace::new("other");
    join(
        (&lb, "eth1", "10.0.1.1/24 2001:db8:1::1/64"),
        (&other, "eth0", "10.0.1.2/24 2001:db8:1::2/64"),
    );
    let targets = ["192.0.2.9", "2001:db8:9::9"];
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch(targets.map(address).into());
        until(&mut snapshots, "no route", |s| {
            targets
                .iter()
                .all(|to| matches!(problem(s, to), Some(Problem::NoRoute(_))))
        })
        .await;
        let text = snapshots.borrow().problems[&address(targets[0])].to_string();
        assert_eq!(text, "no route: network is unreachable");

        lb.ip(&format!("route add 192.0.2.0/24 via {V4}"));
        lb.ip(&format!("route add 2001:db8:9::/64 via {V6}"));
        let first = mac(&router, "eth0");
        for (to, gateway) in targets.iter().zip([V4, V6]) {
            let hop = resolved(&mut snapshots, to, first).await;
            assert_eq!(hop.gateway, address(gateway));
        }

        lb.ip("route replace 192.0.2.0/24 via 10.0.1.2");
        lb.ip("route replace 2001:db8:9::/64 via 2001:db8:1::2");
        let second = mac(&other, "eth0");
        for to in targets {
            let hop = resolved(&mut snapshots, to, second).await;
            assert_eq!(hop.mac_source, mac(&lb, "eth1"));
        }

        lb.ip("route del 192.0.2.0/24");
        until(&mut snapshots, "the route's end", |s| {
            matches!(problem(s, targets[0]), Some(Problem::NoRoute(_)))
        })
        .await;
        resolved(&mut snapshots, targets[0], second).await;
    });
}

#[test]
fn the_mtu_follows_the_link_and_the_route() {
    let (lb, _peer) = pair();
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([V4, V6, "192.0.2.9"].map(address).into());
        lb.ip(&format!("route add 192.0.2.0/24 via {V4} mtu 1400"));
        let mtus = |s: &Snapshot, expected: [u16; 3]| {
            let found = [V4, V6, "192.0.2.9"].map(|to| s.next_hops.get(&address(to)));
            found.map(|hop| hop.map(|hop| hop.mtu)) == expected.map(Some)
        };
        until(&mut snapshots, "MTUs", |s| mtus(s, [1500, 1500, 1400])).await;
        lb.ip("link set eth0 mtu 1300");
        until(&mut snapshots, "less", |s| mtus(s, [1300, 1300, 1300])).await;
        lb.ip("link set eth0 mtu 9000");
        until(&mut snapshots, "more", |s| mtus(s, [9000, 9000, 1400])).await;
    });
}

#[test]
fn a_route_to_nowhere_says_so() {
    let (lb, _peer) = pair();
    lb.ip("route add blackhole 192.0.2.0/24");
    lb.ip("route add prohibit 198.51.100.0/24");
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch(["192.0.2.1", "198.51.100.1"].map(address).into());
        for (to, text) in [
            ("192.0.2.1", "no route: the route is a blackhole"),
            ("198.51.100.1", "no route: permission denied"),
        ] {
            until(&mut snapshots, text, |s| {
                problem(s, to).is_some_and(|problem| problem.to_string() == text)
            })
            .await;
        }
    });
}

#[test]
fn an_address_of_the_node_itself_is_a_problem() {
    let (lb, _peer) = pair();
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([address("10.0.0.1")].into());
        until(&mut snapshots, "local", |s| {
            problem(s, "10.0.0.1") == Some(&Problem::Local)
        })
        .await;
        assert!(snapshots.borrow().next_hops.is_empty());
    });
}

#[test]
fn neighbours_are_managed_while_they_are_wanted_and_across_restarts() {
    let (lb, peer) = pair();
    lb.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent");
    let managed = || lb.ip("neigh show").matches("managed").count();
    lb.run(async || {
        let first = mac(&peer, "eth0");
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([V4, V6, "10.0.0.9"].map(address).into());
        for to in [V4, V6] {
            resolved(&mut snapshots, to, first).await;
        }
        resolved(&mut snapshots, "10.0.0.9", [2, 0, 0, 0, 0, 9]).await;
        // What an operator wrote down stays as it is.
        assert!(lb.ip("neigh show 10.0.0.9").contains("PERMANENT"));
        assert_eq!(managed(), 2);
        // A daemon that ends leaves them to the kernel; the next one knows them.
        drop(neighbours);
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([address(V6)].into());
        resolved(&mut snapshots, V6, first).await;
        assert_eq!(managed(), 1);
        assert!(lb.ip(&format!("neigh show {V4}")).contains("lladdr"));
        // Flushed by somebody: managed again.
        lb.ip("neigh flush all");
        let mut tries = 0;
        while managed() == 0 {
            tries += 1;
            assert!(tries < 1000, "not managed again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        neighbours.release().await;
        assert_eq!(managed(), 0);
    });
}

#[test]
fn events_that_were_lost_are_made_up_for() {
    let (lb, peer) = pair();
    let mut flood = String::new();
    for host in 0..20_000 {
        let (a, b) = (host >> 8, host & 0xff);
        writeln!(
            flood,
            "neigh add 10.99.{a}.{b} lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
        )
        .unwrap();
    }
    let batch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(batch.path(), flood).unwrap();
    lb.run(async || {
        let (neighbours, mut snapshots) = Neighbours::start().await.unwrap();
        neighbours.watch([address(V4)].into());
        resolved(&mut snapshots, V4, mac(&peer, "eth0")).await;
        // The only thread of this runtime waits here, so that nobody reads the socket.
        lb.ip(&format!("-batch {}", batch.path().display()));
        lb.ip(&format!(
            "neigh replace {V4} lladdr 02:00:00:00:00:99 dev eth0 nud permanent"
        ));
        // Long before the look that comes every 30 seconds.
        let seen = resolved(&mut snapshots, V4, [2, 0, 0, 0, 0, 0x99]);
        timeout(Duration::from_secs(15), seen).await.unwrap();
    });
}

/// A load balancer and a peer, each with `eth0`.
fn pair() -> (Namespace, Namespace) {
    let (lb, peer) = (Namespace::new("lb"), Namespace::new("peer"));
    join(
        (&lb, "eth0", "10.0.0.1/24 2001:db8::1/64"),
        (&peer, "eth0", "10.0.0.2/24 2001:db8::2/64"),
    );
    (lb, peer)
}

/// Has the kernel doubt and probe neighbours within a second or two.
fn impatient(namespace: &Namespace) {
    for family in ["ipv4", "ipv6"] {
        for (key, value) in [
            ("base_reachable_time_ms", "500"),
            ("delay_first_probe_time", "1"),
            ("ucast_solicit", "1"),
            ("mcast_solicit", "1"),
            ("retrans_time_ms", "100"),
            ("interval_probe_time_ms", "200"),
        ] {
            namespace.sysctl(&format!("{family}/neigh/eth0/{key}"), value);
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn problem<'a>(snapshot: &'a Snapshot, to: &str) -> Option<&'a Problem> {
    snapshot.problems.get(&address(to))
}

fn mac(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.ip(&format!("-br link show {device}"));
    let mac = text.split_whitespace().find(|word| word.len() == 17);
    let mut bytes = [0; 6];
    for (byte, hex) in bytes.iter_mut().zip(mac.unwrap().split(':')) {
        *byte = u8::from_str_radix(hex, 16).unwrap();
    }
    bytes
}

/// Waits until the way to an address has this MAC address.
async fn resolved(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    to: &str,
    mac: [u8; 6],
) -> NextHop {
    let to = address(to);
    let found = |s: &Snapshot| {
        let hop = s.next_hops.get(&to);
        hop.is_some_and(|hop| hop.mac_destination == Some(mac))
    };
    until(snapshots, "MAC address", found).await.next_hops[&to]
}

async fn until(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    what: &str,
    mut condition: impl FnMut(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = timeout(
        Duration::from_secs(20),
        snapshots.wait_for(|s| condition(s)),
    )
    .await;
    if let Ok(Ok(snapshot)) = found {
        return Arc::clone(&snapshot);
    }
    drop(found);
    panic!("waited for {what}: {:?}", snapshots.borrow())
}
