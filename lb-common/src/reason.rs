//! Every reason why a packet went where it went, with its verdict and its text, in one table.

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Verdict {
    /// Handed to the kernel, byte for byte as it came.
    Pass,
    /// Thrown away.
    Drop,
    /// Sent out of the interface by which it came.
    Tx,
    /// Sent to a backend: [`Verdict::Tx`], or `redirect` where another interface leads to it.
    Forward,
}

/// Name of the verdict of frames that leave by another interface.
pub const REDIRECT: &str = "redirect";

impl Verdict {
    /// The verdict's name in metrics, JSON and tables, as far as the reason alone tells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Tx | Self::Forward => "tx",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $text:literal])+ $name:ident = $number:literal, $label:literal, $verdict:ident;)+) => {
        /// Why a packet went where it went. Each has one verdict, one counter and one line of text.
        ///
        /// A whole word: results with a byte inside are copied in misaligned words, which the kernel refuses on
        /// the stack.
        #[must_use]
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $text])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The reason's name in metrics, JSON and tables.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// What the reason means, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => concat!($($text),+),)+ }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)+ }
            }
        }
    };
}

// `decap::reason` has reasons of its own.
pub(crate) use reasons;

// The numbers index the counters' map: new ones go to the end, none is used twice.
reasons! {
    /// Sent to a backend.
    Forwarded = 0, "forwarded", Forward;
    /// A later fragment that came without its first: sent to the backend that its addresses hash to.
    FragmentOrphan = 1, "fragment_orphan", Forward;
    /// An ICMP error about a flow of a VIP: sent to the flow's backend.
    IcmpError = 2, "icmp_error", Forward;
    /// An ICMP echo request to a VIP: answered.
    Echo = 3, "echo", Tx;
    /// An ARP request or neighbour solicitation for a VIP that is announced by L2: answered.
    NeighbourAnswered = 4, "neighbour_answered", Tx;
    /// Too big to be encapsulated: the client was told the MTU that fits (RFC 1191, RFC 8201).
    TooBigAnswered = 5, "too_big_answered", Tx;
    /// UDP to a VIP's address, in the port range of traceroute: answered with "port unreachable".
    TracerouteAnswered = 6, "traceroute_answered", Tx;
    /// Destination address, port and protocol are no VIP's.
    NotVip = 7, "not_vip", Pass;
    /// Neither IPv4 nor IPv6, and no ARP request that is answered here.
    NotIp = 8, "not_ip", Pass;
    /// IP, but neither TCP, UDP nor ICMP.
    OtherProtocol = 9, "other_protocol", Pass;
    /// The frame ends before its headers do, or before the length in its IP header.
    Truncated = 10, "truncated", Pass;
    /// The IP header contradicts itself: version, header length or total length (RFC 791, RFC 8200).
    MalformedIp = 11, "malformed_ip", Pass;
    /// The TCP or UDP header contradicts itself or the IP header (RFC 9293, RFC 768).
    MalformedTransport = 12, "malformed_transport", Pass;
    /// An ICMP message, ARP packet or neighbour solicitation that contradicts its RFC.
    MalformedIcmp = 13, "malformed_icmp", Pass;
    /// IPv6 extension headers that weir does not walk through: too many, or a route that goes on elsewhere.
    Ipv6Extension = 14, "ipv6_extension", Pass;
    /// More VLAN tags than two.
    VlanTags = 15, "vlan_tags", Pass;
    /// ICMP for a VIP's address that is neither an echo request nor an error about a flow of a VIP.
    IcmpOther = 16, "icmp_other", Pass;
    /// The VIP has no backend that takes packets: none is configured, or all have weight 0.
    NoBackend = 17, "no_backend", Drop;
    /// The next hop toward the backend has no known MAC address yet.
    NoNextHop = 18, "no_next_hop", Drop;
    /// The interface that leads to the backend is not one that weir can send from.
    NoPort = 19, "no_port", Drop;
    /// Too big to be encapsulated, and the client may not be told: no DF, a later fragment, or an ICMP error.
    TooBig = 20, "too_big", Drop;
    /// No room before the packet for the outer headers: the driver gives too little headroom.
    NoHeadroom = 21, "no_headroom", Drop;
    /// An answer or ICMP error beyond the rate limit of the node.
    IcmpLimited = 22, "icmp_limited", Drop;
    /// A map lacks an entry that the daemon should have written: a defect, please report it.
    TableMissing = 23, "table_missing", Drop;
    /// The source may not send to the VIP: it is blocked by command, or the access lists deny it.
    Denied = 24, "denied", Drop;
    /// Over a rate limit of its VIP whose action is `drop`.
    Limited = 25, "limited", Drop;
    /// For a backend that is this node itself: its own kernel serves it.
    Local = 26, "local", Pass;
    /// Another node of the fleet has sent it here, as its source MAC address tells: it is not balanced again.
    Peer = 27, "peer", Pass;
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The reasons to drop, in the order of a VIP's counters of them: new ones go to the end.
    pub const DROPS: [Self; 9] = [
        Self::NoBackend,
        Self::NoNextHop,
        Self::NoPort,
        Self::TooBig,
        Self::NoHeadroom,
        Self::IcmpLimited,
        Self::TableMissing,
        Self::Denied,
        Self::Limited,
    ];

    /// Place of the reason in [`Self::DROPS`], if it is one to drop.
    #[must_use]
    #[inline(always)]
    pub const fn drop_index(self) -> Option<u32> {
        Some(match self {
            Self::NoBackend => 0,
            Self::NoNextHop => 1,
            Self::NoPort => 2,
            Self::TooBig => 3,
            Self::NoHeadroom => 4,
            Self::IcmpLimited => 5,
            Self::TableMissing => 6,
            Self::Denied => 7,
            Self::Limited => 8,
            _ => return None,
        })
    }

    /// Whether the packet was sent to a backend.
    #[must_use]
    #[inline(always)]
    pub const fn is_forwarded(self) -> bool {
        matches!(self.verdict(), Verdict::Forward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_dense_and_names_unique() {
        let mut names = BTreeSet::new();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(names.insert(reason.as_str()));
            assert!(reason.text().trim().ends_with('.'));
        }
    }

    #[test]
    fn every_reason_to_drop_has_a_place_of_its_own() {
        for reason in Reason::ALL {
            let place = Reason::DROPS.iter().position(|drop| drop == reason);
            assert_eq!(place.is_some(), reason.verdict() == Verdict::Drop);
            assert_eq!(reason.drop_index().map(|index| index as usize), place);
        }
    }
}
