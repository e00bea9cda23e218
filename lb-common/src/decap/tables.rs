//! What the program knows: settings, sets of addresses, counters.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Reason;
use crate::flow::Address;

/// How many reasons the counters have room for.
pub const MAX_REASONS: usize = 32;

/// How many addresses and prefixes of the fleet there can be.
pub const MAX_SOURCES: usize = 128;

/// How many ports GUE can come to.
pub const MAX_GUE_PORTS: usize = 4;

/// How many addresses of this host tunnels can end at.
pub const MAX_LOCAL: usize = 1024;

/// How many VIPs inner packets can be held against.
pub const MAX_VIPS: usize = 4096;

const _: () = assert!(Reason::COUNT <= MAX_REASONS);

/// An IP prefix; that of an IPv4 network is its mapped form.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Prefix {
    /// The network's address: no bit outside of `mask`.
    pub address: Address,
    /// Ones where addresses of the network agree.
    pub mask: Address,
}

impl Prefix {
    /// The network of an address. `bits` counts in the 128 bits of the mapped form: an IPv4 /24 has 120.
    #[must_use]
    pub fn new(address: Address, bits: u32) -> Self {
        let mut mask = [0; 16];
        let mut left = bits;
        for octet in &mut mask {
            let ones = if left > 8 { 8 } else { left };
            *octet = (0xff00_u16 >> ones) as u8;
            left = left.wrapping_sub(ones);
        }
        let mask = Address::from_v6(mask);
        Self {
            address: Address {
                high: address.high & mask.high,
                low: address.low & mask.low,
            },
            mask,
        }
    }

    /// Whether an address is in the network.
    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, address: Address) -> bool {
        let high = (address.high & self.mask.high) ^ self.address.high;
        let low = (address.low & self.mask.low) ^ self.address.low;
        high | low == 0
    }
}

/// Settings of the program on one interface. Host order; never changed in place: new ones come with a new program.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Settings {
    /// Where the fleet sends from; the first [`Self::sources`] count.
    pub from: [Prefix; MAX_SOURCES],
    /// UDP ports that GUE comes to; 0 is none.
    pub gue_ports: [u32; MAX_GUE_PORTS],
    /// How many entries of [`Self::from`] count.
    pub sources: u32,
    /// Not 0: the inner destination must be a VIP ([`DecapTables::is_vip`]).
    pub checks_vips: u32,
}

impl Settings {
    /// Settings, or `None` where there are more prefixes or ports than room.
    #[must_use]
    pub fn new(from: &[Prefix], gue_ports: &[u16], checks_vips: bool) -> Option<Self> {
        let mut settings = Self {
            from: [Prefix::default(); MAX_SOURCES],
            gue_ports: [0; MAX_GUE_PORTS],
            sources: from.len() as u32,
            checks_vips: u32::from(checks_vips),
        };
        settings.from.get_mut(..from.len())?.copy_from_slice(from);
        let ports = settings.gue_ports.get_mut(..gue_ports.len())?;
        for (port, from) in ports.iter_mut().zip(gue_ports) {
            *port = u32::from(*from);
        }
        Some(settings)
    }

    /// Whether the fleet sends from an address.
    #[inline(never)]
    #[must_use]
    pub fn is_source(&self, address: Address) -> bool {
        // A fleet has few nodes, and this needs no key on the stack as a map of prefixes would.
        self.from
            .iter()
            .take(self.sources as usize)
            .any(|prefix| prefix.contains(address))
    }

    /// Whether GUE comes to a port.
    #[must_use]
    #[inline(always)]
    pub fn is_gue_port(&self, port: u32) -> bool {
        port != 0 && self.gue_ports.contains(&port)
    }
}

/// What is counted under a reason. Host order; one value a CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
}

impl Counter {
    /// Counts one frame.
    #[inline(always)]
    pub const fn add(&mut self, bytes: u64) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

/// The maps that the program reads and counts in.
pub trait DecapTables {
    /// The settings.
    fn settings(&self) -> Option<&Settings>;
    /// Whether an address is one of this host's, where tunnels end.
    fn is_local(&self, address: Address) -> bool;
    /// Whether an address is a VIP's; asked only where [`Settings::checks_vips`] says so.
    fn is_vip(&self, address: Address) -> bool;
    /// Counts a frame under its reason.
    fn count(&self, reason: Reason, bytes: u64);
}
