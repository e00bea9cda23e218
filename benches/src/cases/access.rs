//! VIPs with access lists: one of a single prefix, and one of a million.

use lb_common::{
    access::{PrefixKey, blocks, lists, verdict},
    backend::mode,
    flow::Address,
    vip::{VipEntry, VipKey, flags},
};
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{BpfDataPlane, driver::Flows},
};

use super::{Case, DROP, FLOOD, Mode, UNKNOWN, VIP_V4, case, frame_to, serve};

/// How many prefixes the long list has.
const MANY: u32 = 1_000_000;

/// Ports of the VIPs, by how they are listed.
const SHORT: u16 = 500;
const LONG: u16 = 501;
const BLOCKED: u16 = 502;

/// Writes the VIPs with their lists; `first` is the id of the first.
pub(super) fn prepare(
    weir: &mut BpfDataPlane,
    first: u32,
    only: &[String],
) -> anyhow::Result<Vec<VipEntry>> {
    let wanted = |port| Mode {
        port,
        kind: mode::L2,
        address: Address::from_v4([10, 0, 0, 2]),
        source: Address::from_v4([10, 0, 0, 1]),
    };
    let vip_address = Address::from_v4(VIP_V4);
    let mut entries = Vec::new();
    for (id, port) in (first..).zip([SHORT, LONG, BLOCKED]) {
        serve(weir, id, &wanted(port), vip_address)?;
        entries.push(VipEntry {
            key: VipKey::new(vip_address, port.to_be_bytes(), 6),
            id,
            flags: flags::ACCESS,
        });
    }
    let [short, long, blocked] = [first, first + 1, first + 2];
    let mut plane = weir.list_plane()?;
    let flood = Address::from_v4(FLOOD);
    for vip in [short, long] {
        plane.set_prefix(&PrefixKey::new(vip, flood, 10), verdict::DENIED)?;
        plane.set_list_scopes(vip, lists::OF_VIP)?;
    }
    // A million prefixes take seconds: only where they are measured.
    let is_wanted = only.is_empty() || only.iter().any(|only| only.contains("1M prefixes"));
    for index in 0..if is_wanted { MANY } else { 0 } {
        // Spread over all addresses but those of the clients, each once: the multiplier is odd.
        let [a, b, c, d] = index.wrapping_mul(0x9e37_79b1).to_be_bytes();
        if !matches!(a, 100 | 198) {
            let address = Address::from_v4([a, b, c, d]);
            plane.set_prefix(&PrefixKey::new(long, address, 32), verdict::DENIED)?;
        }
    }
    weir.set_block(&PrefixKey::new(blocked, flood, 10))?;
    weir.set_block_scopes(blocked, blocks::OF_VIP)?;
    Ok(entries)
}

/// Clients that the lists name, and clients that they do not.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (what, port) in [
        ("1 prefix", SHORT),
        ("1M prefixes", LONG),
        ("1 block", BLOCKED),
    ] {
        for (flows, word) in [(Flows::Own, "1 flow"), (Flows::Cycle(1 << 20), "1M flows")] {
            let name = format!("access, {what}, not on it, {word}");
            cases.push(case(&name, frame_to(UNKNOWN, port)?, flows));
        }
        cases.push(Case {
            action: DROP,
            ..case(
                &format!("access, {what}, denied, 1M flows"),
                frame_to(FLOOD, port)?,
                Flows::Cycle(1 << 20),
            )
        });
    }
    Ok(cases)
}
