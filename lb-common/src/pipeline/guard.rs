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
    /// [`Choice::guards`].
    guards: u32,
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
            bytes: parsed.ip.frame_len,
            is_syn: choice.is_syn,
        },
        vip,
        guards: choice.guards(),
    };
    match judge(packet, tables, &asked) {
        Reason::Forwarded => Ok(()),
        reason => Err(reason),
    }
}

/// The reason to go no further, or [`Reason::Forwarded`]. A plain number is what functions of BPF return.
#[inline(never)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T, asked: &Asked) -> Reason {
    let guards = asked.guards;
    // Who sent it has judged it: also where this node's view is another one, down to nobody who serves.
    if guards & (flags::SHARED | flags::NOBODYS) != 0 && is_peers(packet, tables) {
        return Reason::Peer;
    }
    if guards & flags::NOBODYS != 0 {
        return Reason::NoBackend;
    }
    if guards & flags::ACCESS != 0
        && let Access::Denied = access::judge(tables, asked.vip, asked.sent.source)
    {
        return Reason::Denied;
    }
    if !limit::admits(tables, asked.vip, guards, &asked.sent) {
        return Reason::Limited;
    }
    Reason::Forwarded
}
