//! The packet's way, on one screen: parse → VIP → limits → slot → backend → forward → count.
//!
//! Plain packets of a flow are judged inline; whatever is unusual (tags, options, extension headers, fragments,
//! ICMP, ARP, answers, access lists and limits, slots that change hands) is judged by functions of their own, so that the common case
//! stays small.

mod choose;
mod forward;
mod guard;
mod later;

use choose::{choose, error_about, later_fragment};
pub(crate) use forward::wrap;
use forward::{forward, send};
pub use later::{guard, pins};
use later::{note, note_judged};

use crate::{
    icmp, neighbour,
    packet::Packet,
    parse::{self, Network, Parsed, Payload, Transport},
    reason::{Reason, Verdict},
    slot::NOBODY,
    tables::{Answer, Limited, Tables},
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
    /// The interface that leads to the backend.
    pub ifindex: u32,
    /// Of a packet that is too big: the largest IP packet that can be encapsulated, in bytes.
    pub mtu: u32,
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
    pub(crate) const UNKNOWN: Self = Self {
        reason: Reason::NotVip,
        is_redirect: false,
        backend: NOBODY,
        ifindex: 0,
        mtu: 0,
        vip: NO_VIP,
        slot: NO_SLOT,
    };

    /// What becomes of the packet; [`Verdict::Forward`] is a redirect where [`Self::is_redirect`] says so.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        self.reason.verdict()
    }
}

/// What a step leaves to a later one, untouched and not counted.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing: the packet is on its way to a backend, and has been counted.
    Sent(Outcome),
    /// Nothing: the outcome has been counted.
    Done(Outcome),
    /// Whatever is not plain, to [`unusual`].
    Unusual,
    /// ICMP and ARP, to [`message`].
    Message,
    /// A packet that is to be answered with an ICMP error, to [`answer`].
    Answer,
    /// A packet that is not plain, of a VIP with access lists or limits, or that another node may have sent, to [`guard`]; and a
    /// plain one that has been judged, but cannot be sent.
    Guard,
    /// A packet of a flow whose slot changes hands, to [`pins`].
    Pins,
}

/// Judges a packet, rewrites it where it is to leave, and counts it once under its reason.
///
/// `ingress` is the interface by which it came. In the kernel the steps are programs of their own, each with its
/// own stack and its own share of the verifier's patience.
pub fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let mut step = plain(packet, tables, ingress);
    loop {
        step = match step {
            Step::Sent(outcome) | Step::Done(outcome) => return outcome,
            Step::Unusual => unusual(packet, tables, ingress),
            Step::Message => Step::Done(message(packet, tables, ingress)),
            Step::Answer => Step::Done(answer(packet, tables)),
            Step::Guard => guard(packet, tables, ingress),
            Step::Pins => pins(packet, tables, ingress),
        };
    }
}

/// The first step: plain packets that are to be forwarded or to pass.
///
/// Each family has a way of its own, so that whatever depends on the family is settled when the program is compiled.
#[inline(always)]
pub fn plain<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    match parse::ether_type(packet) {
        Some(ethernet::IPV4) => whole(packet, tables, ingress, parse::plain_v4),
        Some(ethernet::IPV6) => whole(packet, tables, ingress, parse::plain_v6),
        _ => Step::Unusual,
    }
}

/// A plain packet of either family: judged where it must be, and sent where its slot is Stable.
///
/// What cannot be sent is left to a later step, which finds the same reason: so the way of what can knows of none.
#[inline(always)]
fn whole<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    parse: impl Fn(&P) -> Option<Parsed>,
) -> Step {
    let Some(parsed) = parse(packet) else {
        return Step::Unusual;
    };
    let mut outcome = Outcome::UNKNOWN;
    let choice = match choose(tables, &parsed.flow, parsed.is_syn, &mut outcome) {
        Ok(choice) => choice,
        Err(Reason::NotVip) if !icmp::is_traceroute(&parsed.flow) => {
            return end(tables, Err(Reason::NotVip), &mut outcome);
        }
        Err(_) => return Step::Unusual,
    };
    if !choice.is_plain() {
        if choice.is_guarded()
            && let Err(reason) = guard::admit(packet, tables, &parsed, &choice, outcome.vip)
        {
            return end(tables, Err(reason), &mut outcome);
        }
        if !choice.slot.is_stable() {
            note(tables, &parsed, None, &choice, &outcome);
            return Step::Pins;
        }
    }
    match forward(packet, tables, ingress, &parsed.ip, &choice, &mut outcome) {
        Ok(()) => end(tables, Ok(None), &mut outcome),
        // Has been counted as forwarded.
        Err(Reason::Local) => end(tables, Err(Reason::Local), &mut outcome),
        // Parsed again, so that what of it is noted need not be kept for this by all packets.
        Err(_) => match parse(packet) {
            Some(parsed) => {
                note_judged(tables, &parsed, &choice, &outcome);
                Step::Guard
            }
            None => Step::Unusual,
        },
    }
}

/// The second step: tags, options, extension headers and fragments.
#[inline(always)]
pub fn unusual<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let judged = match network(packet) {
        Ok(network) if is_message(&network) => return Step::Message,
        // What is not IP may be ARP.
        Err(Reason::NotIp) => return Step::Message,
        Ok(network) => transport(packet, tables, ingress, &network, &mut outcome),
        Err(reason) => Err(reason),
    };
    end(tables, judged, &mut outcome)
}

/// Ends a step: counts the packet, unless another step goes on with it.
#[inline(always)]
fn end<T: Tables>(tables: &T, judged: Result<Option<Step>, Reason>, outcome: &mut Outcome) -> Step {
    match judged {
        Ok(Some(step)) => step,
        Ok(None) => {
            tables.count_outcome(outcome);
            Step::Sent(*outcome)
        }
        Err(reason) => {
            stop(tables, reason, outcome);
            tables.count_outcome(outcome);
            Step::Done(*outcome)
        }
    }
}

/// Ends a packet's way before a backend; what is dropped is counted for its VIP, which packets that are forwarded pay
/// nothing for.
#[inline(always)]
fn stop<T: Tables>(tables: &T, reason: Reason, outcome: &mut Outcome) {
    outcome.reason = reason;
    if outcome.vip != NO_VIP
        && let Some(index) = reason.drop_index()
    {
        tables.count_drop(outcome.vip, index);
    }
}

/// The step for packets that are answered with an ICMP error, as [`Tables::answer`] says.
#[inline(always)]
pub fn answer<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    let mut outcome = Outcome::UNKNOWN;
    let reason = match tables.answer() {
        Some(answer) => {
            outcome.vip = answer.vip;
            icmp::answer(packet, tables, answer)
        }
        None => Reason::TableMissing,
    };
    stop(tables, reason, &mut outcome);
    tables.count_outcome(&outcome);
    outcome
}

/// The step for ICMP, ICMPv6 and ARP.
#[inline(always)]
pub fn message<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let mut outcome = Outcome::UNKNOWN;
    let judged = parse::link(packet).and_then(|(tags, ether_type)| match ether_type {
        ethernet::IPV4 => parse::network(packet, tags, false),
        ethernet::IPV6 => parse::network(packet, tags, true),
        ethernet::ARP => Err(neighbour::arp(packet, tables, ingress, &tags, &mut outcome)),
        _ => Err(Reason::NotIp),
    });
    let result =
        judged.and_then(|network| icmp_message(packet, tables, ingress, &network, &mut outcome));
    if let Err(reason) = result {
        stop(tables, reason, &mut outcome);
    }
    tables.count_outcome(&outcome);
    outcome
}

/// The IP packet in a frame.
#[inline(always)]
pub(crate) fn network<P: Packet>(packet: &P) -> Result<Network, Reason> {
    let (tags, ether_type) = parse::link(packet)?;
    match ether_type {
        ethernet::IPV4 => parse::network(packet, tags, false),
        ethernet::IPV6 => parse::network(packet, tags, true),
        _ => Err(Reason::NotIp),
    }
}

/// Whether the packet is whole, and ICMP of its own family.
#[inline(always)]
fn is_message(network: &Network) -> bool {
    let icmp = if network.ip.is_v6 {
        protocol::ICMPV6
    } else {
        protocol::ICMP
    };
    network.fragment.is_none() && network.payload.protocol == icmp
}

#[inline(always)]
fn icmp_message<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let flow = if network.ip.is_v6 {
        icmp::v6(packet, tables, ingress, network, outcome)?
    } else {
        icmp::v4(packet, tables, network, outcome)?
    };
    let choice = error_about(packet, tables, &flow, outcome)?;
    if !tables.admits(Limited::Icmp) {
        return Err(Reason::IcmpLimited);
    }
    forward(packet, tables, ingress, &network.ip, &choice, outcome)
}

/// A segment or datagram, or a part of one.
#[inline(always)]
fn transport<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Option<Step>, Reason> {
    let payload = &network.payload;
    let (parsed, choice) = match network.fragment {
        Some(part) if !part.is_first => {
            let parsed = payload.parsed(network.ip, &Transport::UNKNOWN);
            let choice = later_fragment(tables, &parsed.flow, part.id, outcome)?;
            (parsed, choice)
        }
        part => {
            let transport = payload.transport(packet, part.is_none())?;
            let parsed = payload.parsed(network.ip, &transport);
            match choose(tables, &parsed.flow, parsed.is_syn, outcome) {
                Err(Reason::NotVip) if icmp::is_traceroute(&parsed.flow) => {
                    return traceroute(tables, payload);
                }
                choice => (parsed, choice?),
            }
        }
    };
    if let Some(step) = choice.step() {
        note(tables, &parsed, network.fragment, &choice, outcome);
        return Ok(Some(step));
    }
    send(
        packet,
        tables,
        ingress,
        &parsed,
        network.fragment,
        &choice,
        outcome,
    )
}

/// A traceroute's last step, if it is a VIP's.
#[inline(always)]
fn traceroute<T: Tables>(tables: &T, payload: &Payload) -> Result<Option<Step>, Reason> {
    let vips = tables.vips();
    let vip = vips.and_then(|vips| vips.find_address(payload.destination));
    tables.set_answer(&Answer {
        vip: vip.ok_or(Reason::NotVip)?.id,
        mtu: 0,
    });
    Ok(Some(Step::Answer))
}
