//! The way to a backend, as the network tells it and the model takes it.

use std::net::IpAddr;

/// The next hop toward a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NextHop {
    /// The interface that leads there.
    pub ifindex: u32,
    /// MAC address of that interface.
    pub mac_source: [u8; 6],
    /// MAC address of the gateway; `None` until the kernel has resolved it once.
    pub mac_destination: Option<[u8; 6]>,
    /// Whose MAC address that is: a router's, or the backend's own address where it is on the link.
    pub gateway: IpAddr,
    /// The largest IP packet that the first link toward the backend takes, in bytes.
    pub mtu: u16,
    /// What tags frames leave with, where the way out is a VLAN device: [`Self::ifindex`] is what it lies on.
    pub vlans: Vlans,
}

/// Up to two VLAN tags. By default none: tags stay as packets came with them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Vlans {
    /// How many tags there are.
    pub count: u8,
    /// VLAN ids, the outer one first.
    pub ids: [u16; 2],
    /// Whether the outer tag is a service tag (802.1ad).
    pub is_service: bool,
}

/// An interface of this node that packets come by and may leave by.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port {
    /// The interface.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}
