//! What a step of the pipeline notes of a packet for a VIP, on one CPU: those that go on with it look at no header again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Flow,
    parse::{FragmentOf, Ip, Parsed, Tags},
    pipeline::NO_SLOT,
    slot::{NOBODY, Slot},
};

/// A packet for a VIP, and where it is to go. Host order.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Noted {
    flow: Flow,
    /// [`Ip::head`].
    head: u64,
    /// [`Tags::packed`].
    tags: u64,
    /// Length of the IP packet, in bytes.
    len: u32,
    /// Length of the frame, in bytes, without the FCS.
    frame_len: u32,
    /// Where the payload lies in the frame, in bytes from its start.
    start: u32,
    /// Of a fragment: its packet's identification, as it lies on the wire.
    fragment: u32,
    /// The VIP's id.
    pub(crate) vip: u32,
    /// Hash of the flow; the low 16 bits are its slot.
    pub(crate) hash: u32,
    /// The slot; where it is Stable, the backend.
    pub(crate) slot: Slot,
    /// [`flags`].
    pub(crate) flags: u32,
    /// [`crate::vip::flags`] of the VIP.
    pub(crate) vip_flags: u32,
    /// Zero.
    reserved: u32,
}

/// Facts about a [`Noted`] packet.
pub(crate) mod flags {
    /// It is IPv6.
    pub(super) const V6: u32 = 1;
    /// It is a SYN.
    pub(super) const SYN: u32 = 2;
    /// It is a first fragment.
    pub(super) const FIRST: u32 = 4;
    /// It is a later fragment.
    pub(super) const LATER: u32 = 8;
    /// It is a later fragment whose first was not seen.
    pub(crate) const ORPHAN: u32 = 16;
    /// Whatever guards its VIP has judged it.
    pub(crate) const JUDGED: u32 = 32;
}

impl Noted {
    /// A packet that is not judged yet: `vip`, `hash`, `slot` and some `flags` are to be set.
    #[inline(always)]
    pub(crate) const fn new(parsed: &Parsed, part: Option<FragmentOf>) -> Self {
        let (fragment, kind) = match part {
            None => (0, 0),
            Some(part) if part.is_first => (part.id, flags::FIRST),
            Some(part) => (part.id, flags::LATER),
        };
        Self {
            flow: parsed.flow,
            head: parsed.ip.head,
            tags: parsed.ip.tags.packed(),
            len: parsed.ip.len,
            frame_len: parsed.ip.frame_len,
            start: parsed.start as u32,
            fragment,
            vip: 0,
            vip_flags: 0,
            reserved: 0,
            hash: 0,
            slot: Slot::stable(NOBODY),
            flags: kind
                | (flags::V6 * parsed.ip.is_v6 as u32)
                | (flags::SYN * parsed.is_syn as u32),
        }
    }

    /// Whether a fact holds.
    #[inline(always)]
    pub(crate) const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// What its headers said.
    #[inline(always)]
    pub(crate) const fn parsed(&self) -> Parsed {
        Parsed {
            ip: Ip {
                tags: Tags::unpacked(self.tags),
                head: self.head,
                is_v6: self.is(flags::V6),
                len: self.len,
                frame_len: self.frame_len,
            },
            flow: self.flow,
            start: self.start as usize,
            is_syn: self.is(flags::SYN),
        }
    }

    /// Its slot, or [`NO_SLOT`] where none was looked at: a later fragment goes where its first went.
    #[inline(always)]
    pub(crate) const fn slot_number(&self) -> u32 {
        if self.is(flags::LATER) && !self.is(flags::ORPHAN) {
            NO_SLOT
        } else {
            self.hash & 0xffff
        }
    }

    /// Which part of a larger packet it is.
    #[inline(always)]
    pub(crate) const fn part(&self) -> Option<FragmentOf> {
        if self.is(flags::FIRST | flags::LATER) {
            Some(FragmentOf {
                id: self.fragment,
                is_first: self.is(flags::FIRST),
            })
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;

    #[test]
    fn what_is_noted_is_found_again() {
        let tags = Tags {
            count: 2,
            outer_type: 0x88a8,
            outer: 0xffff,
            inner: 0x8001,
        };
        let flow = Flow {
            source: Address::from_v4([192, 0, 2, 1]),
            destination: Address::from_v4([203, 0, 113, 10]),
            ports: Flow::ports([1, 2], [3, 4]),
            protocol: 6,
        };
        for (is_v6, is_syn) in [(false, true), (true, false)] {
            for (tags, is_first) in [(tags, Some(true)), (Tags::NONE, Some(false)), (tags, None)] {
                let parsed = Parsed {
                    ip: Ip {
                        tags,
                        head: 0x4500_0102_0304_0506,
                        is_v6,
                        len: 1500,
                        frame_len: 9000,
                    },
                    flow,
                    start: 62,
                    is_syn,
                };
                let part = is_first.map(|is_first| FragmentOf {
                    id: 0xabcd,
                    is_first,
                });
                let noted = Noted::new(&parsed, part);
                assert_eq!(noted.part(), part);
                let found = noted.parsed();
                assert_eq!(
                    (found.ip.tags, found.ip.is_v6, found.is_syn),
                    (tags, is_v6, is_syn)
                );
                assert_eq!(
                    (found.ip.len, found.ip.frame_len, found.start, found.ip.head),
                    (1500, 9000, 62, 0x4500_0102_0304_0506)
                );
                assert_eq!(found.flow, flow);
                let is_known = is_first == Some(false);
                assert_eq!(noted.slot_number() == NO_SLOT, is_known);
            }
        }
    }
}
