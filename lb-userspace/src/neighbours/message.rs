//! What netlink messages say, in weir's words.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    link::{
        InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp, VlanProtocol, XdpAttached,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol as NetlinkProtocol,
        RouteType, RouteVia,
    },
};

use super::{Link, Problem, Vlan, Xdp};
use crate::model::attached::AttachMode;

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
    let mut mtu = u32::from(u16::MAX);
    let mut lower = None;
    let mut is_elsewhere = false;
    let mut vlan = None;
    let mut xdp = None;
    let mut carriers = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Address(bytes) => mac = mac_address(bytes),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Link(ifindex) => lower = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::CarrierUpCount(count) => carriers = *count,
            LinkAttribute::Xdp(facts) => xdp = xdp_program(facts),
            LinkAttribute::LinkInfo(infos) => vlan = infos.iter().find_map(vlan_info).or(vlan),
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        name,
        mac: mac.filter(|_| ethernet),
        mtu: capped(mtu),
        vlan: vlan.map(|(id, is_service)| Vlan {
            // An ifindex of another namespace means nothing here.
            lower: lower.filter(|_| !is_elsewhere),
            id,
            is_service,
        }),
        carrier: message
            .header
            .flags
            .contains(LinkFlags::LowerUp)
            .then_some(carriers),
        xdp,
    };
    (message.header.index, link)
}

/// The program on an interface. Where one is offloaded beside another, the other.
fn xdp_program(facts: &[LinkXdp]) -> Option<Xdp> {
    let mut attached = None;
    let (mut only, mut native, mut generic) = (0, 0, 0);
    for fact in facts {
        match fact {
            LinkXdp::Attached(mode) => attached = Some(*mode),
            LinkXdp::ProgId(id) => only = *id,
            LinkXdp::DrvProgId(id) => native = *id,
            LinkXdp::SkbProgId(id) => generic = *id,
            _ => {}
        }
    }
    let (program, mode) = match attached? {
        XdpAttached::SocketBuffer => (only, AttachMode::Generic),
        XdpAttached::Driver | XdpAttached::Hardware => (only, AttachMode::Native),
        _ if native != 0 => (native, AttachMode::Native),
        _ => (generic, AttachMode::Generic),
    };
    (program != 0).then_some(Xdp { program, mode })
}

/// The VLAN id of a VLAN device, and whether it is a service VLAN (802.1ad).
fn vlan_info(info: &LinkInfo) -> Option<(u16, bool)> {
    let LinkInfo::Data(InfoData::Vlan(facts)) = info else {
        return None;
    };
    let mut id = None;
    let mut is_service = false;
    for fact in facts {
        match fact {
            InfoVlan::Id(number) => id = Some(*number),
            InfoVlan::Protocol(protocol) => is_service = *protocol == VlanProtocol::Ieee8021Ad,
            _ => {}
        }
    }
    Some((id?, is_service))
}

/// An MTU as far as an IP packet's length goes.
fn capped(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    /// The interface, and the gateway or the address itself.
    pub(super) hop: Hop,
    /// The route's own MTU, where it has one.
    pub(super) mtu: Option<u16>,
}

/// Where a route leads, or why nowhere.
pub(super) fn route(message: &RouteMessage, to: IpAddr) -> Result<Route, Problem> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Problem::Local),
        kind => return Err(Problem::NoRoute(format!("the route is {kind:?}"))),
    }
    let mut ifindex = None;
    let mut gateway = to;
    let mut mtu = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(bytes) if *bytes > 0 => Some(capped(*bytes)),
                    _ => None,
                });
            }
            RouteAttribute::Gateway(RouteAddress::Inet(v4))
            | RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = IpAddr::V4(*v4),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6))
            | RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = IpAddr::V6(*v6),
            _ => {}
        }
    }
    match ifindex {
        Some(ifindex) => Ok(Route {
            hop: (ifindex, gateway),
            mtu,
        }),
        None => Err(Problem::NoRoute("the route names no interface".to_owned())),
    }
}

/// A MAC address that frames can be sent to; zeros are what interfaces without addresses show.
fn mac_address(bytes: &[u8]) -> Option<[u8; 6]> {
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| *mac != [0; 6])
}

#[cfg(test)]
mod tests;
