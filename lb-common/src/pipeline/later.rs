//! The steps that go on with a packet which an earlier one has [`Noted`].

use super::{Outcome, Step, choose::Choice, end, forward::send, guard::admit};
use crate::{
    noted::{Noted, flags},
    packet::Packet,
    parse::{FragmentOf, Parsed},
    pin::{self, Segment},
    reason::Reason,
    slot::{NOBODY, Slot},
    tables::Tables,
    wire::{protocol, tcp::Tcp},
};

/// Notes a packet for the step that goes on with it.
#[inline(always)]
pub(super) fn note<T: Tables>(
    tables: &T,
    parsed: &Parsed,
    part: Option<FragmentOf>,
    choice: &Choice,
    outcome: &Outcome,
) {
    tables.note(&noted(parsed, part, choice, outcome));
}

/// Notes a plain packet that has been judged.
#[inline(always)]
pub(super) fn note_judged<T: Tables>(
    tables: &T,
    parsed: &Parsed,
    choice: &Choice,
    outcome: &Outcome,
) {
    let mut noted = noted(parsed, None, choice, outcome);
    noted.flags |= flags::JUDGED;
    tables.note(&noted);
}

#[inline(always)]
fn noted(parsed: &Parsed, part: Option<FragmentOf>, choice: &Choice, outcome: &Outcome) -> Noted {
    let mut noted = Noted::new(parsed, part);
    noted.vip = outcome.vip;
    noted.hash = choice.hash;
    noted.slot = choice.slot;
    noted.vip_flags = choice.vip_flags;
    noted.flags |= flags::ORPHAN * u32::from(choice.reason as u32 == Reason::FragmentOrphan as u32);
    noted
}

/// The step for packets that are not plain, of VIPs with access lists or limits, or that other nodes of the fleet may send: judges
/// them, unless that has been done, before they may be remembered or forwarded.
#[inline(always)]
pub fn guard<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let judged = match tables.noted() {
        Some(noted) => guarded(packet, tables, ingress, &noted, &mut outcome),
        None => Err(Reason::TableMissing),
    };
    end(tables, judged, &mut outcome)
}

#[inline(always)]
fn guarded<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    noted: &Noted,
    outcome: &mut Outcome,
) -> Result<Option<Step>, Reason> {
    found(noted, outcome);
    if !noted.is(flags::JUDGED) {
        admit(packet, tables, &noted.parsed(), &choice(noted), noted.vip)?;
    }
    if !noted.slot.is_stable() {
        return Ok(Some(Step::Pins));
    }
    go_on(packet, tables, ingress, noted, noted.slot.current, outcome)
}

/// The step for packets of a flow whose slot changes hands: finds the backend by pins.
#[inline(always)]
pub fn pins<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let judged = match tables.noted() {
        Some(noted) => pinned(packet, tables, ingress, &noted, &mut outcome),
        None => Err(Reason::TableMissing),
    };
    end(tables, judged, &mut outcome)
}

#[inline(always)]
fn pinned<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    noted: &Noted,
    outcome: &mut Outcome,
) -> Result<Option<Step>, Reason> {
    found(noted, outcome);
    let idle = tables.idle(noted.vip).ok_or(Reason::TableMissing)?;
    let parsed = noted.parsed();
    let segment = segment(packet, &parsed)?;
    // Not the hash that chose the slot, which another affinity would change.
    let keys = tables.hash_keys().ok_or(Reason::TableMissing)?;
    let hash = keys.hash(&parsed.flow);
    let backend = pin::route(tables, noted.slot, idle, (&parsed.flow, hash), segment);
    if backend == NOBODY {
        return Err(Reason::NoBackend);
    }
    go_on(packet, tables, ingress, noted, backend, outcome)
}

#[inline(always)]
fn found(noted: &Noted, outcome: &mut Outcome) {
    outcome.vip = noted.vip;
    outcome.slot = noted.slot_number();
}

/// Sends a packet to its backend.
#[inline(always)]
fn go_on<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    noted: &Noted,
    backend: u16,
    outcome: &mut Outcome,
) -> Result<Option<Step>, Reason> {
    let choice = Choice {
        slot: Slot::stable(backend),
        ..choice(noted)
    };
    send(
        packet,
        tables,
        ingress,
        &noted.parsed(),
        noted.part(),
        &choice,
        outcome,
    )
}

/// What was chosen for a noted packet.
#[inline(always)]
fn choice(noted: &Noted) -> Choice {
    Choice {
        slot: noted.slot,
        reason: if noted.is(flags::ORPHAN) {
            Reason::FragmentOrphan
        } else {
            Reason::Forwarded
        },
        hash: noted.hash,
        is_syn: noted.parsed().is_syn,
        vip_flags: noted.vip_flags,
    }
}

/// What the pins want to know of a payload.
#[inline(always)]
fn segment<P: Packet>(packet: &P, parsed: &Parsed) -> Result<Segment, Reason> {
    if parsed.flow.protocol != u32::from(protocol::TCP) {
        return Ok(Segment::default());
    }
    // The verifier wants a bound; no header begins beyond it.
    let start = parsed.start & 0x3fff;
    let tcp = packet.at::<Tcp>(start).ok_or(Reason::Truncated)?;
    Ok(Segment {
        sequence: u32::from_be_bytes(tcp.sequence),
        control: u32::from(tcp.flags),
    })
}
