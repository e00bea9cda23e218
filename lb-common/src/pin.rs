//! Pins: flows that are remembered while their slot changes hands, and the rule that every packet of such a slot
//! follows ([`route`]).
//!
//! A Stable slot needs none of this. The idea is that of Beamer (NSDI'18) and of "just enough tracking"
//! (JET, `CoNEXT`'20): state begins where an owner changes and ends when the change is digested. The rules are those
//! that an exhaustive search over one slot leaves standing (lb-userspace/tests/consistency).
//!
//! Pins are keyed by the 5-tuple and lie in three maps, so that what is cheap to forge never displaces what is
//! proven ([`Kind`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Flow,
    slot::{NOBODY, Slot, State},
    wire::{protocol, tcp},
};

/// A flow's backend. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Pin {
    /// When a packet last followed it, to within [`REFRESH_NS`], and when it was made.
    pub stamp: Stamp,
    /// Of a pin made by a SYN: the client's initial sequence number.
    pub initial_sequence: u32,
    /// The backend's id; never [`NOBODY`].
    pub backend: u16,
    /// [`flags`].
    pub flags: u16,
}

const _: () = assert!(size_of::<Pin>() == 16);

/// When a pin was last used, and when it was made: two times of the coarse monotonic clock in one word, so that nobody pays for
/// the age, neither memory nor packets.
///
/// The upper 37 bits are those of the last use in ns, which leaves steps of 0.13 s. The lower 27 bits are when the pin was made, in
/// steps of 1.07 s, modulo 4.6 years. Taken as a whole, the word is the last use to within a step: so packets
/// read it, and so did programs that knew of no age.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(transparent)]
pub struct Stamp(u64);

impl Stamp {
    const MADE: u64 = (1 << 27) - 1;
    /// ns of a step of the time when it was made, as a power of two.
    const STEP: u32 = 30;

    /// Of a pin that is made now.
    #[must_use]
    #[inline(always)]
    pub const fn new(now_ns: u64) -> Self {
        Self((now_ns & !Self::MADE) | ((now_ns >> Self::STEP) & Self::MADE))
    }

    /// Of the same pin, used now.
    #[must_use]
    #[inline(always)]
    pub const fn used(self, now_ns: u64) -> Self {
        Self((now_ns & !Self::MADE) | (self.0 & Self::MADE))
    }

    /// How long ago the last use was, in ns, to within 0.13 s. Another CPU's clock may be a tick ahead.
    #[must_use]
    #[inline(always)]
    pub const fn idle_ns(self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.0)
    }

    /// How long ago the pin was made, in ns, at most 1.07 s too much. `None` where that is not known: it would be before the
    /// host's start, so a program made it that knew of no age.
    #[must_use]
    pub const fn age_ns(self, now_ns: u64) -> Option<u64> {
        let used = self.0 >> Self::STEP;
        let since = used.wrapping_sub(self.0) & Self::MADE;
        match used.checked_sub(since) {
            Some(made) => Some(now_ns.saturating_sub(made << Self::STEP)),
            None => None,
        }
    }
}

/// What was seen of the connection's end.
pub mod flags {
    /// The client sends no more data.
    pub const FIN: u16 = 1;
    /// The client has reset the connection. A later packet without RST takes it back: whoever forges one gains nothing.
    pub const RST: u16 = 2;
}

/// Which map a pin lies in.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u32)]
pub enum Kind {
    /// Made by a SYN, which anybody can forge.
    Syn = 0,
    /// A flow whose SYN made a pin, and that sent a packet which fits its sequence number: a client that got the answer.
    Proven = 1,
    /// A flow kept where it was, on the owner before.
    Old = 2,
}

impl Kind {
    /// Every kind, in the order in which they must be scanned: a flow that is promoted meanwhile is seen once at least.
    pub const ALL: [Self; 3] = [Self::Syn, Self::Proven, Self::Old];

    /// Name in metrics, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Proven => "proven",
            Self::Old => "old",
        }
    }
}

/// A pin that is used is written again no more often than this.
pub const REFRESH_NS: u64 = 1_000_000_000;

/// How far behind the initial sequence number a packet may lie that proves the handshake: the largest window
/// before window scaling sets in (RFC 7323, section 2.2), and what a SYN itself carries.
const FITTING: u32 = 0x1_0000;

/// How long the flows of a VIP may be silent before their pins count for nothing. Host order.
#[derive(
    Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq,
)]
#[repr(C)]
pub struct Idle {
    /// An open flow, in ns.
    pub open_ns: u64,
    /// A flow after FIN or RST, in ns.
    pub closed_ns: u64,
}

impl Idle {
    /// Whether a pin counts for nothing any more.
    ///
    /// Only the last use counts: while a slot is Stable its pins are not used, but all of them name its owner, where
    /// their flows are without them as well.
    #[must_use]
    #[inline(always)]
    pub const fn is_over(&self, pin: &Pin, now_ns: u64) -> bool {
        let limit = if pin.flags == 0 {
            self.open_ns
        } else {
            self.closed_ns
        };
        pin.stamp.idle_ns(now_ns) > limit
    }
}

/// What the rule wants to know of a packet. Whole words, as everything that may lie on the stack.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Segment {
    /// Of TCP: the sequence number.
    pub sequence: u32,
    /// Of TCP: the control bits ([`tcp::flags`]).
    pub control: u32,
}

impl Segment {
    /// SYN without ACK, FIN or RST.
    #[inline(always)]
    const fn is_syn(self) -> bool {
        const JUDGED: u32 =
            (tcp::flags::SYN | tcp::flags::ACK | tcp::flags::FIN | tcp::flags::RST) as u32;
        self.control & JUDGED == tcp::flags::SYN as u32
    }

    /// RST without ACK: what a host sends that was answered as if it had another connection (RFC 9293, section 3.5.2).
    #[inline(always)]
    const fn is_bare_reset(self) -> bool {
        const JUDGED: u32 = (tcp::flags::RST | tcp::flags::ACK) as u32;
        self.control & JUDGED == tcp::flags::RST as u32
    }

    /// Whether whoever sent it has seen the answer to the SYN that made the pin: else the pin may be a forger's.
    #[inline(always)]
    const fn fits(self, pin: &Pin) -> bool {
        self.sequence.wrapping_sub(pin.initial_sequence) <= FITTING
    }

    /// The pin's [`flags`] after this packet. A SYN opens a connection anew, so that the next SYN follows it.
    #[inline(always)]
    const fn close(self, flags: u16) -> u16 {
        if self.is_syn() {
            return 0;
        }
        let fin = if self.control & tcp::flags::FIN as u32 != 0 {
            flags::FIN
        } else {
            flags & flags::FIN
        };
        let rst = if self.control & tcp::flags::RST as u32 != 0 {
            flags::RST
        } else {
            0
        };
        fin | rst
    }
}

/// What became of a pin that was to be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Inserted {
    /// It is there.
    New,
    /// Another CPU was first: the flow's pin is this.
    Exists(Pin),
    /// There is no room, or no budget.
    Failed,
}

/// The maps of pins.
pub trait Pins {
    /// ns of the coarse monotonic clock.
    fn now_ns(&self) -> u64;
    /// Whether the flow of a hash may have a pin that is not [`Kind::Syn`] ([`crate::marks`]).
    fn is_marked(&self, hash: u32) -> bool;
    /// A flow's pin.
    fn find(&self, kind: Kind, flow: &Flow) -> Option<Pin>;
    /// Writes a pin anew in place, if it is still there.
    fn refresh(&self, kind: Kind, flow: &Flow, pin: &Pin);
    /// Makes a pin, now, if the flow has none of this kind. [`Kind::Old`] has a budget a CPU and second, so that a flood
    /// of bare ACKs costs no more than that. What is not [`Kind::Syn`] is marked under the flow's hash before it is there.
    fn insert(&self, kind: Kind, flow: (&Flow, u32), pin: &Pin, now_ns: u64) -> Inserted;
    /// Takes a pin away.
    fn remove(&self, kind: Kind, flow: &Flow);
    /// Whether a backend lives, be it leaving or not.
    fn is_alive(&self, backend: u16) -> bool;
}

/// The backend for a packet of a flow, by the state of its slot; [`NOBODY`] where there is none.
///
/// - Holding: a pin, else `current`, which is pinned.
/// - Moving: a pin, else `current` for a SYN and `previous` for everything else, all UDP included; both are pinned.
/// - Settling: a pin, else `current`, which is not pinned.
///
/// A RST without ACK goes where the flow's SYN went. A pin that has expired or names a dead backend counts as none and is removed. A hit goes to its backend also for a
/// SYN, and also where that backend is leaving; but a SYN after FIN or RST is a new connection, as far as new pins can be
/// made: else clients that use their ports again would never let go of a backend.
///
/// `hash` is any hash of the flow that stays the same as long as pins may be there.
#[inline(always)]
pub fn route<P: Pins>(
    pins: &P,
    slot: Slot,
    idle: &Idle,
    (flow, hash): (&Flow, u32),
    segment: Segment,
) -> u16 {
    let now_ns = pins.now_ns();
    if let Some(backend) = pinned(pins, slot, idle, (flow, hash), segment, now_ns) {
        return backend;
    }
    let is_syn = is_tcp(flow) && segment.is_syn();
    let backend = match slot.state() {
        State::Stable | State::Settling => return slot.current,
        State::Moving if !is_syn => slot.previous,
        State::Moving | State::Holding => slot.current,
    };
    if backend == NOBODY {
        return NOBODY;
    }
    let pin = Pin {
        stamp: Stamp::new(now_ns),
        initial_sequence: segment.sequence,
        backend,
        flags: segment.close(0),
    };
    let inserted = if is_syn {
        pins.insert(Kind::Syn, (flow, hash), &pin, now_ns)
    } else {
        pins.insert(Kind::Old, (flow, hash), &pin, now_ns)
    };
    match inserted {
        Inserted::Exists(first) if pins.is_alive(first.backend) => first.backend,
        Inserted::New | Inserted::Exists(_) | Inserted::Failed => backend,
    }
}

/// The backend of a flow for a packet that is about it but not of it (an ICMP error): pins are consulted, never made.
#[inline(always)]
pub fn consult<P: Pins>(pins: &P, slot: Slot, idle: &Idle, flow: &Flow) -> u16 {
    let now_ns = pins.now_ns();
    let live = |pin: Option<Pin>| {
        pin.filter(|pin| !idle.is_over(pin, now_ns) && pins.is_alive(pin.backend))
    };
    if let Some(pin) = live(pins.find(Kind::Old, flow)) {
        return pin.backend;
    }
    if is_tcp(flow) {
        // `syn` last: it may be a forger's, and whatever is promoted meanwhile is in both for a while.
        if let Some(pin) = live(pins.find(Kind::Proven, flow)) {
            return pin.backend;
        }
        if let Some(pin) = live(pins.find(Kind::Syn, flow)) {
            return pin.backend;
        }
    }
    slot.base()
}

/// The backend of a flow's pin, after what the packet says of the pin.
#[inline(always)]
fn pinned<P: Pins>(
    pins: &P,
    slot: Slot,
    idle: &Idle,
    (flow, hash): (&Flow, u32),
    segment: Segment,
    now_ns: u64,
) -> Option<u16> {
    if is_tcp(flow) {
        // `syn` before `proven`: a flow that another CPU promotes meanwhile is found in one of them.
        let syn = live(pins, Kind::Syn, idle, flow, now_ns);
        if let Some(mut pin) = syn {
            if segment.is_syn() {
                // The same SYN again, or the next connection from the same port.
                let is_new = pin.initial_sequence != segment.sequence;
                if is_new {
                    pin.initial_sequence = segment.sequence;
                    pin.stamp = Stamp::new(now_ns);
                }
                touch(pins, Kind::Syn, flow, pin, segment, now_ns, is_new);
                return Some(pin.backend);
            }
            if segment.fits(&pin) {
                return Some(promote(pins, idle, (flow, hash), pin, segment, now_ns));
            }
            // The server that got the SYN still has an older connection over these ports, of a client that is gone, and
            // challenged the SYN (RFC 5961, section 4.2). The client resets what the server has, in the server's numbers: that
            // must get there, or no SYN is ever taken. The pin stays as it is, for the SYN that follows.
            if segment.is_bare_reset() {
                return Some(pin.backend);
            }
        }
    }
    // In floods this is so of nearly all flows, and in a Settling slot of those that came since.
    if !pins.is_marked(hash) {
        return None;
    }
    if is_tcp(flow)
        && let Some(pin) = live(pins, Kind::Proven, idle, flow, now_ns)
    {
        if begins_anew(slot, segment, &pin) {
            return None;
        }
        touch(pins, Kind::Proven, flow, pin, segment, now_ns, false);
        return Some(pin.backend);
    }
    let pin = live(pins, Kind::Old, idle, flow, now_ns)?;
    if is_tcp(flow) && begins_anew(slot, segment, &pin) {
        return None;
    }
    touch(pins, Kind::Old, flow, pin, segment, now_ns, false);
    Some(pin.backend)
}

/// Whether a SYN that hits a pin is of another connection than the pin, and may have a pin of its own.
///
/// The pin stays: the FIN may have been forged, and then the flow goes on by it, because it does not fit the SYN.
#[inline(always)]
fn begins_anew(slot: Slot, segment: Segment, pin: &Pin) -> bool {
    segment.is_syn() && pin.flags != 0 && matches!(slot.state(), State::Holding | State::Moving)
}

#[inline(always)]
const fn is_tcp(flow: &Flow) -> bool {
    flow.protocol == protocol::TCP as u32
}

/// A pin that counts; one that does not is removed.
#[inline(always)]
fn live<P: Pins>(pins: &P, kind: Kind, idle: &Idle, flow: &Flow, now_ns: u64) -> Option<Pin> {
    let pin = pins.find(kind, flow)?;
    if idle.is_over(&pin, now_ns) || !pins.is_alive(pin.backend) {
        pins.remove(kind, flow);
        return None;
    }
    Some(pin)
}

/// Notes that a packet followed a pin.
#[inline(always)]
fn touch<P: Pins>(
    pins: &P,
    kind: Kind,
    flow: &Flow,
    mut pin: Pin,
    segment: Segment,
    now_ns: u64,
    is_changed: bool,
) {
    let flags = segment.close(pin.flags);
    if is_changed || flags != pin.flags || pin.stamp.idle_ns(now_ns) >= REFRESH_NS {
        pin.stamp = pin.stamp.used(now_ns);
        pin.flags = flags;
        pins.refresh(kind, flow, &pin);
    }
}

/// A handshake is done: its pin goes to `proven`. Made there before it is removed here, so that it is never in neither.
#[inline(always)]
fn promote<P: Pins>(
    pins: &P,
    idle: &Idle,
    (flow, hash): (&Flow, u32),
    syn: Pin,
    segment: Segment,
    now_ns: u64,
) -> u16 {
    let pin = Pin {
        stamp: syn.stamp.used(now_ns),
        flags: segment.close(syn.flags),
        ..syn
    };
    // What is left of an earlier connection is older than this handshake.
    let backend = match pins.insert(Kind::Proven, (flow, hash), &pin, now_ns) {
        Inserted::New => pin.backend,
        Inserted::Exists(first)
            if first.flags != 0
                || idle.is_over(&first, now_ns)
                || !pins.is_alive(first.backend) =>
        {
            pins.refresh(Kind::Proven, flow, &pin);
            pin.backend
        }
        Inserted::Exists(first) => first.backend,
        // No room: the pin stays where it is.
        Inserted::Failed => return pin.backend,
    };
    pins.remove(Kind::Syn, flow);
    backend
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// The steps of last use and of being made.
    const USED: u64 = 1 << 27;
    const MADE: u64 = 1 << 30;

    #[test]
    fn a_stamp_tells_last_use_and_age() {
        // Just started, up for a while, and up for longer than the time of being made counts.
        for made_ns in [
            0,
            5,
            77 * SECOND,
            1_000_000 * SECOND + 999,
            (1 << 57) - 3,
            1 << 61,
        ] {
            let mut stamp = Stamp::new(made_ns);
            for used_ns in [0, 1, SECOND, 3600 * SECOND + 1, 864_000 * SECOND].map(|s| made_ns + s)
            {
                stamp = stamp.used(used_ns);
                for now_ns in [used_ns, used_ns + 10 * SECOND] {
                    let idle_ns = stamp.idle_ns(now_ns);
                    assert!(
                        idle_ns.abs_diff(now_ns - used_ns) < USED,
                        "{made_ns} {used_ns}"
                    );
                    let age_ns = stamp.age_ns(now_ns).unwrap();
                    let true_ns = now_ns - made_ns;
                    assert!(
                        true_ns <= age_ns && age_ns < true_ns + MADE,
                        "{made_ns} {used_ns}"
                    );
                }
            }
        }
        // The other CPU is ahead.
        assert_eq!(Stamp::new(9 * SECOND).idle_ns(8 * SECOND), 0);
    }

    #[test]
    fn a_word_without_an_age_has_none() {
        // An hour after the host's start, by a program that wrote the ns of the last use.
        let plain = Stamp(3600 * SECOND + 123_456_789);
        assert_eq!(plain.age_ns(3700 * SECOND), None);
        assert!(plain.idle_ns(3700 * SECOND) < 100 * SECOND);
    }
}
