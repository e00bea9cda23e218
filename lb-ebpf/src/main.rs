//! The XDP program `weir_xdp`: packet access, maps and the entry point. What becomes of a packet is
//! decided by [`lb_common::pipeline`]; there is no policy here.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

mod maps;
mod packet;
mod section;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use lb_common::{
    pipeline,
    reason::{Reason, Verdict},
};

use crate::{
    maps::{KernelTables, PORTS},
    packet::XdpPacket,
};

/// Judges every packet that arrives on an interface. Built for frames of several buffers.
#[xdp(frags)]
pub fn weir_xdp(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let outcome = pipeline::run(&mut packet, &KernelTables, ingress_ifindex(ctx.ctx));
    if outcome.verdict() == Verdict::Drop {
        log_drop(&ctx, outcome.reason);
    }
    match outcome.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        // The pipeline has just seen the port in the map; a device that vanished since is a drop.
        Verdict::Forward if outcome.is_redirect => {
            match PORTS.redirect(outcome.ifindex, u64::from(xdp_action::XDP_DROP)) {
                Ok(action) | Err(action) => action,
            }
        }
        Verdict::Tx | Verdict::Forward => xdp_action::XDP_TX,
    }
}

/// Says why a packet was dropped, where the daemon was started with `--program-log debug`. Else the level is a
/// constant that lets the verifier cut all of this out.
#[inline(never)]
fn log_drop(ctx: &XdpContext, reason: Reason) {
    debug!(ctx, "dropped: {}", reason.as_str());
}

/// The interface by which the packet came.
#[inline(always)]
fn ingress_ifindex(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the kernel calls the program with a valid context.
    unsafe { (*ctx).ingress_ifindex }
}
