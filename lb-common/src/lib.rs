//! weir's map types and packet pipeline, shared by the BPF program, the daemon, tests and fuzzers.
//!
//! Read from top to bottom, the modules are the packet's way through [`pipeline::run`]:
//! parse → VIP → limits → slot → pin → backend → encapsulate or rewrite. Everything is generic over a [`packet::Packet`] (who owns
//! the bytes) and [`tables::Tables`] (who owns the maps), so that the very same source is compiled
//! into the kernel and run on the host. What observers are told of packets is in
//! [`observe`]. Packets of health checks go by [`check`]. What happens at the other end of a
//! tunnel is in [`decap`].
//!
//! **Invariant:** this crate does no I/O, allocates nothing, reads no clock and knows nothing of aya.
//! Nothing in it can panic: a panic does not link into a BPF program.

#![no_std]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod packet;

pub mod wire;

pub mod checksum;

pub mod parse;

pub mod flow;

pub mod vip;

pub mod access;

pub mod gcra;

pub mod limit;

pub mod slot;

pub mod pin;

pub mod marks;

pub mod fragment;

pub mod backend;

pub mod encap;

pub mod rewrite;

mod icmp;

mod neighbour;

pub mod reason;

pub mod noted;

pub mod tables;

pub mod pipeline;

pub mod observe;

pub mod check;

pub mod decap;

pub mod bench;
