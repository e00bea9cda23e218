//! Settings as people write them, and as the program reads them.

use std::{fmt, net::IpAddr, str::FromStr};

use anyhow::{Context as _, ensure};
use lb_common::{
    decap::{MAX_GUE_PORTS, MAX_LOCAL, MAX_SOURCES, MAX_VIPS, Prefix, Settings},
    flow::Address,
};
use serde::{Serialize, Serializer};

/// What the program on one interface is told.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct DecapSettings {
    /// Where the fleet's packets come from.
    pub from: Vec<IpPrefix>,
    /// Addresses of this host that tunnels end at.
    pub local: Vec<IpAddr>,
    /// UDP ports that GUE comes to.
    pub gue_ports: Vec<u16>,
    /// Where inner packets may go; empty: anywhere.
    pub vips: Vec<IpAddr>,
}

impl DecapSettings {
    /// The settings as the program reads them, without the sets of addresses, which have maps of their own.
    pub(super) fn to_kernel(&self) -> anyhow::Result<Settings> {
        for (what, found, most) in [
            (
                "addresses and prefixes of the fleet",
                self.from.len(),
                MAX_SOURCES,
            ),
            ("GUE ports", self.gue_ports.len(), MAX_GUE_PORTS),
            ("addresses of this host", self.local.len(), MAX_LOCAL),
            ("VIPs", self.vips.len(), MAX_VIPS),
        ] {
            ensure!(
                found <= most,
                "{found} {what}, and there is room for {most}"
            );
        }
        let from: Vec<_> = self.from.iter().copied().map(IpPrefix::to_kernel).collect();
        Settings::new(&from, &self.gue_ports, !self.vips.is_empty())
            .context("the settings do not fit")
    }

    /// What the program was told, read back.
    pub(super) fn from_kernel(
        settings: &Settings,
        local: impl IntoIterator<Item = Address>,
        vips: impl IntoIterator<Item = Address>,
    ) -> Self {
        let addresses = |found: &mut dyn Iterator<Item = Address>| {
            let mut addresses: Vec<_> = found.map(from_kernel).collect();
            addresses.sort_unstable();
            addresses
        };
        Self {
            from: settings
                .from
                .iter()
                .take(settings.sources as usize)
                .map(IpPrefix::from_kernel)
                .collect(),
            local: addresses(&mut local.into_iter()),
            gue_ports: settings
                .gue_ports
                .iter()
                .filter_map(|port| u16::try_from(*port).ok().filter(|port| *port != 0))
                .collect(),
            vips: addresses(&mut vips.into_iter()),
        }
    }
}

/// An IP network: `10.0.0.0/24`, `2001:db8::/64`, or a single address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpPrefix {
    address: IpAddr,
    bits: u8,
}

impl IpPrefix {
    /// The prefix that is one address.
    #[must_use]
    pub const fn single(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    /// Its address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether all of another prefix lies in this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.bits <= other.bits
            && self.to_kernel().contains(to_kernel(other.address))
    }

    fn to_kernel(self) -> Prefix {
        let bits = u32::from(self.bits);
        let bits = if self.address.is_ipv4() {
            96 + bits
        } else {
            bits
        };
        Prefix::new(to_kernel(self.address), bits)
    }

    fn from_kernel(prefix: &Prefix) -> Self {
        let address = from_kernel(prefix.address);
        let bits = u8::try_from(prefix.mask.high.count_ones() + prefix.mask.low.count_ones())
            .unwrap_or(128);
        let bits = if address.is_ipv4() {
            bits.saturating_sub(96)
        } else {
            bits
        };
        Self { address, bits }
    }
}

impl FromStr for IpPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_error| "expected an address or a prefix such as 10.0.0.0/24".to_owned())?;
        if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            return Err("write an IPv4 address as such, not in its mapped form".to_owned());
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| {
                    format!("expected a prefix length from 0 to {most}, found {bits:?}")
                })?,
        };
        let prefix = Self { address, bits };
        let network = Self::from_kernel(&prefix.to_kernel());
        if network.address != address {
            return Err(format!(
                "{text} has bits set behind its length; did you mean {network}?"
            ));
        }
        let kernel = prefix.to_kernel();
        if address.is_ipv6() && kernel.contains(Address::from_v4([0; 4])) {
            return Err(format!(
                "{text} holds the mapped form of every IPv4 address; name what is meant, such as 2000::/3"
            ));
        }
        Ok(prefix)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for IpPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn to_kernel(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::from_v4(v4.octets()),
        IpAddr::V6(v6) => Address::from_v6(v6.octets()),
    }
}

fn from_kernel(address: Address) -> IpAddr {
    IpAddr::from(address.octets()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_back_as_they_were_written() {
        for text in [
            "10.0.0.0/24",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "2001:db8::/64",
            "2001:db8::1/128",
            "2000::/3",
        ] {
            let prefix: IpPrefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
            assert_eq!(IpPrefix::from_kernel(&prefix.to_kernel()), prefix, "{text}");
        }
        assert_eq!(
            "10.0.0.1".parse::<IpPrefix>().unwrap().to_string(),
            "10.0.0.1/32"
        );
    }

    #[test]
    fn a_prefix_covers_what_lies_in_it() {
        let covers = |outer: &str, inner: &str| {
            let (outer, inner): (IpPrefix, IpPrefix) =
                (outer.parse().unwrap(), inner.parse().unwrap());
            outer.covers(&inner)
        };
        assert!(covers("10.0.0.0/24", "10.0.0.1") && covers("10.0.0.1", "10.0.0.1"));
        assert!(covers("2001:db8::/64", "2001:db8::/80"));
        assert!(!covers("10.0.0.0/24", "10.0.1.1") && !covers("10.0.0.0/24", "10.0.0.0/23"));
        assert!(!covers("0.0.0.0/0", "2001:db8::1"));
        let one = IpPrefix::single([10, 0, 0, 1].into());
        assert_eq!(one, "10.0.0.1/32".parse().unwrap());
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for text in [
            "",
            "lb-1",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "2001:db8::/129",
            "10.0.0.1/24",
            "2001:db8::1/64",
            "::ffff:10.0.0.1",
            "1.2.3.4/0",
            "::/0",
            "::/80",
        ] {
            assert!(text.parse::<IpPrefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn settings_come_back_as_they_were_given() {
        let settings = DecapSettings {
            from: vec![
                "10.0.0.0/24".parse().unwrap(),
                "2001:db8::/64".parse().unwrap(),
            ],
            local: vec![[10, 0, 0, 11].into()],
            gue_ports: vec![6080, 6081],
            vips: vec![[203, 0, 113, 10].into()],
        };
        let kernel = settings.to_kernel().unwrap();
        let addresses = |all: &[IpAddr]| all.iter().map(|ip| to_kernel(*ip)).collect::<Vec<_>>();
        let back = DecapSettings::from_kernel(
            &kernel,
            addresses(&settings.local),
            addresses(&settings.vips),
        );
        assert_eq!(back, settings);
        let crowd = DecapSettings {
            gue_ports: vec![1; MAX_GUE_PORTS + 1],
            ..settings
        };
        assert!(crowd.to_kernel().is_err());
    }
}
