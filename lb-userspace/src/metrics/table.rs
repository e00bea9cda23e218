//! All metrics, in one table: name, type, labels, help and where the values come from.
//!
//! Labels are bounded by the configuration: never a client's address or port.

use std::net::IpAddr;

use lb_common::limit::Judgement;

use crate::api::{
    AccessCount, BackendStatus, FleetStatus, HealthStatus, MapStatus, PinsStatus, Status, VipStatus,
};

/// The type of a metric, as Prometheus knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows while its maps live.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; only grows.
    Histogram,
}

impl Kind {
    /// Prometheus' name of it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One sample: the values of the labels, and the value.
pub(super) type Sample = (Vec<String>, u64);

/// One metric.
pub struct Metric {
    /// Its whole name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// Its samples in a status.
    pub(super) samples: fn(&Status) -> Vec<Sample>,
}

/// All metrics, in the order of the page that lists them.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "weir_vip_packets_total",
        kind: Kind::Counter,
        labels: &["vip"],
        help: "Frames forwarded for the VIP.",
        samples: |status| vips(status, |vip| vip.packets),
    },
    Metric {
        name: "weir_vip_bytes_total",
        kind: Kind::Counter,
        labels: &["vip"],
        help: "Bytes of the frames forwarded for the VIP, as received, without the FCS.",
        samples: |status| vips(status, |vip| vip.bytes),
    },
    Metric {
        name: "weir_vip_new_connections_total",
        kind: Kind::Counter,
        labels: &["vip"],
        help: "TCP SYNs among the frames forwarded for the VIP.",
        samples: |status| vips(status, |vip| vip.new_connections),
    },
    Metric {
        name: "weir_backend_packets_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "Frames forwarded to the backend (its address) for the VIP.",
        samples: |status| backends(status, |backend| backend.packets),
    },
    Metric {
        name: "weir_backend_bytes_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "Bytes of the frames forwarded to the backend, as received, without the FCS.",
        samples: |status| backends(status, |backend| backend.bytes),
    },
    Metric {
        name: "weir_backend_new_connections_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "TCP SYNs among the frames forwarded to the backend.",
        samples: |status| backends(status, |backend| backend.new_connections),
    },
    Metric {
        name: "weir_backend_weight",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "The backend's weight in the VIP; 0 takes no new flows.",
        samples: |status| backends(status, |backend| u64::from(backend.weight)),
    },
    Metric {
        name: "weir_backend_healthy",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "Whether the backend passes its health checks: 1 or 0. Absent where it is not checked, or nothing is known yet.",
        samples: healthy,
    },
    Metric {
        name: "weir_health_checks_total",
        kind: Kind::Counter,
        labels: &["vip", "backend", "result"],
        help: "Health checks of the backend, by result: pass, fail, or skipped (this node could not ask). A check that several VIPs share counts for each. Starts at 0 with the check.",
        samples: checks,
    },
    Metric {
        name: "weir_health_flaps_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "How often the backend went from healthy to failed or back. Starts at 0 with the check.",
        samples: flaps,
    },
    Metric {
        name: "weir_slots",
        kind: Kind::Gauge,
        labels: &["vip", "state"],
        help: "Slots of the VIP's lookup table by state: stable, holding, moving or settling (docs/consistency.md).",
        samples: slots,
    },
    Metric {
        name: "weir_pins",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Flows of the VIP that are remembered while their slots change hands, as the last scan found them.",
        samples: |status| vips(status, |vip| vip.pins),
    },
    Metric {
        name: "weir_map_entries",
        kind: Kind::Gauge,
        labels: &["map"],
        help: "Entries of the map. Pins and fragments are counted by scans, which are made every 5 s or less often, and only while there is something to find.",
        samples: |status| maps(status, |map| map.entries),
    },
    Metric {
        name: "weir_map_max_entries",
        kind: Kind::Gauge,
        labels: &["map"],
        help: "How many entries fit into the map.",
        samples: |status| maps(status, |map| map.max_entries),
    },
    Metric {
        name: "weir_pins_made_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Flows that were remembered because their slot changes hands, by the map: syn, proven or old (docs/consistency.md).",
        samples: |status| pins(status, |pins| pins.made),
    },
    Metric {
        name: "weir_pins_removed_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Pins that packets removed: promoted, expired, or of a dead backend.",
        samples: |status| pins(status, |pins| pins.removed),
    },
    Metric {
        name: "weir_pins_swept_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Pins that the daemon removed because they counted for nothing. Starts at 0 with the daemon.",
        samples: |status| pins(status, |pins| pins.swept),
    },
    Metric {
        name: "weir_pins_evicted_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Pins that had to go for others because the map was full, as scans tell; no more than really did. Starts at 0 with the daemon.",
        samples: |status| pins(status, |pins| pins.evicted),
    },
    Metric {
        name: "weir_pins_failed_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Pins that the map refused.",
        samples: |status| pins(status, |pins| pins.failed),
    },
    Metric {
        name: "weir_pins_over_budget_total",
        kind: Kind::Counter,
        labels: &["kind"],
        help: "Packets that made no pin because the CPU's budget was spent (20,000 a second, of old flows only).",
        samples: |status| pins(status, |pins| pins.over_budget),
    },
    Metric {
        name: "weir_limit_packets_total",
        kind: Kind::Counter,
        labels: &["vip", "limit", "result"],
        help: "Packets judged by a limit of the VIP: allowed, dropped, or observed (over a limit that only counts).",
        samples: limits,
    },
    Metric {
        name: "weir_fleet_connected",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether Redis answered the last request for shares of the fleet's limits: 1 or 0. Absent without such limits.",
        samples: |status| fleet(status, |fleet| u64::from(fleet.connected)),
    },
    Metric {
        name: "weir_fleet_live_nodes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Nodes of the fleet that were alive in Redis's last answer.",
        samples: |status| fleet(status, |fleet| u64::from(fleet.live_nodes)),
    },
    Metric {
        name: "weir_fleet_requests_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Requests for shares: answered, or the class of what went wrong. Starts at 0 with the daemon.",
        samples: fleet_requests,
    },
    Metric {
        name: "weir_fleet_share_per_second",
        kind: Kind::Gauge,
        labels: &["vip", "limit", "origin"],
        help: "What this node may let through of a limit of the whole fleet, a second: packets, bytes or connections; by a lease, or by the fallback while Redis is away.",
        samples: fleet_shares,
    },
    Metric {
        name: "weir_packets_total",
        kind: Kind::Counter,
        labels: &["verdict", "reason"],
        help: "Frames that the XDP program saw, by what became of them and why.",
        samples: reasons,
    },
    Metric {
        name: "weir_access_packets_total",
        kind: Kind::Counter,
        labels: &["vip", "list", "result"],
        help: "Packets to the VIP on which an access list decided: vip_block, node_block, vip_allow, vip_deny, node_allow, node_deny, or unlisted (on no list, where some list allows). The result is allowed or denied (docs/access.md).",
        samples: access,
    },
    Metric {
        name: "weir_access_lists_in_force",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether the maps hold the configuration's access lists, files included: 1 or 0. A million prefixes take a few seconds.",
        samples: |status| vec![(vec![], u64::from(status.access.in_force))],
    },
    Metric {
        name: "weir_access_files_refused",
        kind: Kind::Gauge,
        labels: &[],
        help: "Files of prefixes that have changed and cannot be used as they are now: what they held before still counts.",
        samples: |status| vec![(vec![], status.access.refused_files)],
    },
    Metric {
        name: "weir_table_digest_info",
        kind: Kind::Gauge,
        labels: &["vip", "digest"],
        help: "Always 1; the label is the CRC32 of the VIP's lookup table, equal on all nodes that agree.",
        samples: digests,
    },
    Metric {
        name: "weir_config_generation",
        kind: Kind::Gauge,
        labels: &[],
        help: "Grows with every start, configuration and command that changed something.",
        samples: |status| vec![(vec![], status.generation)],
    },
    Metric {
        name: "weir_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
        help: "Always 1; the label is the daemon's version.",
        samples: |status| vec![(vec![status.version.clone()], 1)],
    },
];

fn vips(status: &Status, value: fn(&VipStatus) -> u64) -> Vec<Sample> {
    let vips = status.vips.iter();
    vips.map(|vip| (vec![vip.name.clone()], value(vip)))
        .collect()
}

fn backends(status: &Status, value: fn(&BackendStatus) -> u64) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let backends = vip.backends.iter().map(|backend| {
            let labels = vec![vip.name.clone(), backend.address.to_string()];
            (labels, value(backend))
        });
        backends.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

fn healthy(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let known = vip.backends.iter().filter_map(|backend| {
            let labels = vec![vip.name.clone(), backend.address.to_string()];
            Some((labels, u64::from(backend.healthy?)))
        });
        known.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

fn checks(status: &Status) -> Vec<Sample> {
    let of_backend = |(vip, backend, health): Checked<'_>| {
        let results = [
            ("pass", health.passed),
            ("fail", health.failed + health.timed_out),
            ("skipped", health.not_asked),
        ];
        results.map(|(result, count)| {
            let labels = vec![vip.to_owned(), backend.to_string(), result.to_owned()];
            (labels, count)
        })
    };
    checked(status).flat_map(of_backend).collect()
}

fn flaps(status: &Status) -> Vec<Sample> {
    let of_backend = |(vip, backend, health): Checked<'_>| {
        (vec![vip.to_owned(), backend.to_string()], health.flaps)
    };
    checked(status).map(of_backend).collect()
}

/// A backend that is checked: its VIP's name, its address, and what came of the checks.
type Checked<'a> = (&'a str, IpAddr, &'a HealthStatus);

fn checked(status: &Status) -> impl Iterator<Item = Checked<'_>> {
    status.vips.iter().flat_map(|vip| {
        let backends = vip.backends.iter();
        backends.filter_map(|b| Some((vip.name.as_str(), b.address, b.health.as_ref()?)))
    })
}

fn maps(status: &Status, value: fn(&MapStatus) -> u64) -> Vec<Sample> {
    let maps = status.maps.iter();
    maps.map(|map| (vec![map.map.clone()], value(map)))
        .collect()
}

fn pins(status: &Status, value: fn(&PinsStatus) -> u64) -> Vec<Sample> {
    let pins = status.pins.iter();
    pins.map(|pins| (vec![pins.kind.clone()], value(pins)))
        .collect()
}

fn access(status: &Status) -> Vec<Sample> {
    let counts = status.access.counts.iter();
    let sample = |count: &AccessCount| {
        let labels = [&count.vip, &count.list, &count.result];
        (labels.map(Clone::clone).to_vec(), count.packets)
    };
    counts.map(sample).collect()
}

fn slots(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| {
        let counts = [
            ("stable", vip.slots.stable),
            ("holding", vip.slots.holding),
            ("moving", vip.slots.moving),
            ("settling", vip.slots.settling),
        ];
        counts.map(|(state, count)| {
            let labels = vec![vip.name.clone(), state.to_owned()];
            (labels, u64::from(count))
        })
    };
    status.vips.iter().flat_map(of_vip).collect()
}

fn limits(status: &Status) -> Vec<Sample> {
    let of_vip = |vip: &VipStatus| -> Vec<Sample> {
        let limits = vip.limits.iter().flat_map(|limit| {
            let counts = [
                (Judgement::Allowed, limit.allowed),
                (Judgement::Dropped, limit.dropped),
                (Judgement::Observed, limit.observed),
            ];
            counts.map(|(judgement, count)| {
                let result = judgement.as_str().to_owned();
                (vec![vip.name.clone(), limit.limit.clone(), result], count)
            })
        });
        limits.collect()
    };
    status.vips.iter().flat_map(of_vip).collect()
}

fn fleet(status: &Status, value: fn(&FleetStatus) -> u64) -> Vec<Sample> {
    let fleet = status.fleet.iter();
    fleet.map(|fleet| (vec![], value(fleet))).collect()
}

fn fleet_requests(status: &Status) -> Vec<Sample> {
    let of = |fleet: &FleetStatus| -> Vec<Sample> {
        let failures = fleet.failures.iter();
        let failures = failures.map(|failure| (vec![failure.class.clone()], failure.requests));
        let answered = (vec!["answered".to_owned()], fleet.answers);
        std::iter::once(answered).chain(failures).collect()
    };
    status.fleet.iter().flat_map(of).collect()
}

#[expect(clippy::cast_sign_loss, reason = "a rate is never negative")]
fn fleet_shares(status: &Status) -> Vec<Sample> {
    let shares = status.fleet.iter().flat_map(|fleet| &fleet.shares);
    let shares = shares.filter_map(|share| {
        let (vip, limit) = share.limit.rsplit_once('/')?;
        let labels = [vip, limit, &share.origin].map(str::to_owned);
        Some((labels.into(), share.per_second as u64))
    });
    shares.collect()
}

fn reasons(status: &Status) -> Vec<Sample> {
    let reasons = status.reasons.iter().map(|reason| {
        let labels = vec![reason.verdict.clone(), reason.reason.clone()];
        (labels, reason.packets)
    });
    reasons.collect()
}

fn digests(status: &Status) -> Vec<Sample> {
    let vips = status.vips.iter();
    vips.map(|vip| (vec![vip.name.clone(), vip.table_digest.clone()], 1))
        .collect()
}
