//! `weir trace`: what becomes of a packet, told by the real program without sending anything.
//!
//! Packets come from a capture file ([`capture`]), from hexadecimal digits or from a 5-tuple ([`frame`]), run
//! through the program in the kernel ([`tracer`]), and are explained in words ([`explain`]).

pub mod capture;
pub mod explain;
mod fields;
pub mod frame;
pub mod tracer;

use std::time::Duration;

/// A packet to be traced, from its Ethernet header on, without the FCS.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Input {
    /// Its bytes.
    pub frame: Vec<u8>,
    /// When it was captured, since 1970; zero where nobody captured it.
    pub time: Duration,
    /// How long it was on the wire: more than its bytes where the capture cut it short.
    pub wire_len: usize,
}

impl Input {
    /// A packet that nobody captured.
    #[must_use]
    pub fn made(frame: Vec<u8>) -> Self {
        Self {
            wire_len: frame.len(),
            time: Duration::ZERO,
            frame,
        }
    }
}
