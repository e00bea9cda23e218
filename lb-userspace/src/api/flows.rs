//! `GET /v1/flows`: the flows that are remembered while their slots change hands.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::Duration,
};

use lb_common::{
    flow::Flow,
    pin::{Kind, Pin},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Protocol,
    dataplane::{Remembered, Scan},
    model::{ip_address, place::Place, plan::Held},
};

/// Flows that are listed where nothing else is asked for.
pub const DEFAULT_LIMIT: usize = 100;

/// Flows that are listed at most: a listing is an answer, not an export of the maps.
const MOST: usize = 100_000;

/// Which flows are meant.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Those of the VIP with this name.
    pub vip: Option<String>,
    /// Those that are kept at the backend with this address.
    #[param(value_type = Option<String>)]
    pub backend: Option<IpAddr>,
    /// How many are listed at most, 100 unless said, 100,000 at most. All are counted.
    pub limit: Option<usize>,
}

/// The flows that are remembered.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Flows {
    /// How many are meant, listed or not. A flow may be remembered in several maps, and is counted once for each.
    pub total: u64,
    /// How many, by VIP and backend.
    pub counts: Vec<FlowCount>,
    /// Some of them, by VIP and client.
    pub flows: Vec<FlowStatus>,
}

/// How many flows of a VIP are kept at a backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FlowCount {
    /// The VIP's name.
    pub vip: String,
    /// The backend's address.
    #[schema(value_type = String)]
    pub backend: IpAddr,
    /// The backend's number in the maps: one that has come back after its death has another.
    pub backend_id: u16,
    /// How many.
    pub flows: u64,
}

/// A flow that is remembered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FlowStatus {
    /// The VIP's name.
    pub vip: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client's address and port.
    #[schema(value_type = String)]
    pub client: SocketAddr,
    /// The address and port that it dialled.
    #[schema(value_type = String)]
    pub dialled: SocketAddr,
    /// The backend that serves it.
    #[schema(value_type = String)]
    pub backend: IpAddr,
    /// That backend's number in the maps.
    pub backend_id: u16,
    /// Which map it is in: `syn`, `proven` or `old` (docs/consistency.md).
    pub kind: String,
    /// How long it has been remembered, in seconds, to within one or two. `null` where an older program began to.
    pub age_seconds: Option<f64>,
    /// How long no packet of it has come, in seconds, to within one.
    pub idle_seconds: f64,
    /// Whether FIN or RST has been seen.
    pub closing: bool,
    /// Whether it counts for nothing: it has been silent for too long, or its backend is dead.
    pub expired: bool,
    /// Number of its slot.
    pub slot: u16,
    /// State of that slot: `stable`, `holding`, `moving` or `settling`.
    pub slot_state: String,
}

/// What a listing is made of: a scan that is still to be made, and a copy of what the daemon's task knows. So listing holds up
/// nobody.
pub struct FlowsBasis {
    /// Reads the maps.
    pub scan: Scan,
    /// What the data plane holds.
    pub held: Held,
    /// The VIPs' names, by id.
    pub names: BTreeMap<u32, String>,
    /// Now, in ns of the clock that pins are stamped with.
    pub now_ns: u64,
}

impl fmt::Debug for FlowsBasis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowsBasis").finish_non_exhaustive()
    }
}

impl FlowsBasis {
    /// Whether there is a VIP of that name.
    #[must_use]
    pub fn knows(&self, vip: &str) -> bool {
        self.names.values().any(|name| name == vip)
    }

    /// Reads the maps, and lists what is meant. Needs memory only for that, not for all there is.
    ///
    /// # Errors
    /// Where a map cannot be read.
    pub fn list(self, filter: &FlowFilter) -> anyhow::Result<Flows> {
        let Self {
            scan,
            held,
            names,
            now_ns,
        } = self;
        let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MOST);
        let mut counts: BTreeMap<(u32, u16), u64> = BTreeMap::new();
        let mut flows = Vec::new();
        let known = Known {
            held: &held,
            names: &names,
            now_ns,
        };
        scan.walk(&mut |remembered| {
            if let Remembered::Pin(kind, flow, pin) = remembered
                && let Some((vip, status)) = known.status(kind, &flow, &pin)
                && filter.vip.as_ref().is_none_or(|name| *name == status.vip)
                && filter
                    .backend
                    .is_none_or(|backend| backend == status.backend)
            {
                *counts.entry((vip, status.backend_id)).or_default() += 1;
                if flows.len() < limit {
                    flows.push(status);
                }
            }
            ControlFlow::Continue(())
        })?;
        flows.sort_by(|a, b| (&a.vip, a.client, &a.kind).cmp(&(&b.vip, b.client, &b.kind)));
        let count = |((vip, id), flows)| {
            Some(FlowCount {
                vip: names.get(&vip)?.clone(),
                backend: ip_address(held.backend(id)?.address),
                backend_id: id,
                flows,
            })
        };
        Ok(Flows {
            total: counts.values().sum(),
            counts: counts.into_iter().filter_map(count).collect(),
            flows,
        })
    }
}

/// What tells of a pin more than it says itself.
struct Known<'a> {
    held: &'a Held,
    names: &'a BTreeMap<u32, String>,
    now_ns: u64,
}

impl Known<'_> {
    /// A pin for people, with its VIP's id; `None` where it is nobody's any more, and is about to be swept.
    fn status(&self, kind: Kind, flow: &Flow, pin: &Pin) -> Option<(u32, FlowStatus)> {
        let place = Place::of(flow, self.held)?;
        let backend = self.held.backend(pin.backend)?;
        let ends = |address, port| SocketAddr::new(ip_address(address), u16::from_be_bytes(port));
        let seconds = |ns| Duration::from_millis(ns / 1_000_000).as_secs_f64();
        let status = FlowStatus {
            vip: self.names.get(&place.vip.id)?.clone(),
            protocol: if flow.protocol == u32::from(Protocol::Udp.number()) {
                Protocol::Udp
            } else {
                Protocol::Tcp
            },
            client: ends(flow.source, flow.source_port()),
            dialled: ends(flow.destination, flow.destination_port()),
            backend: ip_address(backend.address),
            backend_id: pin.backend,
            kind: kind.as_str().to_owned(),
            age_seconds: pin.stamp.age_ns(self.now_ns).map(seconds),
            idle_seconds: seconds(pin.stamp.idle_ns(self.now_ns)),
            closing: pin.flags != 0,
            expired: place.idle.is_over(pin, self.now_ns) || !backend.is_alive(),
            slot: place.index,
            slot_state: place.slot().state().as_str().to_owned(),
        };
        Some((place.vip.id, status))
    }
}
