//! Every reason why a packet at a backend went where it went, with its verdict and its text.

use crate::reason::{Verdict, reasons};

// The numbers index the counters' map: new ones go to the end, none is used twice.
reasons! {
    /// IP in IP from the fleet: the inner packet was handed to the kernel.
    Ipip = 0, "ipip", Pass;
    /// GUE from the fleet: the inner packet was handed to the kernel.
    Gue = 1, "gue", Pass;
    /// Neither IPv4 nor IPv6.
    NotIp = 2, "not_ip", Pass;
    /// IP, but neither IP in IP nor UDP to a GUE port.
    NotTunnel = 3, "not_tunnel", Pass;
    /// A tunnel packet for an address that is not this host's.
    NotLocal = 4, "not_local", Pass;
    /// The frame ends before its headers do, or before the length in its outer IP header.
    Truncated = 5, "truncated", Pass;
    /// The outer IP or UDP header contradicts itself (RFC 791, RFC 8200, RFC 768).
    MalformedOuter = 6, "malformed_outer", Pass;
    /// A fragment of a tunnel packet: nobody takes the outer headers off once it is whole; mend the MTU.
    Fragment = 7, "fragment", Pass;
    /// UDP to a GUE port with no IP packet right after the UDP header: GUE variant 0, or something else.
    GueOther = 8, "gue_other", Pass;
    /// More VLAN tags than two.
    VlanTags = 9, "vlan_tags", Pass;
    /// The outer source address is not one of the fleet's.
    ForeignSource = 10, "foreign_source", Drop;
    /// The checksum of the outer IPv4 header is wrong (RFC 1122, section 3.2.1.2).
    OuterChecksum = 11, "outer_checksum", Drop;
    /// The inner IP header contradicts itself, the outer one, or the length of what it came in.
    MalformedInner = 12, "malformed_inner", Drop;
    /// Congestion was experienced on the way, and the inner packet cannot say so (RFC 6040, section 4.2).
    EcnLost = 13, "ecn_lost", Drop;
    /// The inner destination is none of the VIPs that were given.
    NotVip = 14, "not_vip", Drop;
    /// The kernel would not move the frame's start: a defect, please report it.
    NotStripped = 15, "not_stripped", Drop;
    /// A map lacks an entry that `weir decap attach` should have written: a defect, please report it.
    NoSettings = 16, "no_settings", Pass;
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the outer headers were taken off. All others that pass are byte for byte as they came.
    #[must_use]
    pub const fn is_decapsulated(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}
