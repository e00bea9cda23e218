//! What happens, as `GET /v1/events` tells it: one JSON object a line. Field names are stable: scripts read them.

use std::{net::IpAddr, path::PathBuf, time::SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{HealthState, InterfaceState};
use crate::{announce::Because, config::Prefix};

/// How many events a reader may be behind before it misses some: one change of a backend that 4,000 VIPs share makes
/// two for each. 2 MiB.
const KEPT: usize = 8192;

/// Something that happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Event {
    /// When, in UTC (RFC 3339, milliseconds).
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// A configuration is in force.
    Applied {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// The file that it is from.
        #[schema(value_type = String)]
        file: PathBuf,
    },
    /// A configuration was refused, or a file of prefixes; nothing changed.
    Refused {
        /// Who asked for it.
        by: String,
        /// The file that it is from.
        #[schema(value_type = String)]
        file: PathBuf,
        /// Why.
        error: String,
    },
    /// A backend takes no new flows, by command.
    Drained {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// The VIP's name.
        vip: String,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
    },
    /// A backend takes new flows again, by command.
    Undrained {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// The VIP's name.
        vip: String,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
    },
    /// Every address of this node is withdrawn, by command.
    NodeDrained {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
    },
    /// This node announces its addresses again, by command.
    NodeUndrained {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
    },
    /// It is decided that an address is announced, or not any more; the network is told at once.
    Announcement {
        /// The address.
        #[schema(value_type = String)]
        address: IpAddr,
        /// Whether it is announced.
        announced: bool,
        /// Why: as `reason` of a VIP's `announce`, or `not_configured`.
        reason: String,
    },
    /// A backend has another weight, by command.
    Weight {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// The VIP's name.
        vip: String,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
        /// The weight; none: the configuration's again.
        weight: Option<u16>,
    },
    /// A prefix is blocked, by command.
    Blocked {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// Whose packets.
        #[schema(value_type = String)]
        prefix: Prefix,
        /// Name of the VIP; none: all VIPs.
        vip: Option<String>,
        /// Until when, in UTC (RFC 3339); none: until it is undone.
        until: Option<String>,
        /// Why, in the words of whoever asked for it.
        reason: Option<String>,
    },
    /// A prefix is blocked no longer.
    Unblocked {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it, or `time`.
        by: String,
        /// Whose packets.
        #[schema(value_type = String)]
        prefix: Prefix,
        /// Name of the VIP; none: all VIPs.
        vip: Option<String>,
    },
    /// The address of a VIP is to be announced by this node, or not, by command.
    AnnounceSet {
        /// The generation from then on.
        generation: u64,
        /// Who asked for it.
        by: String,
        /// Name of the VIP that was named.
        vip: String,
        /// Its address, and that of all VIPs that have it.
        #[schema(value_type = String)]
        address: IpAddr,
        /// Whether it is to be announced.
        on: bool,
    },
    /// An address is announced now, or not any more.
    Announced {
        /// The address.
        #[schema(value_type = String)]
        address: IpAddr,
        /// Whether it is.
        on: bool,
        /// Why.
        because: Because,
    },
    /// Other VIPs of Services are served than before.
    Services {
        /// Names of VIPs that are new.
        added: Vec<String>,
        /// Names of VIPs that are gone.
        removed: Vec<String>,
    },
    /// A file of prefixes has changed, and is in force as it is now.
    ListRead {
        /// The file.
        #[schema(value_type = String)]
        file: PathBuf,
        /// How many prefixes it holds.
        prefixes: u64,
    },
    /// The way to a backend is known now, or not any more.
    NextHop {
        /// The VIP's name.
        vip: String,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
        /// Whether it is known.
        resolved: bool,
    },
    /// A backend's health checks have come to another verdict.
    Health {
        /// The VIP's name.
        vip: String,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
        /// The verdict: `healthy` or `failed`.
        state: HealthState,
        /// Why it failed; none where it is healthy.
        reason: Option<String>,
    },
    /// So many backends of a VIP fail their checks that all are used, or not any more.
    FailsOpen {
        /// The VIP's name.
        vip: String,
        /// Whether all are used.
        fails_open: bool,
    },
    /// Slots of a VIP, all of which were stable, begin to change hands.
    Moving {
        /// The VIP's name.
        vip: String,
        /// How many of its 65,536.
        slots: u32,
    },
    /// All slots of a VIP are stable again.
    Settled {
        /// The VIP's name.
        vip: String,
    },
    /// A backend begins to leave (it was taken out, or died), or died while it was leaving.
    Leaving {
        /// The VIP's name; none where it was gone before the daemon started.
        vip: Option<String>,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
        /// Its number in the maps.
        id: u16,
        /// Whether it still serves the flows that it has.
        alive: bool,
    },
    /// A backend that was leaving is gone: nothing names it any more, or it is the configuration's again.
    Left {
        /// The VIP's name; none where it was gone before the daemon started.
        vip: Option<String>,
        /// The backend's address.
        #[schema(value_type = String)]
        backend: IpAddr,
        /// The number in the maps that it had.
        id: u16,
    },
    /// The program is on an interface now, or not any more.
    Interface {
        /// The interface's name.
        interface: String,
        /// How it stands.
        state: InterfaceState,
    },
    /// The reader was too slow, and this many events are not in its stream.
    Missed {
        /// How many.
        events: u64,
    },
}

impl Event {
    /// Something that happens now.
    #[must_use]
    pub fn now(what: What) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { time, what }
    }
}

/// Where events are told; nobody need listen.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }

    /// Tells all who listen what happens now.
    pub(crate) fn tell(&self, what: What) {
        // An error says that nobody listens.
        self.0.send(Event::now(what)).ok();
    }

    /// The events from now on, until these `Events` are dropped.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
