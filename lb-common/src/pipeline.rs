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
    parse::{self, Ip, Parsed},
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

/// Judges a packet, rewrites it where it is to leave, and counts it once under its reason.
///
/// `ingress` is the interface by which it came.
#[inline(always)]
pub fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let mut outcome = Outcome::UNKNOWN;
    let result = match parse::plain(packet) {
        Some(parsed) => flow(packet, tables, ingress, &parsed, &mut outcome),
        None => {
            unusual(packet, tables, ingress, &mut outcome);
            Ok(outcome.reason)
        }
    };
    outcome.reason = either(result);
    tables.count_outcome(&outcome);
    outcome
}

#[inline(always)]
fn either(result: Result<Reason, Reason>) -> Reason {
    match result {
        Ok(reason) | Err(reason) => reason,
    }
}

/// A packet of a flow: to the backend of its slot, if it is a VIP's.
#[inline(always)]
fn flow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    parsed: &Parsed,
    outcome: &mut Outcome,
) -> Result<Reason, Reason> {
    let flow = &parsed.flow;
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let Some(vip) = vips.find(&VipKey::new(
        flow.destination,
        flow.destination_port,
        flow.protocol,
    )) else {
        if icmp::is_traceroute(flow) {
            icmp::traceroute(packet, tables, &parsed.ip, flow, outcome);
            return Ok(outcome.reason);
        }
        return Err(Reason::NotVip);
    };
    let way = Way {
        ingress,
        hash: hash(tables, flow, vip)?,
        is_syn: parsed.is_syn,
        may_answer: true,
    };
    let id = slot(tables, vip, way.hash, outcome)?;
    forward(packet, tables, &way, &parsed.ip, id, outcome)?;
    Ok(Reason::Forwarded)
}

/// Everything that [`parse::plain`] leaves. The reason goes to `outcome`.
#[inline(never)]
fn unusual<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32, outcome: &mut Outcome) {
    outcome.reason = either(judge_unusual(packet, tables, ingress, outcome));
}

#[inline(always)]
fn judge_unusual<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    outcome: &mut Outcome,
) -> Result<Reason, Reason> {
    let (tags, ether_type) = parse::link(packet)?;
    let is_v6 = match ether_type {
        ethernet::ARP => return neighbour::arp(packet, tables, ingress, &tags, outcome),
        ethernet::IPV4 => false,
        ethernet::IPV6 => true,
        _ => return Err(Reason::NotIp),
    };
    let network = parse::network(packet, tags, is_v6)?;
    let payload = &network.payload;
    match network.fragment {
        Some(part) if !part.is_first => {
            let key = fragment::key(payload, part.id);
            return later_fragment(packet, tables, ingress, &network.ip, &key, outcome);
        }
        None if payload.protocol == protocol::ICMP && !is_v6 => {
            return icmp::v4(packet, tables, ingress, &network, outcome);
        }
        None if payload.protocol == protocol::ICMPV6 && is_v6 => {
            return icmp::v6(packet, tables, ingress, &network, outcome);
        }
        _ => {}
    }
    let transport = payload.transport(packet, network.fragment.is_none())?;
    let parsed = payload.parsed(network.ip, &transport);
    let reason = flow(packet, tables, ingress, &parsed, outcome)?;
    if let Some(part) = network.fragment
        && outcome.backend != NOBODY
    {
        tables.pin_fragment(&fragment::key(payload, part.id), outcome.backend);
    }
    Ok(reason)
}

/// A fragment without ports: to the backend of its first fragment, or by addresses alone.
#[inline(always)]
fn later_fragment<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    ip: &Ip,
    key: &FragmentKey,
    outcome: &mut Outcome,
) -> Result<Reason, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips
        .find_without_port(key.destination, key.protocol)
        .ok_or(Reason::NotVip)?;
    outcome.vip = vip.id;
    let way = Way {
        ingress,
        hash: hash(tables, &key.flow(), vip)?,
        is_syn: false,
        may_answer: false,
    };
    let (id, reason) = match tables.fragment(key) {
        Some(id) => (id, Reason::Forwarded),
        None => (
            slot(tables, vip, way.hash, outcome)?,
            Reason::FragmentOrphan,
        ),
    };
    forward(packet, tables, &way, ip, id, outcome)?;
    Ok(reason)
}

/// An ICMP error about a VIP's flow: to the flow's backend. `flow` is as the client sends.
#[inline(always)]
pub(crate) fn error_about<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    ip: &Ip,
    flow: &Flow,
    outcome: &mut Outcome,
) -> Result<Reason, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol);
    let vip = vips.find(&key).ok_or(Reason::IcmpOther)?;
    let way = Way {
        ingress,
        hash: hash(tables, flow, vip)?,
        is_syn: false,
        may_answer: false,
    };
    let id = slot(tables, vip, way.hash, outcome)?;
    if !tables.admits_icmp() {
        return Err(Reason::IcmpLimited);
    }
    forward(packet, tables, &way, ip, id, outcome)?;
    Ok(Reason::IcmpError)
}

#[inline(always)]
fn hash<T: Tables>(tables: &T, flow: &Flow, vip: &VipEntry) -> Result<u32, Reason> {
    let node = tables.node().ok_or(Reason::TableMissing)?;
    if vip.flags & vip::flags::AFFINITY_SOURCE == 0 {
        return Ok(node.hash_keys.hash(flow));
    }
    // The source address alone, so that all flows of a client reach one backend.
    let source = Flow {
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: 0,
        ..*flow
    };
    Ok(node.hash_keys.hash(&source))
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

/// What forwarding needs to know of a packet besides its IP header.
struct Way {
    ingress: u32,
    hash: u32,
    is_syn: bool,
    /// Whether the sender may be told that the packet is too big.
    may_answer: bool,
}

/// Sends the packet to a backend: rewritten or encapsulated, by the interface that leads there. Counts it.
#[inline(always)]
fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    way: &Way,
    ip: &Ip,
    id: u16,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let backend = tables.backend(id).ok_or(Reason::TableMissing)?;
    outcome.backend = id;
    if backend.mode == 0 {
        return Err(Reason::TableMissing);
    }
    if !backend.is_resolved() {
        return Err(Reason::NoNextHop);
    }
    if backend.ifindex != way.ingress {
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
    } else if let Err(reason) = wrap(packet, tables, way, ip, backend, outcome.is_redirect) {
        // What goes back to the sender leaves by the interface by which it came.
        outcome.is_redirect = false;
        return Err(reason);
    }
    tables.count_vip(u32::from(backend.vip), u64::from(ip.frame_len), way.is_syn);
    tables.count_backend(id, u64::from(ip.frame_len), way.is_syn);
    Ok(())
}

/// Changes the frame's tags, and puts outer headers before the packet where the backend's mode wants them.
#[inline(always)]
fn wrap<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    way: &Way,
    ip: &Ip,
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
            way.may_answer,
        ));
    }
    let tags = rewrite::tags(backend, ip.tags, is_redirect);
    let inner = encap::inner(packet, ip, way.hash).ok_or(Reason::Truncated)?;
    let grow = tags
        .ip_offset()
        .wrapping_add(overhead)
        .wrapping_sub(ip.tags.ip_offset());
    if grow != 0 && !packet.adjust_head((grow as i32).wrapping_neg()) {
        return Err(Reason::NoHeadroom);
    }
    rewrite::link(packet, backend, &tags, encap::ether_type(backend, ip.is_v6))
        .ok_or(Reason::Truncated)?;
    if overhead != 0 {
        encap::write(packet, tags.ip_offset(), backend, ip, &inner, way.hash)
            .ok_or(Reason::Truncated)?;
    }
    Ok(())
}
