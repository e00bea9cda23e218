//! The packets that are measured.

use etherparse::PacketBuilder;

use super::{L2, VIP_V4, VIP_V6};

/// A client's SYN.
pub(super) fn syn(client: [u8; 4]) -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(client, VIP_V4, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, L2, 0, 65535)
        .syn()
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}

/// A bare ACK of a client's; it fits [`syn`].
pub(super) fn ack(client: [u8; 4]) -> anyhow::Result<Vec<u8>> {
    frame_to(client, L2)
}

/// The same, to another port.
pub(super) fn frame_to(client: [u8; 4], port: u16) -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(client, VIP_V4, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}

pub(super) fn tcp_v4(to: [u8; 4], port: u16) -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], to, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}

pub(super) fn udp_v4() -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], VIP_V4, 64);
    let mut frame = Vec::new();
    builder.udp(40000, L2).write(&mut frame, &[0; 22])?;
    Ok(frame)
}

pub(super) fn tcp_v6(port: u16) -> anyhow::Result<Vec<u8>> {
    let source = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(source, VIP_V6, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}
