//! Who announces an address: properties of the choice, and of the agreement of nodes whose requests are slow, fail, or are lost on
//! their way back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use lb_userspace::{
    announce::{HANDOVER, TERM},
    kubernetes::{
        Election, Observed, Step,
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

/// A node's Lease as another sees it.
fn lease(holder: &str, renewed: i64, transitions: i32) -> Observed {
    Observed {
        holder: holder.to_owned(),
        renewed: Some(renewed),
        lasts: LASTS,
        transitions,
    }
}

/// Node a, that has been there for 8 s beside b, and an address of each.
fn beside_another(start: Instant) -> (Membership, IpAddr, IpAddr) {
    let mut a = Membership::new("a".to_owned());
    for (turn, second) in (0..).zip([0, 2, 4, 6, 8]) {
        let now = start + Duration::from_secs(second);
        assert!(a.renewed(now, now));
        a.looked([lease("b", turn, 0)], now, now);
    }
    let of = |node| {
        let mut all = addresses(16).into_iter();
        let is_own = |address: &IpAddr| owner(["a", "b"], *address) == Some(node);
        all.find(is_own).unwrap()
    };
    let (own, other) = (of("a"), of("b"));
    let now = start + Duration::from_secs(8);
    assert!(a.owns(own, now).is_some());
    assert_eq!(a.owns(other, now), None);
    (a, own, other)
}

#[test]
fn who_leaves_takes_nothing_of_another_that_leaves_meanwhile() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let (mut a, own, other) = beside_another(start);
    a.released(at(8));
    a.looked([], at(9), at(9));
    assert_eq!(a.owns(own, at(9)), Some(at(8) + HANDOVER));
    assert_eq!(a.owns(other, at(9)), None);
    assert_eq!(a.owns(own, at(8) + HANDOVER), None);
}

#[test]
fn who_takes_its_lease_anew_is_a_newcomer_to_those_who_saw_no_release() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let (mut a, own, other) = beside_another(start);
    assert!(a.renewed(at(10), at(10)));
    a.looked([lease("b", 10, 1)], at(10), at(10));
    assert_eq!(a.owns(other, at(10)), Some(at(8) + TERM));
    assert_eq!(a.owns(own, at(10)), Some(at(10) + TERM));
    // One that only renews is known, and so is one whose Lease was made anew.
    for (second, transitions) in [(12, 1), (14, 0)] {
        assert!(a.renewed(at(second), at(second)));
        let seen = lease("b", i64::try_from(second).unwrap(), transitions);
        a.looked([seen], at(second), at(second));
    }
    assert_eq!(a.owns(other, at(8) + TERM), None);
}

#[test]
fn a_renewal_that_came_too_late_is_none() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let (mut a, own, _) = beside_another(start);
    assert!(!a.renewed(at(14), at(16)));
    assert!(a.renewed(at(17), at(17)));
    a.looked([lease("b", 1, 0)], at(17), at(17));
    assert_eq!(a.owns(own, at(23)), None);
    assert!(a.renewed(at(19), at(19)));
    a.looked([lease("b", 2, 0)], at(19), at(19));
    assert!(a.owns(own, at(24)).is_some());
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
    election: Election,
    request: Option<Request>,
    next: Instant,
    /// Whether it has given its share away.
    has_left: bool,
    /// Until when it has lost its memory and does nothing, as after a kill.
    dead_until: Option<Instant>,
}

impl Node {
    /// Loses its memory, as by a kill.
    fn die(&mut self, until: Instant) {
        self.membership = Membership::new(self.name.clone());
        self.election = Election::new(self.name.clone());
        (self.dead_until, self.request, self.next) = (Some(until), None, until);
    }
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
                election: Election::new(name.clone()),
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
            node.die(now + dead);
            return;
        }
        if let Some(mut request) = self.nodes[index].request.take() {
            if request.arrives.is_some_and(|at| at <= now) {
                request.arrives = None;
                if request.is_renewal {
                    let node = &mut self.nodes[index];
                    let before = self.leases.get(&node.name).cloned();
                    let step = node.election.step(before.clone(), request.sent);
                    let (renewed, transitions) = before.map_or((0, 0), |before| {
                        (before.renewed.unwrap_or(0), before.transitions)
                    });
                    let taken = i32::from(step == Step::Take);
                    let after = lease(&node.name, renewed + 1, transitions + taken);
                    self.leases.insert(node.name.clone(), after);
                } else {
                    request.listed = self.leases.values().cloned().collect();
                }
            }
            if now < request.ends {
                self.nodes[index].request = Some(request);
                return;
            }
            if request.is_answered {
                let node = &mut self.nodes[index];
                if request.is_renewal {
                    if node.membership.renewed(request.sent, now) {
                        node.election.renewed(request.sent);
                    } else {
                        node.election.lost();
                    }
                    let look = self.request(false);
                    self.nodes[index].request = Some(look);
                    return;
                }
                node.membership.looked(request.listed, request.sent, now);
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
        node.election.lost();
        node.membership.released(self.now);
        let lease = self.leases.get_mut(&node.name);
        lease.unwrap().holder.clear();
    }

    /// A node that has left takes its share again.
    fn come(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.has_left, node.request, node.next) = (false, None, self.now);
        node.election.lost();
        node.membership.lost();
    }

    /// From now on, which is when a node came back: never two, and nobody for no longer than a look takes to come round.
    fn settles(&mut self, addresses: &[IpAddr]) -> Result<(), TestCaseError> {
        let mut nobody = vec![Duration::ZERO; addresses.len()];
        for _ in 0..400 {
            self.step();
            for (address, nobody) in addresses.iter().zip(&mut nobody) {
                let owners = self.owners(*address).len();
                prop_assert!(owners < 2, "{address}");
                *nobody = if owners == 0 {
                    *nobody + STEP
                } else {
                    Duration::ZERO
                };
                prop_assert!(*nobody <= PERIOD + 10 * STEP, "{address}: {nobody:?}");
            }
        }
        for address in addresses {
            prop_assert_eq!(self.owners(*address).len(), 1);
        }
        Ok(())
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
        // Some before the others look again, and some after.
        away in prop_oneof![0..40_u32, 40..200_u32], down in prop_oneof![0..40_u32, 40..100_u32],
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
        for _ in 0..away {
            for address in &addresses {
                let owners = world.owners(*address);
                prop_assert!(!owners.is_empty());
                let is_handed_over = world.now >= left + HANDOVER;
                prop_assert!(owners.len() == 1 || (!is_handed_over && owners.contains(&name.as_str())));
                prop_assert!(!is_handed_over || owners != [name.as_str()]);
            }
            world.step();
        }
        world.come(leaver);
        world.settles(&addresses)?;
        // It is killed and started again. Its program answers meanwhile, until the start silences it.
        let up = world.now + down * STEP;
        world.nodes[leaver].die(up);
        while world.now < up {
            world.step();
            for address in &addresses {
                prop_assert!(world.owners(*address).len() < 2, "{address}");
            }
        }
        world.settles(&addresses)?;
        let nodes: BTreeSet<_> = world.nodes.iter().map(|node| node.membership.nodes(world.now).len()).collect();
        prop_assert_eq!(nodes, BTreeSet::from([usize::from(count)]));
    }
}
