//! The packet's way, on one screen: parse → VIP → limits → slot → backend → forward → count.
//!
//! Plain packets of a flow are judged inline; whatever is unusual (tags, options, extension headers, fragments,
//! ICMP, ARP, packets too big, VIPs with limits, slots that change hands) is judged by functions of their own, so that the common case
//! stays small.

use crate::{
    access::{self, Access},
    backend::{self, Backend},
    encap,
    flow::Flow,
    fragment::{self, FragmentKey},
    icmp,
    limit::{self, Sent},
    neighbour,
    packet::Packet,
    parse::{self, Ip, Network, Parsed, Payload},
    pin::{self, Idle, Segment},
    reason::{Reason, Verdict},
    rewrite,
    slot::{NOBODY, Slot},
    tables::{Answer, Chosen, Limited, Tables, chosen_flags},
    vip::{VipEntry, VipKey},
    wire::{
        ethernet::{self, Ethernet},
        protocol,
        tcp::Tcp,
    },
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

/// Where a packet is to go, before it goes there.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that have nothing to do with each other"
)]
struct Choice {
    /// The backend, where the slot is Stable.
    slot: Slot,
    /// The reason under which the packet is counted, if it gets there.
    reason: Reason,
    /// Hash of the flow.
    hash: u32,
    is_syn: bool,
    /// Whether access lists or limits must judge the packet first.
    is_guarded: bool,
    /// Whether access lists must.
    is_listed: bool,
    /// Whether the packet may have been sent here by another node of the fleet.
    is_shared: bool,
}

/// What a step leaves to a later one, untouched and not counted.
#[must_use]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing: the outcome has been counted.
    Done(Outcome),
    /// Whatever is not plain, to [`unusual`].
    Unusual,
    /// ICMP and ARP, to [`message`].
    Message,
    /// A packet that is to be answered with an ICMP error, to [`answer`].
    Answer,
    /// A packet of a VIP with access lists or limits, or that another node may have sent, to [`guard`].
    Guard,
    /// A packet of a flow whose slot changes hands, to [`pins`].
    Pins,
    /// A packet whose backend is noted in [`Tables::chosen`], to [`chosen`].
    Chosen,
}

/// Judges a packet, rewrites it where it is to leave, and counts it once under its reason.
///
/// `ingress` is the interface by which it came. In the kernel the steps are programs of their own, each with its
/// own stack and its own share of the verifier's patience.
pub fn run<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Outcome {
    let mut step = plain(packet, tables, ingress);
    loop {
        step = match step {
            Step::Done(outcome) => return outcome,
            Step::Unusual => unusual(packet, tables, ingress),
            Step::Message => Step::Done(message(packet, tables, ingress)),
            Step::Answer => Step::Done(answer(packet, tables)),
            Step::Guard => guard(packet, tables),
            Step::Pins => pins(packet, tables),
            Step::Chosen => chosen(packet, tables, ingress),
        };
    }
}

/// The first step: plain packets that are to be forwarded or to pass.
#[inline(always)]
pub fn plain<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let Some(parsed) = parse::plain(packet) else {
        return Step::Unusual;
    };
    let mut outcome = Outcome::UNKNOWN;
    let next = choose(tables, &parsed, &mut outcome);
    match next {
        Err(Reason::NotVip) if icmp::is_traceroute(&parsed.flow) => return Step::Unusual,
        // It may be a peer's, who knows of backends.
        Err(Reason::NoBackend) => return Step::Guard,
        _ => {}
    }
    if let Ok(choice) = &next {
        if choice.is_guarded {
            return Step::Guard;
        }
        if !choice.slot.is_stable() {
            return Step::Pins;
        }
    }
    if let Err(reason) =
        next.and_then(|choice| forward(packet, tables, ingress, &parsed.ip, &choice, &mut outcome))
    {
        if reason == Reason::TooBig {
            return Step::Unusual;
        }
        stop(tables, reason, &mut outcome);
    }
    tables.count_outcome(&outcome);
    Step::Done(outcome)
}

/// The second step: tags, options, extension headers and fragments.
#[inline(always)]
pub fn unusual<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let result = match network(packet) {
        Ok(network) if is_message(&network) => return Step::Message,
        // What is not IP may be ARP.
        Err(Reason::NotIp) => return Step::Message,
        Ok(network) => transport(packet, tables, ingress, &network, &mut outcome),
        Err(reason) => Err(reason),
    };
    match result {
        Ok(Then::Done) => {}
        Ok(Then::Answer) => return Step::Answer,
        Ok(Then::Guard) => return Step::Guard,
        Ok(Then::Pins) => return Step::Pins,
        Err(reason) => stop(tables, reason, &mut outcome),
    }
    tables.count_outcome(&outcome);
    Step::Done(outcome)
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

/// The step for packets of VIPs with access lists or limits, or that other nodes of the fleet may send, which it judges before they may be remembered or forwarded.
#[inline(always)]
pub fn guard<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    match network(packet).and_then(|network| guarded(packet, tables, &network, &mut outcome)) {
        Ok(Some(chosen)) => {
            tables.set_chosen(&chosen);
            Step::Chosen
        }
        Ok(None) => Step::Pins,
        Err(reason) => {
            stop(tables, reason, &mut outcome);
            tables.count_outcome(&outcome);
            Step::Done(outcome)
        }
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

/// The step for packets of a flow whose slot changes hands: finds the backend by pins and notes it for [`chosen`].
#[inline(always)]
pub fn pins<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let judged = network(packet).and_then(|network| pinned(packet, tables, &network, &mut outcome));
    match judged {
        Ok(chosen) => {
            tables.set_chosen(&chosen);
            Step::Chosen
        }
        Err(reason) => {
            stop(tables, reason, &mut outcome);
            tables.count_outcome(&outcome);
            Step::Done(outcome)
        }
    }
}

/// The step for packets whose backend [`pins`] has noted.
#[inline(always)]
pub fn chosen<P: Packet, T: Tables>(packet: &mut P, tables: &T, ingress: u32) -> Step {
    let mut outcome = Outcome::UNKNOWN;
    let result = match network(packet) {
        Ok(network) => follow(packet, tables, ingress, &network, &mut outcome),
        Err(reason) => Err(reason),
    };
    match result {
        Ok(Then::Answer) => return Step::Answer,
        Ok(Then::Done | Then::Guard | Then::Pins) => {}
        Err(reason) => stop(tables, reason, &mut outcome),
    }
    tables.count_outcome(&outcome);
    Step::Done(outcome)
}

/// Sends a packet where [`Tables::chosen`] says.
#[inline(always)]
fn follow<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Then, Reason> {
    let chosen = tables.chosen().ok_or(Reason::TableMissing)?;
    outcome.vip = chosen.vip;
    outcome.slot = chosen.hash & 0xffff;
    let is_orphan = chosen.flags & chosen_flags::ORPHAN != 0;
    let choice = Choice {
        slot: Slot::stable(chosen.backend as u16),
        reason: if is_orphan {
            Reason::FragmentOrphan
        } else {
            Reason::Forwarded
        },
        hash: chosen.hash,
        is_syn: chosen.flags & chosen_flags::SYN != 0,
        is_guarded: false,
        is_listed: false,
        is_shared: false,
    };
    first_or_whole(packet, tables, ingress, network, &choice, outcome)
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

/// What is left to do with a segment or datagram.
enum Then {
    /// Nothing.
    Done,
    /// [`Step::Answer`].
    Answer,
    /// [`Step::Guard`].
    Guard,
    /// [`Step::Pins`].
    Pins,
}

/// A segment or datagram, or a part of one.
#[inline(always)]
fn transport<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Then, Reason> {
    let payload = &network.payload;
    if let Some(part) = network.fragment.filter(|part| !part.is_first) {
        let choice = match later_fragment(tables, &fragment::key(payload, part.id), outcome) {
            Ok(choice) if choice.is_guarded => return Ok(Then::Guard),
            Err(Reason::NoBackend) => return Ok(Then::Guard),
            other => other?,
        };
        return forward(packet, tables, ingress, &network.ip, &choice, outcome)
            .map(|()| Then::Done);
    }
    let transport = payload.transport(packet, network.fragment.is_none())?;
    let parsed = payload.parsed(network.ip, &transport);
    let choice = match choose(tables, &parsed, outcome) {
        Ok(choice) if choice.is_guarded => return Ok(Then::Guard),
        Ok(choice) if !choice.slot.is_stable() => return Ok(Then::Pins),
        Ok(choice) => choice,
        Err(Reason::NoBackend) => return Ok(Then::Guard),
        Err(Reason::NotVip) if icmp::is_traceroute(&parsed.flow) => {
            let vip = tables
                .vips()
                .and_then(|vips| vips.find_address(payload.destination));
            tables.set_answer(&Answer {
                vip: vip.ok_or(Reason::NotVip)?.id,
                mtu: 0,
            });
            return Ok(Then::Answer);
        }
        Err(reason) => return Err(reason),
    };
    first_or_whole(packet, tables, ingress, network, &choice, outcome)
}

/// Forwards a whole packet, or a first fragment, which the later ones then follow; or a later one.
#[inline(always)]
fn first_or_whole<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    ingress: u32,
    network: &Network,
    choice: &Choice,
    outcome: &mut Outcome,
) -> Result<Then, Reason> {
    let is_later = network.fragment.is_some_and(|part| !part.is_first);
    let sent = forward(packet, tables, ingress, &network.ip, choice, outcome);
    match sent {
        Err(Reason::TooBig) if !is_later => {
            tables.set_answer(&Answer {
                vip: outcome.vip,
                mtu: outcome.mtu,
            });
            return Ok(Then::Answer);
        }
        Ok(()) | Err(Reason::Local) => {}
        Err(reason) => return Err(reason),
    }
    if let Some(part) = network.fragment.filter(|part| part.is_first) {
        tables.pin_fragment(&fragment::key(&network.payload, part.id), outcome.backend);
    }
    sent.map(|()| Then::Done)
}

/// A packet of a flow: its slot, if it is a VIP's.
#[inline(always)]
fn choose<T: Tables>(tables: &T, parsed: &Parsed, outcome: &mut Outcome) -> Result<Choice, Reason> {
    let flow = &parsed.flow;
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol as u8);
    let vip = vips.find(&key).ok_or(Reason::NotVip)?;
    let hash = hash(tables, flow, vip)?;
    Ok(Choice {
        slot: slot(tables, vip, hash, outcome)?,
        reason: Reason::Forwarded,
        hash,
        is_syn: parsed.is_syn,
        is_guarded: vip.is_guarded(parsed.is_syn),
        is_listed: vip.has_access_lists(),
        is_shared: vip.is_shared(),
    })
}

/// Whether another node of the fleet has sent the frame.
#[inline(always)]
#[expect(
    clippy::many_single_char_names,
    reason = "the bytes of a MAC address: a copy of them would be a loop"
)]
fn is_peers<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    packet.at::<Ethernet>(0).is_some_and(|frame| {
        let [a, b, c, d, e, f] = frame.source;
        tables.is_peer(&[a, b, c, d, e, f, 0, 0])
    })
}

/// Judges a packet of a VIP with access lists or limits, or that another node may have sent. Returns where it goes; `None` where its slot changes hands.
#[inline(always)]
fn guarded<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Option<Chosen>, Reason> {
    let payload = &network.payload;
    let choice = if let Some(part) = network.fragment.filter(|part| !part.is_first) {
        later_fragment(tables, &fragment::key(payload, part.id), outcome)
    } else {
        let transport = payload.transport(packet, network.fragment.is_none())?;
        choose(tables, &payload.parsed(network.ip, &transport), outcome)
    };
    // Who sent it has judged it: also where this node's view is another one, down to nobody who serves.
    let may_be_peers = match &choice {
        Ok(choice) => choice.is_shared,
        Err(reason) => matches!(reason, Reason::NoBackend),
    };
    if may_be_peers && is_peers(packet, tables) {
        return Err(Reason::Peer);
    }
    let choice = choice?;
    if choice.is_listed
        && let Access::Denied = access::judge(tables, outcome.vip, payload.source)
    {
        return Err(Reason::Denied);
    }
    let sent = Sent {
        source: payload.source,
        bytes: u64::from(network.ip.frame_len),
        is_syn: choice.is_syn,
    };
    if !limit::admits(tables, outcome.vip, &sent) {
        return Err(Reason::Limited);
    }
    let syn = if choice.is_syn { chosen_flags::SYN } else { 0 };
    let orphan = match choice.reason {
        Reason::FragmentOrphan => chosen_flags::ORPHAN,
        _ => 0,
    };
    Ok(choice.slot.is_stable().then_some(Chosen {
        vip: outcome.vip,
        hash: choice.hash,
        backend: u32::from(choice.slot.current),
        flags: syn | orphan,
    }))
}

/// A packet of a flow whose slot may change hands: its backend, by its pins.
#[inline(always)]
fn pinned<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    network: &Network,
    outcome: &mut Outcome,
) -> Result<Chosen, Reason> {
    let payload = &network.payload;
    let transport = payload.transport(packet, network.fragment.is_none())?;
    let parsed = payload.parsed(network.ip, &transport);
    let choice = choose(tables, &parsed, outcome)?;
    let idle = tables.idle(outcome.vip).ok_or(Reason::TableMissing)?;
    let segment = segment(packet, payload)?;
    let backend = pin::route(tables, choice.slot, idle, &parsed.flow, segment);
    if backend == NOBODY {
        return Err(Reason::NoBackend);
    }
    Ok(Chosen {
        vip: outcome.vip,
        hash: choice.hash,
        backend: u32::from(backend),
        flags: if parsed.is_syn { chosen_flags::SYN } else { 0 },
    })
}

/// What the pins want to know of a payload.
#[inline(always)]
fn segment<P: Packet>(packet: &P, payload: &Payload) -> Result<Segment, Reason> {
    if payload.protocol != protocol::TCP {
        return Ok(Segment::default());
    }
    let tcp = packet.at::<Tcp>(payload.start).ok_or(Reason::Truncated)?;
    Ok(Segment {
        sequence: u32::from_be_bytes(tcp.sequence),
        control: u32::from(tcp.flags),
    })
}

/// A fragment without ports: to the backend of its first fragment, or by addresses alone.
#[inline(always)]
fn later_fragment<T: Tables>(
    tables: &T,
    key: &FragmentKey,
    outcome: &mut Outcome,
) -> Result<Choice, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let vip = vips
        .find_without_port(key.destination, key.protocol as u8)
        .ok_or(Reason::NotVip)?;
    outcome.vip = vip.id;
    let hash = hash(tables, &key.flow(), vip)?;
    let (backend, reason) = match tables.fragment(key) {
        Some(backend) => (backend, Reason::Forwarded),
        // Without ports there is no flow to look up: to where flows without a pin are.
        None => (
            slot(tables, vip, hash, outcome)?.base(),
            Reason::FragmentOrphan,
        ),
    };
    if backend == NOBODY {
        return Err(Reason::NoBackend);
    }
    Ok(Choice {
        slot: Slot::stable(backend),
        reason,
        hash,
        is_syn: false,
        is_guarded: vip.is_guarded(false),
        is_listed: vip.has_access_lists(),
        is_shared: vip.is_shared(),
    })
}

/// An ICMP error about a VIP's flow: to the flow's backend. `flow` is as the client sends.
#[inline(always)]
fn error_about<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    flow: &Flow,
    outcome: &mut Outcome,
) -> Result<Choice, Reason> {
    let vips = tables.vips().ok_or(Reason::NotVip)?;
    let key = VipKey::new(flow.destination, flow.destination_port, flow.protocol as u8);
    let vip = vips.find(&key).ok_or(Reason::IcmpOther)?;
    outcome.vip = vip.id;
    if vip.is_shared() && is_peers(packet, tables) {
        return Err(Reason::Peer);
    }
    let hash = hash(tables, flow, vip)?;
    let slot = slot(tables, vip, hash, outcome)?;
    if vip.has_access_lists()
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
        is_guarded: false,
        is_listed: false,
        is_shared: false,
    })
}

#[inline(always)]
fn hash<T: Tables>(tables: &T, flow: &Flow, vip: &VipEntry) -> Result<u32, Reason> {
    let node = tables.node().ok_or(Reason::TableMissing)?;
    Ok(vip.hash(&node.hash_keys, flow))
}

/// The slot of a VIP's flow. A Stable one has a backend.
#[inline(always)]
fn slot<T: Tables>(
    tables: &T,
    vip: &VipEntry,
    hash: u32,
    outcome: &mut Outcome,
) -> Result<Slot, Reason> {
    outcome.vip = vip.id;
    outcome.slot = hash & 0xffff;
    let slot = tables
        .slots(vip.id)
        .and_then(|table| table.get(hash))
        .ok_or(Reason::TableMissing)?;
    if slot.current == NOBODY && slot.is_stable() {
        Err(Reason::NoBackend)
    } else {
        Ok(slot)
    }
}

/// Sends the packet to a backend: rewritten or encapsulated, by the interface that leads there. Counts it.
///
/// [`Reason::TooBig`] leaves it untouched, and the MTU that would fit in the outcome.
#[inline(always)]
fn forward<P: Packet, T: Tables>(
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
    if backend.mode == 0 {
        return Err(Reason::TableMissing);
    }
    if !backend.is_resolved() {
        if !backend.is_local() {
            return Err(Reason::NoNextHop);
        }
        tables.count_vip(
            u32::from(backend.vip),
            u64::from(ip.frame_len),
            choice.is_syn,
        );
        tables.count_backend(id, u64::from(ip.frame_len), choice.is_syn);
        return Err(Reason::Local);
    }
    let is_redirect = backend.ifindex != ingress;
    if is_redirect && !tables.has_port(backend.ifindex) {
        return Err(Reason::NoPort);
    }
    if backend.mode == backend::mode::L2
        && (ip.tags.count | u32::from(backend.flags & backend::flags::VLANS_SET)) == 0
    {
        rewrite::addresses(packet, backend).ok_or(Reason::Truncated)?;
    } else {
        wrap(packet, ip, choice.hash, backend, is_redirect, outcome)?;
    }
    outcome.reason = choice.reason;
    outcome.is_redirect = is_redirect;
    outcome.ifindex = backend.ifindex;
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
pub(crate) fn wrap<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    hash: u32,
    backend: &Backend,
    is_redirect: bool,
    outcome: &mut Outcome,
) -> Result<(), Reason> {
    let overhead = encap::overhead(backend);
    let mtu = u32::from(backend.mtu);
    if overhead != 0 && ip.len.wrapping_add(overhead as u32) > mtu {
        outcome.mtu = mtu.saturating_sub(overhead as u32);
        return Err(Reason::TooBig);
    }
    let tags = rewrite::tags(backend, ip.tags, is_redirect);
    let inner = encap::inner(packet, ip, hash).ok_or(Reason::Truncated)?;
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
        encap::write(packet, tags.ip_offset(), backend, ip, &inner, hash)
            .ok_or(Reason::Truncated)?;
    }
    Ok(())
}
