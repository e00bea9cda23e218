//! Frames by hand, from sources that are no hosts: nobody answers what backends answer them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, PacketBuilder,
    PacketBuilderStep, UdpHeader,
};
use xtask::lab::{FrameSocket, Host, Topology, VIP_V4};

/// Where the frames come from.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 200);

/// Where the IP header begins, and the transport header of IPv4 without options.
pub(crate) const IP: usize = 14;
const TRANSPORT: usize = IP + 20;

/// The cable from the client to the load balancer.
pub(crate) struct Wire {
    socket: FrameSocket,
    client: [u8; 6],
    lb: [u8; 6],
    peer: [u8; 6],
}

impl Wire {
    pub(crate) fn new(topology: &Topology) -> Self {
        let open = || FrameSocket::open("eth0");
        Self {
            socket: topology.client.namespace.inside(open).unwrap(),
            client: mac(&topology.client),
            lb: mac(&topology.lb),
            peer: mac(&topology.backends[0]),
        }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        self.socket.send(frame).unwrap();
    }

    fn to(&self, vip: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
        let link = PacketBuilder::ethernet2(self.client, self.lb);
        match vip {
            IpAddr::V4(vip) => link.ipv4(SOURCE_V4.octets(), vip.octets(), 64),
            IpAddr::V6(vip) => link.ipv6(SOURCE_V6.octets(), vip.octets(), 64),
        }
    }

    /// A datagram from the source's port `from`.
    pub(crate) fn udp(&self, vip: IpAddr, port: u16, from: u16, len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.to(vip).udp(from, port);
        builder.write(&mut frame, &vec![0x55; len]).unwrap();
        frame
    }

    /// The same as the near backend's weir would send it.
    pub(crate) fn by_peer(&self, vip: IpAddr, port: u16) -> Vec<u8> {
        changed(self.udp(vip, port, 40_000, 10), 6, &self.peer)
    }

    /// A segment from the source's port `from`: the first of a connection, or a later one.
    pub(crate) fn tcp(
        &self,
        vip: IpAddr,
        port: u16,
        from: u16,
        is_first: bool,
        len: usize,
    ) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.to(vip).tcp(from, port, 7, 65_535);
        let builder = if is_first {
            builder.syn()
        } else {
            builder.ack(1)
        };
        builder.write(&mut frame, &vec![0x55; len]).unwrap();
        frame
    }

    /// An echo request to the VIP.
    pub(crate) fn ping(&self, number: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.to(VIP_V4).icmpv4_echo_request(7, number);
        builder.write(&mut frame, b"are you there?").unwrap();
        frame
    }

    /// What answers an echo request, and comes unasked.
    pub(crate) fn pong(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.to(VIP_V4).icmpv4_echo_reply(7, 1);
        builder.write(&mut frame, b"here").unwrap();
        frame
    }

    /// "Port unreachable" about what the VIP's port sent.
    pub(crate) fn error_about(&self, port: u16) -> Vec<u8> {
        let IpAddr::V4(vip) = VIP_V4 else {
            panic!("{VIP_V4} is of IPv4")
        };
        let udp = UdpHeader::without_ipv4_checksum(port, 40_000, 8).unwrap();
        let quoted = Ipv4Header::new(16, 64, IpNumber::UDP, vip.octets(), SOURCE_V4.octets());
        let quote = [&quoted.unwrap().to_bytes()[..], &udp.to_bytes(), &[0; 8]].concat();
        let mut frame = Vec::new();
        let builder = self.to(VIP_V4).icmpv4_raw(3, 3, [0; 4]);
        builder.write(&mut frame, &quote).unwrap();
        frame
    }

    /// A packet of IPv4 for the VIP, with a header that `change` makes.
    pub(crate) fn ipv4(
        &self,
        protocol: IpNumber,
        payload: &[u8],
        change: impl FnOnce(&mut Ipv4Header),
    ) -> Vec<u8> {
        let IpAddr::V4(vip) = VIP_V4 else {
            panic!("{VIP_V4} is of IPv4")
        };
        let len = payload.len() as u16;
        let mut header =
            Ipv4Header::new(len, 64, protocol, SOURCE_V4.octets(), vip.octets()).unwrap();
        change(&mut header);
        let mut frame = self.ethernet(EtherType::IPV4);
        header.write(&mut frame).unwrap();
        frame.extend(payload);
        frame
    }

    /// A later fragment of a packet whose first one nobody saw.
    pub(crate) fn orphan(&self) -> Vec<u8> {
        self.ipv4(IpNumber::UDP, &[0x55; 32], |header| {
            header.dont_fragment = false;
            header.fragment_offset = IpFragOffset::try_new(16).unwrap();
        })
    }

    /// The largest datagram that an Ethernet takes, and whether it may be cut into pieces.
    pub(crate) fn large(&self, port: u16, may_be_cut: bool) -> Vec<u8> {
        let data = vec![0x55; 1500 - 20 - 8];
        let udp = UdpHeader::without_ipv4_checksum(40_000, port, data.len()).unwrap();
        let payload = [&udp.to_bytes()[..], &data].concat();
        self.ipv4(IpNumber::UDP, &payload, |header| {
            header.dont_fragment = !may_be_cut;
        })
    }

    /// IPv6 with a route that goes on elsewhere.
    pub(crate) fn routed(&self, vip: IpAddr, port: u16) -> Vec<u8> {
        let mut frame = self.udp(vip, port, 40_000, 8);
        // Next header UDP, 8 bytes, type 2, one address left to go to.
        let routing = [17, 0, 2, 1, 0, 0, 0, 0];
        let end = IP + 40;
        frame.splice(end..end, routing);
        frame[IP + 6] = 43;
        let len = (frame.len() - end) as u16;
        frame[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
        frame
    }

    /// A request for the MAC address of an address.
    pub(crate) fn arp(&self, target: Ipv4Addr) -> Vec<u8> {
        let mut frame = self.ethernet(EtherType::ARP);
        frame[..6].fill(0xff);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(self.client);
        frame.extend(SOURCE_V4.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        frame
    }

    /// The head of a frame.
    pub(crate) fn ethernet(&self, ether_type: EtherType) -> Vec<u8> {
        let header = Ethernet2Header {
            source: self.client,
            destination: self.lb,
            ether_type,
        };
        header.to_bytes().to_vec()
    }
}

/// A frame of IPv4 with some bytes changed: in its IP header, or behind that.
pub(crate) fn changed(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The same, counted from the transport header.
pub(crate) fn in_transport(frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    changed(frame, TRANSPORT + offset, bytes)
}

pub(crate) fn mac(host: &Host) -> [u8; 6] {
    host.nic.mac_bytes().unwrap()
}
