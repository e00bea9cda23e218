//! What a status tells of the addresses that are announced (docs/announce.md).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::announce::{Announcement, Because};

/// An address that weir announces, now or at other times.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AnnouncementStatus {
    /// The address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// How: `l2` or `route`.
    pub by: String,
    /// Whether it is announced now.
    pub on: bool,
    /// Why.
    pub because: Because,
    /// Names of its VIPs: all of them are found, or none, since the network asks for addresses and not for ports.
    pub vips: Vec<String>,
}

impl AnnouncementStatus {
    /// How an address stands.
    #[must_use]
    pub fn new(address: IpAddr, stands: &Announcement) -> Self {
        Self {
            address,
            by: stands.by.as_str().to_owned(),
            on: stands.is_on,
            because: stands.because,
            vips: stands.vips.clone(),
        }
    }
}
