//! ICMP in the VIP's name: echo replies, errors that reach the flow's backend, and errors that weir sends itself.
//!
//! weir stands for the VIP's host, so it answers what a host answers (RFC 1122, RFC 4443). All of it is limited by
//! [`Tables::admits`]. Errors are never sent about ICMP errors, later fragments, or to senders that are no
//! single host.

use zerocopy::byteorder::{
    big_endian,
    little_endian::{U32, U64},
};

use crate::{
    checksum,
    flow::{Address, Flow},
    neighbour,
    packet::Packet,
    parse::{self, Network, Payload, Tags},
    pipeline::Outcome,
    reason::Reason,
    rewrite,
    tables::{Answer, Limited, Tables},
    wire::{
        ethernet,
        icmp::{self, Icmp, v4, v6},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        ipv6_extension::{Extension, Fragment},
        protocol,
    },
};

/// TTL and hop limit of what weir sends.
const TTL: u8 = 64;

/// How many bytes of the packet an ICMP error quotes: all that fits into 576 bytes (RFC 1812, section 4.3.2.3).
const QUOTE_V4: usize = 576 - ipv4::LEN - icmp::LEN;

/// How many bytes of the packet an ICMPv6 error quotes: all that fits into the minimum MTU (RFC 4443, section 2.4).
const QUOTE_V6: usize = 1280 - ipv6::LEN - icmp::LEN;

/// How many extension headers are walked through in a packet that an error quotes.
const MAX_QUOTED_EXTENSIONS: usize = 4;

/// Judges an ICMP message for an IPv4 address: the flow that an error is about, or the reason why it ends here.
#[inline(always)]
pub(crate) fn v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Flow, Reason> {
    let payload = &network.payload;
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    outcome.vip = vips
        .find_address(payload.destination)
        .ok_or(Reason::NotVip)?
        .id;
    if payload.len < icmp::LEN as u32 {
        return Err(Reason::MalformedIcmp);
    }
    let header = packet.at::<Icmp>(payload.start).ok_or(Reason::Truncated)?;
    match header.kind {
        v4::ECHO if header.code == 0 && !network.has_options => {
            Err(echo_v4(packet, tables, network))
        }
        v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER => quoted_v4(packet, payload),
        _ => Err(Reason::IcmpOther),
    }
}

/// Judges an ICMPv6 message, as [`v4`].
#[inline(always)]
pub(crate) fn v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Flow, Reason> {
    let payload = &network.payload;
    let header = packet.at::<Icmp>(payload.start);
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    // A solicitation may come by multicast: what counts is its target.
    if matches!(
        header,
        Some(Icmp {
            kind: v6::SOLICITATION,
            ..
        })
    ) {
        return Err(neighbour::solicitation(
            packet, tables, ingress, network, outcome,
        ));
    }
    outcome.vip = vips
        .find_address(payload.destination)
        .ok_or(Reason::NotVip)?
        .id;
    if payload.len < icmp::LEN as u32 {
        return Err(Reason::MalformedIcmp);
    }
    match header.ok_or(Reason::Truncated)? {
        Icmp {
            kind: v6::ECHO,
            code: 0,
            ..
        } if !network.has_options => Err(echo_v6(packet, tables, network)),
        Icmp {
            kind: v6::UNREACHABLE | v6::TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER,
            ..
        } => quoted_v6(packet, payload),
        _ => Err(Reason::IcmpOther),
    }
}

/// Turns an echo request into its reply (RFC 792).
#[inline(always)]
fn echo_v4<P: Packet, T: Tables>(packet: &mut P, tables: &T, network: &Network) -> Reason {
    match answer_echo_v4(packet, tables, network) {
        Ok(()) => Reason::Echo,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_echo_v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
) -> Result<(), Reason> {
    let payload = &network.payload;
    if !is_answerable(payload.source) {
        return Err(Reason::IcmpOther);
    }
    if !tables.admits(Limited::Icmp) {
        return Err(Reason::IcmpLimited);
    }
    let ip = packet
        .at_mut::<Ipv4>(network.ip.tags.ip_offset())
        .ok_or(Reason::Truncated)?;
    (ip.source, ip.destination) = (ip.destination, ip.source);
    // Swapping addresses leaves the checksum as it is; a fresh TTL does not.
    ip.checksum = checksum::update(ip.checksum, [ip.ttl, ip.protocol], [TTL, ip.protocol]);
    ip.ttl = TTL;
    let icmp = packet
        .at_mut::<Icmp>(payload.start)
        .ok_or(Reason::Truncated)?;
    icmp.checksum = echo_checksum(icmp, [v4::ECHO, 0], [v4::ECHO_REPLY, 0]);
    icmp.kind = v4::ECHO_REPLY;
    rewrite::swap(packet).ok_or(Reason::Truncated)?;
    Ok(())
}

/// Turns an echo request into its reply (RFC 4443, section 4.2).
#[inline(always)]
fn echo_v6<P: Packet, T: Tables>(packet: &mut P, tables: &T, network: &Network) -> Reason {
    match answer_echo_v6(packet, tables, network) {
        Ok(()) => Reason::Echo,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_echo_v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    network: &Network,
) -> Result<(), Reason> {
    let payload = &network.payload;
    if !is_answerable(payload.source) {
        return Err(Reason::IcmpOther);
    }
    if !tables.admits(Limited::Icmp) {
        return Err(Reason::IcmpLimited);
    }
    let ip = packet
        .at_mut::<Ipv6>(network.ip.tags.ip_offset())
        .ok_or(Reason::Truncated)?;
    (ip.source, ip.destination) = (ip.destination, ip.source);
    ip.hop_limit = TTL;
    let icmp = packet
        .at_mut::<Icmp>(payload.start)
        .ok_or(Reason::Truncated)?;
    icmp.checksum = echo_checksum(icmp, [v6::ECHO, 0], [v6::ECHO_REPLY, 0]);
    icmp.kind = v6::ECHO_REPLY;
    rewrite::swap(packet).ok_or(Reason::Truncated)?;
    Ok(())
}

/// The checksum of an echo whose first word changes.
#[inline(always)]
fn echo_checksum(icmp: &Icmp, old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let checksum = checksum::update(icmp.checksum, old, new);
    // Of a message of nothing but zeros the checksum is 0xffff, not the other zero, which no host takes; of any
    // other message hosts take both.
    if checksum == [0; 2] && icmp.rest == [0; 4] {
        [0xff; 2]
    } else {
        checksum
    }
}

/// The flow that an ICMP error is about, as its client sends. Eight bytes of TCP are enough: RFC 792 promises no more.
#[inline(always)]
fn quoted_v4<P: Packet>(packet: &P, payload: &Payload) -> Result<Flow, Reason> {
    let start = payload.start.wrapping_add(icmp::LEN);
    let quote = packet.at::<Ipv4>(start).ok_or(Reason::MalformedIcmp)?;
    let header_len = quote.header_len();
    if quote.version() != 4 || header_len < ipv4::LEN {
        return Err(Reason::MalformedIcmp);
    }
    let (source, destination) = (
        Address::from_v4(quote.source),
        Address::from_v4(quote.destination),
    );
    // An answer of the VIP, with ports: what it was about, no other address can have sent.
    if source != payload.destination || quote.flags_fragment.get() & ipv4::OFFSET != 0 {
        return Err(Reason::IcmpOther);
    }
    let needed = (icmp::LEN as u32)
        .wrapping_add(header_len as u32)
        .wrapping_add(8);
    if payload.len < needed {
        return Err(Reason::MalformedIcmp);
    }
    quoted_flow(
        packet,
        start.wrapping_add(header_len),
        quote.protocol,
        source,
        destination,
    )
}

/// As [`quoted_v4`]; extension headers are walked through.
#[inline(always)]
fn quoted_v6<P: Packet>(packet: &P, payload: &Payload) -> Result<Flow, Reason> {
    let start = payload.start.wrapping_add(icmp::LEN);
    let quote = packet.at::<Ipv6>(start).ok_or(Reason::MalformedIcmp)?;
    if quote.version() != 6 {
        return Err(Reason::MalformedIcmp);
    }
    let (source, destination) = (
        Address::from_v6(quote.source),
        Address::from_v6(quote.destination),
    );
    if source != payload.destination || destination.is_v4() {
        return Err(Reason::IcmpOther);
    }
    let mut kind = quote.next_header;
    let mut offset = start.wrapping_add(ipv6::LEN);
    for _ in 0..MAX_QUOTED_EXTENSIONS {
        match kind {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let header = packet
                    .at::<Extension>(offset)
                    .ok_or(Reason::MalformedIcmp)?;
                kind = header.next_header;
                offset =
                    offset.wrapping_add(usize::from(header.len).wrapping_add(1).wrapping_mul(8));
            }
            protocol::FRAGMENT => {
                let header = packet.at::<Fragment>(offset).ok_or(Reason::MalformedIcmp)?;
                if header.offset_more.get() & 0xfff8 != 0 {
                    return Err(Reason::IcmpOther);
                }
                kind = header.next_header;
                offset = offset.wrapping_add(size_of::<Fragment>());
            }
            _ => break,
        }
    }
    let needed = (offset.wrapping_sub(payload.start) as u32).wrapping_add(8);
    if payload.len < needed {
        return Err(Reason::MalformedIcmp);
    }
    quoted_flow(packet, offset, kind, source, destination)
}

#[inline(always)]
fn quoted_flow<P: Packet>(
    packet: &P,
    offset: usize,
    kind: u8,
    source: Address,
    destination: Address,
) -> Result<Flow, Reason> {
    if kind != protocol::TCP && kind != protocol::UDP {
        return Err(Reason::IcmpOther);
    }
    let ports = packet.at::<U32>(offset).ok_or(Reason::MalformedIcmp)?;
    Ok(Flow {
        source: destination,
        destination: source,
        ports: ports.get().rotate_left(16),
        protocol: u32::from(kind),
    })
}

/// Whether an address is that of a single host, which may be answered (RFC 1122, section 3.2.2).
#[inline(always)]
const fn is_answerable(address: Address) -> bool {
    if address.is_v4() {
        let [_, _, _, _, first, ..] = address.low.to_ne_bytes();
        // "This" network, loopback, multicast and what is reserved, broadcast among it.
        first != 0 && first != 127 && first < 224
    } else {
        let [first, ..] = address.high.to_ne_bytes();
        let is_unspecified_or_loopback =
            address.high == 0 && u64::from_be_bytes(address.low.to_ne_bytes()) <= 1;
        first != 0xff && !is_unspecified_or_loopback
    }
}

/// Answers a packet with an ICMP error: the MTU that fits, or the end of a traceroute ("port unreachable", as the
/// VIP's host would say).
///
/// Returns the reason under which the packet is counted.
#[inline(always)]
pub(crate) fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T, answer: Answer) -> Reason {
    let (reason, otherwise) = if answer.mtu == 0 {
        (Reason::TracerouteAnswered, Reason::NotVip)
    } else {
        (Reason::TooBigAnswered, Reason::TooBig)
    };
    match answer_by_family(packet, tables, answer.mtu, otherwise) {
        Ok(()) => reason,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_by_family<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    mtu: u32,
    otherwise: Reason,
) -> Result<(), Reason> {
    let (tags, ether_type) = parse::link(packet)?;
    if ether_type == ethernet::IPV6 {
        let message = if mtu == 0 {
            Message::new(v6::UNREACHABLE, v6::PORT_UNREACHABLE, 0)
        } else {
            Message::new(v6::TOO_BIG, 0, mtu)
        };
        return answer_v6(packet, tables, &tags, &message, otherwise);
    }
    let header = packet.at::<Ipv4>(tags.ip_offset()).ok_or(otherwise)?;
    // Only who set DF expects to be told (RFC 1191), and XDP cannot fragment.
    if mtu != 0 && header.flags_fragment.get() & ipv4::DONT_FRAGMENT == 0 {
        return Err(otherwise);
    }
    let message = if mtu == 0 {
        Message::new(v4::UNREACHABLE, v4::PORT_UNREACHABLE, 0)
    } else {
        Message::new(v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, mtu)
    };
    answer_v4(packet, tables, &tags, &message, otherwise)
}

/// First port that traceroute sends to.
const TRACEROUTE_FIRST: u16 = 33434;
/// How many ports traceroute may use: 255 hops, one probe each.
const TRACEROUTE_PORTS: u16 = 256;

/// Whether a packet that is for no VIP may be a probe of traceroute.
#[inline(always)]
pub(crate) const fn is_traceroute(flow: &Flow) -> bool {
    let port = u16::from_be_bytes(flow.destination_port()).wrapping_sub(TRACEROUTE_FIRST);
    flow.protocol == protocol::UDP as u32 && port < TRACEROUTE_PORTS
}

/// The head of an ICMP error, in whole words: they may lie on the stack, where the kernel wants aligned accesses.
struct Message {
    /// Kind and code, as one 16-bit word.
    kind_code: u32,
    /// The MTU, or zero.
    rest: u32,
}

impl Message {
    #[inline(always)]
    const fn new(kind: u8, code: u8, rest: u32) -> Self {
        Self {
            kind_code: ((kind as u32) << 8) | code as u32,
            rest,
        }
    }
}

/// Turns the packet into an ICMP error about itself, from its destination to its source. `otherwise` is the
/// reason where its source may not be answered.
#[inline(always)]
fn answer_v4<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tags: &Tags,
    message: &Message,
    otherwise: Reason,
) -> Result<(), Reason> {
    let header = packet.at::<Ipv4>(tags.ip_offset()).ok_or(otherwise)?;
    let ip_len = u32::from(header.total_len.get());
    let (client, vip) = (
        u32::from_be_bytes(header.source),
        u32::from_be_bytes(header.destination),
    );
    if !is_answerable(Address::from_v4(header.source)) {
        return Err(otherwise);
    }
    if !tables.admits(Limited::Icmp) {
        return Err(Reason::IcmpLimited);
    }
    let quote = quote_len(ip_len, QUOTE_V4);
    let start = make_room(packet, tags, quote, const { ipv4::LEN + icmp::LEN })
        .ok_or(Reason::NoHeadroom)?;
    let len = const { (ipv4::LEN + icmp::LEN) as u32 }.wrapping_add(quote as u32);
    // Version, header length, TTL and protocol; DF.
    let constant =
        const { 0x4500 + ((TTL as u32) << 8) + protocol::ICMP as u32 + ipv4::DONT_FRAGMENT as u32 };
    let sum = constant
        .wrapping_add(len)
        .wrapping_add(checksum::sum_u32(client))
        .wrapping_add(checksum::sum_u32(vip));
    *packet.at_mut::<Ipv4>(start).ok_or(Reason::NoHeadroom)? = Ipv4 {
        version_ihl: 0x45,
        dscp_ecn: 0,
        total_len: (len as u16).into(),
        id: 0.into(),
        flags_fragment: ipv4::DONT_FRAGMENT.into(),
        ttl: TTL,
        protocol: protocol::ICMP,
        checksum: checksum::finish(sum),
        source: vip.to_be_bytes(),
        destination: client.to_be_bytes(),
    };
    write_message::<_, QUOTE_V4>(packet, start.wrapping_add(ipv4::LEN), message, 0, quote)
        .ok_or(Reason::NoHeadroom)
}

/// As [`answer_v4`].
#[inline(always)]
fn answer_v6<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    tags: &Tags,
    message: &Message,
    otherwise: Reason,
) -> Result<(), Reason> {
    let header = packet.at::<Ipv6>(tags.ip_offset()).ok_or(otherwise)?;
    let ip_len = u32::from(header.payload_len.get()).wrapping_add(ipv6::LEN as u32);
    let (client, vip) = (
        Address::from_v6(header.source),
        Address::from_v6(header.destination),
    );
    if !is_answerable(client) {
        return Err(otherwise);
    }
    if !tables.admits(Limited::Icmp) {
        return Err(Reason::IcmpLimited);
    }
    let quote = quote_len(ip_len, QUOTE_V6);
    let start = make_room(packet, tags, quote, const { ipv6::LEN + icmp::LEN })
        .ok_or(Reason::NoHeadroom)?;
    let len = const { icmp::LEN as u32 }.wrapping_add(quote as u32);
    *packet.at_mut::<Ipv6>(start).ok_or(Reason::NoHeadroom)? = Ipv6 {
        version_class_label: [0x60, 0, 0, 0],
        payload_len: (len as u16).into(),
        next_header: protocol::ICMPV6,
        hop_limit: TTL,
        source: vip.octets(),
        destination: client.octets(),
    };
    let pseudo = checksum::sum_address(client)
        .wrapping_add(checksum::sum_address(vip))
        .wrapping_add(len)
        .wrapping_add(u32::from(protocol::ICMPV6));
    write_message::<_, QUOTE_V6>(
        packet,
        start.wrapping_add(ipv6::LEN),
        message,
        pseudo,
        quote,
    )
    .ok_or(Reason::NoHeadroom)
}

/// How much of a packet is quoted: whole 4-byte words, for the checksum's sake.
#[inline(always)]
const fn quote_len(ip_len: u32, most: usize) -> usize {
    let len = if (ip_len as usize) < most {
        ip_len as usize
    } else {
        most
    };
    len & 0xffc
}

/// Cuts the packet after `quote` bytes of its IP packet, makes `room` bytes before them, and turns the Ethernet
/// addresses around; tags stay. Returns where the room begins.
#[inline(always)]
fn make_room<P: Packet>(packet: &mut P, tags: &Tags, quote: usize, room: usize) -> Option<usize> {
    let start = tags.ip_offset();
    let surplus = packet.frame_len().wrapping_sub(start.wrapping_add(quote));
    if !packet.adjust_tail((surplus as u32).cast_signed().wrapping_neg()) {
        return None;
    }
    // The link header, tags or what comes after them included: 22 bytes.
    let [a, b, c] = packet.at::<[U64; 3]>(0)?.map(zerocopy::U64::get);
    if !packet.adjust_head((room as u32).cast_signed().wrapping_neg()) {
        return None;
    }
    *packet.at_mut::<[U64; 3]>(0)? = [a.into(), b.into(), c.into()];
    rewrite::swap(packet)?;
    Some(start)
}

/// Writes the head of the message before its quote, with the checksum over all of it. `N` is the longest quote.
#[inline(always)]
fn write_message<P: Packet, const N: usize>(
    packet: &mut P,
    start: usize,
    message: &Message,
    pseudo: u32,
    quote: usize,
) -> Option<()> {
    let mut sum = pseudo
        .wrapping_add(message.kind_code)
        .wrapping_add(checksum::sum_u32(message.rest));
    let mut at = start.wrapping_add(icmp::LEN);
    let end = at.wrapping_add(quote);
    // Large steps first: the verifier walks through every one of them.
    for _ in 0..N / 32 {
        if at.wrapping_add(32) > end {
            break;
        }
        for word in packet.at::<[big_endian::U32; 8]>(at)? {
            sum = sum.wrapping_add(checksum::sum_u32(word.get()));
        }
        at = at.wrapping_add(32);
    }
    for _ in 0..7 {
        if at >= end {
            break;
        }
        sum = sum.wrapping_add(checksum::sum_u32(packet.at::<big_endian::U32>(at)?.get()));
        at = at.wrapping_add(4);
    }
    *packet.at_mut::<Icmp>(start)? = Icmp {
        kind: (message.kind_code >> 8) as u8,
        code: message.kind_code as u8,
        checksum: checksum::finish(sum),
        rest: message.rest.to_be_bytes(),
    };
    Some(())
}
