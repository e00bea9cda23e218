//! All metrics, in one table: name, type, labels, help and where the values come from.
//!
//! Labels are bounded by the configuration: never a client's address or port.

use crate::api::{BackendStatus, Status, VipStatus};

/// The type of a metric, as Prometheus knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Only grows while its maps live.
    Counter,
    /// Goes up and down.
    Gauge,
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
        name: "weir_packets_total",
        kind: Kind::Counter,
        labels: &["verdict", "reason"],
        help: "Frames that the XDP program saw, by what became of them and why.",
        samples: reasons,
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
