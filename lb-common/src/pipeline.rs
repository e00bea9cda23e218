//! The packet's way, on one screen: parse → VIP → slot → backend → rewrite → count.

use crate::{
    backend,
    flow::Flow,
    packet::Packet,
    parse,
    reason::{Reason, Verdict},
    rewrite,
    slot::NOBODY,
    tables::Tables,
    vip::{self, VipKey},
};

/// What became of a packet, and why.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Why; tells the verdict.
    pub reason: Reason,
    /// The interface to leave by, where the verdict is [`Verdict::Redirect`].
    pub ifindex: u32,
}

/// Judges a packet, rewrites it where it is to be forwarded, and counts it once under its reason.
///
/// `ingress` is the interface by which it came.
#[inline(always)]
pub fn run<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let outcome = match forward(packet, tables, ingress) {
        Ok(outcome) => outcome,
        Err(reason) => Outcome { reason, ifindex: 0 },
    };
    tables.count_reason(outcome.reason);
    outcome
}

#[inline(always)]
fn forward<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
) -> Result<Outcome, Reason> {
    let parsed = parse::parse(packet)?;
    let flow = &parsed.flow;

    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips
        .find(&VipKey::new(
            flow.destination,
            flow.destination_port,
            flow.protocol,
        ))
        .ok_or(Reason::NotVip)?;

    let node = tables.node().ok_or(Reason::TableMissing)?;
    let hash = node.hash_keys.hash(&hashed_flow(flow, vip.flags));
    let slot = tables
        .slots(vip.id)
        .and_then(|table| table.get(hash))
        .ok_or(Reason::TableMissing)?;
    if slot.current == NOBODY {
        return Err(Reason::NoBackend);
    }

    let backend = tables.backend(slot.current).ok_or(Reason::TableMissing)?;
    if backend.mode != backend::mode::L2 {
        return Err(Reason::TableMissing);
    }
    if !backend.is_resolved() {
        return Err(Reason::NoNextHop);
    }
    let reason = if backend.ifindex == ingress {
        Reason::Forwarded
    } else if tables.has_port(backend.ifindex) {
        Reason::Redirected
    } else {
        return Err(Reason::NoPort);
    };

    rewrite::ethernet(packet, backend).ok_or(Reason::Truncated)?;
    tables.count_vip(vip.id, parsed.frame_len, parsed.is_syn);
    tables.count_backend(slot.current, parsed.frame_len, parsed.is_syn);
    Ok(Outcome {
        reason,
        ifindex: backend.ifindex,
    })
}

/// What is hashed of a flow: all of it, or the source address alone.
#[inline(always)]
const fn hashed_flow(flow: &Flow, flags: u32) -> Flow {
    if flags & vip::flags::AFFINITY_SOURCE == 0 {
        return *flow;
    }
    Flow {
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: 0,
        ..*flow
    }
}

impl Outcome {
    /// What becomes of the packet.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}
