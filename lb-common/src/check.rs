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
    rewrite,
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
    let tags = rewrite::tags(backend, network.ip.tags, true);
    pipeline::wrap(packet, &network.ip, hash, backend, &tags, &mut outcome)?;
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
        ports: 0,
        protocol: u32::from(payload.protocol),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::{flags, mode},
        encap,
        flow::{Address, HashKeys},
        packet::{HEADROOM, HostPacket},
    };

    const PORT: u32 = 7;

    struct Tables {
        node: Node,
        backend: Backend,
        has_port: bool,
    }

    impl CheckTables for Tables {
        fn node(&self) -> Option<&Node> {
            Some(&self.node)
        }
        fn backend(&self, id: u16) -> Option<&Backend> {
            (id == 0x1234).then_some(&self.backend)
        }
        fn has_port(&self, ifindex: u32) -> bool {
            self.has_port && ifindex == PORT
        }
    }

    fn tables(mode: u8) -> Tables {
        let (source, address) = (
            Address::from_v4([10, 0, 0, 1]),
            Address::from_v4([10, 0, 0, 11]),
        );
        Tables {
            node: Node::new(HashKeys { keys: [3; 11] }),
            backend: Backend {
                mac_destination: [2, 0, 0, 0, 0, 11],
                mac_source: [2, 0, 0, 0, 0, 1],
                mode,
                // Dead: its check is how it comes back.
                flags: flags::RESOLVED | flags::DEAD,
                ifindex: PORT,
                mtu: 1500,
                source,
                address,
                outer_sum: encap::constant_sum(source, address, mode, false),
                gue_port: 6080_u16.to_be_bytes(),
                ..Backend::default()
            },
            has_port: true,
        }
    }

    /// A SYN from this node to 203.0.113.10, port 80, for a backend.
    fn frame(backend: u16) -> [u8; 54] {
        let mut frame = [0; 54];
        let (start, end) = address_of(backend);
        frame[..4].copy_from_slice(&start.to_ne_bytes());
        frame[4..6].copy_from_slice(&end.to_ne_bytes());
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..34].copy_from_slice(&[
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 203, 0, 113, 10,
        ]);
        frame[34..38].copy_from_slice(&[0xc0, 1, 0, 80]);
        frame[46..48].copy_from_slice(&[0x50, 2]);
        frame
    }

    fn sent(frame: &[u8], tables: &Tables) -> Result<std::vec::Vec<u8>, Reason> {
        let mut buffer = [0; HEADROOM + 54];
        let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
        assert_eq!(run(&mut packet, tables)?, PORT);
        Ok(packet.bytes().to_vec())
    }

    #[test]
    fn a_frame_goes_to_the_backend_that_its_address_names() {
        let frame = frame(0x1234);
        let out = sent(&frame, &tables(mode::L2)).unwrap();
        assert_eq!(out[..12], [2, 0, 0, 0, 0, 11, 2, 0, 0, 0, 0, 1]);
        assert_eq!(out[12..], frame[12..]);
    }

    #[test]
    fn and_in_the_outer_headers_of_its_mode() {
        let frame = frame(0x1234);
        for (mode, overhead, protocol) in [(mode::IPIP, 20, 4), (mode::GUE, 28, 17)] {
            let out = sent(&frame, &tables(mode)).unwrap();
            assert_eq!(out.len(), frame.len() + overhead);
            assert_eq!((out[23], &out[30..34]), (protocol, &[10, 0, 0, 11][..]));
            assert_eq!(out[14 + overhead..], frame[14..]);
        }
    }

    #[test]
    fn and_with_the_tag_of_its_way() {
        let frame = frame(0x1234);
        let mut tagged = tables(mode::L2);
        tagged.backend.flags |= flags::VLANS_SET;
        tagged.backend.vlan_count = 1;
        tagged.backend.vlans = [7_u16.to_be_bytes(), [0; 2]];
        let out = sent(&frame, &tagged).unwrap();
        assert_eq!(out[12..18], [0x81, 0, 0, 7, 8, 0]);
        assert_eq!(out[18..], frame[14..]);
    }

    #[test]
    fn nothing_else_goes_anywhere() {
        let good = tables(mode::L2);
        assert_eq!(sent(&frame(0), &good), Err(Reason::NoBackend));
        let mut other = frame(0x1234);
        other[1] ^= 1;
        assert_eq!(sent(&other, &good), Err(Reason::NoBackend));
        assert_eq!(sent(&frame(0x1235), &good), Err(Reason::TableMissing));
        assert_eq!(sent(&frame(0x1234), &tables(0)), Err(Reason::TableMissing));
        let mut unresolved = tables(mode::L2);
        unresolved.backend.flags = 0;
        assert_eq!(sent(&frame(0x1234), &unresolved), Err(Reason::NoNextHop));
        let mut closed = tables(mode::L2);
        closed.has_port = false;
        assert_eq!(sent(&frame(0x1234), &closed), Err(Reason::NoPort));
        let mut narrow = tables(mode::IPIP);
        narrow.backend.mtu = 59;
        assert_eq!(sent(&frame(0x1234), &narrow), Err(Reason::TooBig));
    }
}
