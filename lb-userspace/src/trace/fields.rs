//! A packet as a list of headers, each a list of fields, for people. Read by etherparse, which shares no code with
//! the pipeline: it is a second opinion.

use std::net::Ipv4Addr;

use etherparse::{
    ArpPacketSlice, Icmpv4Slice, Icmpv6Slice, IpNumber, Ipv4HeaderSlice, LaxIpv6Slice,
    LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice, UdpSlice,
};

use super::frame::hex;

/// Tunnels in tunnels that are followed.
const MAX_DEPTH: usize = 3;

/// A header of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Layer {
    /// What it is.
    pub(super) name: &'static str,
    /// The most important of it, in a few words.
    pub(super) summary: String,
    /// All of it.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Layer {
    /// Whether it belongs to the link: in front of the network's headers.
    pub(super) fn is_link(&self) -> bool {
        matches!(self.name, "Ethernet" | "VLAN")
    }
}

/// A packet's headers from the outermost on, and what stopped the reading, if anything did.
pub(super) fn layers(frame: &[u8]) -> (Vec<Layer>, Option<String>) {
    let mut layers = Vec::new();
    match LaxSlicedPacket::from_ethernet(frame) {
        Ok(packet) => {
            let stop = read(&packet, &mut layers, 0);
            (layers, stop)
        }
        Err(error) => (layers, Some(error.to_string())),
    }
}

fn read(packet: &LaxSlicedPacket<'_>, layers: &mut Vec<Layer>, depth: usize) -> Option<String> {
    link(packet, layers);
    let mut inner = None;
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            layers.push(ipv4(&ip.header()));
            inner = tunnelled(
                ip.payload_ip_number(),
                ip.payload().payload,
                ip.is_payload_fragmented(),
            );
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            layers.push(ipv6(ip));
            let payload = ip.payload();
            inner = tunnelled(
                payload.ip_number,
                payload.payload,
                ip.is_payload_fragmented(),
            );
        }
        Some(LaxNetSlice::Arp(packet)) => layers.push(arp(packet)),
        None => {}
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(segment)) => layers.push(tcp(segment)),
        Some(TransportSlice::Udp(datagram)) => {
            layers.push(udp(datagram));
            inner = Some(datagram.payload()).filter(|payload| is_whole_ip(payload));
        }
        Some(TransportSlice::Icmpv4(message)) => layers.push(icmpv4(message)),
        Some(TransportSlice::Icmpv6(message)) => layers.push(icmpv6(message)),
        _ => {}
    }
    if let Some(inner) = inner.filter(|_| depth < MAX_DEPTH) {
        return match LaxSlicedPacket::from_ip(inner) {
            Ok(packet) => read(&packet, layers, depth.saturating_add(1)),
            Err(error) => Some(error.to_string()),
        };
    }
    packet.stop_err.as_ref().map(|(error, _)| error.to_string())
}

/// The Ethernet header and its VLAN tags.
fn link(packet: &LaxSlicedPacket<'_>, layers: &mut Vec<Layer>) {
    if let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link {
        let (from, to) = (mac(&ethernet.source()), mac(&ethernet.destination()));
        layers.push(Layer {
            name: "Ethernet",
            summary: format!("{from} > {to}"),
            fields: vec![
                ("destination", to),
                ("source", from),
                ("type", format!("0x{:04x}", ethernet.ether_type().0)),
            ],
        });
    }
    for tag in &packet.link_exts {
        if let LaxLinkExtSlice::Vlan(tag) = tag {
            let id = tag.vlan_identifier().value();
            layers.push(Layer {
                name: "VLAN",
                summary: id.to_string(),
                fields: vec![
                    ("id", id.to_string()),
                    ("priority", tag.priority_code_point().value().to_string()),
                    ("drop eligible", tag.drop_eligible_indicator().to_string()),
                    ("type", format!("0x{:04x}", tag.ether_type().0)),
                ],
            });
        }
    }
}

fn tunnelled(number: IpNumber, payload: &[u8], is_fragment: bool) -> Option<&[u8]> {
    let is_tunnel = matches!(number, IpNumber::IPV4 | IpNumber::IPV6);
    (is_tunnel && !is_fragment).then_some(payload)
}

/// Whether a datagram holds one IP packet and nothing else, as GUE of variant 1 does.
fn is_whole_ip(payload: &[u8]) -> bool {
    let word = |at: usize| match payload.get(at..at.saturating_add(2)) {
        Some([high, low]) => usize::from(u16::from_be_bytes([*high, *low])),
        _ => usize::MAX,
    };
    match payload.first().map(|first| first >> 4) {
        Some(4) => word(2) == payload.len(),
        Some(6) => word(4).saturating_add(40) == payload.len(),
        _ => false,
    }
}

fn ipv4(header: &Ipv4HeaderSlice<'_>) -> Layer {
    let (from, to) = (header.source_addr(), header.destination_addr());
    let offset = header.fragments_offset().byte_offset();
    let part = if header.is_fragmenting_payload() {
        format!(
            ", fragment at {offset} of packet {}",
            header.identification()
        )
    } else {
        String::new()
    };
    Layer {
        name: "IPv4",
        summary: format!("{from} > {to}, TTL {}{part}", header.ttl()),
        fields: vec![
            ("source", from.to_string()),
            ("destination", to.to_string()),
            ("TTL", header.ttl().to_string()),
            ("DSCP", header.dcp().value().to_string()),
            ("ECN", header.ecn().value().to_string()),
            ("total length", header.total_len().to_string()),
            ("identification", header.identification().to_string()),
            ("don't fragment", header.dont_fragment().to_string()),
            ("more fragments", header.more_fragments().to_string()),
            ("fragment offset", offset.to_string()),
            ("protocol", protocol(header.protocol())),
            ("checksum", format!("0x{:04x}", header.header_checksum())),
            ("options", format!("{} bytes", header.options().len())),
        ],
    }
}

fn ipv6(ip: &LaxIpv6Slice<'_>) -> Layer {
    let header = ip.header();
    let (from, to) = (header.source_addr(), header.destination_addr());
    let extensions = ip.extensions().slice().len();
    let part = if ip.is_payload_fragmented() {
        ", fragment"
    } else {
        ""
    };
    Layer {
        name: "IPv6",
        summary: format!("{from} > {to}, hop limit {}{part}", header.hop_limit()),
        fields: vec![
            ("source", from.to_string()),
            ("destination", to.to_string()),
            ("hop limit", header.hop_limit().to_string()),
            ("DSCP", header.dscp().value().to_string()),
            ("ECN", header.ecn().value().to_string()),
            (
                "flow label",
                format!("0x{:05x}", header.flow_label().value()),
            ),
            ("payload length", header.payload_length().to_string()),
            ("next header", protocol(header.next_header())),
            ("extension headers", format!("{extensions} bytes")),
        ],
    }
}

fn tcp(segment: &TcpSlice<'_>) -> Layer {
    let flags = [
        (segment.syn(), "SYN"),
        (segment.ack(), "ACK"),
        (segment.fin(), "FIN"),
        (segment.rst(), "RST"),
        (segment.psh(), "PSH"),
        (segment.urg(), "URG"),
        (segment.ece(), "ECE"),
        (segment.cwr(), "CWR"),
    ];
    let flags: Vec<_> = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, name)| *name)
        .collect();
    let flags = flags.join(" ");
    let (from, to) = (segment.source_port(), segment.destination_port());
    let payload = segment.payload().len();
    Layer {
        name: "TCP",
        summary: format!("{from} > {to} [{flags}], {payload} bytes"),
        fields: vec![
            ("source port", from.to_string()),
            ("destination port", to.to_string()),
            ("flags", flags),
            ("sequence", segment.sequence_number().to_string()),
            (
                "acknowledgment",
                segment.acknowledgment_number().to_string(),
            ),
            ("window", segment.window_size().to_string()),
            ("checksum", format!("0x{:04x}", segment.checksum())),
            ("payload", format!("{payload} bytes")),
        ],
    }
}

fn udp(datagram: &UdpSlice<'_>) -> Layer {
    let (from, to) = (datagram.source_port(), datagram.destination_port());
    Layer {
        name: "UDP",
        summary: format!("{from} > {to}, {} bytes", datagram.payload().len()),
        fields: vec![
            ("source port", from.to_string()),
            ("destination port", to.to_string()),
            ("length", datagram.length().to_string()),
            ("checksum", format!("0x{:04x}", datagram.checksum())),
        ],
    }
}

fn icmpv4(message: &Icmpv4Slice<'_>) -> Layer {
    icmp(
        "ICMP",
        (message.type_u8(), message.code_u8()),
        message.checksum(),
        message.bytes5to8(),
    )
}

fn icmpv6(message: &Icmpv6Slice<'_>) -> Layer {
    icmp(
        "ICMPv6",
        (message.type_u8(), message.code_u8()),
        message.checksum(),
        message.bytes5to8(),
    )
}

fn icmp(name: &'static str, (kind, code): (u8, u8), checksum: u16, rest: [u8; 4]) -> Layer {
    let words = match (name, kind) {
        ("ICMP", 0) | ("ICMPv6", 129) => " (echo reply)",
        ("ICMP", 8) | ("ICMPv6", 128) => " (echo request)",
        ("ICMP", 3) | ("ICMPv6", 1) => " (unreachable)",
        ("ICMP", 11) | ("ICMPv6", 3) => " (time exceeded)",
        ("ICMPv6", 2) => " (packet too big)",
        ("ICMPv6", 135) => " (neighbour solicitation)",
        ("ICMPv6", 136) => " (neighbour advertisement)",
        _ => "",
    };
    Layer {
        name,
        summary: format!("type {kind}{words}, code {code}"),
        fields: vec![
            ("type", kind.to_string()),
            ("code", code.to_string()),
            ("checksum", format!("0x{checksum:04x}")),
            ("rest of header", hex(&rest)),
        ],
    }
}

fn arp(packet: &ArpPacketSlice<'_>) -> Layer {
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => Ipv4Addr::from(v4).to_string(),
        Err(_) => hex(bytes),
    };
    let (sender, target) = (
        address(packet.sender_protocol_addr()),
        address(packet.target_protocol_addr()),
    );
    let operation = match packet.operation().0 {
        1 => "request".to_owned(),
        2 => "reply".to_owned(),
        other => other.to_string(),
    };
    Layer {
        name: "ARP",
        summary: format!("{operation} from {sender} about {target}"),
        fields: vec![
            ("operation", operation),
            ("sender MAC", mac(packet.sender_hw_addr())),
            ("sender", sender),
            ("target MAC", mac(packet.target_hw_addr())),
            ("target", target),
        ],
    }
}

fn mac(bytes: &[u8]) -> String {
    let parts: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

fn protocol(number: IpNumber) -> String {
    match number.keyword_str() {
        Some(name) => format!("{} ({name})", number.0),
        None => number.0.to_string(),
    }
}
