//! What judges packets before they may be remembered or forwarded: the fleet's other nodes, access lists and limits.
//!
//! A function of its own, which packets of VIPs without any of it never call.

use super::choose::{Choice, is_peers};
use crate::{
    access::{self, Access},
    limit::{self, Sent},
    packet::Packet,
    parse::Parsed,
    reason::Reason,
    tables::Tables,
    vip::flags,
};

/// A packet that is judged.
struct Asked {
    sent: Sent,
    vip: u32,
    /// [`flags`] of the VIP.
    vip_flags: u32,
    /// Whether nobody serves its slot.
    is_nobodys: bool,
}

/// Whether a packet for a VIP may go on to where it is to go.
#[inline(always)]
pub(super) fn admit<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    parsed: &Parsed,
    choice: &Choice,
    vip: u32,
) -> Result<(), Reason> {
    let asked = Asked {
        sent: Sent {
            source: parsed.flow.source,
            bytes: u64::from(parsed.ip.frame_len),
            is_syn: choice.is_syn,
        },
        vip,
        vip_flags: choice.vip_flags,
        is_nobodys: choice.slot.is_nobodys(),
    };
    match judge(packet, tables, &asked) {
        Reason::Forwarded => Ok(()),
        reason => Err(reason),
    }
}

/// The reason to go no further, or [`Reason::Forwarded`]. A plain number is what functions of BPF return.
#[inline(never)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T, asked: &Asked) -> Reason {
    // Who sent it has judged it: also where this node's view is another one, down to nobody who serves.
    if (asked.vip_flags & flags::SHARED != 0 || asked.is_nobodys) && is_peers(packet, tables) {
        return Reason::Peer;
    }
    if asked.is_nobodys {
        return Reason::NoBackend;
    }
    if asked.vip_flags & flags::ACCESS != 0
        && let Access::Denied = access::judge(tables, asked.vip, asked.sent.source)
    {
        return Reason::Denied;
    }
    if asked.vip_flags & (flags::LIMITS | flags::SYN_LIMITS) != 0
        && !limit::admits(tables, asked.vip, &asked.sent)
    {
        return Reason::Limited;
    }
    Reason::Forwarded
}
