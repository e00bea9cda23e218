//! Packets of health checks that go the forwarding path: each to the one backend that its check is about, whatever the
//! lookup tables say, and rewritten or encapsulated by the code that forwards clients' packets.
//!
//! Which backend that is stands in the frame's destination address, where it has no other meaning: the frame comes from
//! this node itself, over a veth that carries nothing else.

use crate::{
    backend::Backend,
    flow::Flow,
    packet::Packet,
    pipeline::{self, Outcome},
    reason::Reason,
    slot::NOBODY,
    tables::Node,
    wire::ethernet::Ethernet,
};

/// What a frame's destination address begins with: locally administered, no group.
const PREFIX: u32 = u32::from_ne_bytes([2, b'w', b'e', b'i']);

/// The destination address of a frame that is for a backend: its first four bytes and its last two, as they lie in
/// memory. (Six bytes in a row would be no whole words on the stack.)
#[must_use]
#[inline(always)]
pub const fn address_of(backend: u16) -> (u32, u16) {
    (PREFIX, backend.to_be())
}

/// The backend of a frame, by its destination address.
#[inline(always)]
const fn backend_of(address: [u8; 6]) -> u16 {
    let [p0, p1, p2, p3, high, low] = address;
    if u32::from_ne_bytes([p0, p1, p2, p3]) == PREFIX {
        u16::from_be_bytes([high, low])
    } else {
        NOBODY
    }
}

/// The maps that packets of health checks are judged by: the same that clients' packets find.
pub trait CheckTables {
    /// Settings of the node.
    fn node(&self) -> Option<&Node>;
    /// A backend by its id.
    fn backend(&self, id: u16) -> Option<&Backend>;
    /// Whether frames can be sent out of an interface.
    fn has_port(&self, ifindex: u32) -> bool;
}

/// Makes a frame ready for its backend, be that dead, drained or without a slot. Returns the interface to send it by.
///
/// Nothing is counted: what VIPs and backends count is clients' packets.
///
/// # Errors
/// Why it cannot be sent: it is to be dropped.
#[inline(always)]
pub fn run<P: Packet, T: CheckTables>(packet: &mut P, tables: &T) -> Result<u32, Reason> {
    let id = backend_of(
        packet
            .at::<Ethernet>(0)
            .ok_or(Reason::Truncated)?
            .destination,
    );
    if id == NOBODY {
        return Err(Reason::NoBackend);
    }
    let network = pipeline::network(packet)?;
    let hash = hash(packet, tables, &network)?;
    let backend = tables.backend(id).ok_or(Reason::TableMissing)?;
    if backend.mode == 0 {
        return Err(Reason::TableMissing);
    }
    if !backend.is_resolved() {
        return Err(Reason::NoNextHop);
    }
    if !tables.has_port(backend.ifindex) {
        return Err(Reason::NoPort);
    }
    let mut outcome = Outcome::UNKNOWN;
    pipeline::wrap(packet, &network.ip, hash, backend, true, &mut outcome)?;
    Ok(backend.ifindex)
}

/// The flow's hash, which spreads outer headers; that of the addresses alone for a fragment.
#[inline(always)]
fn hash<P: Packet, T: CheckTables>(
    packet: &P,
    tables: &T,
    network: &crate::parse::Network,
) -> Result<u32, Reason> {
    let payload = &network.payload;
    let node = tables.node().ok_or(Reason::TableMissing)?;
    if network.fragment.is_none()
        && let Ok(transport) = payload.transport(packet, true)
    {
        let parsed = payload.parsed(network.ip, &transport);
        return Ok(node.hash_keys.hash(&parsed.flow));
    }
    Ok(node.hash_keys.hash(&Flow {
        source: payload.source,
        destination: payload.destination,
        source_port: [0; 2],
        destination_port: [0; 2],
        protocol: u32::from(payload.protocol),
    }))
}
