//! What watchers may ask for.

use std::time::Duration;

use lb_common::{
    gcra::TICKS_PER_SECOND,
    observe::{ANY_REASON, ANY_VIP, HEADERS, MAX_SAVED, Net, Watch, one_in},
    reason::{Reason, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::config::Prefix;

/// Packets that are told in a second, unless said.
pub const DEFAULT_RATE: u32 = 1000;

/// Packets that are told in a second, at most.
pub const MAX_RATE: u32 = 100_000;

/// Bytes of a packet that a capture keeps, unless said.
pub const DEFAULT_SNAPLEN: u32 = HEADERS;

/// Bytes of a packet that a capture keeps, at most.
pub const MAX_SNAPLEN: u32 = MAX_SAVED as u32;

/// How long a capture takes at most, unless said.
pub const DEFAULT_SECONDS: u64 = 60;

/// How long a capture may take.
pub const MAX_SECONDS: u64 = 24 * 60 * 60;

/// Which of the two packets.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    PartialEq,
    Serialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// As it came
    Came,
    /// As it left
    Left,
    /// Both
    #[default]
    Both,
}

impl Side {
    /// Name in queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Came => "came",
            Self::Left => "left",
            Self::Both => "both",
        }
    }
}

/// Which packets a capture is of, and how many.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct CaptureFilter {
    /// Those of the VIP with this name; none: all that come.
    pub vip: Option<String>,
    /// Those with these reasons, by commas; `drop` and `pass` stand for all of that verdict. None: all.
    pub reason: Option<String>,
    /// Those from addresses in this prefix.
    #[param(value_type = Option<String>)]
    pub from: Option<Prefix>,
    /// Those to addresses in this prefix.
    #[param(value_type = Option<String>)]
    pub to: Option<Prefix>,
    /// How many packets; none: no limit.
    pub count: Option<u64>,
    /// For how long, 60 s unless said, a day at most.
    pub seconds: Option<u64>,
    /// Packets in a second at most, 1,000 unless said, 100,000 at most.
    pub rate: Option<u32>,
    /// Bytes of each packet, 256 unless said, 2,048 at most.
    pub snaplen: Option<u32>,
    /// Packets as they came, as they left, or both.
    #[param(value_type = Option<String>)]
    pub side: Option<Side>,
}

impl CaptureFilter {
    /// For how long at most.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(DEFAULT_SECONDS).min(MAX_SECONDS))
    }

    /// Bytes of each packet.
    #[must_use]
    pub fn saved(&self) -> u32 {
        self.snaplen.unwrap_or(DEFAULT_SNAPLEN).min(MAX_SNAPLEN)
    }

    /// What is to be watched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn wanted(&self) -> Result<Wanted, String> {
        Ok(Wanted {
            vip: self.vip.clone(),
            reasons: reasons(self.reason.as_deref())?,
            from: self.from,
            to: self.to,
            sample: 1,
            rate: self.rate.unwrap_or(DEFAULT_RATE),
            saved: self.saved(),
            is_capture: true,
        })
    }
}

/// Which packets are told as events.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PacketFilter {
    /// One packet in so many, by chance; 1, which is every one, unless said.
    pub sample: Option<u32>,
    /// Those of the VIP with this name; none: all that come.
    pub vip: Option<String>,
    /// Those with these reasons, by commas; `drop` and `pass` stand for all of that verdict. None: all.
    pub reason: Option<String>,
    /// Packets in a second at most, 1,000 unless said, 100,000 at most.
    pub rate: Option<u32>,
}

impl PacketFilter {
    /// One packet in so many.
    #[must_use]
    pub fn sample(&self) -> u32 {
        self.sample.unwrap_or(1)
    }

    /// What is to be watched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn wanted(&self) -> Result<Wanted, String> {
        if self.sample == Some(0) {
            return Err("`sample` is one packet in so many: 1 or more".to_owned());
        }
        Ok(Wanted {
            vip: self.vip.clone(),
            reasons: reasons(self.reason.as_deref())?,
            from: None,
            to: None,
            sample: self.sample(),
            rate: self.rate.unwrap_or(DEFAULT_RATE),
            saved: HEADERS,
            is_capture: false,
        })
    }
}

/// What is to be watched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The VIP's name.
    pub vip: Option<String>,
    /// A bit for each reason.
    pub reasons: u64,
    /// Where packets are from.
    pub from: Option<Prefix>,
    /// Where they go.
    pub to: Option<Prefix>,
    /// One in so many.
    pub sample: u32,
    /// Records in a second.
    pub rate: u32,
    /// Bytes of each packet.
    pub saved: u32,
    /// Whether whoever asks may keep others out: some places are for captures alone.
    pub is_capture: bool,
}

impl Wanted {
    /// As the program knows it. `vip` is the id of the VIP with the wanted name.
    #[must_use]
    pub fn watch(&self, vip: Option<u32>) -> (u64, Watch) {
        let rate = self.rate.clamp(1, MAX_RATE);
        let interval = TICKS_PER_SECOND / u64::from(rate);
        let watch = Watch {
            reasons: self.reasons,
            interval,
            depth: interval.saturating_mul(u64::from(rate)),
            source: self.from.as_ref().map(net).unwrap_or_default(),
            destination: self.to.as_ref().map(net).unwrap_or_default(),
            vip: vip.unwrap_or(ANY_VIP),
            reserved: 0,
        };
        (one_in(self.sample), watch)
    }
}

fn net(prefix: &Prefix) -> Net {
    let mapped = if prefix.is_v4() { 96 } else { 0 };
    let address = crate::model::map_address(prefix.address());
    Net::new(address, u32::from(prefix.length()).saturating_add(mapped))
}

/// Reasons by their names, as bits; all where none is named.
///
/// # Errors
/// A name that is none, and those that there are.
pub fn reasons(names: Option<&str>) -> Result<u64, String> {
    let Some(names) = names else {
        return Ok(ANY_REASON);
    };
    let mut bits = 0;
    for name in names.split(',').map(str::trim) {
        let is_named = |reason: &&Reason| match name {
            "drop" => reason.verdict() == Verdict::Drop,
            "pass" => reason.verdict() == Verdict::Pass,
            name => reason.as_str() == name,
        };
        let found = Reason::ALL.iter().filter(is_named);
        let found = found.fold(0u64, |bits, reason| bits | 1 << (*reason as u32));
        if found == 0 {
            let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            return Err(format!(
                "there is no reason `{name}`; there are {}, and `drop` and `pass` for all of that verdict",
                all.join(", ")
            ));
        }
        bits |= found;
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::{flow::Address, observe::EVERY};

    #[test]
    fn reasons_are_named_one_by_one_or_by_their_verdict() {
        assert_eq!(reasons(None), Ok(ANY_REASON));
        let two = 1 << Reason::Denied as u32 | 1 << Reason::Limited as u32;
        assert_eq!(reasons(Some("denied, limited")), Ok(two));
        let dropped = reasons(Some("drop")).unwrap();
        assert_eq!(dropped & two, two);
        let passed = reasons(Some("pass")).unwrap();
        assert_eq!(dropped & passed, 0);
        assert_eq!(reasons(Some("drop,pass")), Ok(dropped | passed));
        let error = reasons(Some("denied,nothing")).unwrap_err();
        assert!(
            error.contains("`nothing`") && error.contains("not_vip"),
            "{error}"
        );
        assert!(reasons(Some("")).is_err());
    }

    #[test]
    fn what_is_asked_for_is_kept_within_what_is_safe() {
        let filter = CaptureFilter {
            rate: Some(u32::MAX),
            snaplen: Some(9000),
            seconds: Some(u64::MAX),
            from: Some("198.51.100.0/24".parse().unwrap()),
            ..CaptureFilter::default()
        };
        assert_eq!(filter.saved(), MAX_SNAPLEN);
        assert_eq!(filter.time(), Duration::from_secs(MAX_SECONDS));
        let (lot, watch) = filter.wanted().unwrap().watch(Some(7));
        assert_eq!(lot, EVERY);
        assert_eq!(watch.interval, TICKS_PER_SECOND / u64::from(MAX_RATE));
        assert_eq!(watch.vip, 7);
        let from = |octets| Some((Address::from_v4(octets), Address::default()));
        let fits = |octets| watch.fits(0, 7, from(octets).as_ref());
        assert!(fits([198, 51, 100, 9]) && !fits([198, 51, 101, 9]));
        let events = PacketFilter {
            sample: Some(0),
            ..PacketFilter::default()
        };
        assert!(events.wanted().is_err());
    }
}
