//! ARP (RFC 826) and neighbour discovery (RFC 4861) for VIPs that are announced by L2: "the VIP is here".

use zerocopy::byteorder::little_endian::U16;

use crate::{
    checksum,
    flow::Address,
    packet::Packet,
    parse::{Network, Tags},
    pipeline::Outcome,
    reason::Reason,
    rewrite,
    tables::{Limited, Tables},
    vip::flags,
    wire::{
        arp::{self, Arp},
        ethernet::{self, Ethernet},
        icmp::{
            self, ALL_NODES, ALL_NODES_MAC, Icmp, Neighbour, OVERRIDE, SOLICITED, TARGET_ADDRESS,
            v6,
        },
        ipv6::{self, Ipv6},
        protocol,
    },
};

/// The hop limit that proves a packet to come from the link.
const ON_LINK: u8 = 255;

/// Length of an advertisement with its option, in bytes.
const LEN: u32 = size_of::<Neighbour>() as u32;

/// Where the MAC addresses lie in an ARP packet.
const SENDER_MAC: usize = 8;
const TARGET_MAC: usize = 18;

/// Answers an ARP request for a VIP that is announced here.
#[inline(always)]
pub(crate) fn arp<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    tags: &Tags,
    outcome: &mut Outcome,
) -> Reason {
    match answer_arp(packet, tables, ingress, tags, outcome) {
        Ok(()) => Reason::NeighbourAnswered,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_arp<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    tags: &Tags,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let offset = tags.ip_offset();
    let request = packet.at::<Arp>(offset).ok_or(Reason::NotIp)?;
    let is_request = request.hardware.get() == 1
        && request.protocol.get() == ethernet::IPV4
        && request.hardware_len == 6
        && request.protocol_len == 4
        && request.operation.get() == arp::REQUEST;
    let (sender, target) = (
        u32::from_be_bytes(request.sender),
        u32::from_be_bytes(request.target),
    );
    // Who asks for its own address announces it: that is no question.
    if !is_request || sender == target {
        return Err(Reason::NotIp);
    }
    let mac = announced(
        tables,
        ingress,
        Address::from_v4(request.target),
        Reason::NotIp,
        outcome,
    )?;
    // The sender's MAC address as numbers: copying bytes within the packet would be a call of memmove.
    let asker = packet
        .at::<[U16; 3]>(offset.wrapping_add(SENDER_MAC))
        .ok_or(Reason::NotIp)?;
    let asker = asker.map(zerocopy::U16::get);
    let reply = packet.at_mut::<Arp>(offset).ok_or(Reason::NotIp)?;
    reply.operation = arp::REPLY.into();
    reply.sender_mac = *mac;
    reply.sender = target.to_be_bytes();
    reply.target = sender.to_be_bytes();
    let target_mac = packet
        .at_mut::<[U16; 3]>(offset.wrapping_add(TARGET_MAC))
        .ok_or(Reason::NotIp)?;
    *target_mac = asker.map(U16::from);
    *packet.at_mut::<[U16; 3]>(0).ok_or(Reason::NotIp)? = asker.map(U16::from);
    packet.at_mut::<Ethernet>(0).ok_or(Reason::NotIp)?.source = *mac;
    Ok(())
}

/// Answers a neighbour solicitation for a VIP that is announced here.
#[inline(always)]
pub(crate) fn solicitation<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Reason {
    match answer_solicitation(packet, tables, ingress, network, outcome) {
        Ok(()) => Reason::NeighbourAnswered,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn answer_solicitation<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let offset = network.ip.tags.ip_offset();
    let start = network.payload.start;
    let hop_limit = packet
        .at::<Ipv6>(offset)
        .ok_or(Reason::Truncated)?
        .hop_limit;
    let code = packet.at::<Icmp>(start).ok_or(Reason::Truncated)?.code;
    let target = packet
        .at::<[u8; 16]>(start.wrapping_add(icmp::LEN))
        .ok_or(Reason::NotVip)?;
    let target = Address::from_v6(*target);
    let mac = announced(tables, ingress, target, Reason::NotVip, outcome)?;
    let len = network.payload.len;
    // RFC 4861, section 7.1.1. Longer ones have options that nobody sends; extension headers neither.
    let is_valid = hop_limit == ON_LINK
        && code == 0
        && (len == 24 || len == 32)
        && start == offset.wrapping_add(ipv6::LEN)
        && is_sound(packet, network, len).unwrap_or(false);
    if !is_valid {
        return Err(Reason::MalformedIcmp);
    }
    // An address probe (RFC 4862) has no source to answer to: all nodes are told.
    let asker = network.payload.source;
    let is_probe = asker == Address::default();
    let destination = if is_probe {
        Address::from_v6(ALL_NODES)
    } else {
        asker
    };

    let wanted = start.wrapping_add(LEN as usize);
    let grow = (wanted.wrapping_sub(packet.frame_len()) as u32).cast_signed();
    if grow != 0 && !packet.adjust_tail(grow) {
        return Err(Reason::NoHeadroom);
    }
    let ip = packet.at_mut::<Ipv6>(offset).ok_or(Reason::Truncated)?;
    ip.version_class_label = [0x60, 0, 0, 0];
    ip.payload_len = (LEN as u16).into();
    ip.hop_limit = ON_LINK;
    ip.source = target.octets();
    ip.destination = destination.octets();
    let answer_flags = if is_probe {
        OVERRIDE
    } else {
        OVERRIDE | SOLICITED
    };
    let sum = (u32::from(v6::ADVERTISEMENT) << 8)
        .wrapping_add(u32::from(answer_flags) << 8)
        .wrapping_add((u32::from(TARGET_ADDRESS) << 8) | 1)
        .wrapping_add(checksum::sum(mac))
        .wrapping_add(checksum::sum_address(target))
        .wrapping_add(checksum::sum_address(target))
        .wrapping_add(checksum::sum_address(destination))
        .wrapping_add(LEN)
        .wrapping_add(u32::from(protocol::ICMPV6));
    let answer = packet.at_mut::<Neighbour>(start).ok_or(Reason::Truncated)?;
    answer.icmp = Icmp {
        kind: v6::ADVERTISEMENT,
        code: 0,
        checksum: checksum::finish(sum),
        rest: [answer_flags, 0, 0, 0],
    };
    answer.target = target.octets();
    answer.option = TARGET_ADDRESS;
    answer.option_len = 1;
    answer.mac = *mac;
    rewrite::swap(packet).ok_or(Reason::Truncated)?;
    let header = packet.at_mut::<Ethernet>(0).ok_or(Reason::Truncated)?;
    header.source = *mac;
    if is_probe {
        header.destination = ALL_NODES_MAC;
    }
    Ok(())
}

/// Whether checksum and option of a solicitation are right.
#[inline(always)]
fn is_sound<P: Packet>(packet: &P, network: &Network, len: u32) -> Option<bool> {
    let payload = &network.payload;
    let mut sum = checksum::sum(packet.at::<[u8; 24]>(payload.start)?)
        .wrapping_add(checksum::sum_address(payload.source))
        .wrapping_add(checksum::sum_address(payload.destination))
        .wrapping_add(len)
        .wrapping_add(u32::from(protocol::ICMPV6));
    if len == 32 {
        let option = packet.at::<[u8; 8]>(payload.start.wrapping_add(24))?;
        let [_, option_len, ..] = *option;
        // A probe must not tell the asker's address (RFC 4861, section 7.1.1).
        if option_len != 1 || payload.source == Address::default() {
            return Some(false);
        }
        sum = sum.wrapping_add(checksum::sum(option));
    }
    Some(checksum::fold(sum) == 0xffff)
}

/// The MAC address to answer with, if `address` is a VIP's that is announced by L2 and one more answer is admitted.
#[inline(always)]
fn announced<'a, T: Tables>(
    tables: &'a T,
    ingress: u32,
    address: Address,
    otherwise: Reason,
    outcome: &mut Outcome,
) -> Result<&'a [u8; 6], Reason> {
    let vip = tables
        .vips()
        .and_then(|vips| vips.find_address(address))
        .ok_or(otherwise)?;
    if vip.flags & flags::ANNOUNCE_L2 == 0 {
        return Err(otherwise);
    }
    outcome.vip = vip.id;
    let interface = tables.interface(ingress).ok_or(Reason::TableMissing)?;
    if tables.admits(Limited::Neighbour) {
        Ok(&interface.mac)
    } else {
        Err(Reason::IcmpLimited)
    }
}
