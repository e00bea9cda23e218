//! What the numbers in a record stand for.

use std::{collections::HashMap, net::IpAddr};

/// Names of VIPs, backends and interfaces, as they were when the maps last followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// By the VIP's id.
    pub(crate) vips: HashMap<u32, String>,
    /// Addresses by the backend's id, the leaving ones too.
    pub(crate) backends: HashMap<u16, IpAddr>,
    /// By ifindex.
    pub(crate) interfaces: HashMap<u32, String>,
    /// The interfaces that packets come by, in the configuration's order.
    pub(crate) own: Vec<u32>,
}

impl Names {
    /// A VIP's name, if the packet was for one.
    pub(crate) fn vip(&self, id: u32) -> Option<&str> {
        self.vips.get(&id).map(String::as_str)
    }

    /// A backend's address, if one was chosen.
    pub(crate) fn backend(&self, id: u32) -> Option<IpAddr> {
        self.backends.get(&u16::try_from(id).ok()?).copied()
    }

    /// An interface's name; its number where it has gone.
    pub(crate) fn interface(&self, ifindex: u32) -> String {
        let name = self.interfaces.get(&ifindex);
        name.map_or_else(|| format!("if{ifindex}"), Clone::clone)
    }
}
