//! What `weir top` shows at a moment. As JSON its field names are stable, and docs/top.md tells them.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::api::SourceStatus;

/// The state of one node, and what happened between two samples. Rates that are not known are `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Top {
    pub(super) time: String,
    pub(super) node: String,
    pub(super) version: String,
    pub(super) generation: u64,
    pub(super) ready: bool,
    /// Between the samples.
    pub(super) seconds: Option<f64>,
    #[serde(flatten)]
    pub(super) forwarded: Rates,
    pub(super) dropped_per_second: Option<f64>,
    pub(super) passed_per_second: Option<f64>,
    pub(super) interfaces: Vec<Interface>,
    pub(super) problems: Vec<String>,
    pub(super) vips: Vec<Vip>,
    pub(super) reasons: Vec<Reason>,
    /// `null` where they were not asked for.
    pub(super) sampled_sources: Option<SampledSources>,
}

impl Top {
    /// How many packets a second come: for a VIP, or at all.
    pub(super) fn coming(&self, vip: Option<&str>) -> Option<f64> {
        let vip = vip.and_then(|name| self.vips.iter().find(|vip| vip.name == name));
        let of_vip = vip.and_then(|vip| vip.rates.packets_per_second);
        of_vip.or_else(|| {
            self.seconds?;
            let rates = self.reasons.iter();
            Some(rates.filter_map(|reason| reason.packets_per_second).sum())
        })
    }
}

/// What was forwarded.
#[expect(clippy::struct_field_names, reason = "they are the names in JSON")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) packets_per_second: Option<f64>,
    pub(super) bits_per_second: Option<f64>,
    pub(super) new_connections_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) state: &'static str,
}

#[expect(clippy::struct_field_names, reason = "they are the names in JSON")]
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Reason {
    pub(super) reason: String,
    pub(super) verdict: String,
    pub(super) packets: u64,
    pub(super) packets_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Vip {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    pub(super) state: VipState,
    /// Backends that own slots and whose next hop is known.
    pub(super) backends_in_use: usize,
    #[serde(flatten)]
    pub(super) rates: Rates,
    /// Of the limit that it is nearest to: 1 is all of it.
    pub(super) limit_used: Option<f64>,
    pub(super) slots_changing: u32,
    pub(super) pins: u64,
    pub(super) limits: Vec<LimitUse>,
    pub(super) backends: Vec<Backend>,
    /// Exact, where limits tell sources apart.
    pub(super) top_sources: Option<Vec<SourceStatus>>,
}

impl Vip {
    /// How many backends the configuration has.
    pub(super) fn configured(&self) -> usize {
        let own = self.backends.iter().filter(|one| one.mode.is_some());
        own.count()
    }

    /// What clients dial; `*` is every port.
    pub(super) fn dialled(&self) -> String {
        let protocol = self.protocol;
        match (self.port, self.address) {
            (0, IpAddr::V4(address)) => format!("{address}:*/{protocol}"),
            (0, IpAddr::V6(address)) => format!("[{address}]:*/{protocol}"),
            (port, address) => format!("{}/{protocol}", SocketAddr::new(address, port)),
        }
    }
}

/// Whether a VIP is served.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum VipState {
    NoBackend,
    FailsOpen,
    Ok,
}

impl VipState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::NoBackend => "no backend",
            Self::FailsOpen => "fails open",
            Self::Ok => "ok",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LimitUse {
    pub(super) limit: String,
    pub(super) per_second: f64,
    pub(super) action: String,
    /// Of a limit of sources, that of the busiest one.
    pub(super) used: Option<f64>,
    pub(super) allowed_per_second: Option<f64>,
    pub(super) over_per_second: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Backend {
    pub(super) id: u16,
    pub(super) address: IpAddr,
    pub(super) state: BackendState,
    pub(super) weight: u16,
    /// Its weight as a part of all weights of the VIP.
    pub(super) weight_share: f64,
    /// What it owns of the VIP's table: by weight, among those that take new flows.
    pub(super) slots_share: f64,
    /// What it got of the VIP's packets.
    pub(super) traffic_share: Option<f64>,
    #[serde(flatten)]
    pub(super) rates: Rates,
    pub(super) pins: u64,
    pub(super) mode: Option<&'static str>,
    /// Why its last health check did not pass.
    pub(super) last_error: Option<String>,
}

impl Backend {
    /// How far its share of the packets is from its share of the slots.
    pub(super) fn skew(&self) -> Option<f64> {
        Some((self.traffic_share? - self.slots_share).abs())
    }
}

/// How a backend is, the worst first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BackendState {
    Failed,
    Unresolved,
    Dead,
    Leaving,
    Drained,
    Unchecked,
    Ok,
}

impl BackendState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unresolved => "unresolved",
            Self::Dead => "dead",
            Self::Leaving => "leaving",
            Self::Drained => "drained",
            Self::Unchecked => "unchecked",
            Self::Ok => "ok",
        }
    }
}

/// The busiest sources as sampled packets tell them: estimates.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct SampledSources {
    /// Why there are none; `null` where there are.
    pub(super) unavailable: Option<String>,
    /// One packet of so many was looked at.
    pub(super) sample: u32,
    /// How many were looked at.
    pub(super) samples: u64,
    /// For how long.
    pub(super) seconds: f64,
    /// No estimate is higher than the sampled packets say by more than this, for lack of counters.
    pub(super) overestimate_per_second: f64,
    pub(super) top: Vec<SampledSource>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SampledSource {
    pub(super) source: IpAddr,
    pub(super) packets_per_second: f64,
    pub(super) bits_per_second: f64,
    /// In 95 of 100 cases sampling is off by no more, in packets a second.
    pub(super) error_per_second: f64,
}
