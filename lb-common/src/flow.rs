//! A flow (5-tuple) and its seeded hash.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
///
/// Network byte order: the halves are the address's bytes as they lie in memory, so that comparing
/// two addresses is comparing two integers on any host.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Address {
    /// Bytes 0 to 7, as in memory.
    pub high: u64,
    /// Bytes 8 to 15, as in memory.
    pub low: u64,
}

/// Bytes 8 to 11 of an IPv4-mapped address.
const MAPPED: [u8; 4] = [0, 0, 0xff, 0xff];

impl Address {
    /// From an IPv4 address in network order.
    #[must_use]
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        // As a word, not as bytes, for the reason that `is_v4` has.
        Self {
            high: 0,
            low: ((u32::from_le_bytes(octets) as u64) << 32) | u32::from_le_bytes(MAPPED) as u64,
        }
    }

    /// From an IPv6 address in network order.
    #[must_use]
    #[inline(always)]
    pub fn from_v6(octets: [u8; 16]) -> Self {
        zerocopy::transmute!(octets)
    }

    /// The address in network order, IPv4 in its mapped form.
    #[must_use]
    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }

    /// Whether this is an IPv4 address. As words, as all of an address: taken to pieces they stay in pieces where they are used.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low as u32 == u32::from_le_bytes(MAPPED)
    }

    /// The address that an IPv4-mapped one maps, in network order.
    #[must_use]
    #[inline(always)]
    pub const fn v4_octets(self) -> [u8; 4] {
        self.v4_word().to_le_bytes()
    }

    /// [`Self::v4_octets`] as a little-endian word.
    #[inline(always)]
    pub(crate) const fn v4_word(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// The four 32-bit words, each read as little-endian (weir runs on little-endian machines only).
    #[inline(always)]
    const fn words(self) -> [u32; 4] {
        [
            self.high as u32,
            (self.high >> 32) as u32,
            self.low as u32,
            (self.low >> 32) as u32,
        ]
    }
}

/// A flow: who speaks to which VIP.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Flow {
    /// The client's address.
    pub source: Address,
    /// The VIP's address.
    pub destination: Address,
    /// Both ports as they lie in the packet, the client's in the low half: one word, for the reason that [`Address::is_v4`] has.
    pub ports: u32,
    /// IP protocol number ([`crate::wire::protocol`]), as wide as the room that is left. Host order.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Flow>() == 40);

impl Flow {
    /// [`Self::ports`] of the client's port and the VIP's, each in network order.
    #[must_use]
    #[inline(always)]
    pub const fn ports(source: [u8; 2], destination: [u8; 2]) -> u32 {
        let ([s0, s1], [d0, d1]) = (source, destination);
        u32::from_le_bytes([s0, s1, d0, d1])
    }

    /// The client's port, network order.
    #[must_use]
    #[inline(always)]
    pub const fn source_port(&self) -> [u8; 2] {
        (self.ports as u16).to_le_bytes()
    }

    /// The VIP's port, network order.
    #[must_use]
    #[inline(always)]
    pub const fn destination_port(&self) -> [u8; 2] {
        ((self.ports >> 16) as u16).to_le_bytes()
    }
}

/// How many keys the flow hash takes: one to add and one for each 32-bit word of an IPv6 flow.
pub const HASH_KEYS: usize = 11;

/// The secret keys of the flow hash, derived from the fleet's seed: equal seeds, equal hashes.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct HashKeys {
    /// Uniform random 64-bit numbers.
    pub keys: [u64; HASH_KEYS],
}

/// Secret, so that nobody logs them by accident.
impl core::fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("<secret>")
    }
}

impl HashKeys {
    /// Hashes a flow to 32 bits. The low 16 are its slot.
    ///
    /// Multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2014):
    /// the upper half of `k0 + Σ ki·wi (mod 2^64)` over the flow's 32-bit words. For secret keys it is
    /// strongly universal, so whoever does not know the seed can aim two flows at one slot no better
    /// than by chance. The products do not wait for each other. The end is the finaliser of
    /// MurmurHash3, a permutation: it keeps the property and spreads neighbouring ports.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, flow: &Flow) -> u32 {
        let [k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10] = self.keys;
        let [s0, s1, s2, s3] = flow.source.words();
        let [d0, d1, d2, d3] = flow.destination.words();
        let mut sum = k0
            .wrapping_add(k1.wrapping_mul(flow.ports as u64))
            .wrapping_add(k2.wrapping_mul(flow.protocol as u64))
            .wrapping_add(k3.wrapping_mul(s3 as u64))
            .wrapping_add(k4.wrapping_mul(d3 as u64));
        // The first twelve bytes of every mapped IPv4 address are the same: they tell no flow from another.
        if !flow.destination.is_v4() {
            sum = sum
                .wrapping_add(k5.wrapping_mul(s0 as u64))
                .wrapping_add(k6.wrapping_mul(s1 as u64))
                .wrapping_add(k7.wrapping_mul(s2 as u64))
                .wrapping_add(k8.wrapping_mul(d0 as u64))
                .wrapping_add(k9.wrapping_mul(d1 as u64))
                .wrapping_add(k10.wrapping_mul(d2 as u64));
        }
        finalise((sum >> 32) as u32)
    }
}

/// The 32-bit finaliser of MurmurHash3: a permutation of the 32-bit numbers.
#[must_use]
#[inline(always)]
pub const fn finalise(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const KEYS: HashKeys = HashKeys {
        keys: [
            0x9e37_79b9_7f4a_7c15,
            0xbf58_476d_1ce4_e5b9,
            0x94d0_49bb_1331_11eb,
            0xd6e8_feb8_6659_fd93,
            0xa076_1d64_78bd_642f,
            0xe703_7ed1_a0b4_28db,
            0x8ebc_6af0_9c88_c6e3,
            0x5899_65cc_7537_4cc3,
            0x1d8e_4e27_c47d_124f,
            0xeb44_acca_b455_d165,
            0x9ddf_ea08_eb38_2d69,
        ],
    };

    fn flow(source: Address, port: u16) -> Flow {
        Flow {
            source,
            destination: Address::from_v4([203, 0, 113, 10]),
            ports: Flow::ports(port.to_be_bytes(), 443u16.to_be_bytes()),
            protocol: 6,
        }
    }

    #[test]
    fn a_mapped_address_keeps_its_octets() {
        let address = Address::from_v4([192, 0, 2, 1]);
        assert_eq!(
            address.octets(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]
        );
        assert!(address.is_v4());
        assert_eq!(Address::from_v6(address.octets()), address);
        assert!(!Address::from_v6([0x20; 16]).is_v4());
    }

    #[test]
    fn every_word_of_the_flow_changes_the_hash() {
        let mut base = flow(Address::from_v6([7; 16]), 1024);
        base.destination = Address::from_v6([9; 16]);
        let hash = KEYS.hash(&base);
        for byte in 0..37 {
            let mut bytes: [u8; 40] = zerocopy::transmute!(base);
            bytes[byte] ^= 0x10;
            let other: Flow = zerocopy::transmute!(bytes);
            assert_ne!(KEYS.hash(&other), hash, "byte {byte}");
        }
    }

    /// Ports counted up by one client must spread as evenly as chance would: chi-squared over 256 cells.
    #[test]
    fn consecutive_ports_spread_over_the_slots() {
        let mut cells = [0u32; 256];
        for port in 1024..64512 {
            let hash = KEYS.hash(&flow(Address::from_v4([198, 51, 100, 7]), port));
            cells[(hash & 0xff) as usize] += 1;
        }
        let mean = 63488.0 / 256.0;
        let chi: f64 = cells
            .iter()
            .map(|&n| (f64::from(n) - mean).powi(2) / mean)
            .sum();
        // 255 degrees of freedom: 360 is beyond the 99.99th percentile.
        assert!(chi < 360.0, "chi-squared {chi}");
    }
}
