//! The cases of the bench, and the maps that they run against.

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
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
const PORT: u16 = 443;

/// `XDP_PASS` and `XDP_TX` of linux/bpf.h.
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

/// One line of the table.
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

/// Writes one VIP an address family with 16 backends, and lists the cases.
pub(crate) fn prepare(weir: &mut BpfDataPlane) -> anyhow::Result<Vec<Case>> {
    let mut keys = [0; HASH_KEYS];
    for (key, index) in keys.iter_mut().zip(1u64..) {
        *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index);
    }
    weir.set_node(&Node::new(HashKeys { keys }))?;
    let mut entries = Vec::new();
    for (vip, address) in [Address::from_v4(VIP_V4), Address::from_v6(VIP_V6)]
        .into_iter()
        .enumerate()
    {
        let first = vip as u16 * BACKENDS + 1;
        for id in first..first + BACKENDS {
            weir.set_backend(
                id,
                &Backend {
                    mac_destination: [2, 0, 0, 0, 1, id as u8],
                    mode: mode::L2,
                    flags: backend::flags::RESOLVED,
                    mac_source: [2, 0, 0, 0, 0, 1],
                    vip: vip as u16,
                    ifindex: 1,
                    ..Backend::default()
                },
            )?;
        }
        let mut table =
            SlotTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
        for (slot, index) in table.slots.iter_mut().zip(0u32..) {
            *slot = Slot::stable(first + (index % u32::from(BACKENDS)) as u16);
        }
        weir.set_table(vip as u32, &table)?;
        for protocol in [6, 17] {
            entries.push(VipEntry {
                key: VipKey::new(address, PORT.to_be_bytes(), protocol),
                id: vip as u32,
                flags: 0,
            });
        }
    }
    let mut vips = VipTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    vips.build(&entries)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    weir.set_vips(&vips)?;

    let (tcp4, tcp6, udp4, other) = (
        tcp_v4(VIP_V4)?,
        tcp_v6()?,
        udp_v4()?,
        tcp_v4([203, 0, 113, 99])?,
    );
    let swap = Program::Floor(Floor::Swap);
    let case = |name, program, frame: &Vec<u8>, flows, action| Case {
        name,
        program,
        frame: frame.clone(),
        flows,
        action,
    };
    Ok(vec![
        case("floor: empty", Program::Floor(Floor::Empty), &tcp4, 1, TX),
        case("floor: parse and swap, v4", swap, &tcp4, 1, TX),
        case("floor: parse and swap, v6", swap, &tcp6, 1, TX),
        case("l2, v4 TCP, 1 flow", Program::Weir, &tcp4, 1, TX),
        case("l2, v4 TCP, 64k flows", Program::Weir, &tcp4, 1 << 16, TX),
        case("l2, v4 TCP, 16M flows", Program::Weir, &tcp4, 1 << 24, TX),
        case("l2, v4 UDP, 1 flow", Program::Weir, &udp4, 1, TX),
        case("l2, v6 TCP, 1 flow", Program::Weir, &tcp6, 1, TX),
        case("l2, v6 TCP, 64k flows", Program::Weir, &tcp6, 1 << 16, TX),
        case("not a VIP, v4 TCP", Program::Weir, &other, 1, PASS),
    ])
}

fn tcp_v4(to: [u8; 4]) -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], to, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, PORT, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}

fn udp_v4() -> anyhow::Result<Vec<u8>> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 7], VIP_V4, 64);
    let mut frame = Vec::new();
    builder.udp(40000, PORT).write(&mut frame, &[0; 22])?;
    Ok(frame)
}

fn tcp_v6() -> anyhow::Result<Vec<u8>> {
    let source = [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(source, VIP_V6, 64);
    let mut frame = Vec::new();
    builder
        .tcp(40000, PORT, 1, 65535)
        .ack(1)
        .write(&mut frame, &[0; 10])?;
    Ok(frame)
}
