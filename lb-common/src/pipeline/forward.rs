//! Sends a packet to its backend.

use super::{Outcome, Step, choose::Choice};
use crate::{
    backend::{
        self, Backend,
        mode::{GUE, IPIP},
    },
    encap::{self, Inner},
    fragment::FragmentKey,
    packet::Packet,
    parse::{FragmentOf, Ip, Parsed, Tags},
    reason::Reason,
    rewrite,
    tables::{Answer, Tables},
};

/// Sends a whole packet, or a first fragment, which the later ones then follow; or a later one.
///
/// Returns the step that must take over.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    parsed: &Parsed,
    part: Option<FragmentOf>,
    choice: &Choice,
    outcome: &mut Outcome,
) -> Result<Option<Step>, Reason> {
    let is_later = part.is_some_and(|part| !part.is_first);
    let sent = forward(packet, tables, ingress, &parsed.ip, choice, outcome);
    match sent {
        Err(Reason::TooBig) if !is_later => {
            tables.set_answer(&Answer {
                vip: outcome.vip,
                mtu: outcome.mtu,
            });
            return Ok(Some(Step::Answer));
        }
        Ok(()) | Err(Reason::Local) => {}
        Err(reason) => return Err(reason),
    }
    if let Some(part) = part.filter(|part| part.is_first) {
        let key = FragmentKey::new(&parsed.flow, part.id);
        tables.pin_fragment(&key, outcome.backend);
    }
    sent.map(|()| None)
}

/// Sends the packet to a backend: rewritten or encapsulated, by the interface that leads there. Counts it.
///
/// [`Reason::TooBig`] leaves it untouched, and the MTU that would fit in the outcome.
#[inline(always)]
pub(super) fn forward<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    ip: &Ip,
    choice: &Choice,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let id = choice.slot.current;
    let backend = tables.backend(id).ok_or(Reason::TableMissing)?;
    outcome.backend = id;
    if !backend.is_resolved() {
        if backend.mode == 0 {
            return Err(Reason::TableMissing);
        }
        if !backend.is_local() {
            return Err(Reason::NoNextHop);
        }
        tables.count_forwarded(
            u32::from(backend.vip),
            id,
            u64::from(ip.frame_len),
            choice.is_syn,
        );
        return Err(Reason::Local);
    }
    let is_redirect = backend.ifindex != ingress;
    if is_redirect && !tables.has_port(backend.ifindex) {
        return Err(Reason::NoPort);
    }
    // Untagged frames and ways are the common case: all offsets are constants there.
    if (ip.tags.count | u32::from(backend.flags & backend::flags::VLANS_SET)) != 0 {
        let tags = rewrite::tags(backend, ip.tags, is_redirect);
        wrap(packet, ip, choice.hash, backend, &tags, outcome)?;
    } else if backend.mode == backend::mode::L2 {
        rewrite::addresses(packet, backend).ok_or(Reason::Truncated)?;
    } else {
        let is_v4 = backend.is_outer_v4();
        // Each pair by itself, so that the compiler knows what it writes.
        match (backend.mode == GUE, is_v4) {
            (false, true) => push(packet, ip, choice.hash, backend, (IPIP, true), outcome),
            (false, false) => push(packet, ip, choice.hash, backend, (IPIP, false), outcome),
            (true, true) => push(packet, ip, choice.hash, backend, (GUE, true), outcome),
            (true, false) => push(packet, ip, choice.hash, backend, (GUE, false), outcome),
        }?;
    }
    outcome.reason = choice.reason;
    outcome.is_redirect = is_redirect;
    outcome.ifindex = backend.ifindex;
    tables.count_forwarded(
        u32::from(backend.vip),
        id,
        u64::from(ip.frame_len),
        choice.is_syn,
    );
    Ok(())
}

/// Puts outer headers of a mode and a family before the packet of an untagged frame.
#[inline(always)]
fn push<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    hash: u32,
    backend: &Backend,
    (mode, is_v4): (u8, bool),
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let overhead = encap::overhead_of(mode, is_v4) as u32;
    fits(ip, backend, overhead, outcome)?;
    let inner = Inner::new(ip, hash);
    if !packet.adjust_head(overhead.cast_signed().wrapping_neg()) {
        return Err(Reason::NoHeadroom);
    }
    encap::write_untagged(packet, backend, (mode, is_v4), ip, &inner, hash).ok_or(Reason::Truncated)
}

/// Whether the packet fits the way to the backend with its outer headers; else what would.
#[inline(always)]
fn fits(ip: &Ip, backend: &Backend, overhead: u32, outcome: &mut Outcome) -> Result<(), Reason> {
    let mtu = u32::from(backend.mtu);
    if ip.len.wrapping_add(overhead) <= mtu {
        return Ok(());
    }
    outcome.mtu = mtu.saturating_sub(overhead);
    Err(Reason::TooBig)
}

/// Gives the frame other tags, and puts outer headers before the packet where the backend's mode wants them.
#[inline(always)]
pub(crate) fn wrap<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    hash: u32,
    backend: &Backend,
    tags: &Tags,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let overhead = encap::overhead(backend);
    if overhead != 0 {
        fits(ip, backend, overhead as u32, outcome)?;
    }
    let inner = Inner::new(ip, hash);
    let grow = tags
        .ip_offset()
        .wrapping_add(overhead)
        .wrapping_sub(ip.tags.ip_offset());
    if grow != 0 && !packet.adjust_head((grow as u32).cast_signed().wrapping_neg()) {
        return Err(Reason::NoHeadroom);
    }
    rewrite::link(packet, backend, tags, encap::ether_type(backend, ip.is_v6))
        .ok_or(Reason::Truncated)?;
    if overhead != 0 {
        encap::write(packet, tags.ip_offset(), backend, ip, &inner, hash)
            .ok_or(Reason::Truncated)?;
    }
    Ok(())
}
