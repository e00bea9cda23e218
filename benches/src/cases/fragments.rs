//! Fragments: the first one, and one that follows it.

use etherparse::PacketBuilder;
use lb_userspace::dataplane::bpf::driver::Flows;

use super::{Case, L2, VIP_V4, case};

/// Where an IPv4 header in a plain frame has its flags and the fragment's offset.
const FLAGS: std::ops::Range<usize> = 20..22;

/// The first fragments come first: the later ones find where they went.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (what, flags) in [("first", [0x20, 0x00]), ("later", [0x00, 0x04])] {
        for (flows, word) in [(Flows::Own, "1 flow"), (Flows::Cycle(4096), "4,096 flows")] {
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2; 6], [4; 6])
                .ipv4([198, 51, 100, 7], VIP_V4, 64)
                .udp(40000, L2)
                .write(&mut frame, &[0; 24])?;
            if let Some(field) = frame.get_mut(FLAGS) {
                field.copy_from_slice(&flags);
            }
            cases.push(case(
                &format!("fragment, {what}, v4 UDP, {word}"),
                frame,
                flows,
            ));
        }
    }
    Ok(cases)
}
