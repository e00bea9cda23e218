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
    /// Sent out of another interface.
    Redirect,
}

impl Verdict {
    /// The verdict's name in metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Tx => "tx",
            Self::Redirect => "redirect",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $text:literal])+ $name:ident = $number:literal, $label:literal, $verdict:ident;)+) => {
        /// Why a packet went where it went. Each has one verdict, one counter and one line of text.
        #[must_use]
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[repr(u8)]
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

// The numbers index the counters' map: new ones go to the end, none is used twice.
reasons! {
    /// Sent to a backend, out of the interface by which it came.
    Forwarded = 0, "forwarded", Tx;
    /// Sent to a backend, out of another interface.
    Redirected = 1, "redirected", Redirect;
    /// Destination address, port and protocol are no VIP's.
    NotVip = 2, "not_vip", Pass;
    /// Neither IPv4 nor IPv6 (ARP, VLAN-tagged, …).
    NotIp = 3, "not_ip", Pass;
    /// IP, but neither TCP nor UDP.
    OtherProtocol = 4, "other_protocol", Pass;
    /// The frame ends before its headers do, or before the length in its IP header.
    Truncated = 5, "truncated", Pass;
    /// The IP header contradicts itself: version, header length or total length (RFC 791, RFC 8200).
    MalformedIp = 6, "malformed_ip", Pass;
    /// The TCP or UDP header contradicts itself or the IP header (RFC 9293, RFC 768).
    MalformedTransport = 7, "malformed_transport", Pass;
    /// One fragment of a larger packet.
    Fragment = 8, "fragment", Pass;
    /// An IPv6 extension header stands before the transport header.
    Ipv6Extension = 9, "ipv6_extension", Pass;
    /// The VIP has no backend that takes packets: none is configured, or all have weight 0.
    NoBackend = 10, "no_backend", Drop;
    /// The next hop toward the backend has no known MAC address yet.
    NoNextHop = 11, "no_next_hop", Drop;
    /// The interface that leads to the backend is not one that weir can send from.
    NoPort = 12, "no_port", Drop;
    /// A map lacks an entry that the daemon should have written: a defect, please report it.
    TableMissing = 13, "table_missing", Drop;
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the packet was sent to a backend.
    #[must_use]
    #[inline(always)]
    pub const fn is_forwarded(self) -> bool {
        matches!(self.verdict(), Verdict::Tx | Verdict::Redirect)
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
}
