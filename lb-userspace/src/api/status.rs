//! What `GET /v1/status` answers. Field names are stable: scripts read them.

use std::{net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, ForwardMode, Protocol, TableAlgorithm},
    dataplane::ReasonCount,
    model::overrides::Overrides,
};

/// The state of one node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// Whether the program is attached everywhere and the maps hold the configuration.
    pub ready: bool,
    /// The node's name.
    pub node: String,
    /// The daemon's version.
    pub version: String,
    /// Grows with every start, configuration and command; changes are based on it.
    pub generation: u64,
    /// Where the configuration in force is from.
    pub config: ConfigStatus,
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceStatus>,
    /// Every VIP, in the configuration's order.
    pub vips: Vec<VipStatus>,
    /// Every reason, also those that nothing was counted under; one that forwards has a line for each verdict.
    pub reasons: Vec<ReasonStatus>,
    /// What commands have changed of the configuration, by VIP and backend.
    pub overrides: Vec<OverrideStatus>,
    /// What an operator should look at, in sentences.
    pub problems: Vec<String>,
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

/// One interface with the program on it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// The kernel's number of it.
    pub ifindex: u32,
    /// How the program is attached.
    pub mode: AttachMode,
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl AttachMode {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
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
    /// Its backends, in the configuration's order.
    pub backends: Vec<BackendStatus>,
}

impl VipStatus {
    /// Whether some backend takes packets now: it owns slots, and its next hop is known.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.backends
            .iter()
            .any(|backend| backend.resolved && backend.slots > 0)
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
    /// Whether the next hop toward it is known.
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
