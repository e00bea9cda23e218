//! What the observing program tells of packets, and to whom: `weir capture` and `weir events --packets`.
//!
//! The observing program is the same pipeline with three things more: it saves a packet's first bytes before anything
//! is done to it, at its end it looks who wants to know of such a packet ([`Watches`]), and tells it in a ring
//! ([`Record`]). The normal program knows nothing of all this.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Address,
    gcra::Ticks,
    packet::Packet,
    parse,
    pipeline::{NO_VIP, Outcome},
    reason::{Reason, Verdict},
    wire::{ethernet, ipv4::Ipv4, ipv6::Ipv6},
};

/// How many may watch at a time.
pub const MAX_WATCHES: usize = 8;

/// How many bytes of a packet are saved at most, as it came and as it leaves.
pub const MAX_SAVED: usize = 2048;

/// How many bytes suffice for the headers of nearly every packet.
pub const HEADERS: u32 = 256;

/// [`Watch::vip`]: packets of every VIP, and of none.
pub const ANY_VIP: u32 = NO_VIP - 1;

/// [`Watch::reasons`]: every reason.
pub const ANY_REASON: u64 = u64::MAX;

/// [`Watches::sampled`] where every packet is wanted.
pub const EVERY: u64 = 1 << 32;

/// Addresses that agree with `address` in all bits of `mask`; all zero: every address.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Net {
    /// The prefix, zero where the mask is.
    pub address: Address,
    /// Ones in the bits that must agree.
    pub mask: Address,
}

impl Net {
    /// The prefix of so many bits; those of an IPv4 prefix are counted in the mapped address ([`Address`]).
    #[must_use]
    pub fn new(address: Address, bits: u32) -> Self {
        let half = |bits: u32| u64::MAX.checked_shl(64 - bits).unwrap_or_default().to_be();
        let mask = Address {
            high: half(bits.min(64)),
            low: half(bits.saturating_sub(64).min(64)),
        };
        Self {
            address: Address {
                high: address.high & mask.high,
                low: address.low & mask.low,
            },
            mask,
        }
    }

    /// Whether every address lies in it.
    #[must_use]
    #[inline(always)]
    pub const fn is_any(&self) -> bool {
        self.mask.high | self.mask.low == 0
    }

    #[inline(always)]
    const fn contains(&self, address: Address) -> bool {
        (address.high & self.mask.high) ^ self.address.high
            | (address.low & self.mask.low) ^ self.address.low
            == 0
    }
}

/// What one watcher wants to be told of. Host order but for addresses.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Watch {
    /// The reasons, a bit for the number of each.
    pub reasons: u64,
    /// What one record takes of the rate, and how many fit at once ([`crate::gcra::Limit`]).
    pub interval: Ticks,
    /// See [`Self::interval`].
    pub depth: Ticks,
    /// Where the packet is from.
    pub source: Net,
    /// Where it goes.
    pub destination: Net,
    /// The VIP's id, or [`ANY_VIP`]. [`NO_VIP`] stands for packets that are for none.
    pub vip: u32,
    /// Zero.
    pub reserved: u32,
}

impl Watch {
    /// Whether a packet is of the wanted kind. `addresses` are its source and destination, if it is IP.
    #[must_use]
    #[inline(always)]
    pub const fn fits(
        &self,
        reason: u32,
        vip: u32,
        addresses: Option<&(Address, Address)>,
    ) -> bool {
        // A reason's number is below 64, as `reason` and `tables` make sure.
        if (self.reasons >> (reason & 63)) & 1 == 0 || (self.vip != ANY_VIP && self.vip != vip) {
            return false;
        }
        match addresses {
            Some((source, destination)) => {
                self.source.contains(*source) && self.destination.contains(*destination)
            }
            None => self.source.is_any() && self.destination.is_any(),
        }
    }

    /// Whether addresses matter.
    #[must_use]
    #[inline(always)]
    pub const fn has_addresses(&self) -> bool {
        !(self.source.is_any() && self.destination.is_any())
    }
}

const _: () = assert!(crate::tables::MAX_REASONS == 64);

/// Who watches what.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Watches {
    /// Of each watcher: a packet is for it if a random number of 32 bits is below this. 0: it watches nothing;
    /// [`EVERY`]: all packets are. One cache line, which is all that is read of a packet that nobody draws.
    pub sampled: [u64; MAX_WATCHES],
    /// What each wants to be told of.
    pub watches: [Watch; MAX_WATCHES],
    /// How many bytes of a packet are saved: what the most curious one wants.
    pub saved: u32,
    /// Not 0 where addresses matter to anybody ([`Watch::has_addresses`]).
    pub by_address: u32,
}

impl Watches {
    /// Whose lot falls on a packet: a bit for each watcher. All share one number, so that each draws without bias, if
    /// not apart from the others.
    #[must_use]
    #[inline(always)]
    pub fn drawn(&self, random: u32) -> u32 {
        let mut drawn = 0;
        let mut bit = 1u32;
        for below in &self.sampled {
            if u64::from(random) < *below {
                drawn |= bit;
            }
            bit <<= 1;
        }
        drawn
    }
}

/// [`Watches::sampled`] of one packet in `n`.
#[must_use]
pub const fn one_in(n: u32) -> u64 {
    match n {
        0 => 0,
        n => EVERY / (n as u64),
    }
}

/// What is told of a packet. Its saved bytes follow: as it came, then as it leaves. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Record {
    /// When the packet left the program, in ns of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Whom this is for, a bit for each watcher.
    pub watchers: u32,
    /// Number of the reason.
    pub reason: u32,
    /// The VIP's id, or [`NO_VIP`].
    pub vip: u32,
    /// The slot, or [`crate::pipeline::NO_SLOT`].
    pub slot: u32,
    /// The backend's id, or [`crate::slot::NOBODY`].
    pub backend: u32,
    /// The interface by which it came.
    pub ingress: u32,
    /// The interface by which it leaves; 0 where it does not.
    pub egress: u32,
    /// Length of the frame as it came, in bytes, without the FCS.
    pub came_len: u32,
    /// How many bytes of it follow.
    pub came_saved: u32,
    /// Length of the frame as it leaves; 0 where it does not, or is what came.
    pub left_len: u32,
    /// How many bytes of it follow those.
    pub left_saved: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Record>() == 56);

impl Record {
    /// Notes what becomes of the packet.
    #[inline(always)]
    pub const fn judge(&mut self, outcome: &Outcome) {
        self.reason = outcome.reason as u32;
        self.vip = outcome.vip;
        self.slot = outcome.slot;
        self.backend = outcome.backend as u32;
        self.egress = match outcome.verdict() {
            Verdict::Pass | Verdict::Drop => 0,
            Verdict::Forward if outcome.is_redirect => outcome.ifindex,
            Verdict::Tx | Verdict::Forward => self.ingress,
        };
    }

    /// The reason, if it is one that this version knows.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(self.reason as usize).copied()
    }

    /// Whether the packet leaves by another interface than it came by.
    #[must_use]
    pub const fn is_redirect(&self) -> bool {
        self.egress != 0 && self.egress != self.ingress
    }
}

/// What became of packets that a watcher was to be told of. Host order; one value a CPU and watcher.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Told {
    /// Records written.
    pub told: u64,
    /// Packets beyond the watcher's rate.
    pub over_rate: u64,
    /// Packets that found the ring full.
    pub ring_full: u64,
    /// Zero.
    pub reserved: u64,
}

/// Source and destination of an IP packet, by the first bytes of its frame.
#[must_use]
#[inline(always)]
pub fn addresses<P: Packet>(packet: &P) -> Option<(Address, Address)> {
    let (tags, ether_type) = parse::link(packet).ok()?;
    let offset = tags.ip_offset();
    match ether_type {
        ethernet::IPV4 => {
            let ip = packet.at::<Ipv4>(offset)?;
            Some((
                Address::from_v4(ip.source),
                Address::from_v4(ip.destination),
            ))
        }
        ethernet::IPV6 => {
            let ip = packet.at::<Ipv6>(offset)?;
            Some((
                Address::from_v6(ip.source),
                Address::from_v6(ip.destination),
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
