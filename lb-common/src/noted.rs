//! What one step of the pipeline notes of a packet for the next, on one CPU: so nobody looks at its headers twice.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flow::Flow,
    parse::{FragmentOf, Ip, Parsed, Tags},
    slot::Slot,
};

/// A packet for a VIP, and where it is to go. Host order.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Noted {
    flow: Flow,
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
    pub vip: u32,
    /// Hash of the flow; the low 16 bits are its slot.
    pub hash: u32,
    /// The slot; where it is Stable, the backend.
    pub slot: Slot,
    /// [`flags`].
    pub flags: u32,
}

/// Facts about a [`Noted`] packet.
pub mod flags {
    /// It is IPv6.
    pub(super) const V6: u32 = 1;
    /// It is a SYN.
    pub(super) const SYN: u32 = 2;
    /// It is a first fragment.
    pub(super) const FIRST: u32 = 4;
    /// It is a later fragment.
    pub(super) const LATER: u32 = 8;
    /// It is a later fragment whose first was not seen.
    pub const ORPHAN: u32 = 16;
    /// Access lists must judge it.
    pub const LISTED: u32 = 32;
    /// Another node of the fleet may have sent it.
    pub const SHARED: u32 = 64;
}

impl Noted {
    /// A packet that is not judged yet: `vip`, `hash`, `slot` and some `flags` are to be set.
    #[must_use]
    #[inline(always)]
    pub const fn new(parsed: &Parsed, part: Option<FragmentOf>) -> Self {
        let (fragment, kind) = match part {
            None => (0, 0),
            Some(part) if part.is_first => (part.id, flags::FIRST),
            Some(part) => (part.id, flags::LATER),
        };
        Self {
            flow: parsed.flow,
            tags: parsed.ip.tags.packed(),
            len: parsed.ip.len,
            frame_len: parsed.ip.frame_len,
            start: parsed.start as u32,
            fragment,
            vip: 0,
            hash: 0,
            slot: Slot::stable(crate::slot::NOBODY),
            flags: kind
                | (flags::V6 * parsed.ip.is_v6 as u32)
                | (flags::SYN * parsed.is_syn as u32),
        }
    }

    /// Whether a fact holds.
    #[must_use]
    #[inline(always)]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// What its headers said.
    #[must_use]
    #[inline(always)]
    pub const fn parsed(&self) -> Parsed {
        Parsed {
            ip: Ip {
                tags: Tags::unpacked(self.tags),
                is_v6: self.is(flags::V6),
                len: self.len,
                frame_len: self.frame_len,
            },
            flow: self.flow,
            start: self.start as usize,
            is_syn: self.is(flags::SYN),
        }
    }

    /// Which part of a larger packet it is.
    #[must_use]
    #[inline(always)]
    pub const fn part(&self) -> Option<FragmentOf> {
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
