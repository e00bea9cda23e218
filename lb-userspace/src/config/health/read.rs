//! Reads `[vip.health]`: what all types share.

use std::{net::IpAddr, time::Duration};

use super::{
    super::{
        Protocol,
        duration::{self, Range},
        host::is_own,
        keys,
        section::Section,
        source::Report,
    },
    Health, Times, Via,
    probe::{self, Kind},
};

const INTERVAL: Range = Range {
    least: Duration::from_millis(100),
    most: Duration::from_hours(1),
    example: "2s",
};

const TIMEOUT: Range = Range {
    least: Duration::from_millis(10),
    most: INTERVAL.most,
    example: "1s",
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);

/// Or the interval, where that is shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

const DEFAULT_RISE: u16 = 2;

const DEFAULT_FALL: u16 = 3;

/// Only when all fail.
const DEFAULT_PANIC_THRESHOLD: u8 = 100;

/// The most probes in a row that a verdict may take.
const MOST_IN_A_ROW: u16 = 1000;

/// The VIP whose backends are checked, as far as it could be read.
#[derive(Clone, Copy)]
pub(in super::super) struct Of {
    pub(in super::super) address: Option<IpAddr>,
    pub(in super::super) port: Option<u16>,
    pub(in super::super) protocol: Option<Protocol>,
    /// Whether it is held against the host that reads it.
    pub(in super::super) is_on_this_host: bool,
}

/// It is wrong, and that has been reported.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Refused;

/// Reads `[vip.health]`; `None` where nothing is checked.
pub(in super::super) fn read(
    vip: &Section<'_>,
    of: Of,
    report: &mut Report<'_>,
) -> Result<Option<Health>, Refused> {
    const WANTED: &str = "a section `[vip.health]`";
    const HELP: &str =
        "write `type = \"tcp\"` in it, or take it out: without it nothing is checked";
    let Some(field) = vip.field("health") else {
        return Ok(None);
    };
    let section = field.section(WANTED, HELP, &keys::HEALTH, report);
    let section = section.ok_or(Refused)?;
    let kind = section
        .required("type", "the type of the checks", HELP, report)
        .and_then(|field| probe::kind(&field, report));
    match kind.ok_or(Refused)? {
        // Whoever turns the checks off for a while may leave the rest as it is.
        Kind::None => Ok(None),
        kind => checked(&section, kind, of, report).map(Some).ok_or(Refused),
    }
}

fn checked(section: &Section<'_>, kind: Kind, of: Of, report: &mut Report<'_>) -> Option<Health> {
    let probe = probe::read(section, kind, of, report);
    let port = port(section, of, report);
    let times = times(section, report);
    let via = via(section, of, report);
    let panic_threshold = panic_threshold(section, report);

    let Times {
        interval,
        timeout,
        rise,
        fall,
    } = times?;
    Some(Health {
        probe: probe?,
        via: via?,
        port: port?,
        interval,
        timeout,
        rise,
        fall,
        panic_threshold: panic_threshold?,
    })
}

impl Default for Times {
    fn default() -> Self {
        Self {
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            rise: DEFAULT_RISE,
            fall: DEFAULT_FALL,
        }
    }
}

/// `interval`, `timeout`, `rise` and `fall` of a section.
pub(in super::super) fn times(section: &Section<'_>, report: &mut Report<'_>) -> Option<Times> {
    let interval = match section.field("interval") {
        Some(field) => duration::read(&field, &INTERVAL, report),
        None => Some(DEFAULT_INTERVAL),
    };
    let timeout = timeout(section, interval, report);
    let rise = in_a_row(section, "rise", DEFAULT_RISE, report);
    let fall = in_a_row(section, "fall", DEFAULT_FALL, report);
    Some(Times {
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
    })
}

fn via(section: &Section<'_>, of: Of, report: &mut Report<'_>) -> Option<Via> {
    let Some(field) = section.field("via") else {
        return Some(Via::Direct);
    };
    let is_dsr = field.word(&[("direct", false), ("dsr", true)], &[], report)?;
    if !is_dsr {
        return Some(Via::Direct);
    }
    let vip = of.address?;
    if of.is_on_this_host && is_own(vip) {
        let found = format!("\"dsr\", and {vip} is an address of this host itself");
        let bits = if vip.is_ipv4() { 32 } else { 128 };
        let help = format!(
            "take the address off this host (`ip address del {vip}/{bits} dev lo`, or what `ip address` shows), since what \
             is sent to it never leaves; or write `via = \"direct\"`"
        );
        report.add(
            field.offset,
            &field.path,
            found,
            "a VIP that this host does not hold, or \"direct\"",
            help,
        );
        return None;
    }
    Some(Via::Dsr { vip })
}

fn port(section: &Section<'_>, of: Of, report: &mut Report<'_>) -> Option<u16> {
    const WANTED: &str = "a port from 1 to 65535";
    const HELP: &str = "write `port = 8080`, the port on which the backends are asked";
    let field = if of.port? == 0 {
        // Every port is no port that could be asked.
        section.required(
            "port",
            WANTED,
            "write `port = 8080`, the port on which the backends are asked: the VIP's own is 0, every port",
            report,
        )?
    } else {
        match section.field("port") {
            Some(field) => field,
            None => return of.port,
        }
    };
    let port = field.u16(WANTED, HELP, report)?;
    if port == 0 {
        field.refuse(WANTED, HELP, report);
        return None;
    }
    Some(port)
}

/// A timeout that ends before the next probe begins, so that probes of one backend never overlap.
fn timeout(
    section: &Section<'_>,
    interval: Option<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let Some(field) = section.field("timeout") else {
        return interval.map(|interval| interval.min(DEFAULT_TIMEOUT));
    };
    let timeout = duration::read(&field, &TIMEOUT, report)?;
    let interval = interval?;
    if timeout > interval {
        let interval = duration::text(interval);
        field.refuse(
            &format!("at most the interval, {interval}"),
            &format!("write `timeout = \"{interval}\"` or less, or a longer `interval`"),
            report,
        );
        return None;
    }
    Some(timeout)
}

fn in_a_row(
    section: &Section<'_>,
    key: &str,
    default: u16,
    report: &mut Report<'_>,
) -> Option<u16> {
    let Some(field) = section.field(key) else {
        return Some(default);
    };
    let wanted = format!("a number of probes from 1 to {MOST_IN_A_ROW}");
    let help = format!("write `{key} = {default}`");
    let count = field.u16(&wanted, &help, report)?;
    if !(1..=MOST_IN_A_ROW).contains(&count) {
        field.refuse(&wanted, &help, report);
        return None;
    }
    Some(count)
}

fn panic_threshold(section: &Section<'_>, report: &mut Report<'_>) -> Option<u8> {
    let Some(field) = section.field("panic_threshold") else {
        return Some(DEFAULT_PANIC_THRESHOLD);
    };
    field.parse(
        "a share of the VIP's backends from \"1%\" to \"100%\"",
        "write `panic_threshold = \"50%\"`: from that share of failed backends on, all are used",
        report,
        |text| {
            let digits = text.strip_suffix('%')?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            let percent = digits.parse().ok().filter(|_| is_number)?;
            (1..=100).contains(&percent).then_some(percent)
        },
    )
}
