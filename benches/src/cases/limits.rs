//! VIPs with rate limits, that let everything through or nothing.

use lb_common::{
    backend::mode,
    flow::Address,
    gcra::{MAX_DEPTH, TICKS_PER_SECOND},
    limit::{Kind, Limits, Rate, rate_flags, vip_flags},
    vip::{VipEntry, VipKey},
};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{BpfDataPlane, driver::Flows},
};

use super::{Case, DROP, Mode, UNKNOWN, VIP_V4, case, frame_to, serve};

/// Ports of the VIPs, by what they limit.
const TOTAL: u16 = 510;
const SOURCES: u16 = 511;
const ALL: u16 = 512;
const SYNS: u16 = 513;
const OVER: u16 = 514;
const PRECISE: u16 = 515;
const EACH: u16 = 516;

/// Clients differ in the low 16 bits of their addresses: prefixes of 26 bits make 1,024 sources of them.
const PREFIX: u32 = 26;
/// Each address is a source.
const WHOLE: u32 = 32;

/// Writes the VIPs with their limits; `first` is the id of the first.
pub(super) fn prepare(weir: &mut BpfDataPlane, first: u32) -> anyhow::Result<Vec<VipEntry>> {
    let vip_address = Address::from_v4(VIP_V4);
    let vips: [(u16, &[Kind], u64); 7] = [
        (TOTAL, &[Kind::Packets], MAX_DEPTH),
        (SOURCES, &[Kind::PacketsPerSource], MAX_DEPTH),
        (ALL, &Kind::ALL, MAX_DEPTH),
        (SYNS, &[Kind::NewConnections], MAX_DEPTH),
        (OVER, &[Kind::PacketsPerSource], 0),
        (PRECISE, &[Kind::PacketsPerSource], MAX_DEPTH),
        (EACH, &[Kind::PacketsPerSource], MAX_DEPTH),
    ];
    let mut entries = Vec::new();
    for (id, (port, kinds, depth)) in (first..).zip(vips) {
        let wanted = Mode {
            port,
            kind: mode::L2,
            address: Address::from_v4([10, 0, 0, 2]),
            source: Address::from_v4([10, 0, 0, 1]),
        };
        serve(weir, id, &wanted, vip_address)?;
        let every_bit = Address {
            high: u64::MAX,
            low: u64::MAX,
        };
        let prefix = if port == EACH { WHOLE } else { PREFIX };
        let mut limits = Limits {
            mask_v6: every_bit,
            mask_v4: Address::from_v6((u128::MAX << (32 - prefix)).to_be_bytes()),
            ..Limits::default()
        };
        for (kind, rate) in Kind::ALL.into_iter().zip(&mut limits.rates) {
            if kinds.contains(&kind) {
                *rate = Rate {
                    interval: TICKS_PER_SECOND / 1_000_000_000,
                    depth,
                    batch: if kind.is_per_source() { 0 } else { depth / 16 },
                    flags: 0,
                };
            }
        }
        if port == PRECISE {
            for rate in &mut limits.rates {
                rate.flags |= rate_flags::PRECISE;
            }
        }
        weir.set_limits(id, &limits.told())?;
        entries.push(VipEntry {
            key: VipKey::new(vip_address, port.to_be_bytes(), 6),
            id,
            flags: vip_flags(kinds.iter().copied()),
        });
    }
    Ok(entries)
}

/// One source and a thousand, within limits and over them.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (what, port) in [
        ("packets in total", TOTAL),
        ("packets of a source", SOURCES),
        ("packets of a source, precise clock", PRECISE),
        ("every kind", ALL),
        ("SYNs, and this is none", SYNS),
    ] {
        for (flows, word) in [
            (Flows::Own, "1 source"),
            (Flows::Cycle(1 << 16), "1,024 sources"),
        ] {
            let name = format!("limit, {what}, {word}");
            cases.push(case(&name, frame_to(UNKNOWN, port)?, flows));
        }
    }
    cases.push(case(
        "limit, packets of a source, 65,536 sources",
        frame_to(UNKNOWN, EACH)?,
        Flows::Cycle(1 << 16),
    ));
    cases.push(Case {
        action: DROP,
        ..case(
            "limit, packets of a source, over it, 1,024 sources",
            frame_to(UNKNOWN, OVER)?,
            Flows::Cycle(1 << 16),
        )
    });
    Ok(cases)
}
