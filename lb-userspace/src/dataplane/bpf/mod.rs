//! The data plane in the kernel: the only place that knows of aya, and the only one in user space with `unsafe`.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait (value.rs)")]

mod attach;
mod counters;
pub mod decap;
pub mod driver;
pub mod dsr;
mod inner;
pub mod layout;
mod left;
mod limits;
mod lists;
mod migrate;
mod object;
mod observe;
mod pins;
mod plane;
mod scan;
mod tables;
mod test_run;
mod value;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use lb_common::{marks::Marks, observe::Watches, slot::SlotTable};
use zerocopy::FromZeros as _;

pub use attach::foreign;
pub use left::{Left, LeftBackend, LeftVip};
pub use observe::Observer;
pub use pins::{Detached, detach, linked_interfaces, linked_of_any_layout, nearest_is_bpffs};
pub use test_run::{Action, Run, Trace};

use self::{
    inner::{inner_map, remove_if_there},
    layout::Layout,
    object::{Inner, Object, Program, Tracing},
    pins::Pins,
    value::Value,
};
use super::{ReasonCount, Records, Sizes};

/// Name under which the table of VIPs is pinned.
const VIPS_PIN: &str = "vips";

/// How much fits into a private copy of the maps.
const PRIVATE: Sizes = Sizes {
    max_pins: 65_536,
    max_sources: 65_536,
};

/// Name under which is pinned since when backends take no new flows.
const LEAVING_PIN: &str = layout::LEAVING.name;

/// Messages of the BPF program, through aya-log. Off costs nothing: the verifier cuts the code out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum ProgramLog {
    /// None.
    #[default]
    Off,
    /// One for every packet that a VIP's table or backend could not serve.
    Debug,
}

/// The maps and the program in the kernel.
pub struct BpfDataPlane {
    object: Object,
    /// The program that observes, once somebody has watched.
    observer: Option<Box<Observer>>,
    pins: Option<Pins>,
    /// What the tables of absent VIPs point to: no backend in any slot.
    empty_table: Inner<SlotTable>,
    /// The interface by which packets of test runs come; `None` is the loopback.
    ingress: Option<u32>,
    /// Whether no program but this one's pins flows.
    is_alone: bool,
    /// Whether this program's pins are marked ([`lb_common::marks`]).
    are_marks_kept: bool,
}

/// How large a loaded program is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramSize {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked through: it gives up at a million.
    pub verified: u32,
    /// Instructions of the program as the kernel rewrote it, inlined lookups included.
    pub instructions: u32,
    /// Bytes of machine code; 0 where the kernel interprets it.
    pub machine_code: u32,
}

/// Bytes of a BPF instruction.
const INSTRUCTION: u32 = 8;

impl BpfDataPlane {
    /// Loads the program over the maps pinned below `pin_path`, making what is missing.
    ///
    /// # Errors
    /// Where another daemon holds `pin_path`, its maps are of another layout, or the kernel refuses.
    pub fn open(pin_path: &Path, log: ProgramLog, sizes: Sizes) -> anyhow::Result<Self> {
        Self::open_layout(pin_path, log, sizes, Layout::CURRENT)
    }

    /// The same, with the maps under another layout's name. What an older one has pinned is taken over.
    ///
    /// # Errors
    /// As of [`Self::open`], and where what is pinned is newer or cannot be taken over. It is as it was, then.
    pub fn open_layout(
        pin_path: &Path,
        log: ProgramLog,
        sizes: Sizes,
        layout: Layout,
    ) -> anyhow::Result<Self> {
        let pins = Pins::open(pin_path, layout)?;
        let migration = migrate::begin(&pins)?;
        pins.make()?;
        let mut object = Object::load(
            Program::Normal,
            Some(&pins.maps()),
            log as u8 * aya_log::Level::Debug as u8,
            Tracing::Off,
            sizes,
        )?;
        migration.fill(&mut object)?;
        object.pin_steps(&pins.steps())?;
        Self::new(object, Some(pins))
    }

    /// Loads a private copy of program and maps, attached to nothing and gone with the value.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn private() -> anyhow::Result<Self> {
        Self::private_with(PRIVATE)
    }

    /// The same, with maps of other sizes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn private_with(sizes: Sizes) -> anyhow::Result<Self> {
        Self::new(
            Object::load(Program::Normal, None, 0, Tracing::Off, sizes)?,
            None,
        )
    }

    /// A private copy of the program that observes, as [`Self::private`], and what it tells those who watch.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn observing(watches: &Watches) -> anyhow::Result<(Self, Box<dyn Records>)> {
        let object = Object::load(Program::Observing, None, 0, Tracing::Off, PRIVATE)?;
        let mut plane = Self::new(object, None)?;
        let records = observe::private(&mut plane.object, watches)?;
        Ok((plane, Box::new(records)))
    }

    /// A private copy, as [`Self::private`], whose program tells what became of each packet ([`Self::trace`]) and
    /// counts nothing. Its maps keep their state from packet to packet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn tracer() -> anyhow::Result<Self> {
        Self::new(
            Object::load(Program::Normal, None, 0, Tracing::Private, PRIVATE)?,
            None,
        )
    }

    /// A program that traces against the maps of the daemon that holds `pin_path`, and writes to none of them.
    ///
    /// Packets come by the interface numbered `ingress` in this network namespace.
    ///
    /// # Errors
    /// Where nothing is pinned there, or the kernel refuses.
    pub fn live_tracer(pin_path: &Path, ingress: u32) -> anyhow::Result<Self> {
        let plane = Self::new(
            Object::load(
                Program::Normal,
                Some(&pins::maps(pin_path)?),
                0,
                Tracing::Live,
                PRIVATE,
            )?,
            None,
        )?;
        Ok(Self {
            ingress: Some(ingress),
            ..plane
        })
    }

    fn new(object: Object, pins: Option<Pins>) -> anyhow::Result<Self> {
        let empty = SlotTable::new_box_zeroed()
            .map_err(|error| anyhow::anyhow!("making a table: {error:?}"))?;
        Ok(Self {
            object,
            observer: None,
            is_alone: pins.is_none(),
            are_marks_kept: false,
            pins,
            empty_table: inner_map(&*empty)?,
            ingress: None,
        })
    }

    /// Takes the program off the interfaces that an earlier daemon used and this one does not, and lets go of the
    /// programs that were swapped out, with the pins of other layouts. To be called once the program is attached everywhere.
    ///
    /// # Errors
    /// Where the pins cannot be read or removed.
    pub fn settle(&mut self, interfaces: &[String]) -> anyhow::Result<()> {
        self.take_off_others(interfaces)?;
        self.is_alone = true;
        Ok(())
    }

    /// Takes all marks back, and says whether they are kept from now on.
    fn set_marks(&mut self, are_kept: bool) -> anyhow::Result<()> {
        let mut marks =
            Marks::new_box_zeroed().map_err(|error| anyhow::anyhow!("making marks: {error:?}"))?;
        marks.is_kept = u64::from(are_kept);
        let set = self.object.marks.set(0, Value::from_ref(&*marks), 0);
        set.context("writing which flows are marked")?;
        self.are_marks_kept = are_kept;
        Ok(())
    }

    fn take_off_others(&self, interfaces: &[String]) -> anyhow::Result<()> {
        let Some(pins) = &self.pins else {
            return Ok(());
        };
        let mut steps = vec![self.object.steps_pin()?];
        steps.extend(self.observer_steps()?);
        for entry in fs::read_dir(pins.steps()).context("reading the pinned steps")? {
            let entry = entry.context("reading the pinned steps")?;
            if !steps.iter().any(|steps| entry.file_name() == **steps) {
                remove_if_there(&entry.path())?;
            }
        }
        for entry in fs::read_dir(pins.links()).context("reading the pinned links")? {
            let entry = entry.context("reading the pinned links")?;
            let name = pins::interface_of(&entry.path());
            if !interfaces.contains(&name) {
                fs::remove_file(entry.path())
                    .with_context(|| format!("removing the link of {name}"))?;
                tracing::info!(
                    interface = name,
                    "XDP program taken off: no longer configured"
                );
            }
        }
        pins.remove_others()
    }

    /// How large each program is, to the verifier and to the processor.
    ///
    /// # Errors
    /// Where the kernel does not tell (it does from 5.16 on).
    pub fn program_sizes(&mut self) -> anyhow::Result<Vec<ProgramSize>> {
        let programs = self.object.ebpf.programs();
        let sizes = programs.map(|(name, program)| {
            let info = program
                .info()
                .with_context(|| format!("asking for {name}"))?;
            let told = |number: Option<u32>| number.context("the kernel does not tell");
            Ok(ProgramSize {
                name: name.to_owned(),
                verified: told(info.verified_instruction_count())?,
                instructions: told(info.size_translated())? / INSTRUCTION,
                machine_code: info.size_jitted(),
            })
        });
        sizes.collect()
    }

    /// Whether the kernel has compiled the program to machine code.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn is_jitted(&mut self) -> anyhow::Result<bool> {
        let info = self.object.program()?.info();
        let info = info.context("asking for the program")?;
        Ok(info.size_jitted() > 0)
    }

    /// The program's messages, where [`ProgramLog`] asked for them.
    ///
    /// # Errors
    /// Where the object lacks the ring buffer.
    pub fn program_log(&mut self) -> anyhow::Result<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.object.ebpf).context("opening the BPF program's log")
    }

    /// Where the link of an interface is pinned.
    fn link_pin(&self, interface: &str) -> Option<PathBuf> {
        let pins = self.pins.as_ref()?;
        Some(pins.links().join(pins::file_name(interface)))
    }
}
