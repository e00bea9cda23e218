//! What netlink messages say, in weir's words.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    link::{LinkAttribute, LinkLayerType, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteMessage, RouteProtocol as NetlinkProtocol, RouteType,
        RouteVia,
    },
};

use super::{Link, Problem};

/// The protocol that marks the neighbours which weir manages, so that a later daemon knows them. Unused in
/// the kernel's list of routing protocols.
pub(super) const PROTOCOL: NetlinkProtocol = NetlinkProtocol::Other(87);

/// A neighbour's key: interface and address.
pub(super) type Hop = (u32, IpAddr);

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Neighbour {
    pub(super) hop: Hop,
    /// The MAC address, where the kernel would use it.
    pub(super) mac: Option<[u8; 6]>,
    /// Whether the kernel asked and nobody answered.
    pub(super) failed: bool,
    /// Whether the kernel keeps it resolved, or an operator wrote it down for good.
    pub(super) kept: bool,
    /// Whether it is managed on weir's account.
    pub(super) ours: bool,
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    let mut managed = false;
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = mac_address(bytes),
            NeighbourAttribute::ExtFlags(flags) => {
                managed = flags.contains(NeighbourExtFlags::Managed);
            }
            NeighbourAttribute::Protocol(protocol) => marked = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let (usable, failed, permanent) = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe => (true, false, false),
        NeighbourState::Permanent | NeighbourState::Noarp => (true, false, true),
        NeighbourState::Failed => (false, true, false),
        _ => (false, false, false),
    };
    Some(Neighbour {
        hop: (message.header.ifindex, address?),
        mac: mac.filter(|_| usable),
        failed,
        kept: managed || permanent,
        ours: managed && marked,
    })
}

pub(super) fn link(message: &LinkMessage) -> (u32, Link) {
    let mut name = String::new();
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Address(bytes) => mac = mac_address(bytes),
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        name,
        mac: mac.filter(|_| ethernet),
    };
    (message.header.index, link)
}

/// Where a route leads: the interface, and the gateway or the address itself.
pub(super) fn route(message: &RouteMessage, to: IpAddr) -> Result<Hop, Problem> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Problem::Local),
        kind => return Err(Problem::NoRoute(format!("the route is {kind:?}"))),
    }
    let mut ifindex = None;
    let mut gateway = to;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(v4))
            | RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = IpAddr::V4(*v4),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6))
            | RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = IpAddr::V6(*v6),
            _ => {}
        }
    }
    match ifindex {
        Some(ifindex) => Ok((ifindex, gateway)),
        None => Err(Problem::NoRoute("the route names no interface".to_owned())),
    }
}

/// A MAC address that frames can be sent to; zeros are what interfaces without addresses show.
fn mac_address(bytes: &[u8]) -> Option<[u8; 6]> {
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| *mac != [0; 6])
}
