//! Which addresses a VIP or a backend may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What makes an address unfit for a VIP, if anything.
pub(crate) fn unfit_for_vip(address: IpAddr) -> Option<&'static str> {
    unfit_for_backend(address).or(match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

/// What makes an address unfit for a backend, if anything.
pub(crate) fn unfit_for_backend(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("an address of \"this network\" (0.0.0.0/8)"),
        IpAddr::V6(v6) if is_mapped(v6) => Some("an IPv4-mapped address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

const fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Six octets in hexadecimal between colons or dashes, of one station: neither a group's nor all zero.
pub(super) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut mac = [0; 6];
    let mut parts = text.split(separator);
    for octet in &mut mac {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    let is_group = mac[0] & 1 == 1;
    (parts.next().is_none() && !is_group && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_addresses_that_nobody_can_dial() {
        for text in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "127.0.0.1",
            "::1",
            "255.255.255.255",
            "0.1.2.3",
            "::ffff:10.0.0.1",
        ] {
            assert!(unfit_for_backend(text.parse().unwrap()).is_some(), "{text}");
            assert!(unfit_for_vip(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["169.254.1.1", "fe80::1"] {
            assert!(unfit_for_backend(text.parse().unwrap()).is_none(), "{text}");
            assert!(unfit_for_vip(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "203.0.113.10", "2001:db8::1", "fd00::1"] {
            assert!(unfit_for_vip(text.parse().unwrap()).is_none(), "{text}");
        }
    }

    #[test]
    fn reads_the_mac_address_of_one_station() {
        assert_eq!(
            parse_mac("02:00:00:00:aa:FF"),
            Some([2, 0, 0, 0, 0xaa, 0xff])
        );
        assert_eq!(parse_mac("02-00-00-00-00-01"), Some([2, 0, 0, 0, 0, 1]));
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
