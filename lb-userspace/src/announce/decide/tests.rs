use proptest::prelude::*;

use super::*;

const HOLD: Duration = Duration::from_secs(10);
const READY: Node = Node {
    is_attached: true,
    is_drained: false,
};

fn address(last: u8) -> IpAddr {
    [203, 0, 113, last].into()
}

fn claim(last: u8, passing: usize, unknown: usize) -> Claim {
    Claim {
        address: address(last),
        passing,
        unknown,
        min_healthy: 1,
    }
}

fn one(decider: &mut Decider, node: Node, claim: Claim, now: Instant) -> Reason {
    decider.decide(node, [claim], HOLD, now).addresses[&claim.address]
}

#[test]
fn the_first_announcement_is_at_once_and_the_next_is_held_down() {
    let start = Instant::now();
    let mut decider = Decider::default();
    let mut at = |seconds, passing, unknown| {
        let now = start + Duration::from_secs(seconds);
        let decision = decider.decide(READY, [claim(1, passing, unknown)], HOLD, now);
        (decision.addresses[&address(1)], decision.wake)
    };
    assert_eq!(at(0, 0, 1), (Reason::Unknown, None));
    assert_eq!(at(1, 1, 0), (Reason::Healthy, None));
    assert_eq!(at(2, 0, 0), (Reason::TooFewHealthy, None));
    let end = Some(start + Duration::from_secs(12));
    assert_eq!(at(3, 1, 0), (Reason::HoldDown, end));
    assert_eq!(at(11, 1, 0), (Reason::HoldDown, end));
    assert_eq!(at(12, 1, 0), (Reason::Healthy, None));
    // Once down for longer than that, it waits no more.
    assert_eq!(at(20, 0, 0).0, Reason::TooFewHealthy);
    assert_eq!(at(40, 1, 0), (Reason::Healthy, None));
}

#[test]
fn what_an_earlier_daemon_announced_stays_until_something_is_known() {
    let now = Instant::now();
    let mut decider = Decider::adopt(&[address(1)].into());
    assert_eq!(
        one(&mut decider, READY, claim(1, 0, 2), now),
        Reason::Unchanged
    );
    assert_eq!(
        one(&mut decider, READY, claim(1, 0, 0), now),
        Reason::TooFewHealthy
    );
    // Nobody claims this one any more: it is in no decision.
    let mut decider = Decider::adopt(&[address(2)].into());
    let decision = decider.decide(READY, [claim(1, 1, 0)], HOLD, now);
    assert_eq!(decision.announced().collect::<Vec<_>>(), [address(1)]);
}

#[test]
fn an_address_stands_as_long_as_one_of_its_vips_does() {
    let now = Instant::now();
    let mut decider = Decider::default();
    let mut decide = |claims: &[Claim]| {
        let decision = decider.decide(READY, claims.iter().copied(), Duration::ZERO, now);
        decision.addresses[&address(1)]
    };
    assert_eq!(decide(&[claim(1, 0, 0), claim(1, 1, 0)]), Reason::Healthy);
    assert_eq!(
        decide(&[claim(1, 0, 0), claim(1, 0, 0)]),
        Reason::TooFewHealthy
    );
    let always = Claim {
        min_healthy: 0,
        ..claim(1, 0, 0)
    };
    assert_eq!(decide(&[claim(1, 0, 0), always]), Reason::Healthy);
}

#[test]
fn the_end_of_a_drain_is_not_held_down() {
    let now = Instant::now();
    let drained = Node {
        is_drained: true,
        ..READY
    };
    let mut decider = Decider::default();
    let well = claim(1, 1, 0);
    assert_eq!(one(&mut decider, READY, well, now), Reason::Healthy);
    assert_eq!(one(&mut decider, drained, well, now), Reason::Drained);
    assert_eq!(one(&mut decider, READY, well, now), Reason::Healthy);
    // But what health has withdrawn meanwhile is.
    one(&mut decider, drained, claim(1, 0, 0), now);
    assert_eq!(one(&mut decider, drained, well, now), Reason::Drained);
    assert_eq!(one(&mut decider, READY, well, now), Reason::HoldDown);
}

/// What one moment brings to two addresses with a VIP or two.
#[derive(Clone, Debug)]
struct Moment {
    after_ms: u64,
    node: Node,
    claims: Vec<Claim>,
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let claim = (1..3_u8, 0..3_usize, 0..2_usize, 0..3_usize).prop_map(
        |(last, passing, unknown, min_healthy)| Claim {
            address: address(last),
            passing,
            unknown,
            min_healthy,
        },
    );
    let moment = (
        0..8_000_u64,
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.2),
        prop::collection::vec(claim, 0..5),
    );
    let moment = moment.prop_map(|(after_ms, is_attached, is_drained, claims)| Moment {
        after_ms,
        node: Node {
            is_attached,
            is_drained,
        },
        claims,
    });
    prop::collection::vec(moment, 1..40)
}

/// Whether some claim on an address has enough, counting those of whom nothing is known if `or_unknown`.
fn has_enough(claims: &[Claim], address: IpAddr, or_unknown: bool) -> bool {
    let mut own = claims.iter().filter(|claim| claim.address == address);
    own.any(|claim| {
        let unknown = if or_unknown { claim.unknown } else { 0 };
        claim.passing + unknown >= claim.min_healthy
    })
}

proptest! {
    #[test]
    fn decisions_keep_the_rules(moments in moments()) {
        let mut decider = Decider::default();
        let mut now = Instant::now();
        // What should be up where the node is not drained, and when each address was last taken back for its health.
        let mut up: BTreeSet<IpAddr> = BTreeSet::new();
        let mut taken_back: BTreeMap<IpAddr, Instant> = BTreeMap::new();
        for Moment { after_ms, node, claims } in moments {
            now += Duration::from_millis(after_ms);
            let decision = decider.decide(node, claims.iter().copied(), HOLD, now);
            let claimed: BTreeSet<_> = claims.iter().map(|claim| claim.address).collect();
            prop_assert_eq!(decision.addresses.keys().copied().collect::<BTreeSet<_>>(), claimed.clone());
            // Whoever is not claimed any more is forgotten.
            up.retain(|address| claimed.contains(address));
            taken_back.retain(|address, _| claimed.contains(address));
            for (address, reason) in &decision.addresses {
                let is_well = node.is_attached && has_enough(&claims, *address, false);
                let may_stay = node.is_attached && has_enough(&claims, *address, true);
                if reason.is_announced() {
                    prop_assert!(!node.is_drained && may_stay);
                    prop_assert!(is_well || up.contains(address), "nothing comes up on a guess");
                    let back = taken_back.get(address).filter(|_| !up.contains(address));
                    prop_assert!(back.is_none_or(|back| now - *back >= HOLD), "held down");
                } else if !node.is_drained {
                    let since = taken_back.get(address);
                    let is_held = since.is_some_and(|since| now - *since < HOLD) && !up.contains(address);
                    prop_assert!(!is_well || is_held, "{:?} keeps a healthy address down", reason);
                    prop_assert!(!may_stay || !up.contains(address), "{:?} withdraws on a guess", reason);
                }
                // The same, said the other way round: what health alone makes of it.
                let is_held = taken_back.get(address).is_some_and(|back| now - *back < HOLD);
                let is_up = if up.contains(address) { may_stay } else { is_well && !is_held };
                if up.contains(address) && !is_up {
                    taken_back.insert(*address, now);
                }
                if is_up { up.insert(*address); } else { up.remove(address); }
            }
            if let Some(wake) = decision.wake {
                prop_assert!(wake > now && wake <= now + HOLD);
                // At that moment, with nothing else changed, somebody is back.
                let then = decider.clone().decide(Node { is_drained: false, ..node }, claims.iter().copied(), HOLD, wake);
                let back = then.addresses.iter().filter(|(address, reason)| {
                    reason.is_announced() && !up.contains(address)
                });
                prop_assert!(back.count() > 0);
            }
        }
    }

    #[test]
    fn addresses_do_not_know_of_each_other(moments in moments()) {
        let (mut both, mut alone) = (Decider::default(), Decider::default());
        let mut now = Instant::now();
        for Moment { after_ms, node, claims } in moments {
            now += Duration::from_millis(after_ms);
            let own = claims.iter().filter(|claim| claim.address == address(1)).copied();
            let own = alone.decide(node, own.collect::<Vec<_>>(), HOLD, now);
            let all = both.decide(node, claims, HOLD, now);
            prop_assert_eq!(all.addresses.get(&address(1)), own.addresses.get(&address(1)));
        }
    }
}
