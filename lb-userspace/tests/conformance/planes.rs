//! The world twice: in the real program, and in host memory.

use lb_common::{
    observe::{ANY_REASON, ANY_VIP, EVERY, MAX_SAVED, Record, Watch, Watches},
    packet::{HEADROOM, HostPacket},
    pipeline::{self, NO_VIP, Outcome},
    reason::{Reason, Verdict},
    tables::Drops,
};
use lb_userspace::dataplane::{
    DataPlane as _, ReasonCount, Records,
    bpf::{Action, BpfDataPlane},
    memory::Memory,
};
use zerocopy::FromBytes as _;

use super::world::{LOOPBACK, Plan};

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Judged {
    pub(crate) action: Action,
    pub(crate) packet: Vec<u8>,
}

/// The same VIPs and backends twice: in the real program, and in host memory.
pub(crate) struct World {
    /// `None` where the tests were told to do without root (`WEIR_HOST_ONLY`).
    pub(crate) kernel: Option<BpfDataPlane>,
    pub(crate) host: Memory,
    /// What the program tells, if it is the one that observes.
    records: Option<Box<dyn Records>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(&Plan::new())
    }

    pub(crate) fn of(plan: &Plan) -> Self {
        let kernel = if std::env::var_os("WEIR_HOST_ONLY").is_some() {
            None
        } else {
            assert!(
                rustix::process::geteuid().is_root(),
                "this test loads BPF programs: run it as root, or set WEIR_HOST_ONLY"
            );
            let mut plane = BpfDataPlane::private().unwrap();
            plan.write(&mut plane);
            Some(plane)
        };
        let mut host = Memory::default();
        plan.write(&mut host);
        Self {
            kernel,
            host,
            records: None,
        }
    }

    /// The same with the program that observes.
    pub(crate) fn observed() -> Self {
        let plan = Plan::new();
        let mut host = Memory::default();
        plan.write(&mut host);
        let observing = std::env::var_os("WEIR_HOST_ONLY").is_none().then(|| {
            let (mut plane, records) = BpfDataPlane::observing(&everything()).unwrap();
            plan.write(&mut plane);
            (plane, records)
        });
        let (kernel, records) = observing.unzip();
        Self {
            kernel,
            host,
            records,
        }
    }

    /// Runs the pipeline on the host.
    pub(crate) fn on_host(&self, frame: &[u8]) -> (Outcome, Judged) {
        on_host(&self.host, frame)
    }

    /// Runs the real program. `None`: without root there is none, and it takes no frame below 14 bytes.
    pub(crate) fn in_kernel(&mut self, frame: &[u8]) -> Option<Judged> {
        let plane = self.kernel.as_mut().filter(|_| frame.len() >= 14)?;
        let run = plane.test_run(frame).unwrap();
        let judged = Judged {
            action: run.action,
            packet: run.packet,
        };
        if let Some(records) = &mut self.records {
            check_told(&mut **records, frame, &judged);
        }
        Some(judged)
    }

    /// What was dropped of a VIP's in the kernel.
    pub(crate) fn dropped(&self, vip: u32) -> Option<Drops> {
        let kernel = self.kernel.as_ref().filter(|_| vip != NO_VIP)?;
        Some(kernel.vip_drops(vip).unwrap())
    }

    /// Runs the real program, and tells under which one reason it counted the frame.
    pub(crate) fn counted_in_kernel(&mut self, frame: &[u8]) -> Option<(Reason, Judged)> {
        let before = self.kernel.as_ref()?.reason_counters().unwrap();
        let judged = self.in_kernel(frame)?;
        let after = self.kernel.as_ref()?.reason_counters().unwrap();
        let changed: Vec<&ReasonCount> = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .map(|(_, after)| after)
            .collect();
        let [counted] = changed[..] else {
            panic!("counted under {changed:?}")
        };
        Some((counted.reason, judged))
    }
}

/// One watcher, who is told of every packet.
fn everything() -> Watches {
    let mut watches = Watches {
        saved: MAX_SAVED as u32,
        ..Watches::default()
    };
    watches.sampled[0] = EVERY;
    watches.watches[0] = Watch {
        reasons: ANY_REASON,
        vip: ANY_VIP,
        ..Watch::default()
    };
    watches
}

/// The program has told of this one frame, as it came and as it left.
fn check_told(records: &mut dyn Records, frame: &[u8], judged: &Judged) {
    let mut told = Vec::new();
    records.drain(&mut |record| told.push(record.to_vec()));
    let [told] = &told[..] else {
        panic!("told {} times of one frame", told.len())
    };
    let (record, saved) = Record::read_from_prefix(told).unwrap();
    let (came, left) = saved.split_at(record.came_saved as usize);
    let saved = |frame: &[u8]| frame[..frame.len().min(MAX_SAVED)].to_vec();
    assert_eq!(came, saved(frame), "as it came");
    assert_eq!(record.came_len as usize, frame.len());
    let is_sent = matches!(judged.action, Action::Tx | Action::Redirect);
    let sent: &[u8] = if is_sent { &judged.packet } else { &[] };
    assert_eq!(left, saved(sent), "as it left");
    assert_eq!(record.left_len as usize, sent.len());
    assert_eq!(record.is_redirect(), judged.action == Action::Redirect);
    assert_eq!(record.egress != 0, is_sent);
}

/// Runs the pipeline on maps in memory.
pub(crate) fn on_host(maps: &Memory, frame: &[u8]) -> (Outcome, Judged) {
    // As much room behind the frame as the kernel leaves.
    let mut buffer = vec![0; HEADROOM + frame.len() + 320];
    let mut packet = HostPacket::new(&mut buffer, frame).unwrap();
    let outcome = pipeline::run(&mut packet, maps, LOOPBACK);
    let judged = Judged {
        action: action(&outcome),
        packet: packet.bytes().to_vec(),
    };
    (outcome, judged)
}

fn action(outcome: &Outcome) -> Action {
    match outcome.verdict() {
        Verdict::Pass => Action::Pass,
        Verdict::Drop => Action::Drop,
        Verdict::Forward if outcome.is_redirect => Action::Redirect,
        Verdict::Tx | Verdict::Forward => Action::Tx,
    }
}
