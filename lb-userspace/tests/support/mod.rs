//! A small world for packets: VIPs and backends in a private copy of the program and in host memory.

use std::{cell::Cell, net::Ipv4Addr};

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
    flow::{Address, HASH_KEYS, HashKeys},
    reason::{Reason, Verdict},
    slot::{Slot, SlotTable},
    tables::{Node, Tables},
    vip::{VipEntry, VipKey, VipTable},
    wire::protocol,
};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{Action, BpfDataPlane},
};
use zerocopy::FromZeros as _;

pub(crate) const VIP_V4: [u8; 4] = [203, 0, 113, 10];
pub(crate) const VIP_ANY: [u8; 4] = [203, 0, 113, 11];
pub(crate) const VIP_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// BPF_PROG_TEST_RUN's frames come by the loopback interface.
pub(crate) const LOOPBACK: u32 = 1;
/// An interface that no machine has.
pub(crate) const ELSEWHERE: u32 = 0x7fff_fff0;
/// Ports of [`VIP_V4`] whose VIPs lack something.
pub(crate) const PORT_EMPTY: u16 = 1001;
pub(crate) const PORT_UNRESOLVED: u16 = 1002;
pub(crate) const PORT_ELSEWHERE: u16 = 1003;
pub(crate) const PORT_NO_TABLE: u16 = 1004;

const SOURCE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// A packet, and what is to become of it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) frame: Vec<u8>,
    pub(crate) action: Action,
    pub(crate) reason: Reason,
    pub(crate) expected: Vec<u8>,
}

/// The one backend of a VIP.
#[derive(Clone, Copy)]
pub(crate) struct Served {
    pub(crate) vip: u32,
    pub(crate) id: u16,
    pub(crate) mac: [u8; 6],
}

pub(crate) struct World {
    pub(crate) plane: BpfDataPlane,
    pub(crate) v4: Served,
    pub(crate) v4_udp: Served,
    pub(crate) v6: Served,
    pub(crate) v6_udp: Served,
    host: HostTables,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads BPF programs and must run as root"
        );
        let mut host = HostTables::default();
        let v4 = Address::from_v4(VIP_V4);
        let v6 = Address::from_v6(VIP_V6);
        let any = Address::from_v4(VIP_ANY);
        let serve =
            |host: &mut HostTables, address, port, protocol| host.serve(address, port, protocol);
        let (v4_tcp, v4_udp) = (
            serve(&mut host, v4, 443, protocol::TCP),
            serve(&mut host, v4, 443, protocol::UDP),
        );
        let (v6_tcp, v6_udp) = (
            serve(&mut host, v6, 443, protocol::TCP),
            serve(&mut host, v6, 443, protocol::UDP),
        );
        serve(&mut host, any, 0, protocol::TCP);
        let empty = serve(&mut host, v4, PORT_EMPTY, protocol::TCP);
        host.tables[empty.vip as usize] = Some(SlotTable::new_box_zeroed().unwrap());
        let unresolved = serve(&mut host, v4, PORT_UNRESOLVED, protocol::TCP);
        host.backends[unresolved.id as usize].flags = 0;
        let elsewhere = serve(&mut host, v4, PORT_ELSEWHERE, protocol::TCP);
        host.backends[elsewhere.id as usize].ifindex = ELSEWHERE;
        let no_table = serve(&mut host, v4, PORT_NO_TABLE, protocol::TCP);
        host.tables[no_table.vip as usize] = None;
        host.build();

        let mut plane = BpfDataPlane::private().unwrap();
        host.write(&mut plane);
        Self {
            plane,
            v4: v4_tcp,
            v4_udp,
            v6: v6_tcp,
            v6_udp,
            host,
        }
    }

    /// The frame as it must leave.
    pub(crate) fn with_macs(&self, frame: &[u8], destination: [u8; 6]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&SOURCE_MAC);
        frame
    }

    pub(crate) fn host_tables(&self) -> HostTables {
        self.host.clone()
    }
}

/// The maps in host memory.
#[derive(Clone, Default)]
pub(crate) struct HostTables {
    node: Option<Node>,
    entries: Vec<VipEntry>,
    vips: Option<Box<VipTable>>,
    tables: Vec<Option<Box<SlotTable>>>,
    backends: Vec<Backend>,
    counted: Cell<u64>,
}

impl HostTables {
    fn serve(&mut self, address: Address, port: u16, protocol: u8) -> Served {
        let vip = self.entries.len() as u32;
        // Id 0 is nobody.
        let id = self.entries.len() as u16 + 1;
        let mac = [0x02, 0, 0, 0, 1, id as u8];
        self.backends.resize(id as usize + 1, Backend::default());
        self.backends[id as usize] = Backend {
            mac_destination: mac,
            mode: mode::L2,
            flags: backend::flags::RESOLVED,
            mac_source: SOURCE_MAC,
            vip: vip as u16,
            ifindex: LOOPBACK,
            address: Address::from_v4(Ipv4Addr::new(10, 0, 0, id as u8).octets()),
            ..Backend::default()
        };
        let mut table = SlotTable::new_box_zeroed().unwrap();
        table.slots.fill(Slot::stable(id));
        self.tables.push(Some(table));
        self.entries.push(VipEntry {
            key: VipKey::new(address, port.to_be_bytes(), protocol),
            id: vip,
            flags: 0,
        });
        Served { vip, id, mac }
    }

    fn build(&mut self) {
        let mut vips = VipTable::new_box_zeroed().unwrap();
        vips.build(&self.entries).unwrap();
        self.vips = Some(vips);
        let mut keys = [0; HASH_KEYS];
        keys.iter_mut()
            .enumerate()
            .for_each(|(i, key)| *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i as u64 + 1));
        self.node = Some(Node {
            hash_keys: HashKeys { keys },
        });
    }

    fn write(&self, plane: &mut BpfDataPlane) {
        plane.set_node(&self.node.unwrap()).unwrap();
        for (id, backend) in self.backends.iter().enumerate().skip(1) {
            plane.set_backend(id as u16, backend).unwrap();
        }
        for (vip, table) in self.tables.iter().enumerate() {
            if let Some(table) = table {
                plane.set_table(vip as u32, table).unwrap();
            }
        }
        plane.set_vips(self.vips.as_ref().unwrap()).unwrap();
    }
}

impl Tables for HostTables {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
    fn vips(&self) -> Option<&VipTable> {
        self.vips.as_deref()
    }
    fn slots(&self, vip: u32) -> Option<&SlotTable> {
        self.tables.get(vip as usize)?.as_deref()
    }
    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(id as usize)
    }
    fn has_port(&self, _ifindex: u32) -> bool {
        false
    }
    fn count_vip(&self, _vip: u32, _bytes: u64, _is_syn: bool) {}
    fn count_backend(&self, _id: u16, _bytes: u64, _is_syn: bool) {}
    fn count_reason(&self, _reason: Reason) {
        self.counted.set(self.counted.get() + 1);
    }
}

pub(crate) fn action(verdict: Verdict) -> Action {
    match verdict {
        Verdict::Pass => Action::Pass,
        Verdict::Drop => Action::Drop,
        Verdict::Tx => Action::Tx,
        Verdict::Redirect => Action::Redirect,
    }
}

const CLIENT_V4: [u8; 4] = [198, 51, 100, 7];
const CLIENT_V6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

pub(crate) fn tcp_v4(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT_V4, to, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub(crate) fn udp_v4(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(CLIENT_V4, to, 64);
    let mut frame = Vec::new();
    builder.udp(40000, port).write(&mut frame, payload).unwrap();
    frame
}

pub(crate) fn tcp_v6(to: [u8; 16], port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(CLIENT_V6, to, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

pub(crate) fn udp_v6(to: [u8; 16], port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(CLIENT_V6, to, 64);
    let mut frame = Vec::new();
    builder.udp(40000, port).write(&mut frame, payload).unwrap();
    frame
}
