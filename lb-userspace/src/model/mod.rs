//! What the data plane should hold, as pure functions: no I/O, no clock, no global state.
//!
//! From top to bottom: what commands have changed of the configuration ([`overrides`]) and
//! whom they block ([`blocks`]), access lists ([`listed`]), keys from the fleet's seed ([`seed`]), lookup tables ([`table`]), rate limits ([`limits`]), ids that belong to
//! one thing each ([`ids`]), the whole of what is wanted ([`wanted`]), and the steps from what the maps
//! hold to it ([`plan`]); what Services add to a configuration ([`services`]) and what another configuration would change ([`preview`]). [`crate::dataplane::apply`] walks them.

pub mod attached;
pub mod blocks;
pub mod ids;
pub mod leaving;
pub mod limits;
pub mod listed;
pub mod next_hop;
pub mod overrides;
mod parallel;
pub mod place;
mod places;
pub mod plan;
pub mod preview;
pub mod seed;
pub mod services;
pub mod slots;
pub mod table;
pub mod wanted;
mod way;

pub(crate) use way::forward_of;

use std::net::IpAddr;

use lb_common::flow::Address;

/// The address as the maps hold it: 16 bytes in network order, IPv4 in its mapped form.
#[must_use]
pub fn map_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_v4(v4.octets()),
        IpAddr::V6(v6) => Address::from_v6(v6.octets()),
    }
}

/// The address that the maps hold, as people write it: a mapped IPv4 address as IPv4.
#[must_use]
pub fn ip_address(address: Address) -> IpAddr {
    IpAddr::from(address.octets()).to_canonical()
}

/// A MAC address as people write it.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_maps() {
        for text in ["10.0.0.11", "2001:db8::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip_address(map_address(address)), address);
        }
    }
}
