//! Which slot, and so which backend, a packet is for.

use super::{Outcome, Step};
use crate::{
    access::{self, Access},
    flow::Flow,
    fragment::FragmentKey,
    packet::Packet,
    pin::{self, Idle},
    reason::Reason,
    slot::{NOBODY, Slot},
    tables::Tables,
    vip::{VipEntry, flags},
    wire::ethernet::Ethernet,
};

/// Where a packet is to go, before it goes there.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// The backend, where the slot is Stable; [`NOBODY`] where the VIP has none.
    pub(super) slot: Slot,
    /// The reason under which the packet is counted, if it gets there.
    pub(super) reason: Reason,
    /// Hash of the flow.
    pub(super) hash: u32,
    pub(super) is_syn: bool,
    /// [`flags`] of the VIP.
    pub(super) vip_flags: u32,
}

impl Choice {
    /// Whether there is nobody and nothing to ask: a Stable slot of a VIP without guards. By one comparison: a packet of which
    /// this is false may need no step all the same.
    #[inline(always)]
    pub(super) const fn is_plain(&self) -> bool {
        let Slot { current, previous } = self.slot;
        (self.vip_flags & flags::GUARDS) | (current ^ previous) as u32 == 0 && current != NOBODY
    }

    /// What must judge the packet before it goes on, of [`flags`].
    #[inline(always)]
    pub(super) const fn guards(&self) -> u32 {
        let not_this = if self.is_syn { 0 } else { flags::SYN_LIMITS };
        // Where there is nobody, it may be a peer's, who knows of backends.
        let nobodys = if self.slot.is_nobodys() {
            flags::NOBODYS
        } else {
            0
        };
        self.vip_flags & !not_this | nobodys
    }

    /// Whether access lists or limits must judge the packet first, or another node may have sent it.
    #[inline(always)]
    pub(super) const fn is_guarded(&self) -> bool {
        self.guards() & (flags::GUARDS | flags::NOBODYS) != 0
    }

    /// The step that a packet must take before it can go there.
    #[inline(always)]
    pub(super) const fn step(&self) -> Option<Step> {
        if self.is_guarded() {
            Some(Step::Guard)
        } else if self.slot.is_stable() {
            None
        } else {
            Some(Step::Pins)
        }
    }
}

/// A whole packet, or a first fragment: its slot, if it is a VIP's.
#[inline(always)]
pub(super) fn choose<T: Tables>(
    tables: &T,
    flow: &Flow,
    is_syn: bool,
    outcome: &mut Outcome,
) -> Result<Choice, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips.find(flow).ok_or(Reason::NotVip)?;
    let hash = hash(tables, flow, vip)?;
    let slot = slot(tables, vip, hash, outcome)?;
    Ok(Choice {
        slot,
        reason: Reason::Forwarded,
        hash,
        is_syn,
        vip_flags: vip.flags,
    })
}

/// A fragment without ports, and its packet's identification: to the backend of its first fragment, or by addresses alone.
#[inline(always)]
pub(super) fn later_fragment<T: Tables>(
    tables: &T,
    flow: &Flow,
    id: u32,
    outcome: &mut Outcome,
) -> Result<Choice, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips
        .find_without_port(flow.destination, flow.protocol as u8)
        .ok_or(Reason::NotVip)?;
    outcome.vip = vip.id;
    let hash = hash(tables, flow, vip)?;
    let (backend, reason) = match tables.fragment(&FragmentKey::new(flow, id)) {
        Some(backend) => (backend, Reason::Forwarded),
        // Without ports there is no flow to look up: to where flows without a pin are.
        None => (
            slot(tables, vip, hash, outcome)?.base(),
            Reason::FragmentOrphan,
        ),
    };
    Ok(Choice {
        slot: Slot::stable(backend),
        reason,
        hash,
        is_syn: false,
        vip_flags: vip.flags,
    })
}

/// An ICMP error about a VIP's flow: to the flow's backend. `flow` is as the client sends.
#[inline(always)]
pub(super) fn error_about<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    flow: &Flow,
    outcome: &mut Outcome,
) -> Result<Choice, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips.find(flow).ok_or(Reason::IcmpOther)?;
    outcome.vip = vip.id;
    if vip.flags & flags::SHARED != 0 && is_peers(packet, tables) {
        return Err(Reason::Peer);
    }
    let hash = hash(tables, flow, vip)?;
    let slot = slot(tables, vip, hash, outcome)?;
    if slot.is_nobodys() {
        return Err(Reason::NoBackend);
    }
    if vip.flags & flags::ACCESS != 0
        && let Access::Denied = access::judge(tables, vip.id, flow.source)
    {
        return Err(Reason::Denied);
    }
    let backend = if slot.is_stable() {
        slot.current
    } else {
        let idle: &Idle = tables.idle(vip.id).ok_or(Reason::TableMissing)?;
        pin::consult(tables, slot, idle, flow)
    };
    if backend == NOBODY {
        return Err(Reason::NoBackend);
    }
    Ok(Choice {
        slot: Slot::stable(backend),
        reason: Reason::IcmpError,
        hash,
        is_syn: false,
        // It has been judged by now.
        vip_flags: 0,
    })
}

#[inline(always)]
fn hash<T: Tables>(tables: &T, flow: &Flow, vip: &VipEntry) -> Result<u32, Reason> {
    let keys = tables.hash_keys().ok_or(Reason::TableMissing)?;
    Ok(vip.hash(keys, flow))
}

/// The slot of a VIP's flow.
#[inline(always)]
fn slot<T: Tables>(
    tables: &T,
    vip: &VipEntry,
    hash: u32,
    outcome: &mut Outcome,
) -> Result<Slot, Reason> {
    outcome.vip = vip.id;
    outcome.slot = hash & 0xffff;
    tables
        .slots(vip.id)
        .and_then(|table| table.get(hash))
        .ok_or(Reason::TableMissing)
}

/// Whether another node of the fleet has sent the frame.
#[inline(always)]
#[expect(
    clippy::many_single_char_names,
    reason = "the bytes of a MAC address: a copy of them would be a loop"
)]
pub(super) fn is_peers<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    packet.at::<Ethernet>(0).is_some_and(|frame| {
        let [a, b, c, d, e, f] = frame.source;
        tables.is_peer(&[a, b, c, d, e, f, 0, 0])
    })
}
