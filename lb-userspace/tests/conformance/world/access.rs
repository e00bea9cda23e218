//! Services with access lists: how each stands to the usual client, and to the rest of the world.

use lb_common::{
    access::{NODE as NODE_SCOPE, PrefixKey, blocks, lists, verdict},
    flow::Address,
};
use lb_userspace::dataplane::DataPlane;

use super::{FAMILIES, Family, PORTS, address, number, port, stranger};

/// The client is blocked, for this VIP and for all.
pub(crate) const VIP_BLOCK: u16 = 7100;
pub(crate) const NODE_BLOCK: u16 = 7101;
/// The client is allowed within a prefix that is denied, and the other way round.
pub(crate) const VIP_ALLOW: u16 = 7102;
pub(crate) const VIP_DENY: u16 = 7103;
/// The node denies the client, and allows the [`super::stranger`].
pub(crate) const NODE: u16 = 7104;
/// Somebody else is allowed.
pub(crate) const UNLISTED: u16 = 7105;
/// The VIP allows whom the node denies.
pub(crate) const VIP_BEFORE_NODE: u16 = 7106;
/// A block of all, and the VIP allows the client.
pub(crate) const BLOCK_BEFORE_ALLOW: u16 = 7107;
/// The client's neighbour is denied.
pub(crate) const NEIGHBOUR: u16 = 7108;
/// The client is denied, and all slots change hands.
pub(crate) const DENIED_MOVING: u16 = 7109;

/// Every service, and whether the client may send to it.
pub(crate) const SERVICES: [(&str, u16, bool); 10] = [
    ("blocked for the VIP", VIP_BLOCK, false),
    ("blocked for all VIPs", NODE_BLOCK, false),
    ("allowed within a denied prefix", VIP_ALLOW, true),
    ("denied within an allowed prefix", VIP_DENY, false),
    ("denied for all VIPs", NODE, false),
    ("on no list, where another is allowed", UNLISTED, false),
    (
        "the VIP's own lists come before the node's",
        VIP_BEFORE_NODE,
        true,
    ),
    (
        "a block comes before what is allowed",
        BLOCK_BEFORE_ALLOW,
        false,
    ),
    ("a neighbour is denied", NEIGHBOUR, true),
    ("denied while slots change hands", DENIED_MOVING, false),
];

/// What is looked up for a service: among the blocks, and in the lists.
pub(crate) const fn scopes(port: u16) -> (u32, u32) {
    match port {
        VIP_BLOCK => (blocks::OF_VIP, 0),
        NODE_BLOCK => (blocks::OF_VIP | blocks::OF_NODE, 0),
        VIP_ALLOW | UNLISTED => (0, lists::OF_VIP | lists::CLOSED),
        VIP_DENY | NEIGHBOUR | DENIED_MOVING | port::AFFINITY => (0, lists::OF_VIP),
        NODE => (0, lists::OF_NODE | lists::CLOSED),
        VIP_BEFORE_NODE => (0, lists::OF_VIP | lists::OF_NODE),
        BLOCK_BEFORE_ALLOW => (blocks::OF_NODE, lists::OF_VIP),
        _ => (0, 0),
    }
}

/// Access lists and blocks of all services.
pub(super) fn write(plane: &mut dyn DataPlane) {
    let mut list_plane = plane.list_plane().unwrap();
    for family in FAMILIES {
        let client = address(family.client());
        let (wide, whole) = match family {
            Family::V4 => (16, 32),
            Family::V6 => (32, 128),
        };
        let mut list = |scope: u32, address: Address, length: u32, verdict: u32| {
            let key = PrefixKey::new(scope, address, length);
            list_plane.set_prefix(&key, verdict).unwrap();
        };
        list(NODE_SCOPE, client, wide, verdict::DENIED);
        list(
            NODE_SCOPE,
            address(stranger(family)),
            whole,
            verdict::ALLOWED,
        );
        plane
            .set_block(&PrefixKey::new(NODE_SCOPE, client, wide))
            .unwrap();
        for port in PORTS {
            for protocol in [6, 17] {
                if port == 0 {
                    continue;
                }
                let vip = u32::from(number(family, protocol, port));
                match port {
                    VIP_BLOCK => {
                        plane
                            .set_block(&PrefixKey::new(vip, client, whole))
                            .unwrap();
                    }
                    VIP_ALLOW => {
                        list(vip, client, 0, verdict::DENIED);
                        list(vip, client, whole, verdict::ALLOWED);
                    }
                    VIP_DENY | DENIED_MOVING => {
                        list(vip, client, wide, verdict::ALLOWED);
                        list(vip, client, whole, verdict::DENIED);
                    }
                    UNLISTED | port::AFFINITY => {
                        let stranger = address(stranger(family));
                        let verdict = match port {
                            UNLISTED => verdict::ALLOWED,
                            _ => verdict::DENIED,
                        };
                        list(vip, stranger, wide, verdict);
                    }
                    VIP_BEFORE_NODE | BLOCK_BEFORE_ALLOW => {
                        list(vip, client, whole, verdict::ALLOWED);
                    }
                    NEIGHBOUR => {
                        let mut neighbour = client;
                        neighbour.low ^= 1 << 56;
                        list(vip, neighbour, whole, verdict::DENIED);
                    }
                    _ => {}
                }
            }
        }
    }
    for family in FAMILIES {
        for port in PORTS {
            for protocol in [6, 17] {
                let vip = u32::from(number(family, protocol, port));
                let (blocks, lists) = scopes(port);
                plane.set_block_scopes(vip, blocks).unwrap();
                list_plane.set_list_scopes(vip, lists).unwrap();
            }
        }
    }
}
