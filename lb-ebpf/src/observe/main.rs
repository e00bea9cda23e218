//! The program that observes: `weir_xdp` with all its steps, from the same source and over the same maps, which also tells
//! what becomes of packets. It takes the normal program's place while somebody watches, so that nobody pays for it else.

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

#[path = "../limits.rs"]
mod limits;
#[path = "../maps.rs"]
mod maps;
mod observer;
#[path = "../packet.rs"]
mod packet;
mod saved;
#[path = "../section.rs"]
mod section;
#[path = "../steps.rs"]
mod steps;
