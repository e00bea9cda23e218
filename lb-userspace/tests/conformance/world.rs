//! The VIPs and backends that every case meets: in the real program, and in host memory.
//!
//! The port that a packet is for says which service it meets; each service has one backend, but for
//! [`port::SPREAD`], whose four backends share the slots.

pub(crate) mod access;

use lb_common::{
    backend::{self, Backend, mode},
    encap,
    flow::{Address, Flow, HASH_KEYS, HashKeys},
    gcra::MAX_DEPTH,
    limit::{Kind, Limits, Rate, rate_flags, vip_flags},
    pin::Idle,
    slot::{NOBODY, Slot, SlotTable},
    tables::{Interface, Node},
    vip::{VipEntry, VipKey, VipTable, flags},
};
use lb_userspace::dataplane::DataPlane;
use zerocopy::FromZeros as _;

use super::{
    frame::NODE,
    ip::{CLIENT_PORT, FAMILIES, Family, Host, Ip},
};

/// The frames of `BPF_PROG_TEST_RUN` come by the loopback interface.
pub(crate) const LOOPBACK: u32 = 1;
/// An interface that no machine has.
const ELSEWHERE: u32 = 0x7fff_fff0;
pub(crate) const GUE_PORT: u16 = 6080;
/// The largest packet that may leave toward a backend.
pub(crate) const MTU: usize = 1500;

/// Destination ports, by the service they meet.
pub(crate) mod port {
    pub(crate) const L2: u16 = 443;
    pub(crate) const IPIP4: u16 = 2004;
    pub(crate) const IPIP6: u16 = 2006;
    pub(crate) const GUE4: u16 = 3004;
    pub(crate) const GUE6: u16 = 3006;
    /// Four backends.
    pub(crate) const SPREAD: u16 = 4000;
    /// Four backends, chosen by the client's address alone.
    pub(crate) const AFFINITY: u16 = 4001;
    /// Backends behind tags of their own.
    pub(crate) const L2_UNTAGGED: u16 = 5000;
    pub(crate) const L2_TAG: u16 = 5001;
    pub(crate) const L2_TWO_TAGS: u16 = 5002;
    pub(crate) const IPIP4_TAG: u16 = 5003;
    pub(crate) const GUE6_TWO_TAGS: u16 = 5004;
    /// A backend behind another interface, and one whose MTU takes jumbo frames.
    pub(crate) const L2_REDIRECT: u16 = 5005;
    pub(crate) const IPIP4_REDIRECT: u16 = 5006;
    pub(crate) const GUE4_JUMBO: u16 = 5007;
    /// Slots that change hands, from backend 1 to backend 0: all of them in one state.
    pub(crate) const HOLDING: u16 = 6000;
    pub(crate) const MOVING: u16 = 6001;
    pub(crate) const SETTLING: u16 = 6002;
    pub(crate) const IPIP4_MOVING: u16 = 6003;
    /// The same, to nobody.
    pub(crate) const LOST: u16 = 6004;
    pub(crate) const GONE: u16 = 6005;
    /// Services with limits that let nothing through: of all packets, of SYNs, and of all packets but only counting.
    pub(crate) const LIMITED: u16 = 7000;
    pub(crate) const SYN_LIMITED: u16 = 7001;
    pub(crate) const OBSERVED: u16 = 7002;
    /// Slots that change hands from backend 1 to backend 0, and no SYN is let through.
    pub(crate) const MOVING_LIMITED: u16 = 7003;
    /// Services that lack something.
    pub(crate) const NO_BACKEND: u16 = 1001;
    pub(crate) const NO_NEXT_HOP: u16 = 1002;
    pub(crate) const NO_PORT: u16 = 1003;
    /// No service at all.
    pub(crate) const CLOSED: u16 = 80;
}

/// Whom no prefix names that names the usual client.
pub(crate) const fn stranger(family: Family) -> Host {
    match family {
        Family::V4 => Host::V4([233, 252, 0, 9]),
        Family::V6 => Host::V6([0x3f, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
    }
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    L2,
    Ipip4,
    Ipip6,
    Gue4,
    Gue6,
}

/// Every way, with the port whose backend is reached so.
pub(crate) const WAYS: [(Way, u16); 5] = [
    (Way::L2, port::L2),
    (Way::Ipip4, port::IPIP4),
    (Way::Ipip6, port::IPIP6),
    (Way::Gue4, port::GUE4),
    (Way::Gue6, port::GUE6),
];

impl Way {
    pub(crate) const fn overhead(self) -> usize {
        match self {
            Self::L2 => 0,
            Self::Ipip4 => 20,
            Self::Ipip6 => 40,
            Self::Gue4 => 28,
            Self::Gue6 => 48,
        }
    }
}

/// A VIP's backend, as a case sees it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) way: Way,
    pub(crate) mac: [u8; 6],
    pub(crate) address: Host,
}

/// Source of the outer headers.
pub(crate) const fn node_address(family: Family) -> Host {
    match family {
        Family::V4 => Host::V4([10, 0, 0, 1]),
        Family::V6 => Host::v6(1, 0xa),
    }
}

const fn way_of(port: u16) -> Way {
    match port {
        port::IPIP4 | port::IPIP4_TAG | port::IPIP4_REDIRECT | port::IPIP4_MOVING => Way::Ipip4,
        port::IPIP6 => Way::Ipip6,
        port::GUE4 | port::GUE4_JUMBO => Way::Gue4,
        port::GUE6 | port::GUE6_TWO_TAGS => Way::Gue6,
        _ => Way::L2,
    }
}

const PORTS: [u16; 39] = [
    port::L2,
    port::IPIP4,
    port::IPIP6,
    port::GUE4,
    port::GUE6,
    port::SPREAD,
    port::AFFINITY,
    port::L2_UNTAGGED,
    port::L2_TAG,
    port::L2_TWO_TAGS,
    port::IPIP4_TAG,
    port::GUE6_TWO_TAGS,
    port::L2_REDIRECT,
    port::IPIP4_REDIRECT,
    port::GUE4_JUMBO,
    port::HOLDING,
    port::MOVING,
    port::SETTLING,
    port::IPIP4_MOVING,
    port::LOST,
    port::GONE,
    port::LIMITED,
    port::SYN_LIMITED,
    port::OBSERVED,
    port::MOVING_LIMITED,
    port::NO_BACKEND,
    port::NO_NEXT_HOP,
    port::NO_PORT,
    access::VIP_BLOCK,
    access::NODE_BLOCK,
    access::VIP_ALLOW,
    access::VIP_DENY,
    access::NODE,
    access::UNLISTED,
    access::VIP_BEFORE_NODE,
    access::BLOCK_BEFORE_ALLOW,
    access::NEIGHBOUR,
    access::DENIED_MOVING,
    // Every port, of the quiet address.
    0,
];

/// Each service has ids for this many backends.
const BACKENDS: u16 = 4;

/// The number of a service: index of its lookup table.
pub(crate) fn number(family: Family, protocol: u8, port: u16) -> u16 {
    let index = PORTS.iter().position(|&p| p == port).unwrap() as u16;
    index * 4 + u16::from(family == Family::V6) * 2 + u16::from(protocol == 17)
}

/// The id of a service's backend `which`.
pub(crate) fn id(family: Family, protocol: u8, port: u16, which: u16) -> u16 {
    number(family, protocol, port) * BACKENDS + which + 1
}

/// The service that takes a family's packets to a port, as its backend `which` (0 but where there are several) has it.
pub(crate) fn service(family: Family, protocol: u8, port: u16, which: u16) -> Service {
    let id = id(family, protocol, port, which);
    let [high, low] = id.to_be_bytes();
    let way = way_of(port);
    Service {
        way,
        mac: [0x02, 0, 0, 1, high, low],
        address: match way {
            Way::Ipip6 | Way::Gue6 => Host::v6(low, 0xb0 + high),
            _ => Host::V4([10, 1, high, low]),
        },
    }
}

/// The keys of the flow hash.
pub(crate) fn hash_keys() -> HashKeys {
    let mut keys = [0; HASH_KEYS];
    for (key, i) in keys.iter_mut().zip(1u64..) {
        *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i);
    }
    HashKeys { keys }
}

pub(crate) fn address(host: Host) -> Address {
    match host {
        Host::V4(octets) => Address::from_v4(octets),
        Host::V6(octets) => Address::from_v6(octets),
    }
}

/// The hash of a packet with these ports, of the client's own direction.
pub(crate) fn hash(ip: &Ip, source_port: u16, destination_port: u16) -> u32 {
    hash_keys().hash(&Flow {
        source: address(ip.source),
        destination: address(ip.destination),
        ports: Flow::ports(source_port.to_be_bytes(), destination_port.to_be_bytes()),
        protocol: u32::from(ip.protocol),
    })
}

/// The hash of a TCP segment or UDP datagram from the client's usual port.
pub(crate) fn flow_hash(ip: &Ip, port: u16) -> u32 {
    hash(ip, CLIENT_PORT, port)
}

/// Which of the four backends of [`port::SPREAD`] serves a hash.
pub(crate) const fn spread(hash: u32) -> u16 {
    (hash & 3) as u16
}

/// No pin expires: the host's clock stands still, the kernel's does not.
pub(crate) const FOREVER: Idle = Idle {
    open_ns: u64::MAX,
    closed_ns: u64::MAX,
};

/// What the maps are to hold.
pub(crate) struct Plan {
    entries: Vec<VipEntry>,
    tables: Vec<(u32, Box<SlotTable>)>,
    backends: Vec<(u16, Backend)>,
    limits: Vec<(u32, Limits)>,
    other_interface: u32,
}

/// A limit that no case comes to, or one that nothing is within.
fn limits(kinds: &[Kind], is_open: bool, flags: u64) -> Limits {
    let mut limits = Limits {
        mask_v4: EVERY_BIT,
        mask_v6: EVERY_BIT,
        ..Limits::default()
    };
    for kind in kinds {
        limits.rates[*kind as usize] = Rate {
            interval: 1,
            depth: if is_open { MAX_DEPTH } else { 0 },
            batch: 0,
            flags,
        };
    }
    limits.told()
}

const EVERY_BIT: Address = Address {
    high: u64::MAX,
    low: u64::MAX,
};

impl Plan {
    pub(crate) fn new() -> Self {
        let mut plan = Self {
            entries: Vec::new(),
            tables: Vec::new(),
            backends: Vec::new(),
            limits: Vec::new(),
            other_interface: other_interface(),
        };
        for family in FAMILIES {
            for protocol in [6, 17] {
                for port in PORTS {
                    // Every port: TCP only.
                    if port != 0 || protocol == 6 {
                        plan.serve(family, protocol, port);
                    }
                }
            }
        }
        plan
    }

    /// The same, but packets of every VIP pass through all kinds of limits, which let them through.
    pub(crate) fn guarded() -> Self {
        let mut plan = Self::new();
        for entry in &mut plan.entries {
            if entry.flags & (flags::LIMITS | flags::SYN_LIMITS) == 0 {
                entry.flags |= vip_flags(Kind::ALL);
                plan.limits.push((entry.id, limits(&Kind::ALL, true, 0)));
            }
        }
        plan
    }

    fn serve(&mut self, family: Family, protocol: u8, port: u16) {
        let vip = number(family, protocol, port);
        let first = vip * BACKENDS + 1;
        let is_spread = matches!(port, port::SPREAD | port::AFFINITY);
        let changes = matches!(
            port,
            port::HOLDING..=port::GONE | port::MOVING_LIMITED | access::DENIED_MOVING
        );
        let count = match (is_spread, changes) {
            (true, _) => BACKENDS,
            // The owner after and the owner before.
            (false, true) => 2,
            (false, false) => 1,
        };
        for which in 0..count {
            let backend = self.backend(family, protocol, port, which);
            self.backends.push((first + which, backend));
        }
        let mut table = SlotTable::new_box_zeroed().unwrap();
        for (slot, hash) in table.slots.iter_mut().zip(0u32..) {
            *slot = match port {
                port::NO_BACKEND => Slot::default(),
                port::HOLDING => Slot::holding(first),
                port::MOVING
                | port::IPIP4_MOVING
                | port::MOVING_LIMITED
                | access::DENIED_MOVING => Slot::moving(first, first + 1),
                port::SETTLING => Slot::settling(first),
                port::LOST => Slot::moving(NOBODY, first + 1),
                port::GONE => Slot::settling(NOBODY),
                _ => Slot::stable(first + if is_spread { spread(hash) } else { 0 }),
            };
        }
        self.tables.push((u32::from(vip), table));
        let (host, flags) = match port {
            0 => (family.quiet(), 0),
            port::AFFINITY => (family.sticky(), flags::AFFINITY_SOURCE),
            _ => (family.vip(), flags::ANNOUNCE_L2),
        };
        let access = match access::scopes(port) {
            (0, 0) => 0,
            _ => flags::ACCESS,
        };
        let limited: Option<(&[Kind], u64)> = match port {
            port::LIMITED => Some((&[Kind::PacketsPerSource], 0)),
            port::OBSERVED => Some((&Kind::ALL, rate_flags::OBSERVE)),
            port::SYN_LIMITED | port::MOVING_LIMITED => Some((&[Kind::NewConnections], 0)),
            _ => None,
        };
        let guard = limited.map_or(0, |(kinds, facts)| {
            self.limits
                .push((u32::from(vip), limits(kinds, false, facts)));
            vip_flags(kinds.iter().copied())
        });
        self.entries.push(VipEntry {
            key: VipKey::new(address(host), port.to_be_bytes(), protocol),
            id: u32::from(vip),
            flags: flags | guard | access,
        });
    }

    fn backend(&self, family: Family, protocol: u8, port: u16, which: u16) -> Backend {
        let service = service(family, protocol, port, which);
        let mode = match service.way {
            Way::L2 => mode::L2,
            Way::Ipip4 | Way::Ipip6 => mode::IPIP,
            Way::Gue4 | Way::Gue6 => mode::GUE,
        };
        let source = address(node_address(match service.address {
            Host::V4(_) => Family::V4,
            Host::V6(_) => Family::V6,
        }));
        let address = address(service.address);
        let set = backend::flags::VLANS_SET;
        let (tag_flags, vlan_count, vlans) = match port {
            port::L2_UNTAGGED => (set, 0, [[0; 2]; 2]),
            port::L2_TAG | port::IPIP4_TAG => (set, 1, [0x2007u16.to_be_bytes(), [0; 2]]),
            port::L2_TWO_TAGS | port::GUE6_TWO_TAGS => (
                set | backend::flags::SERVICE_VLAN,
                2,
                [0x0064u16.to_be_bytes(), 0x00c8u16.to_be_bytes()],
            ),
            _ => (0, 0, [[0; 2]; 2]),
        };
        let resolved = if port == port::NO_NEXT_HOP {
            0
        } else {
            backend::flags::RESOLVED
        };
        Backend {
            mac_destination: service.mac,
            mode,
            flags: resolved | tag_flags,
            mac_source: NODE,
            vip: number(family, protocol, port),
            ifindex: match port {
                port::NO_PORT => ELSEWHERE,
                port::L2_REDIRECT | port::IPIP4_REDIRECT => self.other_interface,
                _ => LOOPBACK,
            },
            mtu: if port == port::GUE4_JUMBO {
                9000
            } else {
                MTU as u16
            },
            vlan_count,
            address,
            source,
            vlans,
            gue_port: GUE_PORT.to_be_bytes(),
            outer_sum: encap::constant_sum(source, address, mode, family == Family::V6),
            ..Backend::default()
        }
    }

    pub(crate) fn write(&self, plane: &mut dyn DataPlane) {
        let node = Node {
            icmp_interval_ns: 0,
            pin_interval_ns: 0,
            ..Node::new(hash_keys())
        };
        plane.set_node(&node).unwrap();
        let interface = Interface {
            mac: NODE,
            ..Interface::default()
        };
        plane.set_interface(LOOPBACK, &interface).unwrap();
        plane.add_port(self.other_interface).unwrap();
        for (id, backend) in &self.backends {
            plane.set_backend(*id, backend).unwrap();
        }
        for (vip, table) in &self.tables {
            plane.set_table(*vip, table).unwrap();
            plane.set_idle(*vip, &FOREVER).unwrap();
        }
        access::write(plane);
        for (vip, limits) in &self.limits {
            plane.set_limits(*vip, limits).unwrap();
        }
        let mut vips = VipTable::new_box_zeroed().unwrap();
        vips.build(&self.entries).unwrap();
        plane.set_vips(&vips).unwrap();
    }
}

/// The first interface but loopback: a map of devices takes only what exists.
fn other_interface() -> u32 {
    let entries = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let index = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("ifindex")).ok()?;
        text.trim().parse().ok()
    };
    let others = entries
        .filter_map(index)
        .filter(|ifindex| *ifindex != LOOPBACK);
    others.min().expect(
        "cases of redirect need an interface beside loopback: `ip link add type veth` makes a pair",
    )
}
