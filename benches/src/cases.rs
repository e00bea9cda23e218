//! The cases of the bench, and the maps that they run against.

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
    encap,
    flow::{Address, HASH_KEYS, HashKeys},
    slot::{Slot, SlotTable},
    tables::Node,
    vip::{VipEntry, VipKey, VipTable},
};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{
        BpfDataPlane,
        driver::{Floor, Sample},
    },
};
use zerocopy::FromZeros as _;

const VIP_V4: [u8; 4] = [203, 0, 113, 10];
const VIP_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const BACKENDS: u16 = 16;
/// Ports of the VIPs, by the way that their backends are reached.
const L2: u16 = 443;
const IPIP: u16 = 444;
const IPIP_V6: u16 = 445;
const GUE: u16 = 446;

/// Actions of linux/bpf.h.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;

/// What runs.
#[derive(Clone, Copy)]
pub(crate) enum Program {
    /// The product's program.
    Weir,
    /// A floor.
    Floor(Floor),
}

impl Program {
    /// Whether other programs can be measured in its place.
    pub(crate) const fn is_weir(self) -> bool {
        matches!(self, Self::Weir)
    }
}

/// What is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    frame: Vec<u8>,
    flows: u64,
    action: u32,
}

impl Case {
    pub(crate) fn sample(&self) -> Sample {
        Sample {
            frame: self.frame.clone(),
            flows: self.flows,
            action: self.action,
        }
    }
}

/// How the backends of a measured VIP are reached.
struct Mode {
    port: u16,
    kind: u8,
    /// Their address, which is the outer destination; and the outer source.
    address: Address,
    source: Address,
}

/// Writes a VIP for each address family and mode with 16 backends, and lists the cases.
pub(crate) fn prepare(weir: &mut BpfDataPlane) -> anyhow::Result<Vec<Case>> {
    let mut keys = [0; HASH_KEYS];
    for (key, index) in keys.iter_mut().zip(1u64..) {
        *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index);
    }
    weir.set_node(&Node::new(HashKeys { keys }))?;
    let v4 = |last| Address::from_v4([10, 0, 0, last]);
    let v6 = |last| Address::from_v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let modes = [
        Mode {
            port: L2,
            kind: mode::L2,
            address: v4(2),
            source: v4(1),
        },
        Mode {
            port: IPIP,
            kind: mode::IPIP,
            address: v4(2),
            source: v4(1),
        },
        Mode {
            port: IPIP_V6,
            kind: mode::IPIP,
            address: v6(2),
            source: v6(1),
        },
        Mode {
            port: GUE,
            kind: mode::GUE,
            address: v4(2),
            source: v4(1),
        },
    ];
    let mut entries = Vec::new();
    for vip_address in [Address::from_v4(VIP_V4), Address::from_v6(VIP_V6)] {
        for mode in &modes {
            let vip = entries.len() as u32;
            serve(weir, vip, mode, vip_address)?;
            for protocol in [6, 17] {
                let key = VipKey::new(vip_address, mode.port.to_be_bytes(), protocol);
                entries.push(VipEntry {
                    key,
                    id: vip,
                    flags: 0,
                });
            }
        }
    }
    let mut vips = VipTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    vips.build(&entries)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    weir.set_vips(&vips)?;
    cases()
}

fn serve(
    weir: &mut BpfDataPlane,
    vip: u32,
    wanted: &Mode,
    vip_address: Address,
) -> anyhow::Result<()> {
    let first = vip as u16 * BACKENDS + 1;
    for id in first..first + BACKENDS {
        let is_v6 = !vip_address.is_v4();
        weir.set_backend(
            id,
            &Backend {
                mac_destination: [2, 0, 0, 0, 1, id as u8],
                mode: wanted.kind,
                flags: backend::flags::RESOLVED,
                mac_source: [2, 0, 0, 0, 0, 1],
                vip: vip as u16,
                ifindex: 1,
                mtu: 1500,
                address: wanted.address,
                source: wanted.source,
                gue_port: 6080u16.to_be_bytes(),
                outer_sum: encap::constant_sum(wanted.source, wanted.address, wanted.kind, is_v6),
                ..Backend::default()
            },
        )?;
    }
    let mut table = SlotTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    for (slot, index) in table.slots.iter_mut().zip(0u32..) {
        *slot = Slot::stable(first + (index % u32::from(BACKENDS)) as u16);
    }
    weir.set_table(vip, &table)
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let (tcp4, tcp6) = (tcp_v4(VIP_V4, L2)?, tcp_v6(L2)?);
    let floor = |name, floor, frame: &Vec<u8>| Case {
        name,
        program: Program::Floor(floor),
        frame: frame.clone(),
        flows: 1,
        action: TX,
    };
    let weir = |name, frame, flows| Case {
        name,
        program: Program::Weir,
        frame,
        flows,
        action: TX,
    };
    let mut tagged = tcp4.clone();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x07]);
    let echo = {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], VIP_V4, 64);
        let mut frame = Vec::new();
        builder
            .icmpv4_echo_request(1, 2)
            .write(&mut frame, &[0; 22])?;
        frame
    };
    Ok(vec![
        floor("floor: empty", Floor::Empty, &tcp4),
        floor("floor: parse and swap, v4", Floor::Swap, &tcp4),
        floor("floor: parse and swap, v6", Floor::Swap, &tcp6),
        floor("floor: parse and push outer, v4", Floor::Encap, &tcp4),
        weir("l2, v4 TCP, 1 flow", tcp4.clone(), 1),
        weir("l2, v4 TCP, 64k flows", tcp4.clone(), 1 << 16),
        weir("l2, v4 TCP, 16M flows", tcp4, 1 << 24),
        weir("l2, v4 UDP, 1 flow", udp_v4()?, 1),
        weir("l2, v6 TCP, 1 flow", tcp6.clone(), 1),
        weir("l2, v6 TCP, 64k flows", tcp6, 1 << 16),
        weir("ipip, v4 TCP in v4, 1 flow", tcp_v4(VIP_V4, IPIP)?, 1),
        weir(
            "ipip, v4 TCP in v4, 64k flows",
            tcp_v4(VIP_V4, IPIP)?,
            1 << 16,
        ),
        weir("ipip, v4 TCP in v6, 1 flow", tcp_v4(VIP_V4, IPIP_V6)?, 1),
        weir("ipip, v6 TCP in v6, 1 flow", tcp_v6(IPIP_V6)?, 1),
        weir("gue, v4 TCP over v4, 1 flow", tcp_v4(VIP_V4, GUE)?, 1),
        weir("gue, v6 TCP over v4, 1 flow", tcp_v6(GUE)?, 1),
        weir("l2, v4 TCP, one VLAN tag", tagged, 1),
        // Most of them are beyond the limit of the node, and dropped: this is what a flood of them costs.
        Case {
            name: "ICMP echo flood, v4",
            program: Program::Weir,
            frame: echo,
            flows: 1,
            action: DROP,
        },
        Case {
            name: "not a VIP, v4 TCP",
            program: Program::Weir,
            frame: tcp_v4([203, 0, 113, 99], L2)?,
            flows: 1,
            action: PASS,
        },
    ])
}

fn tcp_v4(to: [u8; 4], port: u16) -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], to, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}

fn udp_v4() -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], VIP_V4, 64);
    let mut frame = Vec::new();
    builder.udp(40000, L2).write(&mut frame, &[0; 22])?;
    Ok(frame)
}

fn tcp_v6(port: u16) -> anyhow::Result<Vec<u8>> {
    let source = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(source, VIP_V6, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, port, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}
