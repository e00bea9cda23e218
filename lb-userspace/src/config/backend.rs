//! Reads `[[vip.backend]]`.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Backend, ForwardMode, address,
    encap::Needs,
    section::Section,
    source::Report,
    vip::{checked_address, forward},
};

const DEFAULT_WEIGHT: u16 = 100;

/// Reads one backend of a VIP; `seen` holds the lines of the addresses that it has already.
pub(super) fn read(
    section: &Section<'_>,
    vip: Option<IpAddr>,
    vip_forward: Option<ForwardMode>,
    seen: &mut BTreeMap<IpAddr, usize>,
    needs: &mut Needs,
    report: &mut Report<'_>,
) -> Option<Backend> {
    let forward = match section.field("forward") {
        Some(_) => forward(section, report),
        None => vip_forward,
    };
    let address = backend_address(section, vip, seen, report);
    let is_reachable = match (section.field("address"), vip, address, forward) {
        (Some(field), Some(vip), Some(address), Some(mode)) => {
            needs.check(&field, (vip, address), mode, report)
        }
        _ => None,
    };
    let weight = match section.field("weight") {
        Some(field) => field.u16(
            "a weight from 0 to 65535",
            "write `weight = 100`; shares are relative, and 0 takes no new flows",
            report,
        ),
        None => Some(DEFAULT_WEIGHT),
    };
    let mac = match section.field("mac") {
        Some(field) => field
            .parse(
                "the MAC address of one station",
                "write `mac = \"02:00:00:00:00:0b\"`, or take the key out: weir asks the neighbour table",
                report,
                address::parse_mac,
            )
            .map(Some),
        None => Some(None),
    };
    is_reachable?;
    Some(Backend {
        address: address?,
        weight: weight?,
        forward: forward?,
        mac: mac?,
    })
}

fn backend_address(
    section: &Section<'_>,
    vip: Option<IpAddr>,
    seen: &mut BTreeMap<IpAddr, usize>,
    report: &mut Report<'_>,
) -> Option<IpAddr> {
    const WANTED: &str = "the backend's own unicast address";
    const HELP: &str = "write `address = \"10.0.0.11\"`, without a port or prefix length";
    let field = section.required("address", WANTED, HELP, report)?;
    let address = checked_address(&field, WANTED, HELP, address::unfit_for_backend, report)?;
    let (line, _) = report.place(field.offset);
    if let Some(first) = seen.get(&address) {
        let help = format!("take it out, or raise the weight on line {first}");
        field.refuse("every backend once in a VIP", &help, report);
        return None;
    }
    seen.insert(address, line);
    match vip {
        Some(vip) if vip == address => {
            let help = "write the address that the backend has on the balancer's segment, not the VIP that it serves";
            field.refuse(WANTED, help, report);
            None
        }
        Some(_) | None => Some(address),
    }
}
