//! What it costs a packet that somebody watches.

use lb_common::{
    gcra::TICKS_PER_SECOND,
    observe::{ANY_REASON, ANY_VIP, EVERY, HEADERS, Watch, Watches, one_in},
};
use lb_userspace::dataplane::bpf::BpfDataPlane;

use super::{Case, Flows, L2, Program, VIP_V4, ack, case, prepare, tcp_v4};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// One packet in 10,000, as `weir events --packets 1/10000` does.
    Sampled,
    /// Every packet, one of which may be told in a second: the others are saved, judged and skipped.
    Every,
}

impl Watched {
    /// The program that observes, with the maps of all cases. Nobody reads what it tells.
    pub(crate) fn load(self) -> anyhow::Result<BpfDataPlane> {
        let mut watches = Watches {
            saved: HEADERS,
            ..Watches::default()
        };
        let ([lot, ..], [watch, ..]) = (&mut watches.sampled, &mut watches.watches);
        *lot = match self {
            Self::Sampled => one_in(10_000),
            Self::Every => EVERY,
        };
        *watch = Watch {
            reasons: ANY_REASON,
            vip: ANY_VIP,
            interval: TICKS_PER_SECOND,
            depth: TICKS_PER_SECOND,
            ..Watch::default()
        };
        let (mut plane, _records) = BpfDataPlane::observing(&watches)?;
        prepare(&mut plane, &["observed".to_owned()])?;
        Ok(plane)
    }
}

/// The cases, beside those of the same packets that nobody watches.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (what, watched) in [
        ("1 in 10,000", Watched::Sampled),
        ("all, beyond the rate", Watched::Every),
    ] {
        let program = Program::Observed(watched);
        cases.push(Case {
            program,
            ..case(
                &format!("observed, {what}, l2, v4 TCP, 1 flow"),
                tcp_v4(VIP_V4, L2)?,
                Flows::Own,
            )
        });
        cases.push(Case {
            program,
            ..case(
                &format!("observed, {what}, l2, v4 TCP, 64k flows"),
                ack(super::UNKNOWN)?,
                Flows::Cycle(1 << 16),
            )
        });
    }
    Ok(cases)
}
