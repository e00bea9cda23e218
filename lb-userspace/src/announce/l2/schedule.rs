//! When what is told: knows neither I/O nor a clock.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{Interface, Wanted};
use crate::announce::HANDOVER;

/// How often an address is told fast, and how fast.
const FAST: u32 = 3;
const FAST_GAP: Duration = Duration::from_millis(250);

/// After how long it is told once more: whoever had the address before may have answered until then, and been believed last.
const SETTLED: Duration = HANDOVER.saturating_add(Duration::from_secs(1));

/// How often it is told from then on.
const PERIOD: Duration = Duration::from_secs(30);

/// How soon after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// An address on an interface. Whenever one of these is another, it is told fast again.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Due {
    pub(super) address: IpAddr,
    pub(super) interface: Interface,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    at: Instant,
    /// How often it has been told.
    told: u32,
}

/// What is told, and when next.
#[derive(Debug, Default)]
pub(super) struct Schedule(BTreeMap<Due, Next>);

impl Schedule {
    /// Tells this from now on: what is new at once, the rest when it is due.
    pub(super) fn want(&mut self, wanted: &Wanted, now: Instant) {
        let before = std::mem::take(&mut self.0);
        let up = wanted
            .interfaces
            .values()
            .filter(|interface| interface.carrier.is_some());
        for interface in up {
            for (address, turn) in &wanted.addresses {
                let due = Due {
                    address: *address,
                    interface: interface.clone(),
                    turn: *turn,
                };
                let next = before.get(&due).copied();
                let at_once = Next { at: now, told: 0 };
                self.0.insert(due, next.unwrap_or(at_once));
            }
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|next| next.at).min()
    }

    /// What is due now, `most` of it; each counts as told.
    pub(super) fn take(&mut self, now: Instant, most: usize) -> Vec<Due> {
        let due = self.0.iter_mut().filter(|(_, next)| next.at <= now);
        let due = due.take(most).map(|(due, next)| {
            next.told = next.told.saturating_add(1);
            let gap = match next.told.cmp(&FAST) {
                Ordering::Less => FAST_GAP,
                Ordering::Equal => SETTLED.saturating_sub(FAST_GAP * (FAST - 1)),
                Ordering::Greater => PERIOD,
            };
            next.at = now + gap;
            due.clone()
        });
        due.collect()
    }

    /// What was due could not be told.
    pub(super) fn failed(&mut self, due: &Due, now: Instant) {
        if let Some(next) = self.0.get_mut(due) {
            next.told = next.told.saturating_sub(1);
            next.at = now + RETRY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(carrier: Option<u32>) -> Interface {
        Interface {
            name: "eth0".to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            carrier,
        }
    }

    fn wanted(carrier: Option<u32>, addresses: &[(&str, u64)]) -> Wanted {
        let addresses = addresses.iter();
        Wanted {
            interfaces: [(7, interface(carrier))].into(),
            addresses: addresses
                .map(|(text, turn)| (text.parse().unwrap(), *turn))
                .collect(),
        }
    }

    /// What is told within a time, looking whenever something is due: milliseconds since the start, and the address.
    fn told(schedule: &mut Schedule, start: Instant, from: u64, to: u64) -> Vec<(u128, String)> {
        let mut told = Vec::new();
        let mut now = start + Duration::from_millis(from);
        while let Some(next) = schedule.next() {
            now = now.max(next);
            if now > start + Duration::from_millis(to) {
                break;
            }
            let due = schedule.take(now, 1);
            let since = now.duration_since(start).as_millis();
            told.extend(due.iter().map(|due| (since, due.address.to_string())));
        }
        told
    }

    const A: &str = "203.0.113.10";
    const B: &str = "2001:db8::10";

    fn at(times: &[u128], address: &str) -> Vec<(u128, String)> {
        times
            .iter()
            .map(|time| (*time, address.to_owned()))
            .collect()
    }

    #[test]
    fn three_times_fast_once_more_after_a_handover_and_then_every_thirty_seconds() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        assert_eq!(schedule.next(), None);
        schedule.want(&wanted(Some(1), &[(A, 1)]), start);
        assert_eq!(
            told(&mut schedule, start, 0, 65_000),
            at(&[0, 250, 500, 4000, 34_000, 64_000], A)
        );
        // The same once more changes nothing; another address is told fast beside it.
        let later = start + Duration::from_secs(70);
        schedule.want(&wanted(Some(1), &[(A, 1), (B, 1)]), later);
        assert_eq!(
            told(&mut schedule, start, 70_000, 80_000),
            at(&[70_000, 70_250, 70_500, 74_000], B)
        );
    }

    #[test]
    fn a_carrier_that_comes_back_or_another_turn_begins_anew() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let at_ms = |ms| start + Duration::from_millis(ms);
        schedule.want(&wanted(Some(1), &[(A, 1)]), start);
        told(&mut schedule, start, 0, 1000);
        schedule.want(&wanted(None, &[(A, 1)]), at_ms(1000));
        assert_eq!(schedule.next(), None);
        schedule.want(&wanted(Some(2), &[(A, 1)]), at_ms(2000));
        assert_eq!(
            told(&mut schedule, start, 2000, 3000),
            at(&[2000, 2250, 2500], A)
        );
        // A flap between two looks shows in the count alone.
        schedule.want(&wanted(Some(3), &[(A, 1)]), at_ms(4000));
        assert_eq!(told(&mut schedule, start, 4000, 4100), at(&[4000], A));
        schedule.want(&wanted(Some(3), &[(A, 2)]), at_ms(5000));
        assert_eq!(told(&mut schedule, start, 5000, 5100), at(&[5000], A));
        schedule.want(&wanted(Some(3), &[]), at_ms(6000));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn what_fails_is_tried_again_and_does_not_count() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        schedule.want(&wanted(Some(1), &[(A, 1)]), start);
        for due in schedule.take(start, 9) {
            schedule.failed(&due, start);
        }
        assert_eq!(
            told(&mut schedule, start, 0, 10_000),
            at(&[1000, 1250, 1500, 5000], A)
        );
    }

    #[test]
    fn no_more_than_asked_for_at_once_and_all_in_the_end() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let many: Vec<_> = (1..=9).map(|n| format!("203.0.113.{n}")).collect();
        let many: Vec<_> = many.iter().map(|text| (text.as_str(), 1)).collect();
        schedule.want(&wanted(Some(1), &many), start);
        let mut told: Vec<_> = [4, 4, 4]
            .iter()
            .flat_map(|most| schedule.take(start, *most))
            .map(|due| due.address)
            .collect();
        told.dedup();
        assert_eq!(told.len(), 9);
    }
}
