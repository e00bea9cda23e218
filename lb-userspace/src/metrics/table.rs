//! All metrics, in one table: name, type, labels, help and where the values come from.
//!
//! Labels are bounded by the configuration: never a client's address or port.

use super::samples::{
    access, agreement, announced, announcements, attached, backends, build, checks, counted,
    digests, drops, flaps, fleet, fleet_nodes, fleet_requests, fleet_shares, healthy, kubernetes,
    kubernetes_objects, last_durations, limits, maps, pins, reasons, runs, slots,
    vip_nodes_differing, vips, whole,
};
use crate::api::{Status, VipStatus};

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

/// One sample: the values of the labels, and the value. (Prometheus knows no whole numbers: above 2^53 the last digits are
/// lost.)
pub(super) type Sample = (Vec<String>, f64);

/// One metric of what a `T` tells.
pub struct Metric<T = Status> {
    /// Its whole name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// Its samples.
    pub(super) samples: fn(&T) -> Vec<Sample>,
}

/// All metrics, in the order of the page that lists them.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "weir_vip_packets_total",
        kind: Kind::Counter,
        labels: &["vip"],
        help: "Frames forwarded for the VIP, and frames left to this node itself as its backend.",
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
        name: "weir_vip_dropped_packets_total",
        kind: Kind::Counter,
        labels: &["vip", "reason"],
        help: "Frames for the VIP that were dropped, by reason. They are counted in weir_packets_total, too.",
        samples: drops,
    },
    Metric {
        name: "weir_backend_packets_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "Frames forwarded to the backend (its address) for the VIP. One that is leaving has its series until nothing names it any more.",
        samples: |status| counted(status, |count| count.packets),
    },
    Metric {
        name: "weir_backend_bytes_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "Bytes of the frames forwarded to the backend, as received, without the FCS.",
        samples: |status| counted(status, |count| count.bytes),
    },
    Metric {
        name: "weir_backend_new_connections_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "TCP SYNs among the frames forwarded to the backend.",
        samples: |status| counted(status, |count| count.new_connections),
    },
    Metric {
        name: "weir_backend_weight",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "The backend's weight in the VIP; 0 takes no new flows.",
        samples: |status| backends(status, |backend| u64::from(backend.weight)),
    },
    Metric {
        name: "weir_backend_slots",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "Slots of the VIP's lookup table, of 65,536, that the backend owns: its share of new flows.",
        samples: |status| backends(status, |backend| u64::from(backend.slots)),
    },
    Metric {
        name: "weir_backend_resolved",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "Whether the MAC address of the next hop toward the backend is known, or it is this node itself: 1 or 0.",
        samples: |status| backends(status, |backend| u64::from(backend.resolved)),
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
        help: "Health checks of the backend, by result: pass, fail, or skipped (this node could not ask). A check that several VIPs share counts for each. Starts at 0 with the check. Absent where there is none.",
        samples: checks,
    },
    Metric {
        name: "weir_health_check_last_duration_seconds",
        kind: Kind::Gauge,
        labels: &["vip", "backend"],
        help: "How long the backend's last health check took. Absent before the first.",
        samples: last_durations,
    },
    Metric {
        name: "weir_health_flaps_total",
        kind: Kind::Counter,
        labels: &["vip", "backend"],
        help: "How often the backend went from healthy to failed or back. Starts at 0 with the check. Absent where there is none.",
        samples: flaps,
    },
    Metric {
        name: "weir_vip_serving_backends",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Backends of the VIP that take packets: they own slots, and the next hop toward them is known. With 0, nobody is served.",
        samples: |status| vips(status, VipStatus::serving_backends),
    },
    Metric {
        name: "weir_vip_fails_open",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Whether so many backends of the VIP fail their checks that all are used: 1 or 0 (docs/health.md).",
        samples: |status| vips(status, |vip| u64::from(vip.fails_open)),
    },
    Metric {
        name: "weir_vip_announced",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Whether the network is told of the VIP's address by this node: 1 or 0. Absent without announce.",
        samples: |status| announced(status, |announce| announce.announced),
    },
    Metric {
        name: "weir_vip_announce_wanted",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Whether it should be: the program is attached, the node is not drained, enough backends pass their checks, and no hold-down is under way: 1 or 0. Absent without announce.",
        samples: |status| announced(status, |announce| announce.wanted),
    },
    Metric {
        name: "weir_announcements_total",
        kind: Kind::Counter,
        labels: &["op", "result"],
        help: "What was done to routes of VIPs: announce, withdraw or restore (somebody else took it away); by result: ok, or failed, which is tried again every second. Starts at 0 with the daemon.",
        samples: announcements,
    },
    Metric {
        name: "weir_node_drained",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether a command has withdrawn every address of this node (weir drain-node): 1 or 0.",
        samples: |status| vec![(vec![], f64::from(u8::from(status.drained)))],
    },
    Metric {
        name: "weir_slots",
        kind: Kind::Gauge,
        labels: &["vip", "state"],
        help: "Slots of the VIP's lookup table by state: stable, holding, moving or settling (docs/consistency.md).",
        samples: slots,
    },
    Metric {
        name: "weir_slot_moves_total",
        kind: Kind::Counter,
        labels: &["vip"],
        help: "Slots of the VIP's lookup table that were given to another backend. Starts at 0 with the daemon.",
        samples: |status| vips(status, |vip| vip.slot_moves),
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
        help: "Entries of the map. Pins and fragments are counted by scans, which are made every 5 s or less often, and only while there is something to find; sources at most as often, when somebody asks, and only where VIPs limit them.",
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
        name: "weir_marks_kept",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether a filter tells packets which flows have no pin that counts, so that floods into slots that change hands cost less: 1 or 0. 0 from the daemon's start, or from a new seed on, until no slot moves and no pin is left that was made before.",
        samples: |status| vec![(vec![], f64::from(u8::from(status.marks_kept)))],
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
        help: "Packets judged by a limit of the VIP: allowed, dropped, or observed (over a limit that only counts). Absent without limits.",
        samples: limits,
    },
    Metric {
        name: "weir_kubernetes_connected",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether the API server answered the last time that it was asked, which is every two seconds. Absent without a section kubernetes.",
        samples: |status| kubernetes(status, |kubernetes| kubernetes.connected),
    },
    Metric {
        name: "weir_kubernetes_synced",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether Services, EndpointSlices and Nodes have all been read since the daemon started. Until then it serves what was served before. Absent without a section kubernetes.",
        samples: |status| kubernetes(status, |kubernetes| kubernetes.synced),
    },
    Metric {
        name: "weir_kubernetes_writer",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether this node is the one of all that writes statuses and Events. Absent without a section kubernetes.",
        samples: |status| kubernetes(status, |kubernetes| kubernetes.writer),
    },
    Metric {
        name: "weir_kubernetes_objects",
        kind: Kind::Gauge,
        labels: &["kind"],
        help: "Objects that matter here, by kind: services (of load balancers), endpointslices, nodes or vippools. Absent without a section kubernetes.",
        samples: kubernetes_objects,
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
        help: "Nodes of the fleet that were alive in Redis's last answer. Absent as weir_fleet_connected is.",
        samples: |status| fleet(status, |fleet| u64::from(fleet.live_nodes)),
    },
    Metric {
        name: "weir_fleet_requests_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Requests for shares: answered, or the class of what went wrong. Starts at 0 with the daemon. Absent as weir_fleet_connected is.",
        samples: fleet_requests,
    },
    Metric {
        name: "weir_fleet_share_per_second",
        kind: Kind::Gauge,
        labels: &["vip", "limit", "origin"],
        help: "What this node may let through of a limit of the whole fleet, a second: packets, bytes or connections; by a lease, or by the fallback while Redis is away. Absent as weir_fleet_connected is.",
        samples: fleet_shares,
    },
    Metric {
        name: "weir_fleet_nodes",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Other nodes of the fleet, by how they stand: agrees (its tables are this node's), differs, or unreachable (not heard of for 6 s). Absent where nodes are not compared (docs/fleet.md).",
        samples: fleet_nodes,
    },
    Metric {
        name: "weir_fleet_vip_nodes_differing",
        kind: Kind::Gauge,
        labels: &["vip"],
        help: "Other nodes whose table of the VIP is not this node's, or who have no such VIP. 0 where all agree; unreachable nodes do not count. Absent as weir_fleet_nodes is.",
        samples: vip_nodes_differing,
    },
    Metric {
        name: "weir_fleet_reports_connected",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether Redis answered the last time that nodes told each other of their tables, which is every two seconds: 1 or 0. Absent where nodes ask each other, or are not compared.",
        samples: agreement,
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
        help: "Packets to the VIP on which an access list decided: vip_block, node_block, vip_allow, vip_deny, node_allow, node_deny, or unlisted (on no list, where some list allows). The result is allowed or denied (docs/access.md). Absent for lists that do not concern the VIP.",
        samples: access,
    },
    Metric {
        name: "weir_access_lists_in_force",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether the maps hold the configuration's access lists, files included: 1 or 0. A million prefixes take a few seconds.",
        samples: |status| vec![(vec![], f64::from(u8::from(status.access.in_force)))],
    },
    Metric {
        name: "weir_access_files_refused",
        kind: Kind::Gauge,
        labels: &[],
        help: "Files of prefixes that have changed and cannot be used as they are now: what they held before still counts.",
        samples: |status| vec![(vec![], whole(status.access.refused_files))],
    },
    Metric {
        name: "weir_table_digest_info",
        kind: Kind::Gauge,
        labels: &["vip", "digest"],
        help: "Always 1; the label is the CRC32 of the VIP's lookup table, equal on all nodes that agree.",
        samples: digests,
    },
    Metric {
        name: "weir_interface_attached",
        kind: Kind::Gauge,
        labels: &["interface", "mode"],
        help: "Whether the XDP program is on the interface of the configuration: 1 or 0. The mode is native, generic, or none where it is not.",
        samples: attached,
    },
    Metric {
        name: "weir_problems",
        kind: Kind::Gauge,
        labels: &[],
        help: "What an operator should look at: how many sentences `weir status` has under problems.",
        samples: |status| vec![(vec![], whole(status.problems.len() as u64))],
    },
    Metric {
        name: "weir_config_refused",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether the last reload of the configuration's file was refused, so that an older one is in force: 1 or 0.",
        samples: |status| vec![(vec![], f64::from(u8::from(status.config.refused.is_some())))],
    },
    Metric {
        name: "weir_config_generation",
        kind: Kind::Gauge,
        labels: &[],
        help: "Grows with every start, configuration and command that changed something.",
        samples: |status| vec![(vec![], whole(status.generation))],
    },
    Metric {
        name: "weir_capture_active",
        kind: Kind::Gauge,
        labels: &[],
        help: "1 while the program that observes packets is in, for weir capture or weir events --packets, else 0: packets cost more then.",
        samples: |status| vec![(vec![], f64::from(u8::from(status.observed.active)))],
    },
    Metric {
        name: "weir_capture_packets_total",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Packets that watchers were to be told of: captured, or skipped where they were beyond a watcher's rate or too fast for it. Forwarding does not depend on it. Starts at 0 with the daemon.",
        samples: |status| {
            let of = |result: &str, count| (vec![result.to_owned()], whole(count));
            vec![
                of("captured", status.observed.captured),
                of("skipped", status.observed.skipped),
            ]
        },
    },
    Metric {
        name: "weir_build_info",
        kind: Kind::Gauge,
        labels: &["version", "commit"],
        help: "Always 1; the labels are the daemon's version, and the commit that it was built from (or unknown).",
        samples: build,
    },
    Metric {
        name: "weir_program_runs_total",
        kind: Kind::Counter,
        labels: &["program"],
        help: "How often a program of the data plane ran: weir_xdp, or the later step of a packet that is not plain. Starts at 0 with the program, which a start of the daemon replaces. Grows only while kernel.bpf_stats_enabled is 1, or some process asks for as much. Absent before.",
        samples: |status| runs(status, |program| whole(program.runs)),
    },
    Metric {
        name: "weir_program_run_seconds_total",
        kind: Kind::Counter,
        labels: &["program"],
        help: "How long it ran in all; weir_xdp with the steps that it went on with. Starts at 0 and grows as weir_program_runs_total does. Absent where that is.",
        samples: |status| runs(status, |program| program.seconds),
    },
];
