//! The XDP program `weir_decap` of a backend: maps and the entry point. What becomes of a packet is decided by
//! [`lb_common::decap`]; there is no policy here.

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
#[path = "../section.rs"]
mod section;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{decap, reason::Verdict};

use crate::{maps::KernelTables, packet::XdpPacket};

/// Takes the outer headers off the fleet's packets. Built for frames of several buffers.
#[xdp(frags)]
pub fn weir_decap(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    match decap::run(&mut packet, &KernelTables).verdict() {
        Verdict::Drop => xdp_action::XDP_DROP,
        // Nothing is sent from here.
        Verdict::Pass | Verdict::Tx | Verdict::Forward => xdp_action::XDP_PASS,
    }
}
