//! A flood beside the connections of a soak: bare ACKs of flows that nobody has, from sources that are no hosts. Into slots that
//! move they would fill the maps of what is remembered, if these were not kept apart.

use std::{net::Ipv4Addr, thread};

use anyhow::{Result, anyhow};

use crate::{
    lab::{FrameSocket, Topology, VIP_V4},
    limits::{Kind, Link},
};

/// Frames of a flood, each of a flow of its own.
const FRAMES: u32 = 20_000;

/// The first source, 100.64.0.0 (RFC 6598): no host of the lab has such an address.
const FIRST_SOURCE: u32 = 0x6440_0000;

/// Sends a flood; `number` says which, so that no flow comes twice. Returns how many frames it had.
pub(super) fn flood(topology: &Topology, number: u32) -> Result<u64> {
    let link = Link::of(topology)?;
    let first = FIRST_SOURCE + (number * FRAMES) % (1 << 22);
    let namespace = &topology.client.namespace;
    let send = || {
        let socket = FrameSocket::open("eth0")?;
        for source in first..first + FRAMES {
            let from = Ipv4Addr::from(source).into();
            socket.send(&link.frame_to(from, 40_000, VIP_V4, Kind::Stray))?;
        }
        Ok(u64::from(FRAMES))
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| namespace.inside(send));
        sender
            .join()
            .map_err(|_panic| anyhow!("the sender panicked"))?
    })
}
