//! The programs of health checks with `via = "dsr"`, on the two ends of weir's own veth: `weir_dsr_mark` writes the
//! backend that a packet's mark names into the frame, since no mark crosses to XDP, and `weir_dsr` sends the frame
//! there. What becomes of it is decided by [`lb_common::check`]; there is no policy here.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

mod maps;
#[path = "../decap/packet.rs"]
mod packet;
#[path = "../section.rs"]
mod section;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::{check, slot::NOBODY};

use crate::{
    maps::{KernelTables, PORTS},
    packet::XdpPacket,
};

/// Names the backend in the frame, by the low half of the packet's mark. What nobody marked goes nowhere.
#[classifier]
pub fn weir_dsr_mark(ctx: TcContext) -> i32 {
    // SAFETY: the kernel calls the program with a valid context.
    let backend = unsafe { (*ctx.skb.skb).mark } as u16;
    if backend == NOBODY {
        return TC_ACT_SHOT;
    }
    let (start, end) = check::address_of(backend);
    let written = ctx
        .store(0, &start, 0)
        .and_then(|()| ctx.store(size_of_val(&start), &end, 0));
    match written {
        Ok(()) => TC_ACT_OK,
        Err(_) => TC_ACT_SHOT,
    }
}

/// Sends the frame to its backend, as if a client had sent the packet.
#[xdp(frags)]
pub fn weir_dsr(ctx: XdpContext) -> u32 {
    match check::run(&mut XdpPacket::new(&ctx), &KernelTables) {
        Ok(ifindex) => match PORTS.redirect(ifindex, u64::from(xdp_action::XDP_DROP)) {
            Ok(action) | Err(action) => action,
        },
        // Nothing that comes this way is for this node.
        Err(_reason) => xdp_action::XDP_DROP,
    }
}
