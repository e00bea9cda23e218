//! From a frame's bytes to its flow, by the RFCs.
//!
//! What is checked: IPv4 version, header and total length (RFC 791), IPv6 version and payload length
//! (RFC 8200), TCP data offset (RFC 9293), UDP length (RFC 768), and that the frame holds all that the
//! IP header claims. The IPv4 header checksum is left to the receiving host, which checks it anyway.
//!
//! [`plain`] takes what nearly all packets are and nothing else: no VLAN tag, no IPv4 options, no IPv6
//! extension header, no fragment, TCP or UDP. All its offsets are constants. [`link`] and [`network`] take
//! everything; the pipeline runs them out of line.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{
        little_endian::{U32, U64},
        network_endian::U16,
    },
};

use crate::{
    flow::{Address, Flow},
    packet::{Header, Packet},
    reason::Reason,
    wire::{
        ethernet::{self, Ethernet},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        ipv6_extension::{Extension, Fragment},
        protocol,
        tcp::{self, Tcp},
        udp::{self, Udp},
        vlan::{self, Vlan},
    },
};

/// How many IPv6 extension headers are walked through: every kind once, and destination options twice
/// (RFC 8200, section 4.1, recommends no more).
const MAX_EXTENSIONS: usize = 6;

/// VLAN tags of a frame.
///
/// Whole words, as everything that may lie on the stack: the kernel wants aligned accesses there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tags {
    /// How many: 0, 1 or 2.
    pub count: u32,
    /// EtherType of the outer tag: 802.1Q, or 802.1ad for a service tag.
    pub outer_type: u32,
    /// Tag control information of the outer tag.
    pub outer: u32,
    /// Tag control information of the inner of two tags.
    pub inner: u32,
}

impl Tags {
    /// Those of a frame without any.
    pub const NONE: Self = Self {
        count: 0,
        outer_type: 0,
        outer: 0,
        inner: 0,
    };

    /// The tags in one word, which one store writes.
    #[inline(always)]
    pub(crate) const fn packed(&self) -> u64 {
        (self.count as u64)
            | ((self.outer_type as u64) << 16)
            | ((self.outer as u64) << 32)
            | ((self.inner as u64) << 48)
    }

    /// What [`Self::packed`] has packed.
    #[inline(always)]
    pub(crate) const fn unpacked(tags: u64) -> Self {
        Self {
            count: tags as u32 & 3,
            outer_type: (tags >> 16) as u32 & 0xffff,
            outer: (tags >> 32) as u32 & 0xffff,
            inner: (tags >> 48) as u32,
        }
    }

    /// Where the IP header of a frame with these tags lies, in bytes from the frame's start.
    #[must_use]
    #[inline(always)]
    pub const fn ip_offset(&self) -> usize {
        ethernet::LEN.wrapping_add(vlan::LEN.wrapping_mul((self.count & 3) as usize))
    }
}

/// An IP packet in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// The frame's tags.
    pub tags: Tags,
    /// The first eight bytes of its header as they lie, in one little-endian word: all that outer headers take from it.
    pub head: u64,
    /// Whether the packet is IPv6.
    pub is_v6: bool,
    /// Length of the packet with its header, in bytes.
    pub len: u32,
    /// Length of the whole frame, in bytes, without the FCS.
    pub frame_len: u32,
}

/// [`Ip::head`] of a header.
#[inline(always)]
fn head<H: Header>(header: &H) -> u64 {
    // Every header is longer, which the compiler knows.
    U64::ref_from_prefix(header.as_bytes()).map_or(0, |(head, _)| head.get())
}

/// A packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Parsed {
    /// The IP packet.
    pub ip: Ip,
    /// Who speaks to whom.
    pub flow: Flow,
    /// Where the transport header lies in the frame, in bytes from its start; of a later fragment, its payload.
    pub start: usize,
    /// Whether a TCP packet asks for a new connection.
    pub is_syn: bool,
}

/// What the payload of a plain packet begins with: a TCP header, or a UDP header and data.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Segment {
    /// Source and destination port as they lie on the wire.
    ports: U32,
    /// Of UDP: length of header and payload.
    udp_len: U16,
    skipped: [u8; 6],
    /// Of TCP: header length in 32-bit words (4 bits) and reserved bits.
    data_offset: u8,
    /// Of TCP: control bits.
    flags: u8,
    rest: [u8; 6],
}

const _: () = assert!(size_of::<Segment>() == tcp::LEN);

/// The headers of a plain IPv4 packet: one bounds check for all of them.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct FrameV4 {
    ethernet: Ethernet,
    ip: Ipv4,
    segment: Segment,
}

/// The headers of a plain IPv6 packet.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct FrameV6 {
    ethernet: Ethernet,
    ip: Ipv6,
    segment: Segment,
}

/// Parses a plain packet of either family. [`plain_v4`] and [`plain_v6`] are for whoever goes on apart.
#[inline(always)]
pub fn plain<P: Packet>(packet: &P) -> Option<Parsed> {
    match ether_type(packet)? {
        ethernet::IPV4 => plain_v4(packet),
        ethernet::IPV6 => plain_v6(packet),
        _ => None,
    }
}

/// The EtherType of a frame that is long enough for a plain packet.
#[inline(always)]
pub fn ether_type<P: Packet>(packet: &P) -> Option<u16> {
    let frame = packet.at::<FrameV4>(0)?;
    Some(frame.ethernet.ether_type.get())
}

/// Parses a plain TCP or UDP packet in a frame whose EtherType is IPv4's. `None` says nothing about the packet but that it is not
/// plain; nor is a frame too short for a TCP header.
#[inline(always)]
pub fn plain_v4<P: Packet>(packet: &P) -> Option<Parsed> {
    let frame = packet.at::<FrameV4>(0)?;
    let ip = &frame.ip;
    // Version 4 and no options.
    if ip.version_ihl != 0x45 || ip.is_fragment() {
        return None;
    }
    let len = u32::from(ip.total_len.get());
    let payload = Payload {
        source: Address::from_v4(ip.source),
        destination: Address::from_v4(ip.destination),
        protocol: ip.protocol,
        start: const { ethernet::LEN + ipv4::LEN },
        len: len.checked_sub(ipv4::LEN as u32)?,
    };
    payload.plain(packet, &frame.segment, head(ip), false, len)
}

/// [`plain_v4`], of IPv6.
#[inline(always)]
pub fn plain_v6<P: Packet>(packet: &P) -> Option<Parsed> {
    let frame = packet.at::<FrameV6>(0)?;
    let ip = &frame.ip;
    let payload = Payload {
        source: Address::from_v6(ip.source),
        destination: Address::from_v6(ip.destination),
        protocol: ip.next_header,
        start: const { ethernet::LEN + ipv6::LEN },
        len: u32::from(ip.payload_len.get()),
    };
    if ip.version() != 6 || payload.has_mapped_address() {
        return None;
    }
    let len = payload.len.wrapping_add(ipv6::LEN as u32);
    payload.plain(packet, &frame.segment, head(ip), true, len)
}

/// Parses Ethernet and up to two VLAN tags. Returns the tags and the EtherType of what follows.
///
/// # Errors
/// [`Reason::Truncated`], or [`Reason::VlanTags`] for more tags.
#[inline(always)]
pub fn link<P: Packet>(packet: &P) -> Result<(Tags, u16), Reason> {
    let mut ether_type = packet
        .at::<Ethernet>(0)
        .ok_or(Reason::Truncated)?
        .ether_type
        .get();
    let mut tags = Tags::default();
    if !is_tag(ether_type) {
        return Ok((tags, ether_type));
    }
    tags.outer_type = u32::from(ether_type);
    let tag = packet.at::<Vlan>(ethernet::LEN).ok_or(Reason::Truncated)?;
    ether_type = tag.ether_type.get();
    tags.count = 1;
    tags.outer = u32::from(tag.tci.get());
    if is_tag(ether_type) {
        let tag = packet
            .at::<Vlan>(const { ethernet::LEN + vlan::LEN })
            .ok_or(Reason::Truncated)?;
        ether_type = tag.ether_type.get();
        tags.count = 2;
        tags.inner = u32::from(tag.tci.get());
    }
    if is_tag(ether_type) {
        Err(Reason::VlanTags)
    } else {
        Ok((tags, ether_type))
    }
}

#[inline(always)]
const fn is_tag(ether_type: u16) -> bool {
    ether_type == ethernet::VLAN || ether_type == ethernet::SERVICE_VLAN
}

/// An IP packet whose payload has not been looked at.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The packet.
    pub ip: Ip,
    /// Source, destination, protocol, and where the payload lies.
    pub payload: Payload,
    /// Which part of a larger packet it is.
    pub fragment: Option<FragmentOf>,
    /// Whether it has IPv4 options or IPv6 extension headers.
    pub has_options: bool,
}

/// One fragment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FragmentOf {
    /// Identification as it lies on the wire.
    pub id: u32,
    /// Whether it is the first, with the transport header.
    pub is_first: bool,
}

/// Parses IPv4 with options, or IPv6 with extension headers, at the offset that the tags leave.
///
/// # Errors
/// The reason why this is no IP packet that weir understands.
#[inline(always)]
pub fn network<P: Packet>(packet: &P, tags: Tags, is_v6: bool) -> Result<Network, Reason> {
    let network = if is_v6 {
        network_v6(packet, tags)
    } else {
        network_v4(packet, tags)
    };
    let mut network = network?;
    network.ip.frame_len = frame_len(packet, tags.ip_offset(), network.ip.len)?;
    Ok(network)
}

#[inline(always)]
fn network_v4<P: Packet>(packet: &P, tags: Tags) -> Result<Network, Reason> {
    let offset = tags.ip_offset();
    let ip = packet.at::<Ipv4>(offset).ok_or(Reason::Truncated)?;
    let header_len = ip.header_len();
    let len = u32::from(ip.total_len.get());
    if ip.version() != 4 || header_len < ipv4::LEN || len < header_len as u32 {
        return Err(Reason::MalformedIp);
    }
    let [id0, id1] = ip.id.to_bytes();
    let fragment = FragmentOf {
        id: u32::from_ne_bytes([0, 0, id0, id1]),
        is_first: ip.flags_fragment.get() & ipv4::OFFSET == 0,
    };
    Ok(Network {
        ip: Ip {
            tags,
            head: head(ip),
            is_v6: false,
            len,
            frame_len: 0,
        },
        payload: Payload {
            source: Address::from_v4(ip.source),
            destination: Address::from_v4(ip.destination),
            protocol: ip.protocol,
            start: offset.wrapping_add(header_len),
            len: len.wrapping_sub(header_len as u32),
        },
        fragment: ip.is_fragment().then_some(fragment),
        has_options: header_len != ipv4::LEN,
    })
}

#[inline(always)]
fn network_v6<P: Packet>(packet: &P, tags: Tags) -> Result<Network, Reason> {
    let offset = tags.ip_offset();
    let ip = packet.at::<Ipv6>(offset).ok_or(Reason::Truncated)?;
    let payload_len = u32::from(ip.payload_len.get());
    let payload = Payload {
        source: Address::from_v6(ip.source),
        destination: Address::from_v6(ip.destination),
        protocol: ip.next_header,
        start: offset.wrapping_add(ipv6::LEN),
        len: payload_len,
    };
    // A mapped address on the wire could pass for the IPv4 VIP of the same bytes.
    if ip.version() != 6 || payload.has_mapped_address() {
        return Err(Reason::MalformedIp);
    }
    let len = payload_len.wrapping_add(ipv6::LEN as u32);
    let mut network = Network {
        ip: Ip {
            tags,
            head: head(ip),
            is_v6: true,
            len,
            frame_len: 0,
        },
        payload,
        fragment: None,
        has_options: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !network.skip_extension(packet)? {
            return Ok(network);
        }
    }
    if is_extension(network.payload.protocol) {
        Err(Reason::Ipv6Extension)
    } else {
        Ok(network)
    }
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::DESTINATION_OPTIONS
            | protocol::FRAGMENT
    )
}

impl Network {
    /// Steps over one IPv6 extension header. Returns false where there is none, or none that can be looked into.
    #[inline(always)]
    fn skip_extension<P: Packet>(&mut self, packet: &P) -> Result<bool, Reason> {
        let kind = self.payload.protocol;
        // What a later fragment begins with is no header.
        let is_inside_later = matches!(
            self.fragment,
            Some(FragmentOf {
                is_first: false,
                ..
            })
        );
        if !is_extension(kind) || is_inside_later {
            return Ok(false);
        }
        let (next_header, len) = if kind == protocol::FRAGMENT {
            let header = packet
                .at::<Fragment>(self.payload.start)
                .ok_or(Reason::Truncated)?;
            let offset_more = header.offset_more.get();
            // An offset or "more"; a packet of one fragment is whole (RFC 6946).
            if offset_more & 0xfff9 != 0 {
                let id = u32::from_ne_bytes(header.id.to_bytes());
                self.fragment = Some(FragmentOf {
                    id,
                    is_first: offset_more & 0xfff8 == 0,
                });
            }
            (header.next_header, size_of::<Fragment>() as u32)
        } else {
            let header = packet
                .at::<Extension>(self.payload.start)
                .ok_or(Reason::Truncated)?;
            if kind == protocol::ROUTING && header.segments_left != 0 {
                return Err(Reason::Ipv6Extension);
            }
            (
                header.next_header,
                u32::from(header.len).wrapping_add(1).wrapping_mul(8),
            )
        };
        if len > self.payload.len {
            return Err(Reason::MalformedIp);
        }
        self.has_options = true;
        self.payload.protocol = next_header;
        self.payload.start = self.payload.start.wrapping_add(len as usize);
        self.payload.len = self.payload.len.wrapping_sub(len);
        Ok(true)
    }
}

/// The payload of an IP packet.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// Source of the packet.
    pub source: Address,
    /// Destination of the packet.
    pub destination: Address,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Offset of the payload in the frame, in bytes.
    pub start: usize,
    /// Length of the payload in bytes, as the IP header claims.
    pub len: u32,
}

/// Ports of a payload, and whether it is a SYN.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// [`Flow::ports`].
    ports: u32,
    is_syn: bool,
}

impl Transport {
    /// Of a fragment without a transport header: a flow's packet by its addresses and protocol alone.
    pub const UNKNOWN: Self = Self {
        ports: 0,
        is_syn: false,
    };
}

impl Payload {
    /// Parses the payload as the start of a TCP segment or UDP datagram.
    ///
    /// Of a fragment (`is_whole` false) the lengths inside may reach beyond the payload.
    ///
    /// # Errors
    /// [`Reason::Truncated`], [`Reason::MalformedTransport`] or [`Reason::OtherProtocol`].
    #[inline(always)]
    pub fn transport<P: Packet>(&self, packet: &P, is_whole: bool) -> Result<Transport, Reason> {
        match self.protocol {
            protocol::TCP => {
                if self.len < tcp::LEN as u32 {
                    return Err(Reason::MalformedTransport);
                }
                let tcp = packet.at::<Tcp>(self.start).ok_or(Reason::Truncated)?;
                let header_len = tcp.header_len();
                if header_len < tcp::LEN || (is_whole && header_len as u32 > self.len) {
                    return Err(Reason::MalformedTransport);
                }
                Ok(Transport {
                    ports: Flow::ports(tcp.source_port, tcp.destination_port),
                    is_syn: tcp.is_syn(),
                })
            }
            protocol::UDP => {
                if self.len < udp::LEN as u32 {
                    return Err(Reason::MalformedTransport);
                }
                let udp = packet.at::<Udp>(self.start).ok_or(Reason::Truncated)?;
                let len = u32::from(udp.len.get());
                if len < udp::LEN as u32 || (is_whole && len > self.len) {
                    return Err(Reason::MalformedTransport);
                }
                Ok(Transport {
                    ports: Flow::ports(udp.source_port, udp.destination_port),
                    is_syn: false,
                })
            }
            _ => Err(Reason::OtherProtocol),
        }
    }

    /// The packet of a flow that this payload and its ports make.
    #[inline(always)]
    #[must_use]
    pub const fn parsed(&self, ip: Ip, transport: &Transport) -> Parsed {
        Parsed {
            ip,
            flow: Flow {
                source: self.source,
                destination: self.destination,
                ports: transport.ports,
                protocol: self.protocol as u32,
            },
            start: self.start,
            is_syn: transport.is_syn,
        }
    }

    /// The payload of a plain packet of `len` bytes, as [`Self::transport`] reads it.
    #[inline(always)]
    fn plain<P: Packet>(
        &self,
        packet: &P,
        segment: &Segment,
        head: u64,
        is_v6: bool,
        len: u32,
    ) -> Option<Parsed> {
        let is_syn = match self.protocol {
            protocol::TCP => {
                let header_len = tcp::header_len(segment.data_offset);
                if header_len < tcp::LEN || header_len as u32 > self.len {
                    return None;
                }
                tcp::is_syn(segment.flags)
            }
            protocol::UDP => {
                let udp_len = u32::from(segment.udp_len.get());
                if udp_len < udp::LEN as u32 || udp_len > self.len {
                    return None;
                }
                false
            }
            _ => return None,
        };
        let frame_len = frame_len(packet, ethernet::LEN, len).ok()?;
        let ip = Ip {
            tags: Tags::NONE,
            head,
            is_v6,
            len,
            frame_len,
        };
        let transport = Transport {
            ports: segment.ports.get(),
            is_syn,
        };
        Some(self.parsed(ip, &transport))
    }

    #[inline(always)]
    const fn has_mapped_address(&self) -> bool {
        self.source.is_v4() || self.destination.is_v4()
    }
}

/// The frame's length, once it is known to hold all of the IP packet.
#[inline(always)]
fn frame_len<P: Packet>(packet: &P, ip_offset: usize, ip_len: u32) -> Result<u32, Reason> {
    let end = ip_offset.wrapping_add(ip_len as usize);
    let len = packet.len();
    if end <= len {
        return Ok(len as u32);
    }
    // Either the frame lies in several buffers, or the header claims too much.
    let len = packet.frame_len();
    if end <= len {
        Ok(len as u32)
    } else {
        Err(Reason::Truncated)
    }
}
