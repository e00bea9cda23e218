//! From rates as people write them to limits as packets are judged by them.

use std::collections::BTreeMap;

use lb_common::{
    flow::Address,
    gcra::{MAX_DEPTH, TICKS_PER_SECOND, Ticks},
    limit::{self, Kind, Limits, OwnRate, Rate, rate_flags},
};

use crate::config::{self, LONGEST_FRAME};

/// What this node may let through of limits that the whole fleet keeps, by VIP and kind: thousandths of what is limited, a
/// second, and how much of it at once. Of what is not there, all of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    /// By VIP and kind.
    pub by_limit: BTreeMap<(String, Kind), (u64, u64)>,
    /// How many nodes share a limit of sources: each holds a source to an even part of it, unless it has limits of its own.
    pub nodes: u32,
}

/// Where less than this is left of a burst after one packet, the precise clock holds it: five ticks of the slowest kernels, twelve
/// of the usual ones. What is left must outlast a tick, or less than the rate gets through.
const SHORT: Ticks = TICKS_PER_SECOND / 20;

/// The limits of a VIP on a node with this many CPUs; `None` where it has none.
#[must_use]
pub fn limits(wanted: &config::Limits, vip: &str, parts: &Parts, cpus: usize) -> Option<Limits> {
    if wanted.by_kind.is_empty() {
        return None;
    }
    let rate = |kind| {
        let Some(limit) = wanted.by_kind.get(&kind) else {
            return Rate::default();
        };
        let whole = (limit.rate.thousandths(), limit.burst);
        let (thousandths, burst) = if !limit.is_cluster {
            whole
        } else if kind.is_per_source() {
            let nodes = u64::from(parts.nodes.max(1));
            (whole.0 / nodes, (whole.1 / nodes).max(1))
        } else {
            let part = parts.by_limit.get(&(vip.to_owned(), kind));
            part.copied().unwrap_or(whole)
        };
        as_ticks(kind, (thousandths, burst), limit.is_observed, cpus)
    };
    let mut rates = Kind::ALL.map(rate);
    // Leases come and go, and some are of a few packets.
    let is_cluster = wanted.by_kind.values().any(|limit| limit.is_cluster);
    let is_short = |(kind, rate): (Kind, &Rate)| {
        let most = if kind == Kind::Bytes {
            LONGEST_FRAME
        } else {
            1
        };
        let left = rate
            .depth
            .saturating_sub(rate.interval.saturating_mul(most));
        rate.interval != 0 && left < SHORT
    };
    if is_cluster || Kind::ALL.into_iter().zip(&rates).any(is_short) {
        for rate in &mut rates {
            rate.flags |= rate_flags::PRECISE;
        }
    }
    // The fleet may give heavy sources shares of their own.
    if wanted
        .by_kind
        .iter()
        .any(|(kind, limit)| limit.is_cluster && kind.is_per_source())
    {
        for rate in &mut rates {
            rate.flags |= rate_flags::OWN_RATES;
        }
    }
    let limits = Limits {
        rates,
        mask_v6: mask(wanted.source_prefix_v6),
        mask_v4: mask(96_u8.saturating_add(wanted.source_prefix_v4)),
    };
    Some(limits.told())
}

/// A limit of one source alone: thousandths of packets or connections a second, and how many at once.
#[must_use]
pub fn own_rate(thousandths: u64, burst: u64) -> OwnRate {
    let interval = interval(thousandths);
    OwnRate {
        interval,
        depth: depth(interval, burst),
    }
}

/// What a VIP with these limits asks of the pipeline.
#[must_use]
pub fn vip_flags(limits: &config::Limits) -> u32 {
    limit::vip_flags(limits.by_kind.keys().copied())
}

fn as_ticks(kind: Kind, (thousandths, burst): (u64, u64), is_observed: bool, cpus: usize) -> Rate {
    let interval = interval(thousandths);
    let depth = depth(interval, burst);
    let shares = u64::try_from(cpus.max(1)).unwrap_or(u64::MAX);
    Rate {
        interval,
        depth,
        // What CPUs hold and do not use is missing from the burst: an eighth of it at most.
        batch: if kind.is_per_source() {
            0
        } else {
            depth / shares.saturating_mul(8)
        },
        flags: if is_observed { rate_flags::OBSERVE } else { 0 },
    }
}

/// Ticks that one takes at the rate, to the nearest: at the highest rate a limit is off by 2 %, at 1 Gbit/s by 0.002 %.
fn interval(thousandths: u64) -> Ticks {
    let ticks = u128::from(TICKS_PER_SECOND) * 1000;
    let count = u128::from(thousandths.max(1));
    u64::try_from((ticks + count / 2) / count)
        .unwrap_or(MAX_DEPTH)
        .clamp(1, MAX_DEPTH)
}

fn depth(interval: Ticks, burst: u64) -> Ticks {
    interval.saturating_mul(burst).min(MAX_DEPTH)
}

/// The first bits of an address.
fn mask(bits: u8) -> Address {
    let ones = u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(bits)))
        .unwrap_or(0);
    Address::from_v6(ones.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, time::Duration};

    use lb_common::vip::flags;

    use super::*;
    use crate::model::map_address;
    use lb_common::gcra::TICKS_PER_NS;

    fn limit(count: u64, burst: u64) -> config::Limit {
        config::Limit {
            rate: config::Rate {
                count,
                period: Duration::from_secs(1),
            },
            burst,
            is_observed: false,
            is_cluster: false,
        }
    }

    fn of(limits: impl IntoIterator<Item = (Kind, config::Limit)>) -> config::Limits {
        config::Limits {
            by_kind: limits.into_iter().collect(),
            ..config::Limits::default()
        }
    }

    #[test]
    fn a_rate_becomes_the_time_that_one_takes() {
        let made = limits(
            &of([(Kind::Packets, limit(1000, 50))]),
            "web",
            &Parts::default(),
            4,
        )
        .unwrap();
        let rate = made.rate(Kind::Packets);
        assert_eq!(rate.interval, 1_000_000 * TICKS_PER_NS);
        assert_eq!(rate.depth, 50 * rate.interval);
        assert_eq!(rate.batch, rate.depth / 32);
        assert_eq!(made.rate(Kind::Bytes).interval, 0);
        assert!(limits(&config::Limits::default(), "web", &Parts::default(), 4).is_none());
    }

    #[test]
    fn short_bursts_and_leases_want_the_precise_clock() {
        let is_precise = |wanted: &config::Limits| {
            let made = limits(wanted, "web", &Parts::default(), 1).unwrap();
            let all = Kind::ALL.map(|kind| made.rate(kind).flags & rate_flags::PRECISE != 0);
            assert!(all == [true; 5] || all == [false; 5]);
            all == [true; 5]
        };
        let long = (Kind::Packets, limit(1000, 51));
        assert!(!is_precise(&of([long])));
        assert!(is_precise(&of([(Kind::Packets, limit(1000, 50))])));
        // A packet a second, one at once: nothing is left of it after one.
        assert!(is_precise(&of([(Kind::PacketsPerSource, limit(1, 1))])));
        let frame = LONGEST_FRAME;
        let bytes = |burst| (Kind::Bytes, limit(20_000_000, burst));
        assert!(!is_precise(&of([long, bytes(1_000_000 + frame)])));
        assert!(is_precise(&of([long, bytes(1_000_000)])));
        let mut lease = limit(1000, 1000);
        lease.is_cluster = true;
        assert!(is_precise(&of([long, (Kind::NewConnections, lease)])));
    }

    #[test]
    fn sources_have_limits_of_their_own_where_the_fleet_may_give_them_some() {
        let has_own = |kind| {
            let mut lease = limit(1000, 1000);
            lease.is_cluster = true;
            let wanted = of([(kind, lease), (Kind::Bytes, limit(1_000_000, 100_000))]);
            let made = limits(&wanted, "web", &Parts::default(), 1).unwrap();
            Kind::ALL.map(|kind| made.rate(kind).flags & rate_flags::OWN_RATES != 0)
        };
        assert_eq!(has_own(Kind::NewConnectionsPerSource), [true; 5]);
        assert_eq!(has_own(Kind::Packets), [false; 5]);
    }

    #[test]
    fn the_highest_rates_are_within_two_percent() {
        for count in [
            125_000_000_u64,
            1_250_000_000,
            12_500_000_000,
            125_000_000_000,
        ] {
            // How much a second's worth of such cells takes, against a second.
            let second =
                u128::from(interval(limit(count, 1).rate.thousandths())) * u128::from(count);
            let off =
                second.abs_diff(u128::from(TICKS_PER_SECOND)) * 100 / u128::from(TICKS_PER_SECOND);
            assert!(off < 2, "{count}: {off} %");
        }
    }

    #[test]
    fn sources_are_told_apart_by_their_prefixes() {
        let config = config::Limits {
            source_prefix_v4: 24,
            ..of([(Kind::PacketsPerSource, limit(10, 5))])
        };
        let made = limits(&config, "web", &Parts::default(), 1).unwrap();
        let key = |text: &str| {
            let address: IpAddr = text.parse().unwrap();
            made.key(map_address(address), 7)
        };
        assert_eq!(key("192.0.2.1"), key("192.0.2.255"));
        assert_ne!(key("192.0.2.1"), key("192.0.3.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8:0:1::1"), key("2001:db8::1"));
        assert_eq!(
            key("192.0.2.1").prefix,
            map_address("192.0.2.0".parse().unwrap())
        );
        assert_eq!(made.rate(Kind::PacketsPerSource).batch, 0);
    }

    #[test]
    fn of_what_the_fleet_keeps_a_node_has_its_part() {
        let mut wanted = of([
            (Kind::Packets, limit(1000, 80)),
            (Kind::NewConnections, limit(1000, 80)),
        ]);
        let parts = Parts {
            by_limit: [Kind::Packets, Kind::NewConnections]
                .map(|kind| (("web".to_owned(), kind), (250_000, 20)))
                .into(),
            nodes: 4,
        };
        for limit in wanted.by_kind.values_mut().take(1) {
            limit.is_cluster = true;
        }
        let made = limits(&wanted, "web", &parts, 1).unwrap();
        assert_eq!(made.rate(Kind::Packets).interval, TICKS_PER_SECOND / 250);
        assert_eq!(
            made.rate(Kind::Packets).depth,
            20 * (TICKS_PER_SECOND / 250)
        );
        // The other is each node's own, and so is another VIP's.
        assert_eq!(
            made.rate(Kind::NewConnections).interval,
            TICKS_PER_SECOND / 1000
        );
        let other = limits(&wanted, "shop", &parts, 1).unwrap();
        assert_eq!(other.rate(Kind::Packets).interval, TICKS_PER_SECOND / 1000);
    }

    #[test]
    fn a_source_has_an_even_part_of_what_the_fleet_keeps() {
        let mut wanted = of([(Kind::PacketsPerSource, limit(1000, 80))]);
        for limit in wanted.by_kind.values_mut() {
            limit.is_cluster = true;
        }
        let parts = Parts {
            nodes: 4,
            ..Parts::default()
        };
        let made = limits(&wanted, "web", &parts, 1).unwrap();
        let rate = made.rate(Kind::PacketsPerSource);
        assert_eq!(
            (rate.interval, rate.depth),
            (TICKS_PER_SECOND / 250, 20 * rate.interval)
        );
    }

    #[test]
    fn limits_say_which_of_them_are_not_there() {
        let facts = |kinds: &[Kind]| {
            let wanted = of(kinds.iter().map(|kind| (*kind, limit(10, 65_536))));
            let made = limits(&wanted, "web", &Parts::default(), 1).unwrap();
            let both = rate_flags::ONLY_SOURCES | rate_flags::ONLY_TOTALS;
            let facts = made.rates.map(|rate| rate.flags & both);
            assert_eq!(facts, [facts[0]; 5], "{kinds:?}");
            facts[0]
        };
        assert_eq!(
            facts(&[Kind::NewConnectionsPerSource]),
            rate_flags::ONLY_SOURCES
        );
        assert_eq!(facts(&[Kind::Bytes]), rate_flags::ONLY_TOTALS);
        assert_eq!(facts(&[Kind::Packets, Kind::PacketsPerSource]), 0);
    }

    #[test]
    fn only_syns_are_held_up_by_limits_of_connections() {
        let connections = of([(Kind::NewConnections, limit(10, 5))]);
        assert_eq!(vip_flags(&connections), flags::SYN_LIMITS);
        let both = of([
            (Kind::NewConnectionsPerSource, limit(10, 5)),
            (Kind::Bytes, limit(10, 65_536)),
        ]);
        assert_eq!(vip_flags(&both), flags::SYN_LIMITS | flags::LIMITS);
        assert_eq!(vip_flags(&of([])), 0);
    }
}
