//! A load of packets, made in the kernel and sent out of an interface as fast as one core can
//! (`BPF_F_TEST_XDP_LIVE_FRAMES`; lb-ebpf/src/bench has the program).

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, MapData},
    programs::TestRunAttrs,
};
use lb_common::bench::Plan;
use zerocopy::IntoBytes;

use super::{Flows, OBJECT, Sample, plan};
use crate::{
    dataplane::bpf::{
        object::take,
        test_run::{context, xdp},
        value::Value,
    },
    interfaces,
};

/// Name of the program in the object.
const PROGRAM: &str = "generate";

/// Frames that the kernel makes before it hands them to the driver: as many as a NIC is polled for.
const BATCH: u32 = 64;

/// Sends packets of one kind.
pub struct Generator {
    ebpf: Ebpf,
    frame: Vec<u8>,
    ifindex: u32,
    /// Holds the number of the next flow, so that a later load goes on where the one before ended.
    _next: Array<MapData, u32>,
}

impl Generator {
    /// Gets ready to send packets like `sample`, whose checksums must be right, out of an interface of this network namespace. Its driver must take frames from other programs (`ndo_xdp_xmit`); that of veth does where the peer
    /// runs an XDP program.
    ///
    /// # Errors
    /// Where the kernel refuses, there is no such interface, or the sample is no plain TCP or UDP.
    pub fn load(sample: &Sample, interface: &str) -> anyhow::Result<Self> {
        ensure!(sample.flows != Flows::Own, "a load has a number of flows");
        let mut ebpf = Ebpf::load(OBJECT).context("loading the generator")?;
        xdp(&mut ebpf, PROGRAM)?
            .load()
            .context("loading the generator")?;
        let mut held: Array<MapData, Value<Plan>> = take(&mut ebpf, "PLAN")?;
        let plan = with_checksums(plan(sample)?, &sample.frame)?;
        held.set(0, Value::from_ref(&plan), 0)
            .context("writing the plan")?;
        Ok(Self {
            _next: take(&mut ebpf, "NEXT")?,
            ebpf,
            frame: sample.frame.clone(),
            ifindex: interfaces::index(interface)?,
        })
    }

    /// Sends so many packets, and returns when they are all on their way.
    ///
    /// # Errors
    /// Where the kernel refuses, as it does to send out of an interface that is down.
    pub fn send(&mut self, packets: u32) -> anyhow::Result<()> {
        let context = context(&self.frame, self.ifindex);
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(context.as_bytes()),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        xdp(&mut self.ebpf, PROGRAM)?
            .test_run(options)
            .context("sending live frames")?;
        Ok(())
    }
}

/// Tells the program where the checksums are.
fn with_checksums(plan: Plan, frame: &[u8]) -> anyhow::Result<Plan> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let ether_type = frame.get(12..14);
    let (protocol, payload, ip_checksum_offset) = match ether_type {
        Some([0x08, 0x00]) => (frame.get(23), 34, 24),
        Some([0x86, 0xdd]) => (frame.get(20), 54, 0),
        _ => bail!("the frame is neither IPv4 nor IPv6"),
    };
    let checksum_offset = match protocol {
        Some(&TCP) => payload + 16,
        Some(&UDP) => payload + 6,
        _ => bail!("the frame is neither TCP nor UDP"),
    };
    Ok(Plan {
        checksum_offset,
        ip_checksum_offset,
        ..plan
    })
}
