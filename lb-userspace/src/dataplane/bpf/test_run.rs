//! Running the real program on one packet, through `BPF_PROG_TEST_RUN`.

use anyhow::Context as _;
use aya::{
    TestRun as _, TestRunOptions,
    programs::{Program, Xdp},
};

use lb_common::{
    pipeline::{NO_SLOT, NO_VIP},
    reason::Reason,
    slot::NOBODY,
};

use zerocopy::IntoBytes;

use super::{BpfDataPlane, value::Value};

/// What an XDP program may answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// `XDP_ABORTED`: the program failed. weir's never does.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Tx,
    /// `XDP_REDIRECT`.
    Redirect,
}

/// The result of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// The program's answer.
    pub action: Action,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
}

impl BpfDataPlane {
    /// Runs the program on a frame that came by the loopback interface (ifindex 1), or by the one that
    /// [`Self::live_tracer`] was given.
    ///
    /// # Errors
    /// The kernel takes frames from 14 bytes to a page less the headroom.
    pub fn test_run(&mut self, frame: &[u8]) -> anyhow::Result<Run> {
        run(self.object.program()?, frame, self.ingress)
    }

    /// The same with no more than `room` bytes before the frame, as some drivers leave; a multiple of 4 below 256.
    ///
    /// # Errors
    /// As [`Self::test_run`].
    pub fn test_run_in(&mut self, frame: &[u8], room: usize) -> anyhow::Result<Run> {
        // What is told of the frame (its metadata) takes the rest.
        let told = HEADROOM.saturating_sub(room);
        let whole = [&vec![0; told][..], frame].concat();
        let mut context = context(&whole, self.ingress.unwrap_or(LOOPBACK));
        context[0] = told as u32;
        let mut run = run_with(self.object.program()?, &whole, Some(context))?;
        run.packet.drain(..told.min(run.packet.len()));
        Ok(run)
    }
}

/// Bytes before a frame in a test run.
const HEADROOM: usize = 256;

/// The number of the loopback interface.
const LOOPBACK: u32 = 1;

/// What became of a traced packet, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trace {
    /// The program's answer and the packet as it left.
    pub run: Run,
    /// Why.
    pub reason: Reason,
    /// The VIP's id, where the packet was for one.
    pub vip: Option<u32>,
    /// The slot that the flow hashed to, where one was looked at.
    pub slot: Option<u32>,
    /// The backend's id, where one was chosen.
    pub backend: Option<u16>,
}

impl BpfDataPlane {
    /// Runs a tracer's program on a frame, as [`Self::test_run`] does, and tells how it came to its answer.
    ///
    /// # Errors
    /// As [`Self::test_run`], or where this is no tracer.
    pub fn trace(&mut self, frame: &[u8]) -> anyhow::Result<Trace> {
        let run = self.test_run(frame)?;
        let Value(traced) = self
            .object
            .traced
            .get(&0, 0)
            .context("reading what the program told")?;
        let reason = Reason::ALL
            .get(traced.reason as usize)
            .context("the program told an unknown reason")?;
        Ok(Trace {
            run,
            reason: *reason,
            vip: (traced.vip != NO_VIP).then_some(traced.vip),
            slot: (traced.slot != NO_SLOT).then_some(traced.slot),
            backend: u16::try_from(traced.backend)
                .ok()
                .filter(|id| *id != NOBODY),
        })
    }
}

/// Runs a program on a frame that came by the interface of this number in this network namespace; by the loopback
/// interface, where none is given.
pub(super) fn run(program: &Xdp, frame: &[u8], ingress: Option<u32>) -> anyhow::Result<Run> {
    run_with(
        program,
        frame,
        ingress.map(|ifindex| context(frame, ifindex)),
    )
}

fn run_with(program: &Xdp, frame: &[u8], context: Option<[u32; 6]>) -> anyhow::Result<Run> {
    // Room for the largest outer header.
    let mut packet = vec![0; frame.len().saturating_add(512)];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut packet),
        ctx_in: context.as_ref().map(IntoBytes::as_bytes),
        ..TestRunOptions::default()
    };
    let result = program
        .test_run(options)
        .with_context(|| format!("running a frame of {} bytes", frame.len()))?;
    packet.truncate(result.data_size_out as usize);
    let action = match result.return_value {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Tx,
        4 => Action::Redirect,
        _ => Action::Aborted,
    };
    Ok(Run { action, packet })
}

/// `struct xdp_md` of linux/bpf.h: `data`, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`,
/// `egress_ifindex`. Kernels before 6.18 want the data to end where the frame does.
pub(super) fn context(frame: &[u8], ingress: u32) -> [u32; 6] {
    [0, frame.len() as u32, 0, ingress, 0, 0]
}

/// The XDP program of this name in an object.
pub(super) fn xdp<'a>(ebpf: &'a mut aya::Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => anyhow::bail!("the object lacks the XDP program {name}"),
    }
}
