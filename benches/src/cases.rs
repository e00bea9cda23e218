//! The cases of the bench, and the maps that they run against.

mod access;
mod changes;
mod fragments;
mod frames;
mod limits;
mod observed;
pub(crate) mod sizes;

use std::ops::Range;

use etherparse::PacketBuilder;
use lb_common::{
    backend::{self, Backend, mode},
    encap,
    flow::{Address, HASH_KEYS, HashKeys},
    pin::Idle,
    slot::{Slot, SlotTable, State},
    tables::Node,
    vip::{VipEntry, VipKey, VipTable},
};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{
        BpfDataPlane,
        driver::{Classic, Floor, Flows, Sample},
    },
};
use zerocopy::FromZeros as _;

pub(crate) use changes::pin_flows;
use frames::{ack, frame_to, syn, tcp_v4, tcp_v6, udp_v4};
pub(crate) use observed::Watched;

const VIP_V4: [u8; 4] = [203, 0, 113, 10];
const VIP_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const BACKENDS: u16 = 16;
/// Id of the VIP that is reached over l2 by IPv4: its slots change hands.
const FIRST_VIP: u32 = 0;
/// Numbers of flows, the last being how many are pinned.
const FLOWS: [u32; 3] = [1, 1 << 16, 1 << 20];
/// How many flows are to cost no more than one.
pub(crate) const MANY: u32 = 10_000_000;
/// The case of so many flows, and the one that it is held against.
pub(crate) const STEADY: &str = "l2, v4 TCP, 10,000,000 flows";
pub(crate) const ONE: &str = "l2, v4 TCP, 1 flow";
/// One lookup in a kernel hash and a chain of them, and one update of an LRU hash by a new key.
pub(crate) const HASH: &str = "floor: hash lookup, 20-byte key";
pub(crate) const HASHES: &str = "floor: 9 hash lookups, each by the last";
pub(crate) const LRU: &str = "floor: LRU update, 40-byte key";
/// Clients whose flows are pinned, are not, and never came before. The driver fills in the rest.
const PINNED: [u8; 4] = [198, 18, 0, 0];
const UNKNOWN: [u8; 4] = [198, 51, 0, 0];
const FLOOD: [u8; 4] = [100, 64, 0, 0];
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
    /// The classic design, with a table of all flows.
    Classic,
    /// The program that observes.
    Observed(Watched),
}

impl Program {
    /// Whether other programs can be measured in its place.
    pub(crate) const fn is_weir(self) -> bool {
        matches!(self, Self::Weir)
    }
}

/// What is measured.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) program: Program,
    frame: Vec<u8>,
    flows: Flows,
    /// How many VIPs the packets go to, by the low 16 bits of their address; 0 for the frame's own.
    destinations: u32,
    action: u32,
    slots: State,
    budget: Budget,
    vips: Vips,
}

/// What a CPU may do in a second.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Budget {
    /// Bare ACKs of flows that are not known are not pinned.
    None,
    /// All of them are.
    Endless,
    /// Every ICMP message is answered or forwarded.
    Messages,
    /// None is but the first.
    NoMessages,
}

/// Which VIPs there are.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Vips {
    /// Those of all cases but the next.
    Usual,
    /// So many of [`sizes`].
    Alike(u32),
}

/// The tables of VIPs that the cases want.
pub(crate) struct Tables {
    usual: Box<VipTable>,
    alike: Vec<(u32, Box<VipTable>)>,
}

impl Tables {
    fn get(&self, wanted: Vips) -> anyhow::Result<&VipTable> {
        let Vips::Alike(count) = wanted else {
            return Ok(&self.usual);
        };
        let found = self.alike.iter().find(|(held, _)| *held == count);
        found
            .map(|(_, table)| &**table)
            .ok_or_else(|| anyhow::anyhow!("no table of {count} VIPs was made"))
    }
}

fn vip_table(entries: &[VipEntry]) -> anyhow::Result<Box<VipTable>> {
    let mut table = VipTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    table
        .build(entries)
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok(table)
}

impl Case {
    pub(crate) fn sample(&self) -> Sample {
        Sample {
            frame: self.frame.clone(),
            flows: self.flows,
            destinations: self.destinations,
            action: self.action,
        }
    }

    /// Whether flows must have been pinned, and floods have gone by, before.
    pub(crate) fn wants_pins(&self) -> bool {
        self.slots != State::Stable || self.name == LRU
    }
}

/// The packet of the control: always the same.
pub(crate) fn control() -> anyhow::Result<Sample> {
    Ok(Sample {
        frame: tcp_v4(VIP_V4, L2)?,
        flows: Flows::Own,
        destinations: 0,
        action: TX,
    })
}

/// How the backends of a measured VIP are reached.
struct Mode {
    port: u16,
    kind: u8,
    /// Their address, which is the outer destination; and the outer source.
    address: Address,
    source: Address,
}

/// Keys of the flow hash, the same in every run.
fn hash_keys() -> HashKeys {
    let mut keys = [0; HASH_KEYS];
    for (key, index) in keys.iter_mut().zip(1u64..) {
        *key = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index);
    }
    HashKeys { keys }
}

/// Writes a VIP for each address family and mode with 16 backends, and lists the cases. `only`: parts of the names of those
/// that are measured, if not all are.
pub(crate) fn prepare(
    weir: &mut BpfDataPlane,
    only: &[String],
) -> anyhow::Result<(Vec<Case>, Tables)> {
    weir.set_node(&Node::new(hash_keys()))?;
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
    entries.extend(access::prepare(weir, entries.len() as u32, only)?);
    entries.extend(limits::prepare(weir, entries.len() as u32)?);
    entries.extend(sizes::prepare_backends(weir)?);
    let tables = Tables {
        usual: vip_table(&entries)?,
        alike: sizes::prepare_vips(weir)?,
    };
    weir.set_vips(&tables.usual)?;
    anyhow::ensure!(weir.keep_marks()?, "fresh maps have pins");
    Ok((cases()?, tables))
}

fn serve(
    weir: &mut BpfDataPlane,
    vip: u32,
    wanted: &Mode,
    vip_address: Address,
) -> anyhow::Result<()> {
    let first = first_of(vip);
    let ids = first..first + BACKENDS;
    serve_by(weir, vip, wanted, vip_address, ids)
}

/// The same with these backends, whose table has every slot Stable.
fn serve_by(
    weir: &mut BpfDataPlane,
    vip: u32,
    wanted: &Mode,
    vip_address: Address,
    ids: Range<u16>,
) -> anyhow::Result<()> {
    for id in ids.clone() {
        weir.set_backend(id, &backend(id, vip, wanted, vip_address))?;
    }
    let never = Idle {
        open_ns: u64::MAX,
        closed_ns: u64::MAX,
    };
    weir.set_idle(vip, &never)?;
    weir.set_table(vip, &*table(ids, State::Stable)?)
}

/// Id of the first backend of a VIP.
const fn first_of(vip: u32) -> u16 {
    vip as u16 * BACKENDS + 1
}

fn backend(id: u16, vip: u32, wanted: &Mode, vip_address: Address) -> Backend {
    let is_v6 = !vip_address.is_v4();
    Backend {
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
    }
}

/// The ids of the first VIP's backends.
const fn of_first() -> Range<u16> {
    first_of(FIRST_VIP)..first_of(FIRST_VIP) + BACKENDS
}

/// A table of backends in turn, in which every slot is in one state.
fn table(ids: Range<u16>, state: State) -> anyhow::Result<Box<SlotTable>> {
    let mut table = SlotTable::new_box_zeroed().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let count = u32::from(ids.end - ids.start);
    let owner = |index: u32| ids.start + (index % count) as u16;
    for (slot, index) in table.slots.iter_mut().zip(0u32..) {
        *slot = match state {
            State::Stable => Slot::stable(owner(index)),
            State::Holding => Slot::holding(owner(index)),
            State::Moving => Slot::moving(owner(index), owner(index + 1)),
            State::Settling => Slot::settling(owner(index)),
        };
    }
    Ok(table)
}

/// Brings VIPs, the slots of the first one, and budgets into the state that a case wants.
pub(crate) fn arrange(weir: &mut BpfDataPlane, tables: &Tables, case: &Case) -> anyhow::Result<()> {
    if !matches!(case.program, Program::Weir) {
        return Ok(());
    }
    write_budget(weir, case.budget)?;
    weir.set_vips(tables.get(case.vips)?)?;
    weir.set_table(FIRST_VIP, &*table(of_first(), case.slots)?)
}

fn write_budget(weir: &mut BpfDataPlane, budget: Budget) -> anyhow::Result<()> {
    // The longest that a limit counts (lb_common::gcra): one pin in that time, or as many as come, whatever was paid before.
    const HOUR_NS: u64 = 3_600_000_000_000;
    let usual = Node::new(hash_keys());
    let (pin_interval_ns, pin_tolerance_ns) = match budget {
        Budget::Endless => (0, HOUR_NS),
        Budget::None | Budget::Messages | Budget::NoMessages => (HOUR_NS, 0),
    };
    let (icmp_interval_ns, icmp_tolerance_ns) = match budget {
        Budget::Messages => (0, HOUR_NS),
        Budget::NoMessages => (HOUR_NS, 0),
        Budget::None | Budget::Endless => (usual.icmp_interval_ns, usual.icmp_tolerance_ns),
    };
    weir.set_node(&Node {
        icmp_interval_ns,
        icmp_tolerance_ns,
        pin_interval_ns,
        pin_tolerance_ns,
        ..usual
    })
}

/// Loads the classic design with the first VIP and a table of so many flows.
pub(crate) fn classic(flows: u32) -> anyhow::Result<Classic> {
    let wanted = Mode {
        port: L2,
        kind: mode::L2,
        address: Address::from_v4([10, 0, 0, 2]),
        source: Address::from_v4([10, 0, 0, 1]),
    };
    let vip_address = Address::from_v4(VIP_V4);
    let backends: Vec<_> = of_first()
        .map(|id| (id, backend(id, FIRST_VIP, &wanted, vip_address)))
        .collect();
    let vip = VipEntry {
        key: VipKey::new(vip_address, L2.to_be_bytes(), 6),
        id: FIRST_VIP,
        flags: 0,
    };
    let table = table(of_first(), State::Stable)?;
    Classic::load(flows, &hash_keys(), vip, &table, &backends)
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let (tcp4, tcp6) = (tcp_v4(VIP_V4, L2)?, tcp_v6(L2)?);
    let floor = |name: &str, floor, frame: &Vec<u8>| Case {
        program: Program::Floor(floor),
        ..case(name, frame.clone(), Flows::Own)
    };
    let weir = case;
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
    let mut cases = vec![
        floor("floor: empty", Floor::Empty, &tcp4),
        floor("floor: parse and swap, v4", Floor::Swap, &tcp4),
        floor("floor: parse and swap, v6", Floor::Swap, &tcp6),
        floor("floor: parse and push outer, v4", Floor::Encap, &tcp4),
        floor(HASH, Floor::Hash, &tcp4),
        floor(HASHES, Floor::Hashes, &tcp4),
        Case {
            flows: Flows::Fresh,
            ..floor(LRU, Floor::Lru, &tcp4)
        },
        weir("l2, v4 TCP, 1 flow", tcp4.clone(), Flows::Own),
        weir("l2, v4 TCP, 64k flows", tcp4.clone(), Flows::Cycle(1 << 16)),
        weir("l2, v4 TCP, 1M flows", tcp4.clone(), Flows::Cycle(1 << 20)),
        weir(STEADY, tcp4, Flows::Cycle(MANY)),
        weir("l2, v4 UDP, 1 flow", udp_v4()?, Flows::Own),
        weir("l2, v6 TCP, 1 flow", tcp6.clone(), Flows::Own),
        weir("l2, v6 TCP, 64k flows", tcp6.clone(), Flows::Cycle(1 << 16)),
        weir("l2, v6 TCP, 10,000,000 flows", tcp6, Flows::Cycle(MANY)),
        weir(
            "ipip, v4 TCP in v4, 1 flow",
            tcp_v4(VIP_V4, IPIP)?,
            Flows::Own,
        ),
        weir(
            "ipip, v4 TCP in v4, 64k flows",
            tcp_v4(VIP_V4, IPIP)?,
            Flows::Cycle(1 << 16),
        ),
        weir(
            "ipip, v4 TCP in v4, 10,000,000 flows",
            tcp_v4(VIP_V4, IPIP)?,
            Flows::Cycle(MANY),
        ),
        weir(
            "ipip, v4 TCP in v6, 1 flow",
            tcp_v4(VIP_V4, IPIP_V6)?,
            Flows::Own,
        ),
        weir("ipip, v6 TCP in v6, 1 flow", tcp_v6(IPIP_V6)?, Flows::Own),
        weir(
            "gue, v4 TCP over v4, 1 flow",
            tcp_v4(VIP_V4, GUE)?,
            Flows::Own,
        ),
        weir("gue, v6 TCP over v4, 1 flow", tcp_v6(GUE)?, Flows::Own),
        weir("l2, v4 TCP, one VLAN tag", tagged, Flows::Own),
        // They are beyond the limit of the node, and dropped: this is what a flood of them costs.
        Case {
            action: DROP,
            budget: Budget::NoMessages,
            ..case("ICMP echo flood, v4", echo.clone(), Flows::Own)
        },
        Case {
            budget: Budget::Messages,
            ..case("ICMP echo, answered, v4", echo, Flows::Own)
        },
        Case {
            action: PASS,
            ..case(
                "not a VIP, v4 TCP",
                tcp_v4([203, 0, 113, 99], L2)?,
                Flows::Own,
            )
        },
        Case {
            action: PASS,
            ..case(
                "not a VIP, v4 TCP, 1M flows",
                tcp_v4([203, 0, 113, 99], L2)?,
                Flows::Cycle(1 << 20),
            )
        },
    ];
    cases.extend(fragments::cases()?);
    cases.extend(sizes::cases()?);
    cases.extend(changes::cases()?);
    flow_tables(&mut cases)?;
    cases.extend(access::cases()?);
    cases.extend(limits::cases()?);
    cases.extend(observed::cases()?);
    Ok(cases)
}

/// What weir does with a frame while all slots are Stable.
fn case(name: &str, frame: Vec<u8>, flows: Flows) -> Case {
    Case {
        name: name.to_owned(),
        program: Program::Weir,
        frame,
        flows,
        destinations: 0,
        action: TX,
        slots: State::Stable,
        budget: Budget::None,
        vips: Vips::Usual,
    }
}

/// The classic design, with the same packets.
fn flow_tables(cases: &mut Vec<Case>) -> anyhow::Result<()> {
    for flows in FLOWS.into_iter().chain([MANY]) {
        cases.push(Case {
            program: Program::Classic,
            ..case(
                &format!("flow table, {}", count(flows)),
                ack(UNKNOWN)?,
                Flows::Cycle(flows),
            )
        });
    }
    cases.push(Case {
        program: Program::Classic,
        ..case("flow table, SYN flood", syn(FLOOD)?, Flows::Fresh)
    });
    cases.push(case("l2, v4 TCP, SYN flood", syn(FLOOD)?, Flows::Fresh));
    Ok(())
}

/// A number of flows, in words.
fn count(flows: u32) -> String {
    match flows {
        1 => "1 flow".to_owned(),
        _ if flows == 1 << 16 => "64k flows".to_owned(),
        _ if flows == 1 << 20 => "1M flows".to_owned(),
        _ => format!("{flows} flows"),
    }
}
