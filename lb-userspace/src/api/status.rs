//! What `GET /v1/status` answers. Field names are stable: scripts read them.

use std::{net::IpAddr, path::PathBuf};

use lb_common::{access, reason::Reason, tables::Drops};
use serde::{Deserialize, Serialize};

use super::{AnnouncementStatus, FleetStatus, HealthStatus, KubernetesStatus, LimitStatus};
use crate::{
    agreement::AgreementStatus,
    config::{Config, ForwardMode, Lists, Protocol, TableAlgorithm, Vip},
    dataplane::{ProgramRuns, ReasonCount},
    model::{overrides::Overrides, slots::Census},
};

pub use crate::model::attached::{AttachMode, ForeignProgram};

/// The state of one node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// Whether the maps hold the configuration and the program is attached to one interface or more.
    pub ready: bool,
    /// The node's name.
    pub node: String,
    /// The daemon's version.
    pub version: String,
    /// The commit that it was built from, or `unknown`.
    pub commit: String,
    /// Grows with every start, configuration and command; changes are based on it.
    pub generation: u64,
    /// Where the configuration in force is from.
    pub config: ConfigStatus,
    /// Every interface of the configuration, in its order.
    pub interfaces: Vec<InterfaceStatus>,
    /// Every VIP, in the configuration's order.
    pub vips: Vec<VipStatus>,
    /// Every reason, also those that nothing was counted under; one that forwards has a line for each verdict.
    pub reasons: Vec<ReasonStatus>,
    /// Who may send, and what became of who did (docs/access.md).
    pub access: AccessStatus,
    /// How full the maps are.
    pub maps: Vec<MapStatus>,
    /// What became of the flows that were remembered, by the map that they were in.
    pub pins: Vec<PinsStatus>,
    /// Whether a filter tells packets which flows have no pin that counts, so that floods into slots that change hands cost less.
    pub marks_kept: bool,
    /// How often the programs ran, and for how long; none where the kernel has counted nothing (`kernel.bpf_stats_enabled`).
    pub programs: Vec<ProgramStatus>,
    /// Limits that the whole fleet keeps; `null` where there are none.
    pub fleet: Option<FleetStatus>,
    /// Whether the nodes of the fleet have the same tables, in numbers; `null` where they are not compared (docs/fleet.md).
    pub agreement: Option<AgreementStatus>,
    /// Whether packets are watched (docs/capture.md).
    pub observed: ObservedStatus,
    /// The cluster whose Services are served; `null` where there is none.
    pub kubernetes: Option<KubernetesStatus>,
    /// Whether a command withdraws every address of this node (docs/fleet.md).
    pub drained: bool,
    /// Addresses that weir announces, now or at other times (docs/announce.md).
    pub announcements: Vec<AnnouncementStatus>,
    /// How often routes of VIPs were made, taken away and put back.
    pub announcement_counts: Vec<AnnouncementCount>,
    /// What commands have changed of the configuration, by VIP and backend.
    pub overrides: Vec<OverrideStatus>,
    /// What an operator should look at, in sentences.
    pub problems: Vec<String>,
}

/// How a VIP's address is announced (docs/announce.md, docs/fleet.md).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AnnounceStatus {
    /// By what: `l2` or `route`.
    pub by: String,
    /// Whether the network is told of it now.
    pub announced: bool,
    /// Whether it should be.
    pub wanted: bool,
    /// Why, or why not: `healthy`, `unchanged`, `drained`, `not_attached`, `too_few_healthy`, `unknown` or `hold_down`; by L2 also
    /// `start`, `command` or `owner`, whose word it is that it is not ([`crate::announce::Because`]).
    pub reason: String,
    /// How many backends must pass their checks.
    pub min_healthy: u16,
}

/// How often something was done to routes of VIPs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AnnouncementCount {
    /// What: `announce`, `withdraw` or `restore` (somebody else took it away).
    pub op: String,
    /// Whether the kernel did it: `ok` or `failed`.
    pub result: String,
    /// How often, since the daemon began.
    pub count: u64,
}

/// Who watches packets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ObservedStatus {
    /// Whether the program that observes is in: packets cost more while it is.
    pub active: bool,
    /// How many watch.
    pub watchers: usize,
    /// Packets that watchers were told of, since the daemon began.
    pub captured: u64,
    /// Packets that they were not told of: beyond their rate, or too fast for them.
    pub skipped: u64,
}

/// Where the configuration in force is from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ConfigStatus {
    /// The file that the daemon was started with; SIGHUP reads it again.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// The file whose text is in force.
    #[schema(value_type = String)]
    pub applied: PathBuf,
    /// Who put it in force.
    pub by: String,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// Why the last reload of `file` was refused; `null` where it was not.
    #[serde(default)]
    pub refused: Option<String>,
}

/// What commands have changed of one backend of a VIP; it holds until it is undone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct OverrideStatus {
    /// The VIP's name.
    pub vip: String,
    /// The backend's address.
    #[schema(value_type = String)]
    pub backend: IpAddr,
    /// Whether it takes no new flows.
    pub drained: bool,
    /// The weight that was set, if one was.
    pub weight: Option<u16>,
    /// Whether the configuration has this backend at all.
    pub configured: bool,
}

impl OverrideStatus {
    /// Every override, held against a configuration.
    #[must_use]
    pub fn all(overrides: &Overrides, config: &Config) -> Vec<Self> {
        let all = overrides.iter().map(|(name, value)| {
            let vip = config.vips.iter().find(|vip| vip.name == name.vip);
            Self {
                vip: name.vip.clone(),
                backend: name.backend,
                drained: value.is_drained,
                weight: value.weight,
                configured: vip
                    .is_some_and(|vip| vip.backends.iter().any(|b| b.address == name.backend)),
            }
        });
        all.collect()
    }
}

/// One interface that packets are to come by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Whether the program is on it.
    pub state: InterfaceState,
    /// The kernel's number of it; `null` where it is absent.
    pub ifindex: Option<u32>,
    /// How the program is attached; `null` where it is not.
    pub mode: Option<AttachMode>,
    /// Somebody else's program that is in the way.
    pub foreign: Option<ForeignProgram>,
}

/// Whether the program is on an interface.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceState {
    /// It is.
    Attached,
    /// There is no such interface: it is attached once there is one.
    Absent,
    /// Somebody else's program is on it: weir's is attached once that one has gone.
    Foreign,
    /// The kernel refuses it.
    Refused,
}

impl InterfaceState {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Absent => "absent",
            Self::Foreign => "foreign",
            Self::Refused => "refused",
        }
    }
}

/// One VIP.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct VipStatus {
    /// Its number in the maps.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What clients dial.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What clients dial; 0 for every port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How its lookup table is made.
    pub table: TableAlgorithm,
    /// CRC32 of the lookup table, 8 hexadecimal digits: equal on all nodes that agree.
    pub table_digest: String,
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
    /// TCP SYNs among those frames.
    pub new_connections: u64,
    /// Frames for it that were dropped, by every reason to drop.
    pub dropped: Vec<DropStatus>,
    /// Its 65,536 slots by state (docs/consistency.md).
    pub slots: SlotsStatus,
    /// Slots that were given to another owner since the daemon started.
    pub slot_moves: u64,
    /// When the next slots change by time alone, in seconds from now.
    pub seconds_left: Option<f64>,
    /// Flows that are remembered, as the last scan found them.
    pub pins: u64,
    /// Whether so many backends fail their checks that all are used.
    pub fails_open: bool,
    /// How its address is announced; `null` where it is not.
    #[serde(default)]
    pub announce: Option<AnnounceStatus>,
    /// Its limits, with what became of packets at them.
    pub limits: Vec<LimitStatus>,
    /// Its backends, in the configuration's order.
    pub backends: Vec<BackendStatus>,
    /// Backends that are not the configuration's any more, or came back after their death: they serve the flows that they
    /// have until nothing names them.
    pub leaving: Vec<LeavingStatus>,
}

/// Slots of a VIP by state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct SlotsStatus {
    /// No flow of them is remembered.
    pub stable: u32,
    /// About to move, or to settle.
    pub holding: u32,
    /// On the way to another backend.
    pub moving: u32,
    /// Moved, with flows that stay where they were.
    pub settling: u32,
}

impl From<Census> for SlotsStatus {
    fn from(census: Census) -> Self {
        Self {
            stable: census.stable,
            holding: census.holding,
            moving: census.moving,
            settling: census.settling,
        }
    }
}

/// A backend that is leaving.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct LeavingStatus {
    /// Its number in the maps.
    pub id: u16,
    /// Its own address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Whether it still serves its flows; else it waits for its number to be free.
    pub alive: bool,
    /// How it does in its health checks; `null` where it is not checked.
    pub health: Option<HealthStatus>,
    /// Frames forwarded to it.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
    /// TCP SYNs among those frames.
    pub new_connections: u64,
    /// Frames a second that still come, between the last two scans; `null` before there were two.
    pub packets_per_second: Option<f64>,
    /// Flows that are remembered with it, as the last scan found them.
    pub pins: u64,
    /// When `drain_timeout` ends, in seconds from now; `null` where there is none.
    pub drain_seconds_left: Option<f64>,
}

impl VipStatus {
    /// Whether some backend takes packets now: it owns slots, and its next hop is known.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.serving_backends() > 0
    }

    /// How many backends take packets now.
    #[must_use]
    pub fn serving_backends(&self) -> u64 {
        let backends = self.backends.iter();
        backends.filter(|b| b.resolved && b.slots > 0).count() as u64
    }
}

/// One backend of a VIP.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct BackendStatus {
    /// Its number in the maps.
    pub id: u16,
    /// Its own address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// The weight that counts.
    pub weight: u16,
    /// The weight in the configuration.
    pub configured_weight: u16,
    /// Whether a command lets it take no new flows.
    pub drained: bool,
    /// How packets reach it.
    pub forward: ForwardMode,
    /// Slots of the VIP's lookup table that it owns, of 65,536.
    pub slots: u32,
    /// Whether it passes its health checks; `null` where it is not checked, or nothing is known yet.
    pub healthy: Option<bool>,
    /// How it does in its health checks; `null` where it is not checked.
    pub health: Option<HealthStatus>,
    /// Flows that are remembered with it, as the last scan found them.
    pub pins: u64,
    /// Of a backend of weight 0: whether no slot and no flow names it any more, as the last scan found. `null` for others.
    pub empty: Option<bool>,
    /// Of a backend of weight 0: frames a second that still come, between the last two scans. `null` for others, and before
    /// there were two.
    pub packets_per_second: Option<f64>,
    /// Of a backend of weight 0: when `drain_timeout` ends, in seconds from now. `null` for others, and where there is none.
    pub drain_seconds_left: Option<f64>,
    /// Whether the next hop toward it is known, or it is this node itself.
    pub resolved: bool,
    /// MAC address of that next hop, if known.
    pub mac: Option<String>,
    /// The largest IP packet toward it, in bytes and with outer headers.
    pub mtu: u16,
    /// Frames forwarded to it.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
    /// TCP SYNs among those frames.
    pub new_connections: u64,
}

/// Access lists and blocks.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AccessStatus {
    /// Whether the maps hold the configuration's lists, files included. A million prefixes take a few seconds.
    pub in_force: bool,
    /// How many prefixes commands block.
    pub blocks: u64,
    /// How many files have changed and cannot be used as they are now; `problems` names them.
    pub refused_files: u64,
    /// The configuration's lists.
    pub lists: Vec<ListStatus>,
    /// Packets on which lists decided, for the lists that concern a VIP.
    pub counts: Vec<AccessCount>,
}

/// One list of the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ListStatus {
    /// Name of the VIP that it is for; `null` for all VIPs.
    pub vip: Option<String>,
    /// `allow` or `deny`.
    pub list: String,
    /// How many prefixes it has, those of its file included.
    pub prefixes: u64,
    /// Its file, if it has one.
    #[schema(value_type = Option<String>)]
    pub file: Option<PathBuf>,
}

impl ListStatus {
    /// Every list of a configuration.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        let of = |(vip, lists): (Option<&Vip>, &Lists)| {
            let vip = vip.map(|vip| vip.name.clone());
            let both = [("allow", &lists.allow), ("deny", &lists.deny)];
            both.map(|(name, list)| {
                list.is_given().then(|| Self {
                    vip: vip.clone(),
                    list: name.to_owned(),
                    prefixes: list.len() as u64,
                    file: list.file.as_ref().map(|file| file.path.clone()),
                })
            })
        };
        config.lists().flat_map(of).flatten().collect()
    }
}

/// Packets to a VIP on which one list decided.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AccessCount {
    /// The VIP's name.
    pub vip: String,
    /// `vip_block`, `node_block`, `vip_allow`, `vip_deny`, `node_allow`, `node_deny`, or `unlisted`: on no list, where
    /// some list allows.
    pub list: String,
    /// `allowed` or `denied`.
    pub result: String,
    /// How many packets.
    pub packets: u64,
}

impl AccessCount {
    /// Packets under a list.
    #[must_use]
    pub fn new(vip: &str, list: access::List, packets: u64) -> Self {
        let result = if list.is_allowing() {
            "allowed"
        } else {
            "denied"
        };
        Self {
            vip: vip.to_owned(),
            list: list.as_str().to_owned(),
            result: result.to_owned(),
            packets,
        }
    }
}

/// How full a map is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MapStatus {
    /// `vips`, `backends`, `pins_syn`, `pins_proven`, `pins_old`, `fragments`, `blocks`, `lists`, or `sources` where VIPs
    /// limit those.
    pub map: String,
    /// Entries; of pins, fragments and sources as the last scan found them.
    pub entries: u64,
    /// How many fit.
    pub max_entries: u64,
}

/// What became of the flows that were remembered in one map.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PinsStatus {
    /// `syn`, `proven` or `old` (docs/consistency.md).
    pub kind: String,
    /// Pins made.
    pub made: u64,
    /// Pins removed by packets: promoted, expired, or of a dead backend.
    pub removed: u64,
    /// Pins removed by the daemon since it started, because they counted for nothing.
    pub swept: u64,
    /// Pins that had to go for others since the daemon started, as its scans tell: no more than really did.
    pub evicted: u64,
    /// Pins that the map refused.
    pub failed: u64,
    /// Pins that were not made because the CPU's budget was spent.
    pub over_budget: u64,
}

/// Frames for a VIP that were dropped for one reason.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct DropStatus {
    /// Why.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

impl DropStatus {
    /// Every reason to drop, with its count.
    #[must_use]
    pub fn all(drops: &Drops) -> Vec<Self> {
        let counts = Reason::DROPS.iter().zip(drops.packets);
        let all = counts.map(|(reason, packets)| Self {
            reason: reason.as_str().to_owned(),
            packets,
        });
        all.collect()
    }
}

/// How often a program of the data plane ran since it was loaded.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ProgramStatus {
    /// `weir_xdp`, or the name of a later step.
    pub program: String,
    /// How often.
    pub runs: u64,
    /// How long in all, in seconds, the steps that it went on with included.
    pub seconds: f64,
}

impl From<ProgramRuns> for ProgramStatus {
    fn from(runs: ProgramRuns) -> Self {
        Self {
            program: runs.program,
            runs: runs.runs,
            seconds: runs.time.as_secs_f64(),
        }
    }
}

/// Frames counted under one reason.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ReasonStatus {
    /// Why frames went where they went.
    pub reason: String,
    /// Where: `pass`, `drop`, `tx` or `redirect`.
    pub verdict: String,
    /// How many frames.
    pub packets: u64,
}

impl ReasonStatus {
    /// Every reason and verdict with its count.
    #[must_use]
    pub fn all(counts: &[ReasonCount]) -> Vec<Self> {
        let all = counts.iter().map(|count| Self {
            reason: count.reason.as_str().to_owned(),
            verdict: count.verdict().to_owned(),
            packets: count.packets,
        });
        all.collect()
    }
}
