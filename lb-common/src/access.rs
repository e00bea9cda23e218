//! Access lists: which sources may send to a VIP.
//!
//! Two tries of prefixes: `BLOCKS`, which commands fill, and `LISTS`, which the configuration does. In both a prefix
//! counts in one scope: one VIP, or the whole node. Blocks come first, a VIP's before the node's. Then the most
//! specific prefix of the VIP's own lists decides, then that of the node's. What none of them names may pass, unless
//! one of them allows: then whoever is not allowed is denied. Each VIP says what there is to be looked up
//! ([`blocks`], [`lists`]), so that nobody pays for lists that do not concern him.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{flow::Address, tables::Tables, vip::MAX_VIPS};

/// How many prefixes all lists of a node have room for.
pub const MAX_LISTED: usize = 2 * 1024 * 1024;

/// How many prefixes can be blocked by command.
pub const MAX_BLOCKS: usize = 16 * 1024;

/// [`PrefixKey::scope`] of a whole node, in place of a VIP's id.
pub const NODE: u32 = u32::MAX >> 1;

/// Bits of a [`PrefixKey`] before the address: those of the scope.
const SCOPE_BITS: u32 = 32;

/// A prefix in a scope: 24 bytes, as the kernel's tries take it. Whole words, since it lies on the stack.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Hash,
    Immutable,
    IntoBytes,
    KnownLayout,
    Ord,
    PartialEq,
    PartialOrd,
)]
#[repr(C)]
pub struct PrefixKey {
    /// How many bits count of what follows; the scope's always do. Host order.
    pub bits: u32,
    /// A VIP's id or [`NODE`], and the family: shifted left by one, plus 1 for IPv6. Host order.
    pub scope: u32,
    /// Bytes 0 to 7 of the address, as in memory. IPv4 addresses take the first four, so that the kernel compares one word.
    pub high: u64,
    /// Bytes 8 to 15 of the address, as in memory.
    pub low: u64,
}

const _: () = assert!(size_of::<PrefixKey>() == 24);

impl PrefixKey {
    /// The key that finds the longest prefix of a source address in a scope.
    #[must_use]
    #[inline(always)]
    pub const fn of_source(scope: u32, source: Address) -> Self {
        if source.is_v4() {
            let octets = u64::from_be(source.low) << 32;
            Self {
                bits: SCOPE_BITS + 32,
                scope: scope << 1,
                high: octets.to_be(),
                low: 0,
            }
        } else {
            Self {
                bits: SCOPE_BITS + 128,
                scope: (scope << 1) | 1,
                high: source.high,
                low: source.low,
            }
        }
    }

    /// The key of a prefix of `length` bits. Bits beyond them are cleared.
    #[must_use]
    pub const fn new(scope: u32, address: Address, length: u32) -> Self {
        let whole = Self::of_source(scope, address);
        let high = mask(length);
        let low = mask(length.saturating_sub(64));
        Self {
            bits: SCOPE_BITS + length,
            high: whole.high & high.to_be(),
            low: whole.low & low.to_be(),
            ..whole
        }
    }

    /// How long the prefix is.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.bits.saturating_sub(SCOPE_BITS)
    }

    /// The VIP's id, or [`NODE`].
    #[must_use]
    pub const fn owner(&self) -> u32 {
        self.scope >> 1
    }

    /// The prefix's address; bits beyond its length are zero.
    #[must_use]
    pub const fn address(&self) -> Address {
        if self.scope & 1 == 0 {
            let [a, b, c, d, ..] = self.high.to_ne_bytes();
            Address::from_v4([a, b, c, d])
        } else {
            Address {
                high: self.high,
                low: self.low,
            }
        }
    }

    /// The same prefix, shortened to `length` bits.
    #[must_use]
    pub const fn shortened(&self, length: u32) -> Self {
        Self::new(self.owner(), self.address(), length)
    }
}

/// The upper `length` bits of a word; all, where there are no more.
const fn mask(length: u32) -> u64 {
    if length >= 64 {
        u64::MAX
    } else {
        !(u64::MAX >> length)
    }
}

/// What is to be looked up in the trie of blocks for a VIP's packets.
pub mod blocks {
    /// Something is blocked for this VIP.
    pub const OF_VIP: u32 = 1;
    /// Something is blocked for all VIPs.
    pub const OF_NODE: u32 = 2;
}

/// What is to be looked up in the trie of lists for a VIP's packets.
pub mod lists {
    /// The VIP has lists of its own.
    pub const OF_VIP: u32 = 1;
    /// The node has lists.
    pub const OF_NODE: u32 = 2;
    /// Whom no list names is denied.
    pub const CLOSED: u32 = 4;
}

/// What the trie of lists says of a prefix; the trie of blocks says [`verdict::DENIED`] only.
pub mod verdict {
    /// Its packets may pass.
    pub const ALLOWED: u32 = 1;
    /// They may not.
    pub const DENIED: u32 = 2;
}

/// The lists that packets are counted under, for each VIP.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum List {
    /// Blocked by command, for this VIP.
    VipBlock = 0,
    /// Blocked by command, for all VIPs.
    NodeBlock = 1,
    /// `allow` of the VIP.
    VipAllow = 2,
    /// `deny` of the VIP.
    VipDeny = 3,
    /// `allow` of the node.
    NodeAllow = 4,
    /// `deny` of the node.
    NodeDeny = 5,
    /// On no list, where some list allows.
    Unlisted = 6,
}

impl List {
    /// Every list, by number.
    pub const ALL: [Self; 7] = [
        Self::VipBlock,
        Self::NodeBlock,
        Self::VipAllow,
        Self::VipDeny,
        Self::NodeAllow,
        Self::NodeDeny,
        Self::Unlisted,
    ];

    /// Name in metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VipBlock => "vip_block",
            Self::NodeBlock => "node_block",
            Self::VipAllow => "vip_allow",
            Self::VipDeny => "vip_deny",
            Self::NodeAllow => "node_allow",
            Self::NodeDeny => "node_deny",
            Self::Unlisted => "unlisted",
        }
    }

    /// Whether packets that it names may pass.
    #[must_use]
    pub const fn is_allowing(self) -> bool {
        matches!(self, Self::VipAllow | Self::NodeAllow)
    }

    /// Index of its counter for a VIP.
    #[must_use]
    #[inline(always)]
    pub const fn counter(self, vip: u32) -> u32 {
        (vip << COUNTER_BITS) | self as u32
    }
}

/// Each VIP has this power of two of counters.
const COUNTER_BITS: u32 = 3;

/// How many counters there are.
pub const COUNTERS: usize = MAX_VIPS << COUNTER_BITS;

const _: () = assert!(List::ALL.len() <= 1 << COUNTER_BITS);

/// What the lists say of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Access {
    /// It may pass.
    Allowed,
    /// It is dropped.
    Denied,
}

/// Judges a packet to a VIP by its source, and counts it under the list that decides.
///
/// Of an ICMP error the source is that of the packet that the client sent.
#[inline(always)]
pub fn judge<T: Tables>(tables: &T, vip: u32, source: Address) -> Access {
    match deciding(tables, vip, source) {
        None => Access::Allowed,
        Some(list) => {
            tables.count_access(list.counter(vip));
            if list.is_allowing() {
                Access::Allowed
            } else {
                Access::Denied
            }
        }
    }
}

/// The list that decides on a packet; `None` where nothing concerns it.
#[inline(always)]
fn deciding<T: Tables>(tables: &T, vip: u32, source: Address) -> Option<List> {
    let own = PrefixKey::of_source(vip, source);
    let node = PrefixKey {
        scope: (NODE << 1) | (own.scope & 1),
        ..own
    };
    let blocks = tables.blocks(vip);
    if blocks & blocks::OF_VIP != 0 && tables.blocked(&own) != 0 {
        return Some(List::VipBlock);
    }
    if blocks & blocks::OF_NODE != 0 && tables.blocked(&node) != 0 {
        return Some(List::NodeBlock);
    }
    let lists = tables.lists(vip);
    if lists & lists::OF_VIP != 0 {
        match tables.listed(&own) {
            verdict::ALLOWED => return Some(List::VipAllow),
            verdict::DENIED => return Some(List::VipDeny),
            _ => {}
        }
    }
    if lists & lists::OF_NODE != 0 {
        match tables.listed(&node) {
            verdict::ALLOWED => return Some(List::NodeAllow),
            verdict::DENIED => return Some(List::NodeDeny),
            _ => {}
        }
    }
    (lists & lists::CLOSED != 0).then_some(List::Unlisted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const V4: Address = Address::from_v4([192, 0, 2, 200]);

    fn v6() -> Address {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        octets[15] = 0xff;
        Address::from_v6(octets)
    }

    #[test]
    fn ipv4_lies_in_the_first_word_and_ipv6_in_a_scope_of_its_own() {
        let key = PrefixKey::of_source(5, V4);
        assert_eq!(key.bits, 64);
        assert_eq!(key.high.to_ne_bytes(), [192, 0, 2, 200, 0, 0, 0, 0]);
        assert_eq!((key.scope, key.low), (10, 0));
        let key = PrefixKey::of_source(5, v6());
        assert_eq!((key.bits, key.scope), (160, 11));
        assert_eq!(key.address(), v6());
        assert_eq!(PrefixKey::of_source(NODE, v6()).scope, u32::MAX);
    }

    #[test]
    fn bits_beyond_the_prefix_are_cleared() {
        let cases = [
            (0, [0, 0, 0, 0]),
            (1, [128, 0, 0, 0]),
            (25, [192, 0, 2, 128]),
            (31, [192, 0, 2, 200]),
            (32, [192, 0, 2, 200]),
        ];
        for (length, octets) in cases {
            let key = PrefixKey::new(NODE, V4, length);
            assert_eq!(key.address(), Address::from_v4(octets), "/{length}");
            assert_eq!((key.length(), key.owner()), (length, NODE));
        }
        for length in [0, 1, 31, 32, 63, 64, 65, 127, 128] {
            let key = PrefixKey::new(1, v6(), length);
            let octets = u128::from_be_bytes(v6().octets());
            let kept = octets.checked_shr(128 - length).unwrap_or(0);
            let expected = kept.checked_shl(128 - length).unwrap_or(0);
            assert_eq!(key.address().octets(), expected.to_be_bytes(), "/{length}");
            assert_eq!(
                PrefixKey::new(1, v6(), 128).shortened(length),
                key,
                "/{length}"
            );
        }
    }

    #[test]
    fn every_vip_and_list_has_a_counter_of_its_own() {
        let mut seen = BTreeSet::new();
        for vip in [0, 1, MAX_VIPS as u32 - 1] {
            for (number, list) in List::ALL.into_iter().enumerate() {
                assert_eq!(list as usize, number);
                assert!((list.counter(vip) as usize) < COUNTERS);
                assert!(seen.insert(list.counter(vip)));
            }
        }
        let names: BTreeSet<_> = List::ALL.iter().map(|list| list.as_str()).collect();
        assert_eq!(names.len(), List::ALL.len());
    }
}
