//! Packets in the making, written by etherparse: nothing here comes from lb-common.

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header,
    TcpHeader, UdpHeader,
};

pub(crate) const CLIENT_PORT: u16 = 40000;

/// An IP address of either family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Host {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Host {
    pub(crate) const fn v6(low: u8, net: u8) -> Self {
        Self::V6([
            0x20, 0x01, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, low,
        ])
    }

    pub(crate) fn octets(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    pub(crate) const fn client(self) -> Host {
        match self {
            Self::V4 => Host::V4([198, 51, 100, 7]),
            Self::V6 => Host::v6(7, 1),
        }
    }

    /// The address of most VIPs. It is announced by L2.
    pub(crate) const fn vip(self) -> Host {
        match self {
            Self::V4 => Host::V4([203, 0, 113, 10]),
            Self::V6 => Host::v6(0x10, 0),
        }
    }

    /// The address of a VIP that takes TCP on every port. It is not announced by L2.
    pub(crate) const fn quiet(self) -> Host {
        match self {
            Self::V4 => Host::V4([203, 0, 113, 11]),
            Self::V6 => Host::v6(0x11, 0),
        }
    }

    /// The address of VIPs with source affinity. It is not announced by L2.
    pub(crate) const fn sticky(self) -> Host {
        match self {
            Self::V4 => Host::V4([203, 0, 113, 12]),
            Self::V6 => Host::v6(0x12, 0),
        }
    }

    /// An address that is no VIP's.
    pub(crate) const fn stranger(self) -> Host {
        match self {
            Self::V4 => Host::V4([203, 0, 113, 99]),
            Self::V6 => Host::v6(0x99, 0),
        }
    }
}

/// An IP packet with its payload.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) source: Host,
    pub(crate) destination: Host,
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) tos: u8,
    pub(crate) id: u16,
    pub(crate) flow_label: u32,
    pub(crate) dont_fragment: bool,
    /// Offset in units of 8 bytes, and "more fragments", of an IPv4 fragment.
    pub(crate) part: Option<(u16, bool)>,
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers in order, each with its kind; the first byte of each is filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
}

impl Ip {
    /// From the client to the VIP.
    pub(crate) fn new(family: Family, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source: family.client(),
            destination: family.vip(),
            ttl: 61,
            tos: 0,
            id: 0x1234,
            flow_label: 0x5_4321,
            dont_fragment: true,
            part: None,
            options: Vec::new(),
            extensions: Vec::new(),
            protocol,
            payload,
        }
    }

    pub(crate) fn from(self, source: Host) -> Self {
        Self { source, ..self }
    }

    pub(crate) fn to(self, destination: Host) -> Self {
        Self {
            destination,
            ..self
        }
    }

    pub(crate) fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    pub(crate) fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    pub(crate) fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    pub(crate) fn may_be_fragmented(self) -> Self {
        Self {
            dont_fragment: false,
            ..self
        }
    }

    pub(crate) fn options(self, options: &[u8]) -> Self {
        Self {
            options: options.to_vec(),
            ..self
        }
    }

    /// Appends an IPv6 extension header; its first byte, the next header, is filled in.
    pub(crate) fn extension(mut self, kind: u8, bytes: &[u8]) -> Self {
        self.extensions.push((kind, bytes.to_vec()));
        self
    }

    /// The part of this packet that begins at `offset` bytes of its payload. `id` is the packet's.
    pub(crate) fn fragment(mut self, id: u16, offset: usize, len: usize, more: bool) -> Self {
        let units = (offset / 8) as u16;
        self.payload = self.payload[offset..offset + len].to_vec();
        self.id = id;
        self.dont_fragment = false;
        match self.source {
            Host::V4(_) => self.part = Some((units, more)),
            Host::V6(_) => {
                let header = Ipv6FragmentHeader::new(
                    IpNumber(0),
                    IpFragOffset::try_new(units).unwrap(),
                    more,
                    u32::from(id),
                );
                self.extensions.push((44, header.to_bytes().to_vec()));
            }
        }
        self
    }

    /// The packet's bytes, from the IP header on.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (self.source, self.destination) {
            (Host::V4(source), Host::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    self.payload.len() as u16,
                    self.ttl,
                    IpNumber(self.protocol),
                    source,
                    destination,
                )
                .unwrap();
                header.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
                header.set_payload_len(self.payload.len()).unwrap();
                header.dscp = (self.tos >> 2).try_into().unwrap();
                header.ecn = (self.tos & 3).try_into().unwrap();
                header.identification = self.id;
                header.dont_fragment = self.dont_fragment;
                if let Some((units, more)) = self.part {
                    header.fragment_offset = units.try_into().unwrap();
                    header.more_fragments = more;
                }
                header.header_checksum = header.calc_header_checksum();
                header.write(&mut bytes).unwrap();
            }
            (Host::V6(source), Host::V6(destination)) => {
                let mut rest = Vec::new();
                let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
                for (i, (_, extension)) in self.extensions.iter().enumerate() {
                    rest.push(kinds.get(i + 1).copied().unwrap_or(self.protocol));
                    rest.extend(&extension[1..]);
                }
                rest.extend(&self.payload);
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).unwrap(),
                    payload_length: rest.len() as u16,
                    next_header: IpNumber(kinds.first().copied().unwrap_or(self.protocol)),
                    hop_limit: self.ttl,
                    source,
                    destination,
                };
                header.write(&mut bytes).unwrap();
                bytes.extend(rest);
                return bytes;
            }
            _ => panic!("source and destination are of two families"),
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in an untagged frame from the client's router.
    pub(crate) fn frame(&self) -> Vec<u8> {
        super::frame::frame(&[], self)
    }
}

/// A TCP segment (no SYN) for the VIP.
pub(crate) fn tcp(family: Family, port: u16) -> Ip {
    tcp_to(family, family.vip(), port, b"hello, backend")
}

pub(crate) fn tcp_to(family: Family, to: Host, port: u16, data: &[u8]) -> Ip {
    let mut header = TcpHeader::new(CLIENT_PORT, port, 1, 65535);
    header.ack = true;
    header.acknowledgment_number = 1;
    header.checksum = match (family.client(), to) {
        (Host::V4(from), Host::V4(to)) => header.calc_checksum_ipv4_raw(from, to, data),
        (Host::V6(from), Host::V6(to)) => header.calc_checksum_ipv6_raw(from, to, data),
        _ => panic!("the address is of another family"),
    }
    .unwrap();
    let mut payload = header.to_bytes().to_vec();
    payload.extend(data);
    Ip::new(family, 6, payload).to(to)
}

/// A UDP datagram for the VIP.
pub(crate) fn udp(family: Family, port: u16) -> Ip {
    udp_to(family, family.vip(), port, b"hello, backend")
}

pub(crate) fn udp_to(family: Family, to: Host, port: u16, data: &[u8]) -> Ip {
    let header = match (family.client(), to) {
        (Host::V4(from), Host::V4(to)) => {
            let ip = Ipv4Header::new(0, 61, IpNumber(17), from, to).unwrap();
            UdpHeader::with_ipv4_checksum(CLIENT_PORT, port, &ip, data)
        }
        (Host::V6(source), Host::V6(destination)) => {
            let ip = Ipv6Header {
                source,
                destination,
                ..Ipv6Header::default()
            };
            UdpHeader::with_ipv6_checksum(CLIENT_PORT, port, &ip, data)
        }
        _ => panic!("the address is of another family"),
    };
    let mut payload = header.unwrap().to_bytes().to_vec();
    payload.extend(data);
    Ip::new(family, 17, payload).to(to)
}
