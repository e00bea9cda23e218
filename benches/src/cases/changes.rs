//! Slots that change hands: pinned flows, flows without a pin, and floods.

use lb_common::slot::State;
use lb_userspace::dataplane::{
    DataPlane as _,
    bpf::{
        BpfDataPlane,
        driver::{Driver, Floor, Flows, Sample},
    },
};

use super::{
    Budget, Case, FIRST_VIP, FLOOD, FLOWS, PINNED, TX, UNKNOWN, case, count,
    frames::{ack, syn},
    of_first, table,
};

/// Lets the flows of the cases of pinned flows be proven: in Moving slots, a SYN of each and a packet that fits it. Then fills what
/// floods write to, `max_pins` of each: a flood soon meets a full map, in which each entry takes another one's place.
pub(crate) fn pin_flows(
    driver: &mut Driver,
    weir: &mut BpfDataPlane,
    max_pins: u32,
) -> anyhow::Result<()> {
    weir.set_table(FIRST_VIP, &*table(of_first(), State::Moving)?)?;
    let flows = *FLOWS.last().unwrap_or(&1);
    for frame in [syn(PINNED)?, ack(PINNED)?] {
        let sample = Sample {
            frame,
            flows: Flows::Cycle(flows),
            destinations: 0,
            action: TX,
        };
        driver.measure(weir, &sample, flows)?;
    }
    let flood = Sample {
        frame: syn(FLOOD)?,
        flows: Flows::Fresh,
        destinations: 0,
        action: TX,
    };
    driver.measure(weir, &flood, max_pins)?;
    driver.measure_floor(Floor::Lru, &flood, max_pins)?;
    Ok(())
}

/// Slots that change hands, of the VIP reached over l2 by IPv4.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    let (known, unknown) = (ack(PINNED)?, ack(UNKNOWN)?);
    for (word, slots) in [
        ("Holding", State::Holding),
        ("Moving", State::Moving),
        ("Settling", State::Settling),
    ] {
        for flows in FLOWS {
            cases.push(Case {
                slots,
                ..case(
                    &format!("{word}, pinned, {}", count(flows)),
                    known.clone(),
                    Flows::Cycle(flows),
                )
            });
        }
        for flows in FLOWS {
            cases.push(Case {
                slots,
                ..case(
                    &format!("{word}, no pin, {}", count(flows)),
                    unknown.clone(),
                    Flows::Cycle(flows),
                )
            });
        }
        let floods = [
            ("SYN flood", syn(FLOOD)?, Budget::None),
            ("ACK flood, all pinned", ack(FLOOD)?, Budget::Endless),
        ];
        for (what, frame, budget) in floods {
            // Settling slots pin nothing.
            if slots != State::Settling {
                cases.push(Case {
                    slots,
                    budget,
                    ..case(&format!("{word}, {what}"), frame, Flows::Fresh)
                });
            }
        }
    }
    Ok(cases)
}
