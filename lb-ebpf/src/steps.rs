//! The entry points: one program for each step of the pipeline. They make two programs for an interface: the normal one
//! (`main.rs`), and the one that observes (`observe/main.rs`). What the second does more is in [`crate::observer`], which
//! is empty in the first.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use lb_common::{
    pipeline::{self, Outcome, Step},
    reason::{Reason, Verdict},
    tables::step,
};

use crate::{
    maps::{KernelTables, PORTS, STEPS},
    observer,
    packet::XdpPacket,
};

/// Judges every packet that arrives on an interface. Built for frames of several buffers.
#[xdp(frags)]
#[inline(always)]
pub fn weir_xdp(ctx: XdpContext) -> u32 {
    observer::begin(&ctx);
    let step = pipeline::plain(
        &mut XdpPacket::new(&ctx),
        &KernelTables,
        ingress_ifindex(ctx.ctx),
    );
    match step {
        Step::Sent(outcome) => leave(&ctx, &outcome),
        Step::Done(outcome) => act(&ctx, &outcome),
        Step::Guard => continue_in(&ctx, step::GUARD),
        Step::Pins => continue_in(&ctx, step::PINS),
        _ => continue_in(&ctx, step::UNUSUAL),
    }
}

/// Judges what `weir_xdp` leaves.
#[xdp(frags)]
pub fn weir_unusual(ctx: XdpContext) -> u32 {
    let step = pipeline::unusual(
        &mut XdpPacket::new(&ctx),
        &KernelTables,
        ingress_ifindex(ctx.ctx),
    );
    match step {
        Step::Sent(outcome) => leave(&ctx, &outcome),
        Step::Done(outcome) => act(&ctx, &outcome),
        Step::Answer => continue_in(&ctx, step::ANSWER),
        Step::Guard => continue_in(&ctx, step::GUARD),
        Step::Pins => continue_in(&ctx, step::PINS),
        _ => continue_in(&ctx, step::MESSAGE),
    }
}

/// Judges packets of VIPs with access lists or limits that are not plain, and finds out why a plain one could not be sent.
#[xdp(frags)]
pub fn weir_guard(ctx: XdpContext) -> u32 {
    let step = pipeline::guard(
        &mut XdpPacket::new(&ctx),
        &KernelTables,
        ingress_ifindex(ctx.ctx),
    );
    match step {
        Step::Sent(outcome) => leave(&ctx, &outcome),
        Step::Done(outcome) => act(&ctx, &outcome),
        Step::Pins => continue_in(&ctx, step::PINS),
        _ => continue_in(&ctx, step::ANSWER),
    }
}

/// Sends packets of a flow whose slot changes hands to its backend.
#[xdp(frags)]
pub fn weir_pins(ctx: XdpContext) -> u32 {
    let step = pipeline::pins(
        &mut XdpPacket::new(&ctx),
        &KernelTables,
        ingress_ifindex(ctx.ctx),
    );
    match step {
        Step::Sent(outcome) => leave(&ctx, &outcome),
        Step::Done(outcome) => act(&ctx, &outcome),
        _ => continue_in(&ctx, step::ANSWER),
    }
}

/// Answers a packet with an ICMP error.
#[xdp(frags)]
pub fn weir_answer(ctx: XdpContext) -> u32 {
    let outcome = pipeline::answer(&mut XdpPacket::new(&ctx), &KernelTables);
    act(&ctx, &outcome)
}

/// Judges ICMP, ICMPv6 and ARP.
#[xdp(frags)]
pub fn weir_message(ctx: XdpContext) -> u32 {
    let outcome = pipeline::message(
        &mut XdpPacket::new(&ctx),
        &KernelTables,
        ingress_ifindex(ctx.ctx),
    );
    act(&ctx, &outcome)
}

#[inline(always)]
fn continue_in(ctx: &XdpContext, step: u32) -> u32 {
    // SAFETY: the map holds programs of this type only, as the kernel checks.
    unsafe { STEPS.tail_call(ctx, step) };
    // Reached only where the daemon has not filled the map: it does before it attaches the program.
    xdp_action::XDP_PASS
}

#[inline(always)]
fn act(ctx: &XdpContext, outcome: &Outcome) -> u32 {
    observer::end(ctx, outcome);
    match outcome.verdict() {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => {
            log_drop(ctx, outcome.reason);
            xdp_action::XDP_DROP
        }
        Verdict::Tx => xdp_action::XDP_TX,
        Verdict::Forward => way(outcome),
    }
}

/// Lets a packet go that is on its way to a backend.
#[inline(always)]
fn leave(ctx: &XdpContext, outcome: &Outcome) -> u32 {
    observer::end(ctx, outcome);
    way(outcome)
}

#[inline(always)]
fn way(outcome: &Outcome) -> u32 {
    if outcome.is_redirect {
        redirect(outcome.ifindex)
    } else {
        xdp_action::XDP_TX
    }
}

/// Sends the frame out of another interface. The pipeline has just seen the port in the map; a device that vanished
/// since is a drop.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> u32 {
    match PORTS.redirect(ifindex, u64::from(xdp_action::XDP_DROP)) {
        Ok(action) | Err(action) => action,
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
pub(crate) fn ingress_ifindex(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the kernel calls the program with a valid context.
    unsafe { (*ctx).ingress_ifindex }
}
