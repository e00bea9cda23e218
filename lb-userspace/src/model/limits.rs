//! From rates as people write them to limits as packets are judged by them.

use lb_common::{
    flow::Address,
    gcra::{MAX_DEPTH, TICKS_PER_NS, Ticks},
    limit::{Kind, Limits, Rate, rate_flags},
    vip::flags,
};

use crate::config;

/// The limits of a VIP on a node with this many CPUs; `None` where it has none.
#[must_use]
pub fn limits(wanted: &config::Limits, cpus: usize) -> Option<Limits> {
    if wanted.by_kind.is_empty() {
        return None;
    }
    let rate = |kind| {
        let limit = wanted.by_kind.get(&kind);
        limit.map_or_else(Rate::default, |limit| as_ticks(kind, limit, cpus))
    };
    Some(Limits {
        rates: Kind::ALL.map(rate),
        mask_v6: mask(wanted.source_prefix_v6),
        mask_v4: mask(96_u8.saturating_add(wanted.source_prefix_v4)),
    })
}

/// What a VIP with these limits asks of the pipeline.
#[must_use]
pub fn vip_flags(limits: &config::Limits) -> u32 {
    let of = |kind: &Kind| {
        if kind.is_of_connections() {
            flags::SYN_LIMITS
        } else {
            flags::LIMITS
        }
    };
    limits.by_kind.keys().fold(0, |all, kind| all | of(kind))
}

fn as_ticks(kind: Kind, limit: &config::Limit, cpus: usize) -> Rate {
    let interval = interval(&limit.rate);
    let depth = depth(interval, limit.burst);
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
        flags: if limit.is_observed {
            rate_flags::OBSERVE
        } else {
            0
        },
    }
}

/// Ticks that one takes at the rate, to the nearest: at the highest rate a limit is off by 2 %, at 1 Gbit/s by 0.002 %.
fn interval(rate: &config::Rate) -> Ticks {
    let ticks = rate.period.as_nanos() * u128::from(TICKS_PER_NS);
    let count = u128::from(rate.count.max(1));
    u64::try_from((ticks + count / 2) / count)
        .unwrap_or(MAX_DEPTH)
        .max(1)
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

    use super::*;
    use crate::model::map_address;

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
        let made = limits(&of([(Kind::Packets, limit(1000, 50))]), 4).unwrap();
        let rate = made.rate(Kind::Packets);
        assert_eq!(rate.interval, 1_000_000 * TICKS_PER_NS);
        assert_eq!(rate.depth, 50 * rate.interval);
        assert_eq!(rate.batch, rate.depth / 32);
        assert_eq!(made.rate(Kind::Bytes).interval, 0);
        assert!(limits(&config::Limits::default(), 4).is_none());
    }

    #[test]
    fn the_highest_rates_are_within_two_percent() {
        for count in [
            125_000_000_u64,
            1_250_000_000,
            12_500_000_000,
            125_000_000_000,
        ] {
            let interval = interval(&limit(count, 1).rate);
            let real = 1e9 * TICKS_PER_NS as f64 / interval as f64;
            assert!((real / count as f64 - 1.0).abs() < 0.02, "{count}: {real}");
        }
    }

    #[test]
    fn sources_are_told_apart_by_their_prefixes() {
        let config = config::Limits {
            source_prefix_v4: 24,
            ..of([(Kind::PacketsPerSource, limit(10, 5))])
        };
        let made = limits(&config, 1).unwrap();
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
