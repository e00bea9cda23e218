//! Measuring a program: ns per packet, net of the driver that restores the packet before every run
//! (lb-ebpf/src/bench has the method).

mod classic;
mod generate;
mod reader;

use std::{fs::File, panic, path::Path, thread};

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, ProgramArray},
    programs::{
        ProgramFd, ProgramInfo, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use lb_common::bench::{Plan, RESTORED};
use nix::sched::{CloneFlags, unshare};
use zerocopy::{FromBytes as _, IntoBytes};

pub use classic::Classic;
pub use generate::Generator;
pub use reader::{Reader, ReaderCounts};

use super::{
    BpfDataPlane,
    object::take,
    test_run::{context, xdp},
    value::Value,
};
use crate::interfaces;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench-ebpf"));

/// `XDP_TX` of linux/bpf.h.
const XDP_TX: u32 = 3;

/// Programs that do only what cannot be avoided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Floor {
    /// Nothing: what the driver itself costs.
    Empty,
    /// Parse and swap the MAC addresses.
    Swap,
    /// Parse and push an outer header of constants.
    Encap,
    /// One lookup in a kernel hash with a 20-byte key.
    Hash,
    /// [`LOOKUPS`](lb_common::bench::LOOKUPS) of them, each by what the one before has found.
    Hashes,
    /// One update of an LRU hash with a 40-byte key.
    Lru,
}

impl Floor {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::Swap,
        Self::Encap,
        Self::Hash,
        Self::Hashes,
        Self::Lru,
    ];

    const fn program(self) -> &'static str {
        match self {
            Self::Empty => "floor_empty",
            Self::Swap => "floor_swap",
            Self::Encap => "floor_encap",
            Self::Hash => "floor_hash",
            Self::Hashes => "floor_hashes",
            Self::Lru => "floor_lru",
        }
    }
}

/// The loaded driver and floors.
pub struct Driver {
    ebpf: Ebpf,
    plan: Array<MapData, Value<Plan>>,
    next: Array<MapData, u32>,
    /// Number of the first flow of [`Flows::Fresh`] that has not come yet.
    fresh: u32,
    /// How many packets of flows that come again were made.
    cycled: u32,
    program: ProgramArray<MapData>,
    hash: HashMap<MapData, [u32; 5], u32>,
    /// Keeps the network namespace of [`stay_resident`].
    _resident: File,
}

/// A program of somebody else, found by a pin on a bpffs: another version's, or another product's.
///
/// Its maps are as its owner filled them, and its counters count what is measured.
pub struct Pinned {
    program: ProgramFd,
    ingress: Option<u32>,
}

impl Pinned {
    /// The XDP program that is pinned at `path`. Packets come by `interface` of this network namespace, or by the
    /// loopback.
    ///
    /// # Errors
    /// Where no XDP program is pinned there, or there is no such interface.
    pub fn program(path: &Path, interface: Option<&str>) -> anyhow::Result<Self> {
        let program = ProgramInfo::from_pin(path)
            .with_context(|| format!("opening the pinned program {}", path.display()))?;
        Self::new(program.fd()?, interface)
    }

    /// The program that is attached by the link pinned at `path`, as any running weir pins one; else as
    /// [`Self::program`].
    ///
    /// # Errors
    /// Where no link is pinned there, or there is no such interface.
    pub fn of_link(path: &Path, interface: Option<&str>) -> anyhow::Result<Self> {
        let link = PinnedLink::from_pin(path)
            .with_context(|| format!("opening the pinned link {}", path.display()))?;
        let id = FdLink::from(link).info()?.program_id();
        let found = loaded_programs().find(|program| {
            // A program that vanished meanwhile is another one.
            program.as_ref().is_ok_and(|program| program.id() == id)
        });
        let program = found.with_context(|| {
            format!("{} is no link of a program that is loaded", path.display())
        })?;
        Self::new(program?.fd()?, interface)
    }

    fn new(program: ProgramFd, interface: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self {
            program,
            ingress: interface.map(interfaces::index).transpose()?,
        })
    }
}

/// Which flows come, by the low 16 bits of their source address and their port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flows {
    /// The frame's own, always.
    Own,
    /// So many, each again only after all others; always the same ones.
    Cycle(u32),
    /// One after the other that has not come before, until all 2^32 have.
    Fresh,
}

/// One packet to measure with.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The frame.
    pub frame: Vec<u8>,
    /// The flows that it stands for.
    pub flows: Flows,
    /// How many destinations they have, numbered in the low 16 bits of the address; 0 for the frame's own.
    pub destinations: u32,
    /// What the program under test must answer.
    pub action: u32,
}

impl Driver {
    /// Loads driver and floors; [`Floor::Lru`] has room for so many entries.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn load(lru_entries: u32) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("LRU", lru_entries);
        let mut ebpf = loader
            .load(OBJECT)
            .context("loading the measuring programs")?;
        for name in ["driver"].into_iter().chain(Floor::ALL.map(Floor::program)) {
            xdp(&mut ebpf, name)?
                .load()
                .with_context(|| format!("loading {name}"))?;
        }
        let resident = stay_resident(xdp(&mut ebpf, "driver")?)?;
        Ok(Self {
            plan: take(&mut ebpf, "PLAN")?,
            next: take(&mut ebpf, "NEXT")?,
            program: take(&mut ebpf, "PROGRAM")?,
            hash: take(&mut ebpf, "HASH")?,
            ebpf,
            fresh: 0,
            cycled: 0,
            _resident: resident,
        })
    }

    /// Mean ns per packet of a floor, the driver's own cost included.
    ///
    /// # Errors
    /// Where the program cannot be run or answers otherwise than the sample wants.
    pub fn measure_floor(
        &mut self,
        floor: Floor,
        sample: &Sample,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        if matches!(floor, Floor::Hash | Floor::Hashes) {
            // So that the lookup finds what it looks for, as that of a VIP does.
            let (key, _) = sample
                .frame
                .get(26..)
                .and_then(|bytes| <[u32; 5]>::read_from_prefix(bytes).ok())
                .context("the frame is too short for a key")?;
            self.hash.insert(key, 0, 0).context("writing a key")?;
        }
        let fd = xdp(&mut self.ebpf, floor.program())?.fd()?.try_clone()?;
        // Flows that a floor has seen are not lost to the program under test.
        let cycled = self.cycled;
        // A floor sends every packet back, whatever the sample's own fate is.
        let sample = Sample {
            action: XDP_TX,
            ..sample.clone()
        };
        let measured = self.measure_fd(&fd, &sample, repeat, None);
        self.cycled = cycled;
        measured
    }

    /// Mean ns per packet of weir, the driver's own cost included.
    ///
    /// # Errors
    /// As [`Self::measure_floor`].
    pub fn measure(
        &mut self,
        weir: &mut BpfDataPlane,
        sample: &Sample,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        let fd = weir.object.program()?.fd()?.try_clone()?;
        self.measure_fd(&fd, sample, repeat, None)
    }

    /// Mean ns per packet of a pinned program, the driver's own cost included.
    ///
    /// # Errors
    /// As [`Self::measure_floor`], or where the program is not built for frames of several buffers: the kernel lets
    /// only such programs be called from the driver, which is one.
    pub fn measure_pinned(
        &mut self,
        pinned: &Pinned,
        sample: &Sample,
        repeat: u32,
    ) -> anyhow::Result<f64> {
        self.measure_fd(&pinned.program, sample, repeat, pinned.ingress)
    }

    fn measure_fd(
        &mut self,
        program: &ProgramFd,
        sample: &Sample,
        repeat: u32,
        ingress: Option<u32>,
    ) -> anyhow::Result<f64> {
        self.plan
            .set(0, Value::from_ref(&plan(sample)?), 0)
            .context("writing the plan")?;
        let next = match sample.flows {
            Flows::Own => None,
            // On from where the last run left off, so that short runs come by all flows.
            Flows::Cycle(_) => Some(&mut self.cycled),
            Flows::Fresh => Some(&mut self.fresh),
        };
        let first = next.map_or(0, |next| {
            let first = *next;
            *next = first.wrapping_add(repeat);
            first
        });
        let first = match sample.flows {
            Flows::Cycle(flows) => first % flows,
            Flows::Own | Flows::Fresh => first,
        };
        self.next
            .set(0, first, 0)
            .context("writing the first flow's number")?;
        self.program.set(0, program, 0).context(
            "setting the program under test (it must be an XDP program, built with frags)",
        )?;
        let context = ingress.map(|ifindex| context(&sample.frame, ifindex));
        let driver: &mut Xdp = xdp(&mut self.ebpf, "driver")?;
        let options = TestRunOptions {
            data_in: Some(&sample.frame),
            ctx_in: context.as_ref().map(IntoBytes::as_bytes),
            repeat,
            ..TestRunOptions::default()
        };
        let result = driver.test_run(options).context("running the driver")?;
        ensure!(
            result.return_value == sample.action,
            "the program under test answered {}, expected {}",
            result.return_value,
            sample.action
        );
        // The kernel reports the mean of all repeats, in whole nanoseconds.
        Ok(result.duration.as_secs_f64() * 1e9)
    }
}

/// Attaches the driver where no packet ever comes by: to the loopback, which is down, of a network namespace of its own, which lives as
/// long as the file is open.
///
/// The kernel calls XDP programs by way of code that it writes anew for every set of programs that are attached or run in a test, and waits until
/// every CPU has seen it: twice a test run, several times as long as the run itself. A program that is attached is there already.
fn stay_resident(driver: &mut Xdp) -> anyhow::Result<File> {
    let attach = || {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        let namespace =
            File::open("/proc/thread-self/ns/net").context("opening the network namespace")?;
        driver
            .attach("lo", XdpMode::Skb)
            .context("attaching the driver to a loopback")?;
        Ok(namespace)
    };
    // Only the thread changes its namespace.
    let done = thread::scope(|scope| scope.spawn(attach).join());
    done.unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// Where the frame's flow lies, for IPv4 without options and IPv6 without extension headers.
fn plan(sample: &Sample) -> anyhow::Result<Plan> {
    let Some((head, _)) = sample.frame.split_first_chunk::<{ RESTORED * 8 }>() else {
        bail!("the frame is shorter than what the driver restores")
    };
    let (address_offset, destination_offset, port_offset) = match sample.frame.get(12..14) {
        Some([0x08, 0x00]) => (28, 32, 34),
        Some([0x86, 0xdd]) => (36, 52, 54),
        // Only choosing flows needs the offsets.
        _ if sample.flows == Flows::Own => (0, 0, 0),
        _ => bail!("flows can only be chosen in plain IPv4 and IPv6 frames"),
    };
    Ok(Plan {
        head: zerocopy::transmute!(*head),
        len: u32::try_from(sample.frame.len()).context("the frame is too long")?,
        flows: match sample.flows {
            Flows::Own => 0,
            Flows::Cycle(flows) => flows,
            Flows::Fresh => u32::MAX,
        },
        address_offset,
        port_offset,
        destinations: sample.destinations,
        destination_offset,
        // Nobody looks at the checksums of what is measured.
        checksum_offset: 0,
        ip_checksum_offset: 0,
    })
}
