//! A backend as packets find it: who it is, how packets reach it, and the way there.

use lb_common::{
    backend::{self, Backend, flags},
    encap,
    vip::VipKey,
};

use super::{
    ip_address, map_address,
    next_hop::{NextHop, Vlans},
    wanted::Inputs,
};
use crate::config::{self, ForwardMode};

/// What every Ethernet link takes: the MTU of a way of which the network tells nothing.
const DEFAULT_MTU: u16 = 1500;

/// The number of a mode in the maps.
pub(super) const fn mode(forward: ForwardMode) -> u8 {
    match forward {
        ForwardMode::L2 => backend::mode::L2,
        ForwardMode::Ipip => backend::mode::IPIP,
        ForwardMode::Gue => backend::mode::GUE,
    }
}

/// The mode of a number in the maps; `None` for an entry that is no backend.
pub(crate) const fn forward_of(mode: u8) -> Option<ForwardMode> {
    match mode {
        backend::mode::L2 => Some(ForwardMode::L2),
        backend::mode::IPIP => Some(ForwardMode::Ipip),
        backend::mode::GUE => Some(ForwardMode::Gue),
        _ => None,
    }
}

/// What packets find under the id of a backend that is leaving: as they find it now, by the way that is known now.
pub(super) fn leaving(held: &Backend, inputs: &Inputs<'_>) -> Backend {
    if inputs.locals.contains(&ip_address(held.address)) {
        return Backend {
            flags: flags::LOCAL | held.flags & flags::DEAD,
            ..here(*held)
        };
    }
    let hop = inputs.next_hops.get(&ip_address(held.address));
    match hop.and_then(|hop| Some((hop, hop.mac_destination?))) {
        Some((hop, mac)) => Backend {
            flags: over(*held, hop, mac).flags | held.flags & flags::DEAD,
            ..over(*held, hop, mac)
        },
        None => *held,
    }
}

/// What packets find under the id of a backend of a VIP; `held` is what they find there now.
pub(super) fn entry(
    backend: &config::Backend,
    vip: &VipKey,
    vip_id: u32,
    held: Option<&Backend>,
    inputs: &Inputs<'_>,
) -> Backend {
    let whither = whither(backend, vip, vip_id, &inputs.config.node);
    if inputs.locals.contains(&backend.address) {
        return here(whither);
    }
    let known = inputs.next_hops.get(&backend.address);
    match (backend.mac, known) {
        (Some(mac), Some(hop)) => over(whither, hop, mac),
        // A backend whose MAC address is configured needs no route: by default it is where packets come from.
        (Some(mac), None) => match inputs.ports.first() {
            Some(port) => Backend {
                mac_destination: mac,
                mac_source: port.mac,
                ifindex: port.ifindex,
                flags: flags::RESOLVED,
                ..whither
            },
            None => as_held(whither, held),
        },
        (None, Some(hop)) => match hop.mac_destination {
            Some(mac) => over(whither, hop, mac),
            None => as_held(whither, held),
        },
        (None, None) => as_held(whither, held),
    }
}

/// Who the backend is and what its outer headers carry, without the way there.
fn whither(backend: &config::Backend, vip: &VipKey, vip_id: u32, node: &config::Node) -> Backend {
    let mode = mode(backend.forward);
    let address = map_address(backend.address);
    let bare = Backend {
        mode,
        vip: vip_id as u16,
        mtu: DEFAULT_MTU,
        address,
        ..Backend::default()
    };
    // A valid configuration has a source for every backend that needs one.
    let Some(source) = node.encap_source.toward(backend.address).map(map_address) else {
        return bare;
    };
    match backend.forward {
        ForwardMode::L2 => bare,
        ForwardMode::Ipip | ForwardMode::Gue => Backend {
            source,
            gue_port: if mode == backend::mode::GUE {
                node.gue_port.to_be_bytes()
            } else {
                [0; 2]
            },
            outer_sum: encap::constant_sum(source, address, mode, !vip.address.is_v4()),
            ..bare
        },
    }
}

/// The way to this node itself: none.
fn here(whither: Backend) -> Backend {
    Backend {
        mac_destination: [0; 6],
        mac_source: [0; 6],
        ifindex: 0,
        flags: flags::LOCAL,
        vlan_count: 0,
        vlans: [[0; 2]; 2],
        ..whither
    }
}

fn over(whither: Backend, hop: &NextHop, mac: [u8; 6]) -> Backend {
    Backend {
        mac_destination: mac,
        mac_source: hop.mac_source,
        ifindex: hop.ifindex,
        flags: flags::RESOLVED | vlan_flags(hop.vlans),
        mtu: hop.mtu,
        vlan_count: hop.vlans.count,
        vlans: hop.vlans.ids.map(u16::to_be_bytes),
        ..whither
    }
}

const fn vlan_flags(vlans: Vlans) -> u8 {
    match vlans {
        Vlans { count: 0, .. } => 0,
        Vlans {
            is_service: true, ..
        } => flags::VLANS_SET | flags::SERVICE_VLAN,
        Vlans { .. } => flags::VLANS_SET,
    }
}

/// The way that packets take now, where the network knows of none.
fn as_held(whither: Backend, held: Option<&Backend>) -> Backend {
    held.map_or(whither, |held| Backend {
        mac_destination: held.mac_destination,
        mac_source: held.mac_source,
        ifindex: held.ifindex,
        flags: held.flags & !(flags::DEAD | flags::LOCAL),
        mtu: held.mtu,
        vlan_count: held.vlan_count,
        vlans: held.vlans,
        ..whither
    })
}
