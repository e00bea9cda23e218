//! Loading the BPF object: its maps, reused where they are pinned, and its program.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{
        Array, ArrayOfMaps, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, ProgramArray,
        xdp::DevMapHash,
    },
    programs::Xdp,
};
use lb_common::{
    backend::Backend,
    flow::{Flow, HashKeys},
    fragment::FragmentKey,
    limit::{
        Limits, OwnRates, Share, SourceKey, Totals,
        source::{PER_BLOCK, SETS, SourceBlock},
    },
    marks::Marks,
    pin::{Idle, Pin},
    slot::SlotTable,
    tables::{Counters, Drops, Interface, Node, PinCounters, Traced, step},
    vip::VipTable,
};

use super::{
    counters,
    inner::remove_if_there,
    layout::{FORMER, MAPS, MARKS, PIN_MAPS, SOURCES, Shape},
    lists,
    test_run::xdp,
    value::Value,
};
use crate::dataplane::Sizes;

/// The object that lb-userspace/build.rs made.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-ebpf"));

/// The same programs, which also tell what becomes of packets.
pub(super) static OBSERVING: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-observe-ebpf"));

/// The program's name in the object.
const PROGRAM: &str = "weir_xdp";

/// The map that holds the variables of an object: one, the keys of the flow hash.
const VARIABLES: &str = ".bss";

/// The programs of the pipeline's later steps, by [`lb_common::tables::step`].
const STEP_PROGRAMS: [&str; step::COUNT] = [
    "weir_unusual",
    "weir_message",
    "weir_answer",
    "weir_pins",
    "weir_guard",
    "weir_observed",
];

/// Which of the two programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    /// The one that only forwards.
    Normal,
    /// The one that also tells what becomes of packets.
    Observing,
}

impl Program {
    const fn object(self) -> &'static [u8] {
        match self {
            Self::Normal => OBJECT,
            Self::Observing => OBSERVING,
        }
    }

    /// Its later steps. The normal one lacks the last.
    fn steps(self) -> impl Iterator<Item = &'static str> {
        let count = match self {
            Self::Normal => step::OBSERVED as usize,
            Self::Observing => step::COUNT,
        };
        STEP_PROGRAMS.into_iter().take(count)
    }
}

/// What is known of the sources of VIPs that limit them.
pub(super) type SourceMap = Array<MapData, Value<SourceBlock>>;

/// The pins of one kind.
pub(super) type PinMap = HashMap<MapData, Value<Flow>, Value<Pin>>;

/// A lookup table or the VIP table: an inner map of one entry.
pub(super) type Inner<T> = Array<MapData, Value<T>>;

/// Whether the program only traces. The numbers are known to lb-ebpf.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tracing {
    /// It serves.
    Off = 0,
    /// It tells what became of each packet and counts nothing; its maps keep fragments.
    Private = 1,
    /// The same, and nothing at all is written to maps that others use.
    Live = 2,
}

/// The loaded object: its program, and its maps with their types.
pub(super) struct Object {
    pub(super) ebpf: Ebpf,
    /// The later steps of the program. The kernel empties this map when its last user closes it.
    pub(super) steps: MapData,
    pub(super) node: Array<MapData, Value<Node>>,
    /// The variable that packets read the hash keys of `node` from: each loaded object has its own.
    pub(super) keys: Array<MapData, Value<HashKeys>>,
    pub(super) vips: ArrayOfMaps<MapData, Inner<VipTable>>,
    pub(super) tables: ArrayOfMaps<MapData, Inner<SlotTable>>,
    /// The same map, for handles of other threads.
    pub(super) tables_fd: OwnedFd,
    pub(super) backends: Array<MapData, Value<Backend>>,
    pub(super) vip_counters: PerCpuArray<MapData, Value<Counters>>,
    pub(super) vip_drops: PerCpuArray<MapData, Value<Drops>>,
    pub(super) backend_counters: PerCpuArray<MapData, Value<Counters>>,
    /// What backends have inherited, by id; see [`counters::inherit`].
    pub(super) inherited: Array<MapData, Value<Counters>>,
    pub(super) outcome_counters: PerCpuArray<MapData, u64>,
    pub(super) interfaces: HashMap<MapData, u32, Value<Interface>>,
    pub(super) peers: HashMap<MapData, [u8; 8], u32>,
    pub(super) traced: Array<MapData, Value<Traced>>,
    pub(super) ports: DevMapHash<MapData>,
    pub(super) fragments: HashMap<MapData, Value<FragmentKey>, u32>,
    pub(super) idle: Array<MapData, Value<Idle>>,
    pub(super) access: lists::Maps,
    /// By [`lb_common::pin::Kind`].
    pub(super) pins: [PinMap; 3],
    pub(super) marks: Array<MapData, Value<Marks>>,
    /// How much fits.
    pub(super) sizes: Sizes,
    pub(super) pin_counters: PerCpuArray<MapData, Value<PinCounters>>,
    pub(super) limits: Array<MapData, Value<Limits>>,
    pub(super) limit_totals: Array<MapData, Value<Totals>>,
    pub(super) limit_shares: PerCpuArray<MapData, Value<Share>>,
    pub(super) sources: SourceMap,
    pub(super) own_rates: HashMap<MapData, Value<SourceKey>, Value<OwnRates>>,
}

impl Object {
    /// Loads maps and program. With `maps_dir`, maps pinned there are reused and new ones are pinned there.
    ///
    /// # Errors
    /// Where the kernel refuses a map or the program, or a pinned map has another size.
    pub(super) fn load(
        program: Program,
        maps_dir: Option<&Path>,
        log_level: u8,
        trace: Tracing,
        wanted: Sizes,
    ) -> anyhow::Result<Self> {
        let paths = maps_dir.map_or_else(Vec::new, paths);
        if let (Some(dir), Program::Normal, Tracing::Off) = (maps_dir, program, trace) {
            // An earlier daemon's program may not have marked what it pinned.
            remove_if_there(&dir.join(MARKS.name))?;
            // That program keeps what it has open.
            for name in FORMER {
                remove_if_there(&dir.join(name))?;
            }
        }
        let wanted = wanted.in_blocks();
        let mut sizes = wanted;
        for (shape, path) in &paths {
            if path.exists() {
                shape.check(path)?;
            } else {
                // Whoever only traces makes no map that the daemon lacks.
                ensure!(
                    trace != Tracing::Live,
                    "no map is pinned at {}: the daemon there is of another version",
                    path.display()
                );
            }
            if let Some((size, of_entry)) =
                size_of_map(&mut sizes, shape.name).filter(|_| path.exists())
            {
                let info = MapInfo::from_pin(path)
                    .with_context(|| format!("opening the pinned map {}", path.display()))?;
                *size = info.max_entries().saturating_mul(of_entry);
            }
        }
        if trace == Tracing::Off && sizes != wanted {
            tracing::warn!(
                held_pins = sizes.max_pins,
                wanted_pins = wanted.max_pins,
                held_sources = sizes.max_sources,
                wanted_sources = wanted.max_sources,
                "maps keep their size, for what is in them: `weir detach` and a new start change it"
            );
        }
        let trace = trace as u8;
        let source_blocks = sizes.max_sources / PER_BLOCK as u32;
        let source_sets = source_blocks * SETS as u32;
        let mut loader = EbpfLoader::new();
        // Constant to the verifier, which cuts out what it switches off.
        loader
            .override_global(aya_log::LEVEL, &log_level, true)
            .override_global("TRACE", &trace, true)
            .override_global("SOURCE_SETS", &source_sets, true)
            .verifier_log_level(VerifierLogLevel::STATS);
        for name in PIN_MAPS {
            loader.map_max_entries(name, sizes.max_pins);
        }
        loader.map_max_entries(SOURCES, source_blocks);
        for (shape, path) in &paths {
            loader.map_pin_path(shape.name, path.as_path());
        }
        let mut ebpf = loader
            .load(program.object())
            .context("loading the BPF maps (needs root, or CAP_BPF and CAP_NET_ADMIN)")?;
        let steps = load_programs(&mut ebpf, program)?;
        let tables_fd = tables_fd(&ebpf)?;
        let mut object = Self {
            steps,
            node: take(&mut ebpf, "NODE")?,
            keys: take(&mut ebpf, VARIABLES)?,
            vips: take(&mut ebpf, "VIP_TABLE")?,
            tables: take(&mut ebpf, "TABLES")?,
            tables_fd,
            backends: take(&mut ebpf, "BACKENDS")?,
            vip_counters: take(&mut ebpf, "VIP_COUNTERS")?,
            vip_drops: take(&mut ebpf, "VIP_DROPS")?,
            backend_counters: take(&mut ebpf, "BACKEND_COUNTERS")?,
            inherited: counters::inherited(maps_dir)?,
            outcome_counters: take(&mut ebpf, "OUTCOME_COUNTERS")?,
            interfaces: take(&mut ebpf, "INTERFACES")?,
            peers: take(&mut ebpf, "PEERS")?,
            traced: take(&mut ebpf, "TRACED")?,
            ports: take(&mut ebpf, "PORTS")?,
            fragments: take(&mut ebpf, "FRAGMENTS")?,
            idle: take(&mut ebpf, "IDLE")?,
            access: lists::Maps::take(&mut ebpf)?,
            pins: [
                take(&mut ebpf, "PINS_SYN")?,
                take(&mut ebpf, "PINS_PROVEN")?,
                take(&mut ebpf, "PINS_OLD")?,
            ],
            marks: take(&mut ebpf, MARKS.name)?,
            sizes,
            pin_counters: take(&mut ebpf, "PIN_COUNTERS")?,
            limits: take(&mut ebpf, "LIMITS")?,
            limit_totals: take(&mut ebpf, "LIMIT_TOTALS")?,
            limit_shares: take(&mut ebpf, "LIMIT_SHARES")?,
            sources: take(&mut ebpf, SOURCES)?,
            own_rates: take(&mut ebpf, "OWN_RATES")?,
            ebpf,
        };
        object.take_keys()?;
        Ok(object)
    }

    /// The keys of the node's settings.
    pub(super) fn hash_keys(&self) -> anyhow::Result<HashKeys> {
        let node = self.node.get(&0, 0);
        let Value(node) = node.context("reading the node's settings")?;
        Ok(node.hash_keys)
    }

    /// Hashes flows by the keys of the node's settings from now on.
    pub(super) fn take_keys(&mut self) -> anyhow::Result<()> {
        let keys = self.hash_keys()?;
        self.keys
            .set(0, Value::from_ref(&keys), 0)
            .context("writing the keys of the flow hash")
    }

    /// Name of the pin of this object's steps: each loaded object has its own, so that one that is swapped in
    /// never takes the steps away from the one that still runs.
    pub(super) fn steps_pin(&self) -> anyhow::Result<String> {
        let info = self.steps.info().context("asking for the steps' map")?;
        Ok(format!("steps-{}", info.id()))
    }

    /// Pins the steps: the kernel empties the map when its last user closes it, and the program runs on.
    pub(super) fn pin_steps(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(self.steps_pin()?);
        self.steps
            .pin(&path)
            .with_context(|| format!("pinning {}", path.display()))
    }

    /// The kernel's number of the program.
    pub(super) fn program_id(&self) -> anyhow::Result<u32> {
        let program = self.ebpf.program(PROGRAM);
        let program = program.context("the object lacks the program")?;
        Ok(program.info().context("asking for the program")?.id())
    }

    /// The program.
    pub(super) fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        xdp(&mut self.ebpf, PROGRAM)
    }
}

/// Loads the programs of an object and links its steps, whose map is returned.
fn load_programs(ebpf: &mut Ebpf, program: Program) -> anyhow::Result<MapData> {
    for name in [PROGRAM].into_iter().chain(program.steps()) {
        xdp(ebpf, name)?.load().with_context(|| {
            format!("loading {name} (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)")
        })?;
    }
    let mut map = ebpf
        .take_map("STEPS")
        .context("the object lacks the map STEPS")?;
    let mut steps = ProgramArray::try_from(&mut map).context("the map STEPS has another type")?;
    for (name, index) in program.steps().zip(0u32..) {
        steps
            .set(index, xdp(ebpf, name)?.fd()?, 0)
            .with_context(|| format!("linking {name}"))?;
    }
    let Map::ProgramArray(steps) = map else {
        bail!("the map STEPS has another type")
    };
    Ok(steps)
}

/// Where each map is pinned.
fn paths(maps_dir: &Path) -> Vec<(Shape, PathBuf)> {
    let shapes = MAPS.into_iter().chain([MARKS]);
    shapes
        .map(|shape| (shape, maps_dir.join(shape.name)))
        .collect()
}

/// Another handle to the tables.
fn tables_fd(ebpf: &Ebpf) -> anyhow::Result<OwnedFd> {
    let Some(Map::ArrayOfMaps(tables)) = ebpf.map("TABLES") else {
        bail!("the map TABLES has another type")
    };
    let handle = tables.fd().as_fd().try_clone_to_owned();
    handle.context("another handle to the tables")
}

/// How much fits into a map whose size is the operator's choice, and how much of it into each entry.
fn size_of_map<'a>(sizes: &'a mut Sizes, name: &str) -> Option<(&'a mut u32, u32)> {
    if PIN_MAPS.contains(&name) {
        Some((&mut sizes.max_pins, 1))
    } else if name == SOURCES {
        Some((&mut sizes.max_sources, PER_BLOCK as u32))
    } else {
        None
    }
}

/// aya reuses whatever is pinned without looking at it.
pub(super) fn check_pinned(name: &str, path: &Path, wanted: (u32, u32, u32)) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(path)
        .with_context(|| format!("opening the pinned map {}", path.display()))?;
    let found = (info.key_size(), info.value_size(), info.max_entries());
    if found != wanted {
        bail!(
            "the pinned map {name} has key, value and entry sizes {found:?}, this version wants {wanted:?}; \
             it goes on forwarding as it is; `weir detach` removes it"
        );
    }
    Ok(())
}

pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> anyhow::Result<M> {
    let map = ebpf
        .take_map(name)
        .with_context(|| format!("the object lacks the map {name}"))?;
    map.try_into()
        .with_context(|| format!("the map {name} has another type"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use ::object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;

    /// A panic links without a word and is refused only by the kernel, or worse: never reached in tests.
    #[test]
    fn no_panic_is_linked_into_the_objects() {
        for object in [OBJECT, OBSERVING] {
            for needle in ["panicking", "panic_fmt", "panic_bounds_check"] {
                let found = symbols(object).any(|name| name.contains(needle));
                assert!(!found, "{needle} is linked into the BPF object");
            }
            assert!(
                symbols(object).any(|name| name == PROGRAM),
                "the symbols were not read"
            );
        }
    }

    /// Whoever does not watch pays nothing: what observes is not in the normal object at all.
    #[test]
    fn nothing_that_observes_is_in_the_normal_object() {
        let observes = |name: &String| {
            let needles = ["WATCH", "RECORDS", "SCRATCH", "observe", "prandom"];
            needles.iter().any(|needle| name.contains(needle))
        };
        assert_eq!(symbols(OBJECT).find(observes), None);
        assert!(symbols(OBSERVING).any(|name| name == "weir_observed"));
    }

    /// The way of a plain packet calls next to nothing: what it looks up are arrays, which the kernel inlines. Helpers by their numbers
    /// in linux/bpf.h.
    #[test]
    fn the_plain_way_calls_few_helpers() {
        const MAP_LOOKUP: u32 = 1;
        const TAIL_CALL: u32 = 12;
        const ADJUST_HEAD: u32 = 44;
        const REDIRECT_MAP: u32 = 51;
        const GET_BUFF_LEN: u32 = 188;
        let called: BTreeSet<_> = helpers_of(OBJECT, PROGRAM).into_iter().collect();
        assert_eq!(
            called,
            // Tail calls for what is not plain, the head for outer headers, a redirect for another interface, the length for frames of
            // several buffers.
            [
                MAP_LOOKUP,
                TAIL_CALL,
                ADJUST_HEAD,
                REDIRECT_MAP,
                GET_BUFF_LEN
            ]
            .into()
        );
    }

    /// Names of the functions and variables of an object. (Its strings alone would tell too much: BTF names
    /// every module that was compiled.)
    pub(in crate::dataplane::bpf) fn symbols(object: &[u8]) -> impl Iterator<Item = String> {
        let file = ::object::File::parse(object).unwrap();
        let names: Vec<_> = file
            .symbols()
            .map(|symbol| symbol.name().unwrap().to_owned())
            .collect();
        names.into_iter()
    }

    /// Helpers that a function of an object calls, as often as they stand there.
    fn helpers_of(object: &[u8], function: &str) -> Vec<u32> {
        // `BPF_JMP | BPF_CALL`, by which a helper is called where the source register is 0.
        const CALL: u8 = 0x85;
        let file = ::object::File::parse(object).unwrap();
        let symbol = file.symbol_by_name(function).unwrap();
        let section = file
            .section_by_index(symbol.section_index().unwrap())
            .unwrap();
        let code = section
            .data_range(symbol.address(), symbol.size())
            .unwrap()
            .unwrap();
        let instructions = code.as_chunks::<8>().0.iter();
        instructions
            .filter_map(|[operation, registers, _, _, number @ ..]| {
                let is_helper = *operation == CALL && registers >> 4 == 0;
                is_helper.then(|| u32::from_le_bytes(*number))
            })
            .collect()
    }
}
