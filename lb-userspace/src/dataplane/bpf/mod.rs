//! The data plane in the kernel: the only place that knows of aya, and the only one in user space with `unsafe`.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait (value.rs)")]

mod attach;
mod counters;
pub mod decap;
pub mod driver;
pub mod dsr;
pub mod layout;
mod left;
mod limits;
mod lists;
mod migrate;
mod object;
mod observe;
mod pins;
mod scan;
mod tables;
mod test_run;
mod value;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Context as _;
use aya::{
    maps::{Array, Map, MapData, MapError},
    util::nr_cpus,
};
use lb_common::{
    access::{List, PrefixKey},
    backend::Backend,
    flow::Flow,
    fragment::FragmentKey,
    gcra::ticks,
    limit::{Limits, OwnRate, Source, SourceKey},
    observe::Watches,
    pin::{Idle, Kind, Pin},
    slot::SlotTable,
    tables::{Counters, Drops, Interface, Node, PinCounters},
    vip::{VipEntry, VipTable},
};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::FromZeros as _;

pub use attach::foreign;
pub use left::{Left, LeftBackend, LeftVip};
pub use observe::Observer;
pub use pins::{Detached, detach, linked_interfaces, linked_of_any_layout, nearest_is_bpffs};
pub use test_run::{Action, Run, Trace};

use self::{
    layout::Layout,
    object::{Inner, Object, Program, Tracing},
    pins::Pins,
    value::Value,
};
use super::{
    DataPlane, Judged, ListPlane, ProgramRuns, ReasonCount, Records, Scan, Sizes, peer_key, peer_of,
};
use crate::{
    config::XdpMode,
    model::{
        attached::{AttachMode, Refused, Xdp},
        leaving::Leaving,
        slots::{Since, Slots},
    },
};

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

impl DataPlane for BpfDataPlane {
    fn set_node(&mut self, node: &Node) -> anyhow::Result<()> {
        self.object
            .node
            .set(0, Value::from_ref(node), 0)
            .context("writing the node's settings")
    }

    fn set_backend(&mut self, id: u16, backend: &Backend) -> anyhow::Result<()> {
        let written = self
            .object
            .backends
            .set(u32::from(id), Value::from_ref(backend), 0);
        written.with_context(|| format!("writing backend {id}"))
    }

    fn set_table(&mut self, vip: u32, table: &SlotTable) -> anyhow::Result<()> {
        tables::swap(&mut self.object.tables, self.pins.as_ref(), vip, table)
    }

    fn set_tables(&mut self, tables: &[(u32, &Slots)]) -> Vec<anyhow::Result<()>> {
        tables::swap_all(&self.object.tables_fd, self.pins.as_ref(), tables)
    }

    fn table(&self, vip: u32) -> anyhow::Result<Option<Box<SlotTable>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(vip.to_string())),
            None => Ok(None),
        }
    }

    fn set_since(&mut self, vip: u32, since: Option<&Since>) -> anyhow::Result<()> {
        tables::note(self.pins.as_ref(), &tables::since_pin(vip), since)
    }

    fn since(&self, vip: u32) -> anyhow::Result<Option<Box<Since>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(tables::since_pin(vip))),
            None => Ok(None),
        }
    }

    fn set_leaving(&mut self, leaving: Option<&Leaving>) -> anyhow::Result<()> {
        tables::note(self.pins.as_ref(), LEAVING_PIN, leaving)
    }

    fn leaving(&self) -> anyhow::Result<Option<Box<Leaving>>> {
        match &self.pins {
            Some(pins) => read_pinned(&pins.tables().join(LEAVING_PIN)),
            None => Ok(None),
        }
    }

    fn set_idle(&mut self, vip: u32, idle: &Idle) -> anyhow::Result<()> {
        let set = self.object.idle.set(vip, Value::from_ref(idle), 0);
        set.with_context(|| format!("writing how long flows of VIP {vip} may be silent"))
    }

    fn clear_table(&mut self, vip: u32) -> anyhow::Result<()> {
        // The kernel's map of maps keeps the entry; it points to the one table that has no backend.
        let set = self.object.tables.set(vip, &self.empty_table, 0);
        set.with_context(|| format!("clearing the table of VIP {vip}"))?;
        match &self.pins {
            Some(pins) => {
                remove_if_there(&pins.tables().join(tables::since_pin(vip)))?;
                remove_if_there(&pins.tables().join(vip.to_string()))
            }
            None => Ok(()),
        }
    }

    fn set_vips(&mut self, vips: &VipTable) -> anyhow::Result<()> {
        let inner = inner_map(vips)?;
        self.object
            .vips
            .set(0, &inner, 0)
            .context("swapping the table of VIPs")?;
        tables::pin(self.pins.as_ref(), VIPS_PIN, |path| {
            inner.pin(path).context("pinning the table of VIPs")
        })
    }

    fn add_port(&mut self, ifindex: u32) -> anyhow::Result<()> {
        let added = self.object.ports.insert(ifindex, ifindex, None, 0);
        added.with_context(|| format!("letting frames leave by interface {ifindex}"))
    }

    fn set_interface(&mut self, ifindex: u32, interface: &Interface) -> anyhow::Result<()> {
        let set = self
            .object
            .interfaces
            .insert(ifindex, Value::from_ref(interface), 0);
        set.with_context(|| format!("writing interface {ifindex}"))
    }

    fn clear_interface(&mut self, ifindex: u32) -> anyhow::Result<()> {
        ignore_absent(self.object.interfaces.remove(&ifindex))
            .with_context(|| format!("forgetting interface {ifindex}"))
    }

    fn interfaces(&self) -> anyhow::Result<Vec<u32>> {
        let keys = self.object.interfaces.keys();
        keys.collect::<Result<_, _>>()
            .context("reading the interfaces")
    }

    fn set_peer(&mut self, mac: [u8; 6], is_one: bool) -> anyhow::Result<()> {
        let key = peer_key(mac);
        let set = if is_one {
            self.object.peers.insert(key, 1, 0)
        } else {
            ignore_absent(self.object.peers.remove(&key))
        };
        set.context("writing the fleet's MAC addresses")
    }

    fn peers(&self) -> anyhow::Result<Vec<[u8; 6]>> {
        let keys = self.object.peers.keys();
        keys.map(|key| Ok(peer_of(key?)))
            .collect::<Result<_, MapError>>()
            .context("reading the fleet's MAC addresses")
    }

    fn attach(
        &mut self,
        interface: &str,
        mode: XdpMode,
        there: Option<Xdp>,
    ) -> Result<AttachMode, Refused> {
        let failed = |error: anyhow::Error| Refused::Failed(format!("{error:#}"));
        let pin = self.link_pin(interface);
        if let (Some(pins), Some(pin)) = (&self.pins, &pin) {
            migrate::adopt_link(pins, pin).map_err(failed)?;
        }
        let carries = Some(there.map_or(0, |xdp| xdp.program));
        let program = self.current().map_err(failed)?;
        let attached = attach::attach(program, interface, mode, pin.as_deref(), carries)?;
        // A link that is kept stays as it is attached.
        attached
            .or(there.map(|xdp| xdp.mode))
            .ok_or_else(|| Refused::Failed(format!("it is not known how {interface} is attached")))
    }

    fn take_off(&mut self, interface: &str) -> anyhow::Result<()> {
        match self.link_pin(interface) {
            Some(pin) => remove_if_there(&pin),
            None => Ok(()),
        }
    }

    fn program_id(&self) -> anyhow::Result<u32> {
        self.object.program_id()
    }

    fn backends(&self) -> anyhow::Result<Vec<(u16, Backend)>> {
        let mut found = Vec::new();
        for id in 1..=u16::MAX {
            let Value(backend) = self
                .object
                .backends
                .get(&u32::from(id), 0)
                .context("reading the backends")?;
            if backend.mode != 0 {
                found.push((id, backend));
            }
        }
        Ok(found)
    }

    fn vips(&self) -> anyhow::Result<Vec<VipEntry>> {
        let Some(pins) = &self.pins else {
            return Ok(Vec::new());
        };
        let vips: Option<Box<VipTable>> = read_pinned(&pins.tables().join(VIPS_PIN))?;
        Ok(vips
            .iter()
            .flat_map(|vips| vips.entries())
            .copied()
            .collect())
    }

    fn vip_counters(&self, vip: u32) -> anyhow::Result<Counters> {
        let counted = counters::counters(&self.object.vip_counters, vip);
        counted.context("reading a VIP's counters")
    }

    fn vip_drops(&self, vip: u32) -> anyhow::Result<Drops> {
        counters::drops(&self.object, vip)
    }

    fn clear_vip_counters(&mut self, vip: u32) -> anyhow::Result<()> {
        counters::clear_vip(&mut self.object, vip)
    }

    fn backend_counters(&self, id: u16) -> anyhow::Result<Counters> {
        let (counted, inherited) = (&self.object.backend_counters, &self.object.inherited);
        counters::backend(counted, inherited, id).context("reading a backend's counters")
    }

    fn clear_backend_counters(&mut self, id: u16) -> anyhow::Result<()> {
        counters::clear_backend(&mut self.object, id)
    }

    fn inherit_counters(&mut self, from: u16, to: u16) -> anyhow::Result<()> {
        counters::inherit(&mut self.object, from, to)
    }

    fn program_runs(&self) -> anyhow::Result<Vec<ProgramRuns>> {
        counters::runs(&self.object)
    }

    fn reason_counters(&self) -> anyhow::Result<Vec<ReasonCount>> {
        ReasonCount::all(|index| {
            let values = self
                .object
                .outcome_counters
                .get(&index, 0)
                .context("reading the reasons' counters")?;
            Ok(values
                .iter()
                .fold(0u64, |sum, value| sum.wrapping_add(*value)))
        })
    }

    fn scan(&self) -> anyhow::Result<Scan> {
        scan::scan(&self.object)
    }

    fn pin(&self, kind: Kind, flow: &Flow) -> anyhow::Result<Option<Pin>> {
        let Some(map) = self.object.pins.get(kind as usize) else {
            return Ok(None);
        };
        match map.get(Value::from_ref(flow), 0) {
            Ok(Value(pin)) => Ok(Some(pin)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("reading a pin"),
        }
    }

    fn remove_pin(&mut self, kind: Kind, flow: &Flow) -> anyhow::Result<()> {
        let map = self.object.pins.get_mut(kind as usize);
        ignore_absent(map.map_or(Ok(()), |map| map.remove(Value::from_ref(flow))))
            .context("removing a pin")
    }

    fn remove_fragment(&mut self, key: &FragmentKey) -> anyhow::Result<()> {
        ignore_absent(self.object.fragments.remove(Value::from_ref(key)))
            .context("letting a fragmented packet go")
    }

    fn pin_counters(&self, kind: Kind) -> anyhow::Result<PinCounters> {
        let values = self
            .object
            .pin_counters
            .get(&(kind as u32), 0)
            .context("reading the pins' counters")?;
        let sum = |sum: PinCounters, Value(value): &Value<PinCounters>| PinCounters {
            made: sum.made.wrapping_add(value.made),
            removed: sum.removed.wrapping_add(value.removed),
            failed: sum.failed.wrapping_add(value.failed),
            over_budget: sum.over_budget.wrapping_add(value.over_budget),
        };
        Ok(values.iter().fold(PinCounters::default(), sum))
    }

    fn set_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        lists::block(&mut self.object.access.blocks, key)
    }

    fn clear_block(&mut self, key: &PrefixKey) -> anyhow::Result<()> {
        lists::clear(&mut self.object.access.blocks, key)
    }

    fn block_keys(&self) -> anyhow::Result<Vec<PrefixKey>> {
        let all = lists::entries(&self.object.access.blocks)?;
        Ok(all.into_iter().map(|(key, _)| key).collect())
    }

    fn block_scopes(&self) -> anyhow::Result<Vec<(u32, u32)>> {
        lists::scopes(&self.object.access.block_scopes)
    }

    fn set_block_scopes(&mut self, vip: u32, scopes: u32) -> anyhow::Result<()> {
        let set = self.object.access.block_scopes.set(vip, scopes, 0);
        set.with_context(|| format!("writing what is blocked for VIP {vip}"))
    }

    fn list_plane(&self) -> anyhow::Result<Box<dyn ListPlane>> {
        Ok(Box::new(lists::Kernel::new(&self.object.access)?))
    }

    fn access_counter(&self, vip: u32, list: List) -> anyhow::Result<u64> {
        let values = self.object.access.counters.get(&list.counter(vip), 0);
        let values = values.context("reading the counters of access lists")?;
        Ok(values
            .iter()
            .fold(0, |sum: u64, count| sum.wrapping_add(*count)))
    }

    fn cpus(&self) -> usize {
        // Where the kernel does not say, the batches of a large machine are right on any other.
        nr_cpus().unwrap_or(256)
    }

    fn sizes(&self) -> Sizes {
        self.object.sizes
    }

    fn set_limits(&mut self, vip: u32, limits: &Limits) -> anyhow::Result<()> {
        limits::set(&mut self.object, vip, limits)?;
        let now = ticks(self.now_ns());
        limits::forgive(&mut self.object, vip, limits, now)
    }

    fn clear_limits(&mut self, vip: u32) -> anyhow::Result<()> {
        limits::clear(&mut self.object, vip)
    }

    fn source(&self, key: &SourceKey) -> anyhow::Result<Option<Source>> {
        limits::source(&self.object, key)
    }

    fn set_own_rates(
        &mut self,
        key: &SourceKey,
        packets: OwnRate,
        connections: OwnRate,
    ) -> anyhow::Result<()> {
        limits::set_own_rates(&mut self.object, key, packets, connections)
    }

    fn judged(&self, vip: u32) -> anyhow::Result<Judged> {
        limits::judged(&self.object, vip)
    }

    fn scan_sources(&self) -> anyhow::Result<Scan<(SourceKey, Source)>> {
        scan::sources(&self.object)
    }

    fn now_ns(&self) -> u64 {
        // The clock of `bpf_ktime_get_coarse_ns`, and precise: the packets' may be a tick behind.
        let now = clock_gettime(ClockId::Monotonic);
        let ns = |value: i64| u64::try_from(value).unwrap_or_default();
        ns(now.tv_sec)
            .saturating_mul(1_000_000_000)
            .saturating_add(ns(now.tv_nsec))
    }
}

/// The one value of a pinned inner map.
///
/// aya hands values around by value. Of one of half a megabyte there may be fifteen copies on the stack where nothing is
/// optimised away, as much as a thread has: so it is read on one that has more.
fn read_pinned<T: Copy + Send>(path: &Path) -> anyhow::Result<Option<Box<T>>>
where
    Value<T>: aya::Pod,
{
    /// In bytes; what is not used of it costs nothing.
    const STACK: usize = 64 * 1024 * 1024;
    if !path.exists() {
        return Ok(None);
    }
    thread::scope(|scope| {
        let reader = thread::Builder::new().stack_size(STACK);
        let reader = reader.spawn_scoped(scope, || read_value(path).map(Some));
        match reader.context("starting a thread")?.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn read_value<T: Copy>(path: &Path) -> anyhow::Result<Box<T>>
where
    Value<T>: aya::Pod,
{
    let shown = path.display();
    let name = path.file_name().unwrap_or_default();
    layout::inner(&name.to_string_lossy()).check(path)?;
    let data = MapData::from_pin(path).with_context(|| format!("opening the pin {shown}"))?;
    let map: Inner<T> = Map::Array(data)
        .try_into()
        .with_context(|| format!("the pin {shown} is of another kind"))?;
    let Value(value) = map
        .get(&0, 0)
        .with_context(|| format!("reading the pin {shown}"))?;
    Ok(Box::new(value))
}

fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        // `remove` tells it as the system call does.
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result,
    }
}

fn inner_map<T>(value: &T) -> anyhow::Result<Array<MapData, Value<T>>>
where
    Value<T>: aya::Pod,
{
    let mut map = Array::<MapData, Value<T>>::create(1, 0).context("creating a table")?;
    map.set(0, Value::from_ref(value), 0)
        .context("filling a table")?;
    Ok(map)
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}
