//! A packet as `GET /v1/packets` tells it.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use lb_common::{
    observe::Record,
    pipeline::NO_SLOT,
    reason::{REDIRECT, Reason},
    wire::protocol,
};
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes as _;

use super::{Names, hub::Wall};

/// A packet that was seen, and what became of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct PacketSeen {
    /// When, in UTC (RFC 3339, microseconds).
    pub time: String,
    /// Name of the VIP; none where it was for none, or was not followed that far.
    pub vip: Option<String>,
    /// Address of the backend that was chosen.
    #[schema(value_type = Option<String>)]
    pub backend: Option<IpAddr>,
    /// The slot that the flow hashed to.
    pub slot: Option<u32>,
    /// What became of it: `pass`, `drop`, `tx` or `redirect`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Where it came from; none where it is neither IPv4 nor IPv6.
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// The port there, of TCP and UDP.
    pub source_port: Option<u16>,
    /// Where it went.
    #[schema(value_type = Option<String>)]
    pub destination: Option<IpAddr>,
    /// The port there, of TCP and UDP.
    pub destination_port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or `arp`; else the number of the IP protocol, or none.
    pub protocol: Option<String>,
    /// Length of the frame as it came, in bytes, without the FCS.
    pub length_bytes: u32,
    /// The packet stands for so many: it was drawn from them by chance.
    pub sample: u32,
    /// How many that were drawn before it are not in this stream: beyond its rate, or too fast for it.
    pub skipped: u64,
}

/// What became of a packet, as words.
pub(crate) fn verdict(record: &Record, reason: Reason) -> &'static str {
    if record.is_redirect() {
        REDIRECT
    } else {
        reason.verdict().as_str()
    }
}

/// A record with its bytes, apart: as the packet came, and as it left.
pub(crate) fn parts(bytes: &[u8]) -> Option<(Record, &[u8], &[u8])> {
    let (record, saved) = Record::read_from_prefix(bytes).ok()?;
    let (came, left) = saved.split_at_checked(record.came_saved as usize)?;
    Some((record, came, left.get(..record.left_saved as usize)?))
}

/// The slot, if one was looked at.
pub(crate) fn slot(record: &Record) -> Option<u32> {
    (record.slot != NO_SLOT).then_some(record.slot)
}

/// A record in words; `None` where it is none.
pub(crate) fn seen(
    bytes: &[u8],
    names: &Names,
    wall: Wall,
    sample: u32,
    skipped: u64,
) -> Option<PacketSeen> {
    let (record, came, _) = parts(bytes)?;
    let reason = record.reason()?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall.unix_ns(record.time_ns));
    let Headers {
        addresses,
        ports,
        protocol,
    } = headers(came);
    Some(PacketSeen {
        time: humantime::format_rfc3339_micros(time).to_string(),
        vip: names.vip(record.vip).map(str::to_owned),
        backend: names.backend(record.backend),
        slot: slot(&record),
        verdict: verdict(&record, reason).to_owned(),
        reason: reason.as_str().to_owned(),
        source: addresses.map(|(source, _)| source),
        source_port: ports.map(|(source, _)| source),
        destination: addresses.map(|(_, destination)| destination),
        destination_port: ports.map(|(_, destination)| destination),
        protocol,
        length_bytes: record.came_len,
        sample,
        skipped,
    })
}

/// What the headers of a frame tell.
#[derive(Default)]
struct Headers {
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
    protocol: Option<String>,
}

fn headers(frame: &[u8]) -> Headers {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return Headers::default();
    };
    let (addresses, number) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let addresses = (
                header.source_addr().into(),
                header.destination_addr().into(),
            );
            (Some(addresses), ip.payload_ip_number().0)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let addresses = (
                header.source_addr().into(),
                header.destination_addr().into(),
            );
            (Some(addresses), ip.payload().ip_number.0)
        }
        Some(LaxNetSlice::Arp(_)) => {
            return Headers {
                protocol: Some("arp".to_owned()),
                ..Headers::default()
            };
        }
        None => return Headers::default(),
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    let protocol = match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        number => number.to_string(),
    };
    Headers {
        addresses,
        ports,
        protocol: Some(protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    #[test]
    fn headers_are_read_as_far_as_they_were_saved() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([198, 51, 100, 7], [203, 0, 113, 10], 64)
            .tcp(40000, 443, 1, 1024)
            .write(&mut frame, &[0; 1000])
            .unwrap();
        let told = headers(&frame[..128]);
        assert_eq!(told.ports, Some((40000, 443)));
        assert_eq!(told.protocol.as_deref(), Some("tcp"));
        let told = headers(&frame[..36]);
        assert_eq!(told.ports, None);
        let (source, _) = told.addresses.unwrap();
        assert_eq!(source, IpAddr::from([198, 51, 100, 7]));
        assert!(headers(&frame[..9]).protocol.is_none());
    }
}
