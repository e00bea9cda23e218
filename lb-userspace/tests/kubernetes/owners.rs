//! Who announces an address: properties of the choice, and of the agreement of nodes whose requests are slow, fail, or are lost on
//! their way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lb_userspace::{
    announce::HANDOVER,
    kubernetes::{
        Observed,
        owners::{Membership, owner},
    },
};
use proptest::prelude::*;

fn addresses(count: u8) -> Vec<IpAddr> {
    let v4 = (0..count).map(|n| IpAddr::from([203, 0, 113, n]));
    let v6 = (0..count).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]));
    v4.chain(v6).collect()
}

fn chosen(nodes: &[String], address: IpAddr) -> Option<String> {
    owner(nodes.iter().map(String::as_str), address).map(str::to_owned)
}

proptest! {
    #[test]
    fn there_is_one_owner_whatever_the_order(
        nodes in prop::collection::btree_set("[a-z]{1,8}", 1..9), seed: u64,
    ) {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let mut mixed = nodes.clone();
        Rng::with_seed(seed).shuffle(&mut mixed);
        for address in addresses(8) {
            let owner = chosen(&nodes, address);
            prop_assert!(owner.as_ref().is_some_and(|owner| nodes.contains(owner)));
            prop_assert_eq!(owner, chosen(&mixed, address));
        }
    }

    #[test]
    fn who_leaves_moves_its_own_addresses_alone(
        nodes in prop::collection::btree_set("[a-z]{1,8}", 2..9), leaver: prop::sample::Index,
    ) {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let leaver = leaver.get(&nodes).clone();
        let rest: Vec<_> = nodes.iter().filter(|node| **node != leaver).cloned().collect();
        for address in addresses(16) {
            let (before, after) = (chosen(&nodes, address), chosen(&rest, address));
            prop_assert!(before == after || before.as_ref() == Some(&leaver));
        }
    }
}

#[test]
fn addresses_are_shared_out_evenly() {
    let nodes = ["lb-1", "lb-2", "lb-3"].map(str::to_owned);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for address in addresses(150) {
        *counts.entry(chosen(&nodes, address)).or_default() += 1;
    }
    eprintln!("300 addresses: {counts:?}");
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| *count > 60), "{counts:?}");
}

/// How long a Lease lasts.
const LASTS: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(2);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);

/// A request under way.
struct Request {
    is_renewal: bool,
    sent: Instant,
    /// When the API server does it; `None`: it never comes there.
    arrives: Option<Instant>,
    ends: Instant,
    /// Whether the answer comes back.
    is_answered: bool,
    listed: Vec<Observed>,
}

struct Node {
    name: String,
    membership: Membership,
    request: Option<Request>,
    next: Instant,
    /// Whether it has given its share away.
    has_left: bool,
    /// Until when it has lost its memory and does nothing, as after a kill.
    dead_until: Option<Instant>,
}

/// How bad a time the nodes have.
#[derive(Clone, Copy)]
struct Trouble {
    slow: f64,
    lost: f64,
    killed: f64,
}

struct World {
    rng: Rng,
    now: Instant,
    trouble: Trouble,
    nodes: Vec<Node>,
    leases: BTreeMap<String, Observed>,
}

impl World {
    fn new(seed: u64, count: u8, trouble: Trouble) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Instant::now();
        let nodes = (0..count).map(|n| {
            let name = format!("lb-{n}");
            Node {
                membership: Membership::new(name.clone()),
                name,
                request: None,
                next: now + PERIOD.mul_f64(rng.f64() * 4.0),
                has_left: false,
                dead_until: None,
            }
        });
        let nodes = nodes.collect();
        Self {
            rng,
            now,
            trouble,
            nodes,
            leases: BTreeMap::new(),
        }
    }

    fn request(&mut self, is_renewal: bool) -> Request {
        let (rng, trouble) = (&mut self.rng, self.trouble);
        let most = if rng.f64() < trouble.slow {
            PATIENCE
        } else {
            STEP
        };
        let way = most.mul_f64(rng.f64());
        let is_lost = rng.f64() < trouble.lost;
        let is_answered = !is_lost;
        Request {
            is_renewal,
            sent: self.now,
            // Some that are not answered were done all the same.
            arrives: (is_answered || rng.bool()).then(|| self.now + way),
            ends: self.now
                + if is_answered {
                    way + most.saturating_sub(way).mul_f64(rng.f64())
                } else {
                    PATIENCE
                },
            is_answered,
            listed: Vec::new(),
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for index in 0..self.nodes.len() {
            self.turn(index);
        }
    }

    fn turn(&mut self, index: usize) {
        let now = self.now;
        if self.nodes[index].dead_until.is_some_and(|end| now < end) {
            return;
        }
        if self.rng.f64() < self.trouble.killed {
            let dead = Duration::from_secs(30).mul_f64(self.rng.f64());
            let node = &mut self.nodes[index];
            node.membership = Membership::new(node.name.clone());
            (node.dead_until, node.request, node.next) = (Some(now + dead), None, now + dead);
            return;
        }
        if let Some(mut request) = self.nodes[index].request.take() {
            if request.arrives.is_some_and(|at| at <= now) {
                request.arrives = None;
                if request.is_renewal {
                    let name = self.nodes[index].name.clone();
                    let before = self.leases.get(&name).and_then(|lease| lease.renewed);
                    let lease = Observed {
                        holder: name.clone(),
                        renewed: Some(before.unwrap_or(0) + 1),
                        lasts: LASTS,
                        transitions: 0,
                    };
                    self.leases.insert(name, lease);
                } else {
                    request.listed = self.leases.values().cloned().collect();
                }
            }
            if now < request.ends {
                self.nodes[index].request = Some(request);
                return;
            }
            if request.is_answered {
                let membership = &mut self.nodes[index].membership;
                if request.is_renewal {
                    membership.renewed(request.sent, now);
                    let look = self.request(false);
                    self.nodes[index].request = Some(look);
                    return;
                }
                membership.looked(request.listed, request.sent, now);
            }
            self.nodes[index].next = (request.sent + PERIOD).max(now);
        } else if self.nodes[index].next <= now {
            // Who has left only looks.
            let is_renewal = !self.nodes[index].has_left;
            let request = self.request(is_renewal);
            self.nodes[index].request = Some(request);
        }
    }

    /// A node gives its share away: its Lease is free at once.
    fn leave(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.has_left, node.request) = (true, None);
        node.membership.released(self.now);
        self.leases.remove(&node.name);
    }

    /// A node that has left takes its share again.
    fn come(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.has_left = false;
        node.membership.lost();
    }

    /// Who announces an address now.
    fn owners(&self, address: IpAddr) -> Vec<&str> {
        let owns = |node: &&Node| {
            let is_alive = node.dead_until.is_none_or(|end| self.now >= end);
            is_alive && node.membership.owns(address, self.now).is_some()
        };
        let owners = self.nodes.iter().filter(owns);
        owners.map(|node| node.name.as_str()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn never_two_announce_one_address(
        seed: u64, count in 2..5_u8, slow in 0.0..0.8_f64, lost in 0.0..0.6_f64, killed in 0.0..0.002_f64,
    ) {
        let mut world = World::new(seed, count, Trouble { slow, lost, killed });
        let addresses = addresses(2);
        for _ in 0..2400 {
            world.step();
            for address in &addresses {
                let owners = world.owners(*address);
                prop_assert!(owners.len() < 2, "{address}: {owners:?}");
            }
        }
        // Left alone, they come to one owner for each, and all take part.
        world.trouble = Trouble { slow: 0.0, lost: 0.0, killed: 0.0 };
        for _ in 0..1200 {
            world.step();
        }
        for address in &addresses {
            prop_assert_eq!(world.owners(*address).len(), 1);
        }
        // One gives its share away: never nobody, and two only until the others have looked.
        let leaver = usize::try_from(seed).unwrap_or(0) % world.nodes.len();
        let name = world.nodes[leaver].name.clone();
        world.leave(leaver);
        let left = world.now;
        for _ in 0..200 {
            for address in &addresses {
                let owners = world.owners(*address);
                prop_assert!(!owners.is_empty());
                let is_handed_over = world.now >= left + HANDOVER;
                prop_assert!(owners.len() == 1 || (!is_handed_over && owners.contains(&name.as_str())));
                prop_assert!(!is_handed_over || owners != [name.as_str()]);
            }
            world.step();
        }
        // It comes back: never two, and nobody for no longer than a look takes to come round.
        world.come(leaver);
        let mut nobody = vec![Duration::ZERO; addresses.len()];
        for _ in 0..400 {
            world.step();
            for (address, nobody) in addresses.iter().zip(&mut nobody) {
                let owners = world.owners(*address).len();
                prop_assert!(owners < 2, "{address}");
                *nobody = if owners == 0 { *nobody + STEP } else { Duration::ZERO };
                prop_assert!(*nobody <= PERIOD + 10 * STEP, "{address}: {nobody:?}");
            }
        }
        let nodes: BTreeSet<_> = world.nodes.iter().map(|node| node.membership.nodes(world.now).len()).collect();
        prop_assert_eq!(nodes, BTreeSet::from([usize::from(count)]));
    }
}
