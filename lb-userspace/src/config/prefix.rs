//! Prefixes of addresses: `192.0.2.0/24`, `2001:db8::/32`, or an address alone.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use lb_common::{access::PrefixKey, flow::Address};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A prefix of IPv4 or IPv6 addresses. Ordered by family, address and length; 18 bytes, since lists have millions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Prefix {
    is_v6: bool,
    /// Network order; an IPv4 address in the first four. Bits beyond the length are zero.
    octets: [u8; 16],
    length: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAPrefix {
    /// No address, or no length after the slash.
    #[error("no address, and no address with a prefix length")]
    Malformed,
    /// More bits than the family has.
    #[error("a prefix length of more than {0} bits")]
    TooLong(u8),
    /// Bits beyond the length are set: one of the two is not what was meant.
    #[error("an address with bits beyond its prefix length")]
    HostBits(Prefix),
    /// An IPv4 address in its IPv6 form.
    #[error("an IPv4-mapped address")]
    Mapped,
}

impl NotAPrefix {
    /// What to write instead.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Malformed | Self::TooLong(_) => {
                "write an address, or a prefix as `192.0.2.0/24` or `2001:db8::/32`".to_owned()
            }
            Self::HostBits(prefix) => {
                format!("write `{prefix}` for the network, or the address without a length")
            }
            Self::Mapped => "write IPv4 addresses as such: `192.0.2.1`".to_owned(),
        }
    }
}

impl Prefix {
    /// Whether it is one of IPv4 addresses.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        !self.is_v6
    }

    /// Its first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        if self.is_v6 {
            IpAddr::V6(Ipv6Addr::from_octets(self.octets))
        } else {
            let [a, b, c, d, ..] = self.octets;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
    }

    /// How many bits of it count.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether all of another prefix lies in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.is_v6 == other.is_v6
            && self.length <= other.length
            && other.key(0).shortened(u32::from(self.length)) == self.key(0)
    }

    /// The key of it in a scope: a VIP's id, or [`lb_common::access::NODE`].
    #[must_use]
    pub fn key(&self, scope: u32) -> PrefixKey {
        let address = match self.address() {
            IpAddr::V4(v4) => Address::from_v4(v4.octets()),
            IpAddr::V6(v6) => Address::from_v6(v6.octets()),
        };
        PrefixKey::new(scope, address, u32::from(self.length))
    }

    /// The prefix that a key holds.
    #[must_use]
    pub fn of_key(key: &PrefixKey) -> Self {
        let address: Address = key.address();
        let is_v6 = !address.is_v4();
        let octets = address.octets();
        Self {
            is_v6,
            octets: if is_v6 { octets } else { left(octets) },
            length: u8::try_from(key.length()).unwrap_or(u8::MAX),
        }
    }

    fn new(address: IpAddr, length: u8) -> Result<Self, NotAPrefix> {
        let (is_v6, bits, octets) = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&[a, b, c, d]);
                (false, 32, octets)
            }
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return Err(NotAPrefix::Mapped),
            IpAddr::V6(v6) => (true, 128, v6.octets()),
        };
        if length > bits {
            return Err(NotAPrefix::TooLong(bits));
        }
        let kept = u128::MAX
            .checked_shl(128 - u32::from(length))
            .unwrap_or_default();
        let masked = (u128::from_be_bytes(octets) & kept).to_be_bytes();
        let prefix = Self {
            is_v6,
            octets: masked,
            length,
        };
        if masked == octets {
            Ok(prefix)
        } else {
            Err(NotAPrefix::HostBits(prefix))
        }
    }
}

/// The four octets of a mapped IPv4 address, in the first places.
fn left(octets: [u8; 16]) -> [u8; 16] {
    (u128::from_be_bytes(octets) << 96).to_be_bytes()
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let address = |text: &str| text.parse::<IpAddr>().ok().ok_or(NotAPrefix::Malformed);
        match text.split_once('/') {
            None => {
                let address = address(text)?;
                Self::new(address, if address.is_ipv4() { 32 } else { 128 })
            }
            Some((before, length)) => {
                // `+8` and `08` would be read as numbers too.
                let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let is_plain = is_number && (length == "0" || !length.starts_with('0'));
                let address = address(before)?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                if !is_plain {
                    return Err(NotAPrefix::Malformed);
                }
                let length = length.parse().ok().ok_or(NotAPrefix::TooLong(most))?;
                Self::new(address, length)
            }
        }
    }
}

/// As people write it, always with its length.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refuse = |wrong: NotAPrefix| {
            let help = wrong.help();
            de::Error::custom(format!("{text:?} is {wrong}; {help}"))
        };
        text.parse().map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::access::NODE;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefixes_are_read_and_shown() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(prefix(text).to_string(), shown);
            assert_eq!(Prefix::of_key(&prefix(text).key(NODE)), prefix(text));
        }
    }

    #[test]
    fn whatever_is_meant_otherwise_is_refused() {
        let host = |text: &str| NotAPrefix::HostBits(prefix(text));
        for (text, wrong) in [
            ("192.0.2.7/24", host("192.0.2.0/24")),
            ("2001:db8::1/64", host("2001:db8::/64")),
            ("192.0.2.0/33", NotAPrefix::TooLong(32)),
            ("192.0.2.0/999", NotAPrefix::TooLong(32)),
            ("2001:db8::/129", NotAPrefix::TooLong(128)),
            ("::ffff:192.0.2.0/120", NotAPrefix::Mapped),
            ("192.0.2/24", NotAPrefix::Malformed),
            ("192.0.2.0/", NotAPrefix::Malformed),
            ("192.0.2.0/+8", NotAPrefix::Malformed),
            ("192.0.2.0/08", NotAPrefix::Malformed),
            ("192.0.2.0/255.255.255.0", NotAPrefix::Malformed),
            ("web", NotAPrefix::Malformed),
            ("", NotAPrefix::Malformed),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(wrong), "{text}");
        }
    }

    #[test]
    fn a_prefix_holds_longer_ones_of_its_family() {
        let wide = prefix("192.0.2.0/24");
        assert!(wide.contains(&wide));
        assert!(wide.contains(&prefix("192.0.2.255")));
        assert!(!wide.contains(&prefix("192.0.3.0/24")));
        assert!(!wide.contains(&prefix("192.0.0.0/16")));
        assert!(!prefix("::/0").contains(&wide));
        assert!(!prefix("0.0.0.0/0").contains(&prefix("::/0")));
        assert!(prefix("0.0.0.0/0").contains(&wide));
    }

    #[test]
    fn sorted_by_family_address_and_length() {
        let mut prefixes = ["::/0", "10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/16"].map(prefix);
        prefixes.sort();
        let shown = prefixes.map(|prefix| prefix.to_string());
        assert_eq!(shown, ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "::/0"]);
    }
}
