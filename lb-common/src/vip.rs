//! VIPs, and the table that finds the VIP of a packet: two-choice hashing in one map value.
//!
//! A kernel hash map costs 42 ns a lookup with a 20-byte key; this table costs two cache lines at most.
//! Each entry lies in one of two buckets, and a bucket is one cache line of two entries (R. Pagh and
//! F. Rodler, "Cuckoo Hashing", 2004; two choices with buckets of two bear a load of 89 %, and at most 75 %
//! of this table is ever used). The daemon builds a table aside and swaps it in whole.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::{Address, Flow, HashKeys};

/// How many VIPs a table takes at most.
pub const MAX_VIPS: usize = 4096;

/// Twice the VIPs, each with two entries more at worst: 75 % of the room.
const BUCKETS: usize = 8192;

/// Kinds of entries.
mod kind {
    /// Address, port (0 for every port) and protocol are a VIP's.
    pub(super) const VIP: u8 = 1;
    /// The address is that of some VIP: for ICMP and ARP. No port, no protocol.
    pub(super) const ADDRESS: u8 = 2;
    /// The address and protocol are those of some VIP: for fragments without a port.
    pub(super) const PORTLESS: u8 = 3;
}

/// What is looked up: 24 bytes, compared as three integers.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct VipKey {
    /// The VIP's address.
    pub address: Address,
    /// The VIP's port, network order; 0 for every port.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// [`kind`]; 0 in an empty entry, which so equals no key.
    kind: u8,
    reserved: [u8; 4],
}

impl VipKey {
    /// The key of a VIP. `port` is in network order; 0 stands for every port.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: Address, port: [u8; 2], protocol: u8) -> Self {
        Self {
            address,
            port,
            protocol,
            kind: kind::VIP,
            reserved: [0; 4],
        }
    }

    /// The key that any VIP of an address is found by.
    #[must_use]
    #[inline(always)]
    pub const fn of_address(address: Address) -> Self {
        Self {
            address,
            port: [0; 2],
            protocol: 0,
            kind: kind::ADDRESS,
            reserved: [0; 4],
        }
    }

    /// The key that any VIP of an address and protocol is found by.
    #[must_use]
    #[inline(always)]
    pub const fn without_port(address: Address, protocol: u8) -> Self {
        Self {
            address,
            port: [0; 2],
            protocol,
            kind: kind::PORTLESS,
            reserved: [0; 4],
        }
    }

    /// The same VIP with every port.
    #[must_use]
    #[inline(always)]
    pub const fn any_port(self) -> Self {
        Self {
            port: [0; 2],
            ..self
        }
    }

    #[inline(always)]
    const fn selector(self) -> u64 {
        let [p0, p1] = self.port;
        u64::from_ne_bytes([p0, p1, self.protocol, self.kind, 0, 0, 0, 0])
    }

    #[inline(always)]
    const fn equals(&self, other: &Self) -> bool {
        // The low half first: it tells nearly all keys apart, also those of IPv4, whose high halves are all the same.
        self.address.low == other.address.low
            && self.selector() == other.selector()
            && self.address.high == other.address.high
    }
}

/// A VIP as packets find it, 32 bytes.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct VipEntry {
    /// Address, port and protocol.
    pub key: VipKey,
    /// The VIP's id: index of its lookup table and counters. Host order.
    pub id: u32,
    /// [`flags`]. Host order.
    pub flags: u32,
}

impl VipEntry {
    /// Whether a packet must pass access lists or limits, or may be another node's. `is_syn`: whether it asks for a new connection.
    #[must_use]
    #[inline(always)]
    pub const fn is_guarded(&self, is_syn: bool) -> bool {
        // SYN_LIMITS counts for a SYN alone; no branch for packets of VIPs without any of it.
        let always = flags::ACCESS | flags::LIMITS | flags::SHARED;
        let asked = always | (flags::SYN_LIMITS * is_syn as u32);
        self.flags & asked != 0
    }

    /// Whether access lists or blocks concern its packets.
    #[must_use]
    #[inline(always)]
    pub const fn has_access_lists(&self) -> bool {
        self.flags & flags::ACCESS != 0
    }

    /// Whether other nodes of the fleet may send its packets here.
    #[must_use]
    #[inline(always)]
    pub const fn is_shared(&self) -> bool {
        self.flags & flags::SHARED != 0
    }

    /// Hash of a flow of this VIP; the low 16 bits are its slot.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, keys: &HashKeys, flow: &Flow) -> u32 {
        if self.flags & flags::AFFINITY_SOURCE == 0 {
            return keys.hash(flow);
        }
        // The source address alone, so that all flows of a client reach one backend.
        keys.hash(&Flow {
            source_port: [0; 2],
            destination_port: [0; 2],
            protocol: 0,
            ..*flow
        })
    }
}

/// What a VIP asks of the pipeline.
pub mod flags {
    /// Hash the source address alone, so that all flows of a client reach one backend.
    pub const AFFINITY_SOURCE: u32 = 1;
    /// Answer ARP and neighbour solicitations for the address (`announce = "l2"`).
    pub const ANNOUNCE_L2: u32 = 2;
    /// Access lists judge the sources of the VIP's packets, its own or those of all VIPs.
    pub const ACCESS: u32 = 4;
    /// Limits count every packet ([`crate::limit`]).
    pub const LIMITS: u32 = 8;
    /// Limits count TCP SYNs, and nothing else if [`LIMITS`] is not set.
    pub const SYN_LIMITS: u32 = 16;
    /// Other nodes that balance it may send its packets here, since this node serves it as well: those are not balanced
    /// again ([`crate::tables::Tables::is_peer`]).
    pub const SHARED: u32 = 32;
}

/// Two entries: one cache line.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
struct Bucket {
    entries: [VipEntry; 2],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// All VIPs of a node, 512 KiB.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct VipTable {
    buckets: [Bucket; BUCKETS],
    /// Odd multipliers of the bucket hash; the builder takes the first that place every VIP.
    multipliers: [u64; 3],
    /// How many VIPs with every port there are: with none, a miss needs no second lookup.
    any_port: u64,
    reserved: [u64; 4],
}

/// The table has no room for a VIP: more than [`MAX_VIPS`], or the attempts ran out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

impl VipTable {
    /// Finds the first VIP of an address; it says of all whether they are announced.
    #[must_use]
    #[inline(always)]
    pub fn find_address(&self, address: Address) -> Option<&VipEntry> {
        self.get(&VipKey::of_address(address))
    }

    /// Finds the VIP of a packet whose port is not known: the first one of its address and protocol.
    #[must_use]
    #[inline(always)]
    pub fn find_without_port(&self, address: Address, protocol: u8) -> Option<&VipEntry> {
        self.get(&VipKey::without_port(address, protocol))
    }

    /// Finds the VIP of a packet: its own port first, then every port.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, key: &VipKey) -> Option<&VipEntry> {
        match self.get(key) {
            Some(entry) => Some(entry),
            None if self.any_port != 0 => self.get(&key.any_port()),
            None => None,
        }
    }

    /// Every VIP, in no order that means anything.
    pub fn entries(&self) -> impl Iterator<Item = &VipEntry> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        entries.filter(|entry| entry.key.kind == kind::VIP)
    }

    #[inline(always)]
    fn get(&self, key: &VipKey) -> Option<&VipEntry> {
        let (first, second) = self.choices(key);
        let bucket = self.buckets.get(first)?;
        let [a, b] = &bucket.entries;
        if a.key.equals(key) {
            return Some(a);
        }
        if b.key.equals(key) {
            return Some(b);
        }
        let bucket = self.buckets.get(second)?;
        let [a, b] = &bucket.entries;
        if a.key.equals(key) {
            return Some(a);
        }
        if b.key.equals(key) {
            return Some(b);
        }
        None
    }

    #[inline(always)]
    fn choices(&self, key: &VipKey) -> (usize, usize) {
        let [a, b, c] = self.multipliers;
        let sum = key
            .address
            .high
            .wrapping_mul(a)
            .wrapping_add(key.address.low.wrapping_mul(b))
            .wrapping_add(key.selector().wrapping_mul(c));
        let sum = sum ^ (sum >> 29);
        (
            (sum >> 51) as usize & (BUCKETS - 1),
            (sum >> 38) as usize & (BUCKETS - 1),
        )
    }

    /// Makes this (zeroed) value the table of `vips`, which must be free of duplicate keys.
    ///
    /// The result depends on the set and its order alone.
    ///
    /// # Errors
    /// [`Full`] where there are more than [`MAX_VIPS`].
    pub fn build(&mut self, vips: &[VipEntry]) -> Result<(), Full> {
        if vips.len() > MAX_VIPS {
            return Err(Full);
        }
        // An attempt fails rarely; each takes other multipliers.
        (0..64)
            .try_for_each(|attempt| match self.try_build(vips, attempt) {
                Ok(()) => Err(()),
                Err(Full) => Ok(()),
            })
            .map_or(Ok(()), |()| Err(Full))
    }

    fn try_build(&mut self, vips: &[VipEntry], attempt: u64) -> Result<(), Full> {
        for bucket in &mut self.buckets {
            *bucket = Bucket {
                entries: [VipEntry::default(); 2],
            };
        }
        let mut state = attempt;
        for multiplier in &mut self.multipliers {
            *multiplier = split_mix(&mut state) | 1;
        }
        self.any_port = 0;
        for vip in vips {
            if vip.key.port == [0; 2] {
                self.any_port = self.any_port.wrapping_add(1);
            }
            self.place(*vip)?;
            self.derive(VipKey::of_address(vip.key.address), vip)?;
            self.derive(VipKey::without_port(vip.key.address, vip.key.protocol), vip)?;
        }
        Ok(())
    }

    /// Makes the VIP findable by less than its whole key. The first VIP of several that share `key` stands
    /// for all; an address is announced where one of its VIPs is.
    fn derive(&mut self, key: VipKey, vip: &VipEntry) -> Result<(), Full> {
        let (first, second) = self.choices(&key);
        for at in [first, second] {
            let Some(bucket) = self.buckets.get_mut(at) else {
                continue;
            };
            for entry in &mut bucket.entries {
                if entry.key == key {
                    entry.flags |= vip.flags & flags::ANNOUNCE_L2;
                    return Ok(());
                }
            }
        }
        self.place(VipEntry { key, ..*vip })
    }

    /// Places one entry, moving others to their second bucket where needed.
    fn place(&mut self, mut entry: VipEntry) -> Result<(), Full> {
        let (first, second) = self.choices(&entry.key);
        let mut at = first;
        for candidate in [first, second] {
            if self.put(candidate, entry) {
                return Ok(());
            }
        }
        for step in 0..512usize {
            let victim = step & 1;
            let slot = self
                .buckets
                .get_mut(at)
                .and_then(|bucket| bucket.entries.get_mut(victim))
                .ok_or(Full)?;
            core::mem::swap(slot, &mut entry);
            let (first, second) = self.choices(&entry.key);
            at = if at == first { second } else { first };
            if self.put(at, entry) {
                return Ok(());
            }
        }
        Err(Full)
    }

    fn put(&mut self, at: usize, entry: VipEntry) -> bool {
        let Some(bucket) = self.buckets.get_mut(at) else {
            return false;
        };
        for slot in &mut bucket.entries {
            if slot.key.kind == 0 {
                *slot = entry;
                return true;
            }
        }
        false
    }
}

/// The generator `SplitMix64` (G. Steele et al., OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{boxed::Box, vec::Vec};
    use zerocopy::FromZeros;

    fn vip(index: u32, port: u16) -> VipEntry {
        let [_, _, a, b] = index.to_be_bytes();
        VipEntry {
            key: VipKey::new(Address::from_v4([203, 0, a, b]), port.to_be_bytes(), 6),
            id: index,
            flags: 0,
        }
    }

    fn table(vips: &[VipEntry]) -> Box<VipTable> {
        let mut table = VipTable::new_box_zeroed().unwrap();
        table.build(vips).unwrap();
        table
    }

    #[test]
    fn finds_every_vip_of_a_full_table_and_no_other() {
        let vips: Vec<_> = (0..4096).map(|i| vip(i, 443)).collect();
        let table = table(&vips);
        for entry in &vips {
            assert_eq!(table.find(&entry.key), Some(entry));
        }
        for i in 0..4096 {
            assert_eq!(table.find(&vip(i, 80).key), None);
            assert_eq!(table.find(&vip(i + 4096, 443).key), None);
        }
    }

    #[test]
    fn the_own_port_beats_every_port() {
        let own = vip(1, 443);
        let every = VipEntry { id: 7, ..vip(1, 0) };
        let table = table(&[every, own]);
        assert_eq!(table.find(&own.key).map(|e| e.id), Some(1));
        assert_eq!(table.find(&vip(1, 8080).key).map(|e| e.id), Some(7));
        let udp = VipKey::new(own.key.address, own.key.port, 17);
        assert_eq!(table.find(&udp), None);
    }

    #[test]
    fn an_empty_table_finds_nothing_not_even_the_zero_key() {
        let table = table(&[]);
        assert_eq!(
            table.find(&VipKey::new(Address::default(), [0; 2], 0)),
            None
        );
    }

    #[test]
    fn an_address_is_found_without_port_and_protocol() {
        let first = VipEntry {
            flags: flags::AFFINITY_SOURCE,
            ..vip(1, 443)
        };
        let second = VipEntry {
            id: 2,
            flags: flags::ANNOUNCE_L2,
            ..vip(1, 80)
        };
        let table = table(&[first, second]);
        let found = table.find_address(first.key.address).unwrap();
        assert_eq!(
            (found.id, found.flags),
            (1, flags::AFFINITY_SOURCE | flags::ANNOUNCE_L2)
        );
        assert_eq!(
            table.find_without_port(first.key.address, 6).map(|e| e.id),
            Some(1)
        );
        assert_eq!(table.find_without_port(first.key.address, 17), None);
        assert_eq!(table.find_address(vip(2, 443).key.address), None);
        assert_eq!(table.entries().count(), 2);
    }

    #[test]
    fn refuses_more_than_it_can_hold() {
        let vips: Vec<_> = (0..4097).map(|i| vip(i, 443)).collect();
        let mut table = VipTable::new_box_zeroed().unwrap();
        assert_eq!(table.build(&vips), Err(Full));
    }
}
