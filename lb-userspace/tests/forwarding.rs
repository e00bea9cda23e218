//! From a configuration to packets at backends, with the maps in host memory.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "forwarding/failing.rs"]
mod failing;
mod lab;

use std::{net::IpAddr, sync::Arc};

use etherparse::{Icmpv4Type, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, icmpv4};
use failing::Failing;
use lab::{Lab, PORT, WEB4, WEB6, frame, mac, run, web};
use lb_common::reason::Reason;
use lb_userspace::{
    config::{Affinity, TableAlgorithm, Vip},
    dataplane::{DataPlane, apply::apply, memory::Memory},
    model::{
        ids::Ids,
        next_hop::Port,
        overrides::BackendName,
        plan::{Held, MOST_BY_TIME, Step},
        slots::{Slots, Times},
        wanted::Table,
    },
};

const FLOWS: u16 = 20_000;

#[test]
fn packets_reach_the_backends_by_their_weights_and_unchanged_but_for_the_mac_addresses() {
    for (vip, client) in [(WEB4, "198.51.100.7"), (WEB6, "2001:db8:c::7")] {
        let mut lab = Lab::new(vec![web(vip, &[(1, 100), (2, 50), (3, 50), (4, 0)])]);
        lab.apply().unwrap();
        let mut counts = [0u32; 5];
        for port in 0..FLOWS {
            let before = frame(client, vip, port);
            let (outcome, after) = run(&lab.memory, &before);
            assert_eq!(outcome.reason, Reason::Forwarded);
            assert_eq!(after[12..], before[12..]);
            assert_eq!(after[6..12], PORT.mac);
            counts[usize::from(after[5] - 0x10)] += 1;
        }
        assert_eq!(counts[4], 0);
        for (host, share) in [(1, 0.5), (2, 0.25), (3, 0.25)] {
            let found = f64::from(counts[host]) / f64::from(FLOWS);
            assert!((found - share).abs() < 0.015, "{host}: {found}");
        }
        let wanted = lab.wanted();
        let vip = &wanted.vips[0];
        assert_eq!(vip.table.digest().to_string().len(), 8);
        let slots: Vec<_> = vip.backends.iter().map(|b| b.slots).collect();
        assert_eq!(slots, [32_768, 16_384, 16_384, 0]);
        let counted = lab.memory.vip_counters(vip.entry.id).unwrap();
        assert_eq!(counted.packets, u64::from(FLOWS));
        for backend in &vip.backends {
            let counted = lab.memory.backend_counters(backend.id).unwrap();
            let IpAddr::V4(address) = backend.address else {
                panic!()
            };
            let host = usize::from(address.octets()[3] - 10);
            assert_eq!(counted.packets, u64::from(counts[host]));
        }
    }
}

#[test]
fn a_flow_stays_with_its_backend_and_affinity_source_keeps_a_client_whole() {
    let mut lab = Lab::new(vec![Vip {
        affinity: Affinity::Source,
        ..web(WEB4, &[(1, 100), (2, 100), (3, 100)])
    }]);
    lab.apply().unwrap();
    let first = lab.send("198.51.100.7", WEB4, 1);
    assert!((2..100).all(|port| lab.send("198.51.100.7", WEB4, port) == first));
    let others = (0..100).map(|host| lab.send(&format!("198.51.100.{host}"), WEB4, 1));
    assert!(others.filter(|outcome| *outcome != first).count() > 30);
}

#[test]
fn a_vip_whose_weights_are_all_zero_has_no_backend() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 0), (2, 0)]), web(WEB6, &[])]);
    lab.apply().unwrap();
    for (vip, client) in [(WEB4, "198.51.100.7"), (WEB6, "2001:db8:c::7")] {
        assert_eq!(lab.send(client, vip, 1), (Reason::NoBackend, None));
    }
}

#[test]
fn a_vip_that_is_removed_passes_and_leaves_nothing_behind() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)]), web(WEB6, &[(1, 100)])]);
    lab.apply().unwrap();
    lab.config.vips.remove(0);
    lab.apply().unwrap();
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::NotVip, None));
    let outcome = lab.send("2001:db8:c::7", WEB6, 1);
    assert_eq!(outcome, (Reason::Forwarded, Some(1)));
    // Its backend stays known until nothing names it.
    assert_eq!(lab.memory.backends().unwrap().len(), 2);
    lab.settle();
    assert_eq!(lab.memory.backends().unwrap().len(), 1);
    assert_eq!(lab.apply().unwrap(), 0);
}

#[test]
fn an_id_that_is_given_again_counts_from_zero() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)])]);
    lab.apply().unwrap();
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::Forwarded, Some(1)));
    lab.next_hops.clear();
    let vip = lab.wanted().vips[0].entry.id;
    let backend = lab.wanted().vips[0].backends[0].id;
    let counted = |lab: &Lab| {
        let forwarded = [
            lab.memory.vip_counters(vip).unwrap().packets,
            lab.memory.backend_counters(backend).unwrap().packets,
        ];
        let dropped = lab.memory.vip_drops(vip).unwrap();
        (forwarded, dropped.packets.iter().sum::<u64>())
    };
    // Others come and go, and what stays goes on.
    lab.config.vips.push(web(WEB6, &[(1, 0)]));
    lab.apply().unwrap();
    assert_eq!(counted(&lab), ([1, 1], 0));
    let outcome = lab.send("2001:db8:c::7", WEB6, 1);
    assert_eq!(outcome, (Reason::NoBackend, None));

    // All ids but these are taken meanwhile: they come back at once.
    lab.config.vips.clear();
    lab.apply().unwrap();
    lab.settle();
    assert_eq!(counted(&lab), ([1, 1], 0));
    lab.ids = Ids::default();
    lab.config.vips = vec![web("203.0.113.99", &[(2, 0)])];
    lab.apply().unwrap();
    assert_eq!(lab.wanted().vips[0].entry.id, vip);
    assert_eq!(lab.wanted().vips[0].backends[0].id, backend);
    assert_eq!(counted(&lab), ([0, 0], 0));
    let outcome = lab.send("198.51.100.7", "203.0.113.99", 1);
    assert_eq!(outcome, (Reason::NoBackend, None));
    assert_eq!(counted(&lab), ([0, 0], 1));
}

/// A backend that dies comes back under another id while something names the old one, and its counters never go back.
#[test]
fn what_was_counted_of_a_backend_goes_on_under_its_next_id() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100), (2, 100)])]);
    lab.apply().unwrap();
    for port in 0..100 {
        assert_eq!(lab.send("198.51.100.7", WEB4, port).0, Reason::Forwarded);
    }
    let name = BackendName {
        vip: lab.config.vips[0].name.clone(),
        backend: lab.config.vips[0].backends[0].address,
    };
    let ids = |lab: &mut Lab| -> Vec<u16> {
        let wanted = lab.wanted();
        let own = wanted.vips[0].backends.iter().map(|backend| backend.id);
        own.chain(wanted.leaving.keys().copied()).collect()
    };
    let total = |lab: &mut Lab| -> u64 {
        let ids = ids(lab);
        let counts = ids
            .iter()
            .map(|id| lab.memory.backend_counters(*id).unwrap().packets);
        counts.sum()
    };
    let before = ids(&mut lab);
    lab.standing.dead.insert(name.clone());
    lab.apply().unwrap();
    lab.standing.dead.clear();
    lab.apply().unwrap();
    let after = ids(&mut lab);
    assert_eq!((before.len(), after.len()), (2, 3));
    assert_ne!(after[0], before[0]);
    assert_eq!(total(&mut lab), 100);
    let of_first = lab.memory.backend_counters(before[0]).unwrap().packets;
    assert!(of_first > 0);
    lab.settle();
    assert_eq!(ids(&mut lab), after[..2]);
    assert_eq!(total(&mut lab), 100);
    let now = lab.memory.backend_counters(after[0]).unwrap().packets;
    assert_eq!(now, of_first);
}

#[test]
fn tables_that_change_by_time_alone_take_turns_and_nothing_else_does() {
    const VIPS: usize = MOST_BY_TIME + 5;
    let address = |number: usize| format!("203.0.113.{number}");
    let vips = (1..=VIPS).map(|number| web(&address(number), &[(1, 100), (2, 100)]));
    let mut lab = Lab::new(vips.collect());
    lab.apply().unwrap();
    for vip in &mut lab.config.vips {
        vip.backends[0].weight = 50;
    }
    // All of them begin to hold.
    assert_eq!(lab.apply().unwrap(), VIPS);
    lab.standing.now_ms += Times::HOLD_MS - 1;
    assert_eq!(lab.apply().unwrap(), 0);
    lab.standing.now_ms += 1;
    assert_eq!(lab.apply().unwrap(), MOST_BY_TIME);
    assert_eq!(lab.apply().unwrap(), VIPS - MOST_BY_TIME);
    assert_eq!(lab.apply().unwrap(), 0);

    // Deaths do not wait, be other times over or not: each is a backend and a table.
    lab.standing.now_ms += 3_600_000;
    let dead = lab.config.vips.iter().map(|vip| BackendName {
        vip: vip.name.clone(),
        backend: vip.backends[1].address,
    });
    lab.standing.dead = dead.collect();
    assert_eq!(lab.apply().unwrap(), 2 * VIPS);
}

#[test]
fn a_backend_without_a_next_hop_is_no_reason_to_forward_nowhere() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)])]);
    let hops = std::mem::take(&mut lab.next_hops);
    lab.apply().unwrap();
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::NoNextHop, None));
    // Once it is known, only the backend is written.
    lab.next_hops = hops;
    assert_eq!(lab.apply().unwrap(), 1);
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::Forwarded, Some(1)));
    // And what was known stays known.
    lab.next_hops.clear();
    assert_eq!(lab.apply().unwrap(), 0);
}

#[test]
fn a_configured_mac_address_needs_no_network() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)])]);
    lab.next_hops.clear();
    lab.config.vips[0].backends[0].mac = Some(mac(9));
    lab.apply().unwrap();
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::Forwarded, Some(9)));
}

#[test]
fn a_backend_behind_another_interface_is_redirected_to() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100)])]);
    lab.ports.push(Port { ifindex: 3, ..PORT });
    for hop in lab.next_hops.values_mut() {
        hop.ifindex = 3;
    }
    lab.apply().unwrap();
    let outcome = lab.send("198.51.100.7", WEB4, 1);
    assert_eq!(outcome, (Reason::Forwarded, Some(1)));
    let (outcome, _) = run(&lab.memory, &frame("198.51.100.7", WEB4, 1));
    assert_eq!((outcome.is_redirect, outcome.ifindex), (true, 3));
}

/// A router's ICMP error may reach any node of the fleet: whichever it is, the flow's own backend gets it, though ids
/// and order of backends differ between the nodes.
#[test]
fn an_icmp_error_reaches_the_flows_backend_through_another_node() {
    for (vip, client) in [(WEB4, "198.51.100.7"), (WEB6, "2001:db8:c::7")] {
        let mut here = Lab::new(vec![web(vip, &[(1, 100), (2, 100), (3, 100)])]);
        here.apply().unwrap();
        let other = if vip == WEB4 { WEB6 } else { WEB4 };
        let mut there = Lab::new(vec![
            web(other, &[(5, 100)]),
            web(vip, &[(3, 100), (1, 100), (2, 100)]),
        ]);
        there.apply().unwrap();
        for port in 0..300 {
            let (reason, backend) = here.send(client, vip, port);
            assert_eq!(reason, Reason::Forwarded);
            let (outcome, left) = run(&there.memory, &unreachable(client, vip, port));
            assert_eq!(outcome.reason, Reason::IcmpError, "{vip} port {port}");
            assert_eq!(Some(left[5] - 0x10), backend, "{vip} port {port}");
        }
    }
}

/// "Destination unreachable" from a router, about the VIP's answer to [`frame`]; it quotes 8 bytes of TCP.
fn unreachable(client: &str, vip: &str, port: u16) -> Vec<u8> {
    let ports = [443u16.to_be_bytes(), (1024 + port).to_be_bytes()].concat();
    let sequence = [0, 0, 0, 9];
    let ethernet = PacketBuilder::ethernet2([2, 9, 9, 9, 9, 9], [2, 0, 0, 0, 0, 1]);
    let mut frame = Vec::new();
    match (client.parse().unwrap(), vip.parse().unwrap()) {
        (IpAddr::V4(c), IpAddr::V4(v)) => {
            let quoted = Ipv4Header::new(1460, 60, IpNumber::TCP, v.octets(), c.octets()).unwrap();
            let quote = [&quoted.to_bytes()[..], &ports, &sequence].concat();
            let outer = ethernet.ipv4([192, 0, 2, 1], v.octets(), 64);
            let kind = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            outer
                .icmpv4(Icmpv4Type::DestinationUnreachable(kind))
                .write(&mut frame, &quote)
                .unwrap();
        }
        (IpAddr::V6(c), IpAddr::V6(v)) => {
            let quoted = Ipv6Header {
                payload_length: 1460,
                next_header: IpNumber::TCP,
                hop_limit: 60,
                source: v.octets(),
                destination: c.octets(),
                ..Ipv6Header::default()
            };
            let quote = [&quoted.to_bytes()[..], &ports, &sequence].concat();
            let outer = ethernet.ipv6([0x20; 16], v.octets(), 64);
            outer
                .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1400 })
                .write(&mut frame, &quote)
                .unwrap();
        }
        _ => panic!("{client} and {vip} are of two families"),
    }
    frame
}

#[test]
fn backends_come_before_tables_before_vips_and_go_the_other_way() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100), (2, 100)])]);
    assert_eq!(
        lab.steps(),
        "node port interface new-backend new-backend new-vip backend backend idle table vips"
    );
    lab.apply().unwrap();
    assert_eq!(lab.steps(), "");
    // Neither a name nor the order of backends changes anything.
    lab.config.vips[0].name = "other".to_owned();
    lab.config.vips[0].backends.reverse();
    assert_eq!(lab.steps(), "");
    lab.config.vips = vec![web(WEB6, &[(3, 100)])];
    assert_eq!(
        lab.steps(),
        // What leaves stays known until nothing names it.
        "new-backend new-vip backend idle table vips clear-table"
    );
    lab.apply().unwrap();
    assert_eq!(lab.steps(), "");
    lab.standing.unnamed = lab.wanted().leaving.keys().copied().collect();
    assert_eq!(lab.steps(), "clear-backend clear-backend");
    lab.apply().unwrap();
    assert_eq!(lab.steps(), "");
}

#[test]
fn a_change_of_one_vip_among_500_makes_one_table() {
    let vip = |at: u16| {
        let [high, low] = at.to_be_bytes();
        web(&format!("203.0.{high}.{low}"), &[(1, 100), (2, 50)])
    };
    let mut lab = Lab::new((0..500).map(vip).collect());
    let mut tables = made(&mut lab);
    let changes: [(usize, Change); 4] = [
        (250, |vip| vip.backends[0].weight = 99),
        (0, |vip| vip.backends.truncate(1)),
        (499, |vip| vip.table = TableAlgorithm::Ring),
        // The same set in another order is no change.
        (7, |vip| vip.backends.reverse()),
    ];
    for (at, change) in changes {
        change(&mut lab.config.vips[at]);
        let now = made(&mut lab);
        assert_eq!(now.len(), 500);
        let remade: Vec<_> = (0..500)
            .filter(|&vip| !Arc::ptr_eq(&tables[vip], &now[vip]))
            .collect();
        assert_eq!(remade, if at == 7 { vec![] } else { vec![at] });
        assert!(
            remade
                .iter()
                .all(|&vip| tables[vip].digest() != now[vip].digest())
        );
        tables = now;
    }
}

/// What an operator does to a VIP.
type Change = fn(&mut Vip);

/// The tables that are wanted, in the VIPs' order, which are held from then on.
fn made(lab: &mut Lab) -> Vec<Arc<Table>> {
    let vips = lab.wanted().vips;
    vips.into_iter()
        .map(|vip| {
            let slots = Arc::new(Slots::new(&vip.table.owner_ids()));
            let step = Step::Table(vip.entry.id, Arc::clone(&vip.table), slots);
            lab.held.record(&step);
            vip.table
        })
        .collect()
}

#[test]
fn a_daemon_that_restarts_takes_over_what_the_maps_hold() {
    let mut lab = Lab::new(vec![
        web(WEB4, &[(1, 100), (2, 100)]),
        web(WEB6, &[(3, 100)]),
    ]);
    lab.apply().unwrap();
    let before = lab.wanted();
    let entries: Vec<_> = before.vips.iter().map(|vip| vip.entry).collect();
    let backends = lab.memory.backends().unwrap();
    let slots = entries.iter().map(|vip| {
        let table = lab.memory.table(vip.id).unwrap().unwrap();
        (vip.id, Slots::adopt(table, None, 0))
    });
    lab.held = Held::adopt(&entries, &backends, slots.collect::<Vec<_>>());
    lab.ids = Ids::adopt(&entries, &backends);
    // The network is not known yet, and the order is another.
    lab.next_hops.clear();
    lab.config.vips.reverse();
    assert_eq!(
        lab.steps(),
        "node port interface idle idle table table vips"
    );
    lab.apply().unwrap();
    assert_eq!(lab.memory.backends().unwrap(), backends);
    // VIPs that nobody remembers are made anew under other ids, and the old ones go.
    lab.held = Held::adopt(&[], &backends, []);
    lab.ids = Ids::adopt(&[], &backends);
    lab.config.vips.truncate(1);
    assert_eq!(
        lab.steps(),
        "node port interface new-backend new-vip backend idle table vips clear-table clear-table"
    );
}

#[test]
fn a_write_that_fails_is_where_the_next_attempt_begins() {
    let mut lab = Lab::new(vec![web(WEB4, &[(1, 100), (2, 100)])]);
    let wanted = lab.wanted();
    let mut failing = Failing {
        memory: Memory::default(),
        writes: 8,
    };
    let error = apply(&mut failing, &mut lab.held, &wanted, &mut lab.ids, "test").unwrap_err();
    assert_eq!(format!("{error:#}"), "no room");
    assert_eq!(lab.steps(), "new-vip idle table vips");
    failing.writes = usize::MAX;
    let wanted = lab.wanted();
    let done = apply(&mut failing, &mut lab.held, &wanted, &mut lab.ids, "test").unwrap();
    assert_eq!(done, 4);
    lab.memory = failing.memory;
    assert_eq!(lab.send("198.51.100.7", WEB4, 1).0, Reason::Forwarded);
}
