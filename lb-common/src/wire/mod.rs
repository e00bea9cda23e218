//! One small file per header: its bytes as they lie on the wire, and nothing of what they mean to weir.
//!
//! Every header is a `#[repr(C)]` struct of bytes and big-endian integers, so that it may lie at any
//! offset. Reading one through [`crate::packet::Packet::at`] cannot fail halfway.

pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers") that weir tells apart.
pub mod protocol {
    /// IPv6 hop-by-hop options (RFC 8200, section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 routing header (RFC 8200, section 4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header (RFC 8200, section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// IPv6 destination options (RFC 8200, section 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
}
