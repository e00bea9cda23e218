//! Running the real program on one packet, through `BPF_PROG_TEST_RUN`.

use anyhow::Context as _;
use aya::{
    TestRun as _, TestRunOptions,
    programs::{Program, Xdp},
};

use super::BpfDataPlane;

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
    /// Runs the program on a frame that came by the loopback interface (ifindex 1).
    ///
    /// # Errors
    /// The kernel takes frames from 14 bytes to a page less the headroom.
    pub fn test_run(&mut self, frame: &[u8]) -> anyhow::Result<Run> {
        run(self.object.program()?, frame)
    }
}

fn run(program: &Xdp, frame: &[u8]) -> anyhow::Result<Run> {
    // Room for the largest outer header.
    let mut packet = vec![0; frame.len().saturating_add(256)];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut packet),
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

/// The XDP program of this name in an object.
pub(super) fn xdp<'a>(ebpf: &'a mut aya::Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => anyhow::bail!("the object lacks the XDP program {name}"),
    }
}
