//! Who owns the maps: the kernel (in BPF) or the test (on the host).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{backend::Backend, flow::HashKeys, reason::Reason, slot::SlotTable, vip::VipTable};

/// How many reasons the counters have room for.
pub const MAX_REASONS: usize = 128;

/// How many interfaces frames can leave by.
pub const MAX_PORTS: usize = 256;

const _: () = assert!(Reason::COUNT <= MAX_REASONS);

/// Settings of the node that packets need.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Node {
    /// Keys of the flow hash.
    pub hash_keys: HashKeys,
}

/// What is counted for a VIP or a backend. Host order; one value a CPU.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Counters {
    /// Frames forwarded.
    pub packets: u64,
    /// Bytes of those frames as received, without the FCS.
    pub bytes: u64,
    /// TCP SYNs among those frames.
    pub new_connections: u64,
    /// Zero: keeps two values from sharing more than one cache line.
    pub reserved: u64,
}

impl Counters {
    /// Counts one forwarded frame.
    #[inline(always)]
    pub const fn add(&mut self, bytes: u64, is_syn: bool) {
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
        self.new_connections = self.new_connections.wrapping_add(is_syn as u64);
    }
}

/// The maps that the pipeline reads and counts in.
pub trait Tables {
    /// Settings of the node.
    fn node(&self) -> Option<&Node>;
    /// All VIPs.
    fn vips(&self) -> Option<&VipTable>;
    /// The lookup table of a VIP.
    fn slots(&self, vip: u32) -> Option<&SlotTable>;
    /// A backend by its id.
    fn backend(&self, id: u16) -> Option<&Backend>;
    /// Whether frames can be sent out of another interface.
    fn has_port(&self, ifindex: u32) -> bool;
    /// Counts a forwarded frame for its VIP.
    fn count_vip(&self, vip: u32, bytes: u64, is_syn: bool);
    /// Counts a forwarded frame for its backend.
    fn count_backend(&self, id: u16, bytes: u64, is_syn: bool);
    /// Counts a frame under its reason.
    fn count_reason(&self, reason: Reason);
}
