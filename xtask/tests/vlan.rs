//! VIPs behind one and two 802.1Q tags, end to end: frames made by hand go through the running daemon's program, and
//! are read, byte for byte, where they arrive. Nobody here needs a VLAN device, which not every kernel has.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{net::IpAddr, time::Duration};

use aya::maps::{Array, Map, MapData};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, PacketBuilderStep, SlicedPacket};
use lb_common::backend::{Backend, flags};
use xtask::lab::{
    Host, Lab, Plan, Protocol, Recorder, Topology, VIP_V4, VIP_V6, Weir, WeirConfig, tagged,
};
use zerocopy::FromBytes as _;

const PATIENCE: Duration = Duration::from_secs(10);
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// EtherType of a tag: of a customer, and of a service (802.1ad).
const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;

/// What frames are sent with: none, one, with a priority, and two of either kind.
const STACKS: [&[(u16, u16)]; 5] = [
    &[],
    &[(CUSTOMER, 7)],
    &[(CUSTOMER, 0xa00c)],
    &[(CUSTOMER, 100), (CUSTOMER, 7)],
    &[(SERVICE, 200), (CUSTOMER, 8)],
];

/// A lab in which tags travel in frames, as on a wire.
struct Run {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    weir: Weir,
    client: Recorder,
    backends: Vec<Recorder>,
    topology: Topology,
    _lab: Lab,
}

impl Run {
    /// TCP goes to the first backend, UDP to the last.
    fn start(plan: &Plan, forward: &'static str) -> Self {
        let lab = Lab::new().unwrap();
        let topology = Topology::build(&lab, plan).unwrap();
        let hosts = [&topology.client, &topology.lb];
        for host in hosts.into_iter().chain(&topology.backends) {
            host.nic.carry_tags().unwrap();
        }
        let mut config = WeirConfig::for_topology(&topology, &[]);
        config.forward = forward;
        for vip in &mut config.vips {
            vip.backends = match vip.protocol {
                Protocol::Tcp => vip.backends.first().cloned(),
                Protocol::Udp => vip.backends.last().cloned(),
            }
            .into_iter()
            .collect();
        }
        let client = topology.client.nic.record().unwrap();
        let backends = topology
            .backends
            .iter()
            .map(|backend| backend.nic.record().unwrap())
            .collect();
        let weir = Weir::start(&lab, &topology.lb.namespace, &config)
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            weir,
            client,
            backends,
            topology,
            _lab: lab,
        }
    }

    /// Begins a frame from the client to the load balancer, for a VIP.
    fn to_vip(&self, vip: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
        let (client, lb) = (&self.topology.client, &self.topology.lb);
        let link = PacketBuilder::ethernet2(mac(client), mac(lb));
        match (client.address(vip), vip) {
            (IpAddr::V4(from), IpAddr::V4(vip)) => link.ipv4(from.octets(), vip.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(vip)) => link.ipv6(from.octets(), vip.octets(), 64),
            (from, vip) => panic!("{from} and {vip} are of two families"),
        }
    }

    /// A segment of a connection to a VIP, without tags; `number` makes it different from others.
    fn tcp(&self, vip: IpAddr, number: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        self.to_vip(vip)
            .tcp(40_000 + number, Topology::http(vip).port(), 1, 65_535)
            .ack(1)
            .write(&mut frame, b"a segment by hand")
            .unwrap();
        frame
    }

    /// A datagram for a VIP, without tags; `number` makes it different from others.
    fn udp(&self, vip: IpAddr, number: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        self.to_vip(vip)
            .udp(40_000 + number, Topology::udp(vip).port())
            .write(&mut frame, b"a datagram by hand")
            .unwrap();
        frame
    }

    /// Sends a frame from the client, and returns what arrives at a backend's interface because of it.
    fn arrives(&mut self, backend: usize, sent: &[u8], unique: &[u8]) -> Vec<u8> {
        self.topology.client.nic.send(sent).unwrap();
        let what = format!("the frame {sent:02x?}");
        self.backends[backend]
            .wait_for(&what, PATIENCE, |frame| contains(frame, unique))
            .unwrap_or_else(|error| panic!("{error:#}\n{:?}", self.weir.status()))
    }

    /// What of a frame is to arrive: other MAC addresses and tags before the same packet.
    fn expected(&self, backend: usize, tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
        let to = mac(&self.topology.backends[backend]);
        let from = mac(&self.topology.lb);
        tagged(&[&to[..], &from, packet].concat(), tags)
    }
}

/// Of a frame without tags, what follows the MAC addresses; begins with the EtherType of IP.
const PACKET: usize = 12;
const IP: usize = 14;

#[test]
fn frames_leave_with_the_tags_they_came_with() {
    let plan = Plan {
        near: 2,
        far: 0,
        routed: 0,
    };
    let mut run = Run::start(&plan, "l2");
    for vip in VIPS {
        for (tags, number) in STACKS.into_iter().zip(0..) {
            for (backend, bare) in [run.tcp(vip, number), run.udp(vip, number)]
                .into_iter()
                .enumerate()
            {
                let got = run.arrives(backend, &tagged(&bare, tags), &bare[IP..]);
                let wanted = run.expected(backend, tags, &bare[PACKET..]);
                assert_eq!(got, wanted, "{vip} {tags:04x?}");
            }
        }
    }
}

#[test]
fn outer_headers_go_between_the_tags_and_the_packet() {
    let plan = Plan {
        near: 2,
        far: 0,
        routed: 0,
    };
    for (forward, outer_lens) in [("ipip", [20, 40]), ("gue", [28, 48])] {
        let mut run = Run::start(&plan, forward);
        for (vip, outer_len) in VIPS.into_iter().zip(outer_lens) {
            for (tags, number) in STACKS.into_iter().zip(0..) {
                let bare = run.tcp(vip, number);
                let got = run.arrives(0, &tagged(&bare, tags), &bare[IP..]);
                let head = run.expected(0, tags, &bare[PACKET..IP]);
                assert_eq!(got[..head.len()], head, "{forward} {vip} {tags:04x?}");
                assert_eq!(
                    got[head.len() + outer_len..],
                    bare[IP..],
                    "{forward} {vip} {tags:04x?}"
                );
                let outer = SlicedPacket::from_ip(&got[head.len()..]).unwrap();
                let to = run.topology.backends[0].address(vip);
                assert_eq!(destination(&outer), to);
            }
        }
    }
}

#[test]
fn tags_stay_behind_where_frames_leave_by_another_interface() {
    let plan = Plan {
        near: 1,
        far: 1,
        routed: 0,
    };
    let mut run = Run::start(&plan, "l2");
    for vip in VIPS {
        for (tags, number) in STACKS.into_iter().zip(0..) {
            let bare = run.udp(vip, number);
            let got = run.arrives(1, &tagged(&bare, tags), &bare[IP..]);
            assert_eq!(
                got[..6],
                mac(&run.topology.backends[1]),
                "{vip} {tags:04x?}"
            );
            assert_eq!(got[PACKET..], bare[PACKET..], "{vip} {tags:04x?}");
        }
    }
}

/// Where the way to a backend leads through VLAN devices, the daemon writes their tags into the backend's entry. The
/// kernel at hand may have no such device, so the test writes them there.
#[test]
fn frames_leave_with_the_tags_of_the_way_out() {
    let plan = Plan {
        near: 1,
        far: 0,
        routed: 0,
    };
    let mut run = Run::start(&plan, "l2");
    for way in STACKS {
        run.set_way(way);
        for vip in VIPS {
            for (tags, number) in STACKS.into_iter().zip(0..) {
                let bare = run.tcp(vip, number);
                let got = run.arrives(0, &tagged(&bare, tags), &bare[IP..]);
                let wanted = run.expected(0, way, &bare[PACKET..]);
                assert_eq!(got, wanted, "{vip} {tags:04x?} by {way:04x?}");
            }
        }
    }
}

#[test]
fn a_tagged_ping_to_a_vip_is_answered_with_its_tags() {
    let plan = Plan {
        near: 1,
        far: 0,
        routed: 0,
    };
    let mut run = Run::start(&plan, "l2");
    for vip in VIPS {
        for (tags, number) in STACKS.into_iter().zip(1..) {
            let mut request = Vec::new();
            let builder = run.to_vip(vip);
            let payload = b"are you there?";
            if vip.is_ipv4() {
                builder
                    .icmpv4_echo_request(7, number)
                    .write(&mut request, payload)
            } else {
                builder
                    .icmpv6_echo_request(7, number)
                    .write(&mut request, payload)
            }
            .unwrap();
            let (client, lb) = (mac(&run.topology.client), mac(&run.topology.lb));
            run.topology
                .client
                .nic
                .send(&tagged(&request, tags))
                .unwrap();
            let head = tagged(&[&client[..], &lb, &request[PACKET..IP]].concat(), tags);
            let reply = run
                .client
                .wait_for("the answer to a ping", PATIENCE, |frame| {
                    frame.starts_with(&head) && contains(frame, payload)
                })
                .unwrap_or_else(|error| panic!("{vip} {tags:04x?}: {error:#}"));
            assert_is_reply(&reply[head.len()..], vip, number, payload);
        }
    }
    let status = run.weir.status().unwrap();
    let echoes = status.reasons.iter().find(|reason| reason.reason == "echo");
    assert_eq!(echoes.unwrap().packets, 2 * STACKS.len() as u64);
}

/// Asserts that an IP packet is a VIP's answer to a ping, with a checksum that is right.
fn assert_is_reply(packet: &[u8], vip: IpAddr, number: u16, payload: &[u8]) {
    let reply = SlicedPacket::from_ip(packet).unwrap();
    assert_eq!(source(&reply), vip);
    let echo = match reply.transport.unwrap() {
        etherparse::TransportSlice::Icmpv4(icmp) => {
            assert_eq!(
                icmp.icmp_type().calc_checksum(icmp.payload()),
                icmp.checksum()
            );
            assert_eq!(icmp.payload(), payload);
            match icmp.icmp_type() {
                Icmpv4Type::EchoReply(echo) => echo,
                other => panic!("{other:?}"),
            }
        }
        etherparse::TransportSlice::Icmpv6(icmp) => {
            let (from, to) = match &reply.net {
                Some(etherparse::NetSlice::Ipv6(ip)) => {
                    (ip.header().source(), ip.header().destination())
                }
                other => panic!("{other:?}"),
            };
            assert!(icmp.is_checksum_valid(from, to));
            assert_eq!(icmp.payload(), payload);
            match icmp.icmp_type() {
                Icmpv6Type::EchoReply(echo) => echo,
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((echo.id, echo.seq), (7, number));
}

/// The bytes of a backend's entry.
type Entry = [u8; size_of::<Backend>()];

impl Run {
    /// Writes the tags of the way out into every backend's entry, in the daemon's pinned map.
    fn set_way(&self, tags: &[(u16, u16)]) {
        let pin = self.weir.pins_in_force().unwrap().join("maps/BACKENDS");
        let map = Map::Array(MapData::from_pin(pin).unwrap());
        let mut entries = Array::<_, Entry>::try_from(map).unwrap();
        let mut written = 0;
        for id in 1..64 {
            let mut backend = Backend::read_from_bytes(&entries.get(&id, 0).unwrap()).unwrap();
            if backend.mode == 0 {
                continue;
            }
            backend.flags &= !(flags::VLANS_SET | flags::SERVICE_VLAN);
            backend.flags |= flags::VLANS_SET;
            if tags.first().is_some_and(|(kind, _)| *kind == SERVICE) {
                backend.flags |= flags::SERVICE_VLAN;
            }
            backend.vlan_count = tags.len() as u8;
            for (held, (_, control)) in backend.vlans.iter_mut().zip(tags) {
                *held = control.to_be_bytes();
            }
            let bytes: Entry = zerocopy::transmute!(backend);
            entries.set(id, bytes, 0).unwrap();
            written += 1;
        }
        // One backend for each VIP.
        assert_eq!(written, 4);
    }
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

fn mac(host: &Host) -> [u8; 6] {
    host.nic.mac_bytes().unwrap()
}

fn source(packet: &SlicedPacket<'_>) -> IpAddr {
    match &packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => ip.header().source_addr().into(),
        Some(etherparse::NetSlice::Ipv6(ip)) => ip.header().source_addr().into(),
        other => panic!("{other:?}"),
    }
}

fn destination(packet: &SlicedPacket<'_>) -> IpAddr {
    match &packet.net {
        Some(etherparse::NetSlice::Ipv4(ip)) => ip.header().destination_addr().into(),
        Some(etherparse::NetSlice::Ipv6(ip)) => ip.header().destination_addr().into(),
        other => panic!("{other:?}"),
    }
}
