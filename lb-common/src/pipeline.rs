//! The packet's way, on one screen: parse → VIP → slot → backend → forward → count.
//!
//! Plain packets of a flow are judged inline; whatever is unusual (tags, options, extension headers, fragments,
//! ICMP, ARP, packets too big) is judged by functions of their own, so that the common case stays small.

use crate::{
    backend::{self, Backend},
    encap,
    flow::Flow,
    fragment::{self, FragmentKey},
    icmp, neighbour,
    packet::Packet,
    parse::{self, Ip, Network, Parsed},
    reason::{Reason, Verdict},
    rewrite,
    slot::NOBODY,
    tables::Tables,
    vip::{self, VipEntry, VipKey},
    wire::{ethernet, protocol},
};

/// What became of a packet, and why.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Why; tells the verdict.
    pub reason: Reason,
    /// Whether the frame leaves by [`Self::ifindex`] instead of the interface by which it came.
    pub is_redirect: bool,
    /// The backend that was chosen; [`NOBODY`] for none.
    pub backend: u16,
    /// The interface to leave by, where that is another.
    pub ifindex: u32,
    /// The VIP's id, or [`NO_VIP`].
    pub vip: u32,
    /// The slot that the flow hashed to, or [`NO_SLOT`].
    pub slot: u32,
}

/// [`Outcome::vip`] of a packet that is for no VIP, or was not followed that far.
pub const NO_VIP: u32 = u32::MAX;

/// [`Outcome::slot`] of a packet whose slot was not looked at.
pub const NO_SLOT: u32 = u32::MAX;

impl Outcome {
    const UNKNOWN: Self = Self {
        reason: Reason::NotVip,
        is_redirect: false,
        backend: NOBODY,
        ifindex: 0,
        vip: NO_VIP,
        slot: NO_SLOT,
    };

    /// What becomes of the packet; [`Verdict::Forward`] is a redirect where [`Self::is_redirect`] says so.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

/// Where a packet is to go, before it goes there.
pub(crate) struct Choice {
    /// The backend.
    pub(crate) backend: u16,
    /// The reason under which the packet is counted, if it gets there.
    pub(crate) reason: Reason,
    /// Hash of the flow.
    pub(crate) hash: u32,
    pub(crate) is_syn: bool,
    /// Whether the sender may be told that the packet is too big.
    pub(crate) may_answer: bool,
}

/// What is still to be done about a packet.
pub(crate) enum Next {
    /// Nothing: it was answered.
    Done(Reason),
    /// It goes to a backend.
    Forward(Choice),
}

/// Judges a packet, rewrites it where it is to leave, and counts it once under its reason.
///
/// `ingress` is the interface by which it came.
#[inline(always)]
pub fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let mut outcome = Outcome::UNKNOWN;
    match parse::plain(packet) {
        Some(parsed) => {
            let next = flow(packet, tables, &parsed, &mut outcome);
            finish(packet, tables, ingress, &parsed.ip, next, &mut outcome);
        }
        None => unusual(packet, tables, ingress, &mut outcome),
    }
    tables.count_outcome(&outcome);
    outcome
}

/// Everything that [`parse::plain`] leaves.
#[inline(never)]
fn unusual<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32, outcome: &mut Outcome) {
    let judged = parse::link(packet).and_then(|(tags, ether_type)| match ether_type {
        ethernet::IPV4 => parse::network(packet, tags, false),
        ethernet::IPV6 => parse::network(packet, tags, true),
        ethernet::ARP => Err(neighbour::arp(packet, tables, ingress, &tags, outcome)),
        _ => Err(Reason::NotIp),
    });
    match judged {
        Ok(network) => {
            let next = unusual_ip(packet, tables, ingress, &network, outcome);
            finish(packet, tables, ingress, &network.ip, next, outcome);
            if let Some(part) = network.fragment
                && part.is_first
                && outcome.reason == Reason::Forwarded
            {
                tables.pin_fragment(&fragment::key(&network.payload, part.id), outcome.backend);
            }
        }
        Err(reason) => outcome.reason = reason,
    }
}

#[inline(always)]
fn unusual_ip<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Next, Reason> {
    let payload = &network.payload;
    match (network.fragment, payload.protocol) {
        (Some(part), _) if !part.is_first => {
            return later_fragment(tables, &fragment::key(payload, part.id), outcome);
        }
        (None, protocol::ICMP) if !network.ip.is_v6 => {
            return icmp::v4(packet, tables, network, outcome);
        }
        (None, protocol::ICMPV6) if network.ip.is_v6 => {
            return icmp::v6(packet, tables, ingress, network, outcome);
        }
        _ => {}
    }
    let transport = payload.transport(packet, network.fragment.is_none())?;
    flow(
        packet,
        tables,
        &payload.parsed(network.ip, &transport),
        outcome,
    )
}

/// A packet of a flow: to the backend of its slot, if it is a VIP's.
#[inline(always)]
fn flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed,
    outcome: &mut Outcome,
) -> Result<Next, Reason> {
    let flow = &parsed.flow;
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let Some(vip) = vips.find(&VipKey::new(
        flow.destination,
        flow.destination_port,
        flow.protocol as u8,
    )) else {
        if icmp::is_traceroute(flow) {
            return icmp::traceroute(packet, tables, &parsed.ip, flow, outcome)
                .map_or(Err(Reason::NotVip), |reason| Ok(Next::Done(reason)));
        }
        return Err(Reason::NotVip);
    };
    let hash = hash(tables, flow, vip)?;
    let backend = slot(tables, vip, hash, outcome)?;
    Ok(Next::Forward(Choice {
        backend,
        reason: Reason::Forwarded,
        hash,
        is_syn: parsed.is_syn,
        may_answer: true,
    }))
}

/// A fragment without ports: to the backend of its first fragment, or by addresses alone.
#[inline(always)]
fn later_fragment<T: Tables>(
    tables: &T,
    key: &FragmentKey,
    outcome: &mut Outcome,
) -> Result<Next, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips
        .find_without_port(key.destination, key.protocol as u8)
        .ok_or(Reason::NotVip)?;
    outcome.vip = vip.id;
    let hash = hash(tables, &key.flow(), vip)?;
    let (backend, reason) = match tables.fragment(key) {
        Some(backend) => (backend, Reason::Forwarded),
        None => (slot(tables, vip, hash, outcome)?, Reason::FragmentOrphan),
    };
    Ok(Next::Forward(Choice {
        backend,
        reason,
        hash,
        is_syn: false,
        may_answer: false,
    }))
}

/// An ICMP error about a VIP's flow: to the flow's backend. `flow` is as the client sends.
#[inline(always)]
pub(crate) fn error_about<T: Tables>(
    tables: &T,
    flow: &Flow,
    outcome: &mut Outcome,
) -> Result<Next, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol as u8);
    let vip = vips.find(&key).ok_or(Reason::IcmpOther)?;
    let hash = hash(tables, flow, vip)?;
    let backend = slot(tables, vip, hash, outcome)?;
    if !tables.admits_icmp() {
        return Err(Reason::IcmpLimited);
    }
    Ok(Next::Forward(Choice {
        backend,
        reason: Reason::IcmpError,
        hash,
        is_syn: false,
        may_answer: false,
    }))
}

#[inline(always)]
fn hash<T: Tables>(tables: &T, flow: &Flow, vip: &VipEntry) -> Result<u32, Reason> {
    let node = tables.node().ok_or(Reason::TableMissing)?;
    if vip.flags & vip::flags::AFFINITY_SOURCE == 0 {
        return Ok(node.hash_keys.hash(flow));
    }
    // The source address alone, so that all flows of a client reach one backend.
    Ok(node.hash_keys.hash(&Flow {
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: 0,
        ..*flow
    }))
}

/// The backend that serves a VIP's flow.
#[inline(always)]
fn slot<T: Tables>(
    tables: &T,
    vip: &VipEntry,
    hash: u32,
    outcome: &mut Outcome,
) -> Result<u16, Reason> {
    outcome.vip = vip.id;
    outcome.slot = hash & 0xffff;
    let slot = tables
        .slots(vip.id)
        .and_then(|table| table.get(hash))
        .ok_or(Reason::TableMissing)?;
    if slot.current == NOBODY {
        Err(Reason::NoBackend)
    } else {
        Ok(slot.current)
    }
}

/// Does what is still to be done, and notes the reason.
#[inline(always)]
fn finish<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    ip: &Ip,
    next: Result<Next, Reason>,
    outcome: &mut Outcome,
) {
    outcome.reason = match next {
        Ok(Next::Forward(choice)) => match forward(packet, tables, ingress, ip, &choice, outcome) {
            Ok(()) => choice.reason,
            Err(reason) => {
                // What goes back to the sender leaves by the interface by which it came.
                outcome.is_redirect = false;
                reason
            }
        },
        Ok(Next::Done(reason)) | Err(reason) => reason,
    };
}

/// Sends the packet to a backend: rewritten or encapsulated, by the interface that leads there. Counts it.
#[inline(always)]
fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    ip: &Ip,
    choice: &Choice,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let id = choice.backend;
    let backend = tables.backend(id).ok_or(Reason::TableMissing)?;
    outcome.backend = id;
    if backend.mode == 0 {
        return Err(Reason::TableMissing);
    }
    if !backend.is_resolved() {
        return Err(Reason::NoNextHop);
    }
    if backend.ifindex != ingress {
        if !tables.has_port(backend.ifindex) {
            return Err(Reason::NoPort);
        }
        outcome.is_redirect = true;
        outcome.ifindex = backend.ifindex;
    }
    if backend.mode == backend::mode::L2
        && (ip.tags.count | u32::from(backend.flags & backend::flags::VLANS_SET)) == 0
    {
        rewrite::addresses(packet, backend).ok_or(Reason::Truncated)?;
    } else {
        wrap(packet, tables, ip, choice, backend, outcome.is_redirect)?;
    }
    tables.count_vip(
        u32::from(backend.vip),
        u64::from(ip.frame_len),
        choice.is_syn,
    );
    tables.count_backend(id, u64::from(ip.frame_len), choice.is_syn);
    Ok(())
}

/// Changes the frame's tags, and puts outer headers before the packet where the backend's mode wants them.
#[inline(always)]
fn wrap<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ip: &Ip,
    choice: &Choice,
    backend: &Backend,
    is_redirect: bool,
) -> Result<(), Reason> {
    let overhead = encap::overhead(backend);
    let mtu = u32::from(backend.mtu);
    if overhead != 0 && ip.len.wrapping_add(overhead as u32) > mtu {
        return Err(icmp::too_big(
            packet,
            tables,
            ip,
            mtu.saturating_sub(overhead as u32),
            choice.may_answer,
        ));
    }
    let tags = rewrite::tags(backend, ip.tags, is_redirect);
    let inner = encap::inner(packet, ip, choice.hash).ok_or(Reason::Truncated)?;
    let grow = tags
        .ip_offset()
        .wrapping_add(overhead)
        .wrapping_sub(ip.tags.ip_offset());
    if grow != 0 && !packet.adjust_head((grow as u32).cast_signed().wrapping_neg()) {
        return Err(Reason::NoHeadroom);
    }
    rewrite::link(packet, backend, &tags, encap::ether_type(backend, ip.is_v6))
        .ok_or(Reason::Truncated)?;
    if overhead != 0 {
        encap::write(packet, tags.ip_offset(), backend, ip, &inner, choice.hash)
            .ok_or(Reason::Truncated)?;
    }
    Ok(())
}
