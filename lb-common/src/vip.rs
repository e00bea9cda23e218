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

    #[inline(always)]
    const fn words(&self) -> Words {
        let [p0, p1] = self.port;
        Words {
            address: self.address,
            selector: u32::from_le_bytes([p0, p1, self.protocol, self.kind]),
        }
    }
}

/// A [`VipKey`] as the integers that are compared.
#[derive(Clone, Copy)]
struct Words {
    address: Address,
    /// From the low end: port as it lies in memory (16 bits), protocol (8), kind (8).
    selector: u32,
}

impl Words {
    /// Of the VIP that a flow goes to. From words, since bytes that were taken to pieces stay so in BPF.
    #[inline(always)]
    const fn of_flow(flow: &Flow) -> Self {
        // Without the mask, which costs nothing where the protocol is a byte, both are made one load across the words of a
        // flow on the stack, which the kernel refuses.
        let protocol = flow.protocol & 0xff;
        Self {
            address: flow.destination,
            selector: (flow.ports >> 16) | (protocol << 16) | ((kind::VIP as u32) << 24),
        }
    }

    /// The same VIP with every port.
    #[inline(always)]
    const fn any_port(self) -> Self {
        Self {
            selector: self.selector & 0xffff_0000,
            ..self
        }
    }

    #[inline(always)]
    const fn equal(self, key: &VipKey) -> bool {
        let key = key.words();
        // The low half first: it tells nearly all keys apart, also those of IPv4, whose high halves are all the same.
        key.address.low == self.address.low
            && key.selector == self.selector
            && key.address.high == self.address.high
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
    /// Hash of a flow of this VIP; the low 16 bits are its slot.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self, keys: &HashKeys, flow: &Flow) -> u32 {
        if self.flags & flags::AFFINITY_SOURCE == 0 {
            return keys.hash(flow);
        }
        // The source address alone, so that all flows of a client reach one backend.
        keys.hash(&Flow {
            ports: 0,
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

    /// Of a packet, never of a VIP: nobody serves its slot.
    pub(crate) const NOBODYS: u32 = 1 << 31;

    /// All for which packets must be judged before they go on; [`SYN_LIMITS`] counts for a SYN alone.
    pub(crate) const GUARDS: u32 = ACCESS | LIMITS | SYN_LIMITS | SHARED;
}

/// Of [`VipEntry::flags`], but no fact of the VIP: set in the first entry of a bucket where whatever chose this bucket first is in it. Not
/// in the key, which daemons of earlier versions compare as a whole.
const WHOLE: u32 = 1 << 30;

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
        self.get(VipKey::of_address(address).words())
    }

    /// Finds the VIP of a packet whose port is not known: the first one of its address and protocol.
    #[must_use]
    #[inline(always)]
    pub fn find_without_port(&self, address: Address, protocol: u8) -> Option<&VipEntry> {
        self.get(VipKey::without_port(address, protocol).words())
    }

    /// Finds the VIP that a flow's packets go to: its own port first, then every port.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, flow: &Flow) -> Option<&VipEntry> {
        let key = Words::of_flow(flow);
        match self.get(key) {
            Some(entry) => Some(entry),
            None if self.any_port != 0 => self.get(key.any_port()),
            None => None,
        }
    }

    /// Every VIP, in no order that means anything.
    pub fn entries(&self) -> impl Iterator<Item = VipEntry> {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        entries
            .filter(|entry| entry.key.kind == kind::VIP)
            .map(|entry| VipEntry {
                flags: entry.flags & !WHOLE,
                ..*entry
            })
    }

    #[inline(always)]
    fn get(&self, key: Words) -> Option<&VipEntry> {
        let (first, second) = self.choices(key);
        let bucket = self.buckets.get(first)?;
        let [a, b] = &bucket.entries;
        if key.equal(&a.key) {
            return Some(a);
        }
        if key.equal(&b.key) {
            return Some(b);
        }
        if a.flags & WHOLE != 0 {
            return None;
        }
        let bucket = self.buckets.get(second)?;
        let [a, b] = &bucket.entries;
        if key.equal(&a.key) {
            return Some(a);
        }
        if key.equal(&b.key) {
            return Some(b);
        }
        None
    }

    #[inline(always)]
    fn choices(&self, key: Words) -> (usize, usize) {
        let [a, b, c] = self.multipliers;
        let sum = key
            .address
            .high
            .wrapping_mul(a)
            .wrapping_add(key.address.low.wrapping_mul(b))
            .wrapping_add(u64::from(key.selector).wrapping_mul(c));
        // The high bits alone would know of neighbouring addresses only what the first choice knows. Folded, all of the sum counts, for
        // the few that need a second choice.
        let folded = (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((sum >> 51) as usize, (folded >> 51) as usize)
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
        self.tell_whole_buckets();
        Ok(())
    }

    /// Tells of each bucket whether a miss in it is a miss: it is unless an entry that chose it first had no room there.
    fn tell_whole_buckets(&mut self) {
        for bucket in &mut self.buckets {
            let [first, _] = &mut bucket.entries;
            first.flags |= WHOLE;
        }
        for at in 0..BUCKETS {
            let Some(Bucket { entries }) = self.buckets.get(at).copied() else {
                continue;
            };
            for entry in entries.iter().filter(|entry| entry.key.kind != 0) {
                let (first, _) = self.choices(entry.key.words());
                if first != at
                    && let Some(Bucket {
                        entries: [entry, _],
                    }) = self.buckets.get_mut(first)
                {
                    entry.flags &= !WHOLE;
                }
            }
        }
    }

    /// Makes the VIP findable by less than its whole key. The first VIP of several that share `key` stands
    /// for all; an address is announced where one of its VIPs is.
    fn derive(&mut self, key: VipKey, vip: &VipEntry) -> Result<(), Full> {
        let (first, second) = self.choices(key.words());
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
        let (first, second) = self.choices(entry.key.words());
        let mut at = first;
        for candidate in [first, second] {
            if self.put(candidate, entry) {
                return Ok(());
            }
        }
        // In turn, they would go round in circles long before the table is full.
        let mut state = at as u64;
        for _ in 0..512 {
            let victim = split_mix(&mut state) as usize & 1;
            let slot = self
                .buckets
                .get_mut(at)
                .and_then(|bucket| bucket.entries.get_mut(victim))
                .ok_or(Full)?;
            core::mem::swap(slot, &mut entry);
            let (first, second) = self.choices(entry.key.words());
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
    use std::{boxed::Box, collections::BTreeSet, vec::Vec};
    use zerocopy::FromZeros;

    fn vip(index: u32, port: u16) -> VipEntry {
        let [_, _, a, b] = index.to_be_bytes();
        VipEntry {
            key: VipKey::new(Address::from_v4([203, 0, a, b]), port.to_be_bytes(), 6),
            id: index,
            flags: 0,
        }
    }

    /// A flow to a VIP.
    fn to(vip: &VipEntry) -> Flow {
        Flow {
            source: Address::from_v4([192, 0, 2, 1]),
            destination: vip.key.address,
            ports: Flow::ports([1, 2], vip.key.port),
            protocol: u32::from(vip.key.protocol),
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
            assert_eq!(table.find(&to(entry)).map(|found| found.id), Some(entry.id));
        }
        for i in 0..4096 {
            assert_eq!(table.find(&to(&vip(i, 80))), None);
            assert_eq!(table.find(&to(&vip(i + 4096, 443))), None);
        }
    }

    /// As many VIPs as there may be, wherever their addresses lie. A linear hash for both choices, and victims in turn, had room for no
    /// thousand random addresses of one /16.
    #[test]
    fn takes_as_many_vips_as_it_says_whatever_their_addresses() {
        for seed in 0..8 {
            for varies in [
                0x0000_ffff_0000_0000_0000,
                u128::MAX,
                0xffff,
                u128::MAX << 112,
                u128::MAX << 64,
            ] {
                let mut addresses = BTreeSet::new();
                let mut state = seed;
                while addresses.len() < MAX_VIPS {
                    let random =
                        u128::from(split_mix(&mut state)) << 64 | u128::from(split_mix(&mut state));
                    addresses.insert(random & varies);
                }
                let vips: Vec<_> = (0..)
                    .zip(&addresses)
                    .map(|(id, address)| VipEntry {
                        key: VipKey::new(Address::from_v6(address.to_be_bytes()), [1, 187], 6),
                        id,
                        flags: 0,
                    })
                    .collect();
                let mut table = VipTable::new_box_zeroed().unwrap();
                assert_eq!(table.build(&vips), Ok(()), "{varies:x}");
                let found = vips.iter().filter(|vip| table.find(&to(vip)) == Some(vip));
                assert!(found.count() > 0);
            }
        }
    }

    #[test]
    fn a_miss_looks_on_only_where_a_bucket_ran_over() {
        // Addresses in a row would lie so evenly that hardly a bucket runs over.
        let mut addresses = BTreeSet::new();
        let mut state = 1;
        while addresses.len() < MAX_VIPS {
            addresses.insert(split_mix(&mut state) as u32 & 0xffff);
        }
        let vips: Vec<_> = addresses.iter().map(|address| vip(*address, 443)).collect();
        let mut table = table(&vips);
        let whole = |table: &VipTable| {
            let is_whole = |bucket: &&Bucket| bucket.entries[0].flags & WHOLE != 0;
            table.buckets.iter().filter(is_whole).count()
        };
        // Even of a full table, two thirds; of one with few VIPs, all.
        assert!(whole(&table) > BUCKETS * 2 / 3, "{}", whole(&table));
        assert_eq!(whole(&self::table(&vips[..3])), BUCKETS);
        let find = |table: &VipTable, vip: &VipEntry| table.find(&to(vip)).map(|found| found.id);
        let found = |table: &VipTable| {
            let is_found = |vip: &&VipEntry| find(table, vip) == Some(vip.id);
            vips.iter().filter(is_found).count()
        };
        // As a daemon before has left it.
        for bucket in &mut table.buckets {
            bucket.entries[0].flags &= !WHOLE;
        }
        assert_eq!(found(&table), vips.len());
        assert_eq!(find(&table, &vip(*addresses.first().unwrap(), 80)), None);
        // Nobody looks on after a whole one.
        for bucket in &mut table.buckets {
            bucket.entries[0].flags |= WHOLE;
        }
        assert!(found(&table) < vips.len());
        // That is no fact of a VIP.
        assert!(table.entries().all(|entry| entry.flags == 0));
    }

    #[test]
    fn the_own_port_beats_every_port() {
        let own = vip(1, 443);
        let every = VipEntry { id: 7, ..vip(1, 0) };
        let table = table(&[every, own]);
        assert_eq!(table.find(&to(&own)).map(|e| e.id), Some(1));
        assert_eq!(table.find(&to(&vip(1, 8080))).map(|e| e.id), Some(7));
        let udp = Flow {
            protocol: 17,
            ..to(&own)
        };
        assert_eq!(table.find(&udp), None);
    }

    #[test]
    fn an_empty_table_finds_nothing_not_even_the_zero_key() {
        let table = table(&[]);
        assert_eq!(table.find(&to(&VipEntry::default())), None);
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
            (found.id, found.flags & !WHOLE),
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
