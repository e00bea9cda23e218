//! Reads `[vip.limit]`: rates, bursts and what is done with what is over them.

use std::{collections::BTreeMap, time::Duration};

use lb_common::limit::Kind;

use super::{
    Limit, Limits, Protocol, Rate,
    keys::{self, one_of},
    section::{Field, Section},
    source::Report,
};

/// Frames may be so long, in bytes, where the driver or the kernel joins several: a burst of bytes must hold one.
pub const LONGEST_FRAME: u64 = 65_536;

/// The longest time that a burst may take at its rate.
const LONGEST_BURST: Duration = Duration::from_hours(1);

/// The highest rate of bytes, a second: above it the clock's ticks are too coarse.
const MOST_BYTES: u64 = 125_000_000_000;

/// The highest rate of packets or connections, a second: more than any machine forwards.
const MOST_PACKETS: u64 = 1_000_000_000;

/// What is usual for a burst: what comes in this time at the rate.
const USUAL_BURST: Duration = Duration::from_millis(100);

/// And no less than this, in packets or connections.
const LEAST_USUAL_BURST: u64 = 10;

const WANTED: &str = "a section `[vip.limit]`, or several `[[vip.limit]]`";
const HELP: &str = "begin the limits of a VIP with a line `[vip.limit]`";

/// Reads the limits of a VIP. Several sections have a burst and an action each.
pub(super) fn read(
    vip: &Section<'_>,
    protocol: Option<Protocol>,
    has_redis: bool,
    report: &mut Report<'_>,
) -> Option<Limits> {
    let mut limits = Limits::default();
    let Some(field) = vip.field("limit") else {
        return Some(limits);
    };
    let sections = if field.is_list() {
        field.items(WANTED, HELP, report)?
    } else {
        vec![field]
    };
    let mut is_right = true;
    let mut lines = BTreeMap::new();
    for field in sections {
        let section = field.section(WANTED, HELP, &keys::LIMIT, report)?;
        is_right &= read_section(
            &section,
            (protocol, has_redis),
            &mut limits,
            &mut lines,
            report,
        )
        .is_some();
    }
    is_right.then_some(limits)
}

fn read_section(
    section: &Section<'_>,
    (protocol, has_redis): (Option<Protocol>, bool),
    limits: &mut Limits,
    lines: &mut BTreeMap<Kind, usize>,
    report: &mut Report<'_>,
) -> Option<()> {
    let action = match section.field("action") {
        Some(field) => field.word(&[("drop", false), ("observe", true)], &[], report),
        None => Some(false),
    };
    let is_cluster = match section.field("cluster") {
        Some(field) => cluster(&field, has_redis, report),
        None => Some(false),
    };
    let prefixes = prefixes(section, limits, report);
    let rates: Vec<_> = Kind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, section.field(kind.as_str())?)))
        .collect();
    if rates.is_empty() {
        let wanted = one_of(Kind::ALL.iter().map(|kind| format!("`{}`", kind.as_str())));
        let help = "write `packets_per_source = \"500/s\"`, or take the section out";
        report.add(
            section.offset(),
            section.path_of("packets_per_source"),
            "no rate",
            wanted,
            help,
        );
        return None;
    }
    let mut is_right = true;
    for (kind, field) in rates {
        let rate = rate(kind, &field, protocol, report);
        let burst = rate.and_then(|rate| burst(section, kind, rate, report));
        let (line, _) = report.place(field.offset);
        if let Some(first) = lines.insert(kind, line) {
            let help = format!("take one of the two out: the first is on line {first}");
            let found = format!("`{}` again", kind.as_str());
            report.add(
                field.offset,
                &field.path,
                found,
                "each kind of limit once a VIP",
                help,
            );
            is_right = false;
        }
        match (rate, burst, action, is_cluster) {
            (Some(rate), Some(burst), Some(is_observed), Some(is_cluster)) => {
                let limit = Limit {
                    rate,
                    burst,
                    is_observed,
                    is_cluster,
                };
                limits.by_kind.insert(kind, limit);
            }
            _ => is_right = false,
        }
    }
    prefixes.filter(|()| is_right)
}

/// `cluster`: the fleet needs somebody to share the limit out.
fn cluster(field: &Field<'_>, has_redis: bool, report: &mut Report<'_>) -> Option<bool> {
    const HELP: &str = "write `cluster = true` for one limit of the whole fleet";
    let is_cluster = field.bool(HELP, report)?;
    if is_cluster && !has_redis {
        field.refuse(
            "a section `[redis]` in this file, by which the nodes share the limit",
            "write `[redis]`, `url = \"redis://127.0.0.1:6379\"` and `fleet = \"edge\"`; or take `cluster` out",
            report,
        );
        return None;
    }
    Some(is_cluster)
}

/// `source_prefix_v4` and `source_prefix_v6`.
fn prefixes(section: &Section<'_>, limits: &mut Limits, report: &mut Report<'_>) -> Option<()> {
    let mut read = |key: &str, most: u8, usual: u8| {
        let Some(field) = section.field(key) else {
            return Some(None);
        };
        let wanted = format!("a prefix length from 1 to {most}");
        let help = format!("write `{key} = {usual}`");
        let length: u8 = field.number(&wanted, &help, report)?;
        if length == 0 || length > most {
            field.refuse(&wanted, &help, report);
            return None;
        }
        Some(Some(length))
    };
    let v4 = read("source_prefix_v4", 32, 32);
    let v6 = read("source_prefix_v6", 128, 64);
    limits.source_prefix_v4 = v4?.unwrap_or(limits.source_prefix_v4);
    limits.source_prefix_v6 = v6?.unwrap_or(limits.source_prefix_v6);
    Some(())
}

/// A rate as `"500/s"`, `"2M/s"`, `"30/min"`; of bytes as `"10Gbit/s"` or `"100MB/s"`.
fn rate(
    kind: Kind,
    field: &Field<'_>,
    protocol: Option<Protocol>,
    report: &mut Report<'_>,
) -> Option<Rate> {
    if kind.is_of_connections() && protocol == Some(Protocol::Udp) {
        let help = "limit `packets` or `packets_per_source`: nobody can tell the first packet of a UDP flow";
        report.add(
            field.offset,
            &field.path,
            "a limit of connections of a UDP VIP",
            "a VIP of TCP",
            help,
        );
        return None;
    }
    let (wanted, example) = if kind == Kind::Bytes {
        (
            "a rate of bits or bytes from 1 byte a second to 1 Tbit/s, as \"10Gbit/s\" or \"100MB/s\"",
            "1Gbit/s",
        )
    } else {
        (
            "a rate from 1 an hour to 1G a second, as \"500/s\", \"2M/s\" or \"30/min\"",
            "500/s",
        )
    };
    let help = format!("write `{} = \"{example}\"`", field.key);
    field.parse(wanted, &help, report, |text| parse_rate(kind, text))
}

fn parse_rate(kind: Kind, text: &str) -> Option<Rate> {
    let (amount, time) = text.split_once('/')?;
    let period = match time.trim() {
        "s" => Duration::from_secs(1),
        "min" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        _ => return None,
    };
    let amount = amount.trim();
    let digits = amount
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(amount.len());
    let (number, unit) = amount.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim();
    let (scale, unit) = match unit.chars().next() {
        Some('k' | 'K') => (1_000, unit.get(1..)?),
        Some('M') => (1_000_000, unit.get(1..)?),
        Some('G') => (1_000_000_000, unit.get(1..)?),
        Some('T') => (1_000_000_000_000, unit.get(1..)?),
        _ => (1, unit),
    };
    let scaled = number.checked_mul(scale)?;
    let count = match (kind, unit) {
        (Kind::Bytes, "bit") => scaled / 8,
        (Kind::Bytes, "B") => scaled,
        (Kind::Bytes, _) => return None,
        (_, "") => scaled,
        _ => return None,
    };
    let rate = Rate { count, period };
    let most = if kind == Kind::Bytes {
        MOST_BYTES
    } else {
        MOST_PACKETS
    };
    (count > 0 && rate.per_second() <= most).then_some(rate)
}

/// `burst`: a number of what is limited, or the time in which it comes at the rate.
fn burst(section: &Section<'_>, kind: Kind, rate: Rate, report: &mut Report<'_>) -> Option<u64> {
    let least = if kind == Kind::Bytes {
        LONGEST_FRAME
    } else {
        1
    };
    let most = rate.within(LONGEST_BURST);
    let Some(field) = section.field("burst") else {
        let usual = rate.within(USUAL_BURST);
        return Some(usual.max(least).max(LEAST_USUAL_BURST));
    };
    let of = if kind == Kind::Bytes {
        "bytes"
    } else {
        "packets or connections"
    };
    let wanted = format!(
        "a number of {of} from {least} to {}, or a time at the rate of `{}`, as \"100ms\"",
        most.max(least),
        kind.as_str()
    );
    let help = match kind {
        Kind::Bytes => "write `burst = 1000000`, or `burst = \"100ms\"`",
        _ => "write `burst = 50`, or `burst = \"100ms\"`",
    };
    let burst = match field.text() {
        Some(text) => humantime::parse_duration(text)
            .ok()
            .map(|time| rate.within(time).max(1)),
        None => Some(field.number(&wanted, help, report)?),
    };
    let burst = burst.filter(|burst| (least..=most.max(least)).contains(burst));
    if burst.is_none() {
        field.refuse(&wanted, help, report);
    }
    burst
}

impl Rate {
    /// How many a second, rounded down.
    #[must_use]
    pub const fn per_second(&self) -> u64 {
        self.count / self.period.as_secs()
    }

    /// How many thousandths of one a second, rounded down.
    #[must_use]
    pub const fn thousandths(&self) -> u64 {
        self.count.saturating_mul(1000) / self.period.as_secs()
    }

    /// How many come in a time, rounded down.
    #[must_use]
    pub fn within(&self, time: Duration) -> u64 {
        let count = u128::from(self.count) * time.as_nanos() / self.period.as_nanos();
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        let rate =
            |kind, text| parse_rate(kind, text).map(|rate| (rate.count, rate.period.as_secs()));
        let packets = |text| rate(Kind::Packets, text);
        let bytes = |text| rate(Kind::Bytes, text);
        assert_eq!(packets("500/s"), Some((500, 1)));
        assert_eq!(packets("2M/s"), Some((2_000_000, 1)));
        assert_eq!(packets("2 k / min"), Some((2_000, 60)));
        assert_eq!(packets("30/h"), Some((30, 3600)));
        assert_eq!(bytes("10Gbit/s"), Some((1_250_000_000, 1)));
        assert_eq!(bytes("100MB/s"), Some((100_000_000, 1)));
        assert_eq!(bytes("8bit/s"), Some((1, 1)));
        for text in [
            "",
            "/s",
            "5",
            "0/s",
            "-1/s",
            "1.5/s",
            "5/d",
            "5x/s",
            "5Mbit/s",
            "99999999999999999999/s",
            "200G/s",
        ] {
            assert_eq!(packets(text), None, "{text}");
        }
        for text in ["5/s", "5M/s", "7bit/s", "2Tbit/s", "1Mb/s"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_rate_tells_what_comes_in_a_time() {
        let rate = Rate {
            count: 30,
            period: Duration::from_mins(1),
        };
        assert_eq!(rate.per_second(), 0);
        assert_eq!(rate.within(Duration::from_secs(10)), 5);
        assert_eq!(rate.within(Duration::from_secs(1)), 0);
    }
}
