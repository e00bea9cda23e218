//! The XDP program `weir_xdp`: packet access, maps and the entry point. What becomes of a packet is
//! decided by [`lb_common::pipeline`]; there is no policy here.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "core::sync::atomic has no compare_exchange on BPF; the intrinsics do"
)]
#![expect(
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "the macro of an entry point makes a function of this form, and the loader finds it by its name"
)]

mod limits;
mod maps;
#[path = "unobserved.rs"]
mod observer;
mod packet;
mod section;
mod steps;
