//! A small world for packets: VIPs and backends in a private copy of the program and in host memory.

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
    flow::{Address, HASH_KEYS, HashKeys},
    packet::{HEADROOM, HostPacket},
    pipeline::{self, Outcome},
    reason::{Reason, Verdict},
    slot::{Slot, SlotTable},
    tables::Node,
    vip::{VipEntry, VipKey, VipTable},
    wire::protocol,
};
use lb_userspace::dataplane::{
    DataPlane,
    bpf::{Action, BpfDataPlane},
    memory::Memory,
};
use zerocopy::FromZeros as _;

pub(crate) const VIP_V4: [u8; 4] = [203, 0, 113, 10];
pub(crate) const VIP_ANY: [u8; 4] = [203, 0, 113, 11];
pub(crate) const VIP_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// The frames of `BPF_PROG_TEST_RUN` come by the loopback interface.
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
    /// In the kernel.
    pub(crate) plane: BpfDataPlane,
    /// In memory, with the same content.
    pub(crate) host: Memory,
    pub(crate) v4: Served,
    pub(crate) v4_udp: Served,
    pub(crate) v6: Served,
    pub(crate) v6_udp: Served,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test loads BPF programs and must run as root"
        );
        let mut plan = Plan::default();
        let v4 = Address::from_v4(VIP_V4);
        let v6 = Address::from_v6(VIP_V6);
        let v4_tcp = plan.serve(v4, 443, protocol::TCP);
        let v4_udp = plan.serve(v4, 443, protocol::UDP);
        let v6_tcp = plan.serve(v6, 443, protocol::TCP);
        let v6_udp = plan.serve(v6, 443, protocol::UDP);
        plan.serve(Address::from_v4(VIP_ANY), 0, protocol::TCP);
        let empty = plan.serve(v4, PORT_EMPTY, protocol::TCP);
        plan.tables[empty.vip as usize] = Some(SlotTable::new_box_zeroed().unwrap());
        let unresolved = plan.serve(v4, PORT_UNRESOLVED, protocol::TCP);
        plan.backends[unresolved.id as usize].flags = 0;
        let elsewhere = plan.serve(v4, PORT_ELSEWHERE, protocol::TCP);
        plan.backends[elsewhere.id as usize].ifindex = ELSEWHERE;
        let no_table = plan.serve(v4, PORT_NO_TABLE, protocol::TCP);
        plan.tables[no_table.vip as usize] = None;

        let mut plane = BpfDataPlane::private().unwrap();
        plan.write(&mut plane);
        let mut host = Memory::default();
        plan.write(&mut host);
        Self {
            plane,
            host,
            v4: v4_tcp,
            v4_udp,
            v6: v6_tcp,
            v6_udp,
        }
    }
}

impl World {
    /// Frames counted so far, under any reason.
    pub(crate) fn counted(&self) -> u64 {
        let counts = self.plane.reason_counters().unwrap();
        counts.iter().map(|count| count.packets).sum()
    }
}

/// The frame as it must leave for a backend.
pub(crate) fn with_macs(frame: &[u8], destination: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&SOURCE_MAC);
    frame
}

/// What the maps are to hold.
#[derive(Default)]
struct Plan {
    entries: Vec<VipEntry>,
    tables: Vec<Option<Box<SlotTable>>>,
    backends: Vec<Backend>,
}

impl Plan {
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
            address: Address::from_v4([10, 0, 0, id as u8]),
            ..Backend::default()
        };
        let mut table = SlotTable::new_box_zeroed().unwrap();
        table.slots.fill(Slot::stable(id));
        self.tables.push(Some(table));
        let key = VipKey::new(address, port.to_be_bytes(), protocol);
        self.entries.push(VipEntry {
            key,
            id: vip,
            flags: 0,
        });
        Served { vip, id, mac }
    }

    fn write(&self, plane: &mut dyn DataPlane) {
        let mut keys = [0; HASH_KEYS];
        for (key, i) in keys.iter_mut().zip(1u64..) {
            *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i);
        }
        plane.set_node(&Node::new(HashKeys { keys })).unwrap();
        for (id, backend) in self.backends.iter().enumerate().skip(1) {
            plane.set_backend(id as u16, backend).unwrap();
        }
        for (vip, table) in self.tables.iter().enumerate() {
            if let Some(table) = table {
                plane.set_table(vip as u32, table).unwrap();
            }
        }
        let mut vips = VipTable::new_box_zeroed().unwrap();
        vips.build(&self.entries).unwrap();
        plane.set_vips(&vips).unwrap();
    }
}

/// Runs the pipeline on the host: what became of the frame, and how it left.
pub(crate) fn on_host(tables: &Memory, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0; HEADROOM + frame.len() + 512];
    let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
    let outcome = pipeline::run(&mut packet, tables, LOOPBACK);
    (outcome, packet.bytes().to_vec())
}

pub(crate) fn action(outcome: &Outcome) -> Action {
    match outcome.verdict() {
        Verdict::Pass => Action::Pass,
        Verdict::Drop => Action::Drop,
        Verdict::Forward if outcome.is_redirect => Action::Redirect,
        Verdict::Tx | Verdict::Forward => Action::Tx,
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
