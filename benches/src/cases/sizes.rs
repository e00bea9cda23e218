//! Few and many: VIPs that are alike, and VIPs with few and many backends.

use lb_common::{
    backend::mode,
    flow::Address,
    vip::{VipEntry, VipKey, VipTable},
};
use lb_userspace::dataplane::bpf::{BpfDataPlane, driver::Flows};

use super::{Case, L2, Mode, VIP_V4, Vips, case, frame_to, serve, serve_by, tcp_v4, vip_table};

/// How many VIPs there are at a time, all alike.
pub(crate) const VIPS: [u32; 3] = [1, 100, 500];
/// Id of the first of them, beyond those of all other cases.
const FIRST_ALIKE: u32 = 64;
/// Their addresses count up in the last two bytes.
const ALIKE: [u8; 4] = [203, 0, 0, 0];

/// How many backends a VIP has.
pub(crate) const BACKENDS: [u16; 4] = [3, 100, 1000, 10_000];
/// Ids of VIPs and backends, and ports, of the first of those VIPs.
const FIRST_SIZED: u32 = 600;
const FIRST_BACKEND: u16 = 20_001;
const FIRST_PORT: u16 = 600;

fn wanted(port: u16) -> Mode {
    Mode {
        port,
        kind: mode::L2,
        address: Address::from_v4([10, 0, 0, 2]),
        source: Address::from_v4([10, 0, 0, 1]),
    }
}

/// Writes VIPs with few and many backends.
pub(super) fn prepare_backends(weir: &mut BpfDataPlane) -> anyhow::Result<Vec<VipEntry>> {
    let vip_address = Address::from_v4(VIP_V4);
    let mut first = FIRST_BACKEND;
    let mut entries = Vec::new();
    for ((id, port), count) in (FIRST_SIZED..).zip(FIRST_PORT..).zip(BACKENDS) {
        let ids = first..first + count;
        first = ids.end;
        serve_by(weir, id, &wanted(port), vip_address, ids)?;
        entries.push(VipEntry {
            key: VipKey::new(vip_address, port.to_be_bytes(), 6),
            id,
            flags: 0,
        });
    }
    Ok(entries)
}

/// Writes as many VIPs as are wanted at most, with 16 backends each, and makes the tables that find them.
pub(super) fn prepare_vips(weir: &mut BpfDataPlane) -> anyhow::Result<Vec<(u32, Box<VipTable>)>> {
    let most = VIPS.into_iter().max().unwrap_or_default();
    let mut entries = Vec::new();
    for (id, index) in (FIRST_ALIKE..).zip(0..most) {
        let [a, b, ..] = ALIKE;
        let [.., c, d] = index.to_be_bytes();
        let address = Address::from_v4([a, b, c, d]);
        serve(weir, id, &wanted(L2), address)?;
        entries.push(VipEntry {
            key: VipKey::new(address, L2.to_be_bytes(), 6),
            id,
            flags: 0,
        });
    }
    VIPS.into_iter()
        .map(|count| {
            let table = vip_table(entries.get(..count as usize).unwrap_or_default())?;
            Ok((count, table))
        })
        .collect()
}

/// Packets to one VIP of so many, to all of them in turn, and to VIPs of so many backends.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for count in VIPS {
        let to_one = Case {
            vips: Vips::Alike(count),
            ..case(&one_of(count), tcp_v4(ALIKE, L2)?, Flows::Cycle(1 << 16))
        };
        if count > 1 {
            cases.push(Case {
                name: all_of(count),
                destinations: count,
                frame: to_one.frame.clone(),
                ..to_one
            });
        }
        cases.push(to_one);
    }
    for (count, port) in BACKENDS.into_iter().zip(FIRST_PORT..) {
        cases.push(case(
            &of_backends(count),
            frame_to([198, 51, 0, 0], port)?,
            Flows::Cycle(1 << 16),
        ));
    }
    Ok(cases)
}

/// Names of the cases.
pub(crate) fn one_of(vips: u32) -> String {
    format!("VIPs: to one of {vips}, 64k flows")
}

pub(crate) fn all_of(vips: u32) -> String {
    format!("VIPs: to all of {vips}, 64k flows")
}

pub(crate) fn of_backends(count: u16) -> String {
    format!("backends: {count}, 64k flows")
}
