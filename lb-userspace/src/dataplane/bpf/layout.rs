//! The shape of what is pinned, under a version: a program works only on maps that are as it knows them.
//!
//! Pins of one version lie in `<pin_path>/v<version>`. `layouts.txt` beside this file records the shape of the current
//! version, and a test holds the two against each other: whoever changes a map's shape raises [`Layout::CURRENT`] and
//! records the new one. Where the meaning of a value changes and its shape does not, the map gets another name.

use std::{fmt, path::Path};

use anyhow::{Context as _, bail};
use aya::maps::{MapInfo, MapType};
use lb_common::{
    access::{COUNTERS, MAX_BLOCKS, MAX_LISTED, PrefixKey},
    backend::Backend,
    flow::Flow,
    fragment::{FragmentKey, MAX_FRAGMENTED},
    limit::{Limits, MAX_OWN_RATES, OwnRates, Share, SourceKey, Totals, source::SourceBlock},
    marks::Marks,
    pin::{Idle, Kind, Pin},
    slot::SlotTable,
    tables::{
        Counters, Drops, Interface, MAX_PEERS, MAX_PORTS, Node, PinCounters, REASON_COUNTERS,
    },
    vip::{MAX_VIPS, VipTable},
};

use crate::model::{leaving::Leaving, slots::Since};

/// A version of what is pinned.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Layout(u32);

impl Layout {
    /// The version that this program works on.
    pub const CURRENT: Self = Self(2);

    /// A version by its number.
    #[must_use]
    pub const fn of(version: u32) -> Self {
        Self(version)
    }

    /// The version whose pins lie in a directory of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('v')?;
        let version = digits.parse().ok()?;
        // `v01` and `v+1` are nobody's.
        (digits == format!("{version}")).then_some(Self(version))
    }
}

/// The name of the directory.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// What a newer program does with a map of an older layout.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Carry {
    /// It holds what connections depend on: taken over, or the old program stays.
    Needed,
    /// It is taken over if its entries are the same; else it begins anew.
    Wished,
    /// The daemon writes all of it at its start.
    Written,
}

/// The shape of a pinned map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// `None` where it is the operator's choice; one that is pinned keeps its size.
    entries: Option<usize>,
    pub(super) carry: Carry,
}

const fn shape(
    name: &'static str,
    kind: MapType,
    (key, value): (usize, usize),
    entries: usize,
    carry: Carry,
) -> Shape {
    Shape {
        name,
        kind,
        key,
        value,
        entries: Some(entries),
        carry,
    }
}

const fn array(name: &'static str, value: usize, entries: usize, carry: Carry) -> Shape {
    shape(name, MapType::Array, (4, value), entries, carry)
}

const fn counters(name: &'static str, value: usize, entries: usize) -> Shape {
    shape(
        name,
        MapType::PerCpuArray,
        (4, value),
        entries,
        Carry::Wished,
    )
}

/// A map whose size is the operator's choice.
const fn lru(name: &'static str, sizes: (usize, usize), carry: Carry) -> Shape {
    Shape {
        entries: None,
        ..shape(name, MapType::LruHash, sizes, 0, carry)
    }
}

const fn prefixes(name: &'static str, entries: usize) -> Shape {
    let key = size_of::<PrefixKey>();
    shape(name, MapType::LpmTrie, (key, 4), entries, Carry::Wished)
}

const fn pins(name: &'static str) -> Shape {
    let sizes = (size_of::<Flow>(), size_of::<Pin>());
    lru(name, sizes, Carry::Needed)
}

/// The maps of pins, by [`Kind`].
pub(super) const PIN_MAPS: [&str; 3] = ["PINS_SYN", "PINS_PROVEN", "PINS_OLD"];

/// The map of limited sources. Was SOURCES, an LRU map.
pub(super) const SOURCES: &str = "SOURCE_BLOCKS";

/// Maps that this layout had before and no program knows any more.
pub(super) const FORMER: [&str; 2] = ["VIPS", "SOURCES"];

/// What backends have inherited of others' counters, by id. The one map that no program knows.
pub(super) const INHERITED: &str = "INHERITED";

/// Every map that is pinned by its name.
pub(super) const MAPS: [Shape; 28] = [
    array("NODE", size_of::<Node>(), 1, Carry::Written),
    // Was VIPS, before its tables were built by another hash.
    shape("VIP_TABLE", MapType::ArrayOfMaps, (4, 4), 1, Carry::Written),
    shape(
        "TABLES",
        MapType::ArrayOfMaps,
        (4, 4),
        MAX_VIPS,
        Carry::Written,
    ),
    array("BACKENDS", size_of::<Backend>(), 65536, Carry::Needed),
    counters("VIP_COUNTERS", size_of::<Counters>(), MAX_VIPS),
    counters("VIP_DROPS", size_of::<Drops>(), MAX_VIPS),
    counters("BACKEND_COUNTERS", size_of::<Counters>(), 65536),
    array(INHERITED, size_of::<Counters>(), 65536, Carry::Wished),
    counters("OUTCOME_COUNTERS", 8, REASON_COUNTERS),
    shape(
        "INTERFACES",
        MapType::Hash,
        (4, size_of::<Interface>()),
        MAX_PORTS,
        Carry::Written,
    ),
    shape("PEERS", MapType::Hash, (8, 4), MAX_PEERS, Carry::Written),
    shape(
        "FRAGMENTS",
        MapType::LruHash,
        (size_of::<FragmentKey>(), 4),
        MAX_FRAGMENTED,
        Carry::Wished,
    ),
    shape(
        "PORTS",
        MapType::DevMapHash,
        (4, 8),
        MAX_PORTS,
        Carry::Written,
    ),
    array("IDLE", size_of::<Idle>(), MAX_VIPS, Carry::Written),
    prefixes("BLOCKS", MAX_BLOCKS),
    array("BLOCK_SCOPES", 4, MAX_VIPS, Carry::Wished),
    prefixes("LISTS", MAX_LISTED),
    array("LIST_SCOPES", 4, MAX_VIPS, Carry::Wished),
    counters("ACCESS_COUNTERS", 8, COUNTERS),
    counters("PIN_COUNTERS", size_of::<PinCounters>(), Kind::ALL.len()),
    pins(PIN_MAPS[0]),
    pins(PIN_MAPS[1]),
    pins(PIN_MAPS[2]),
    array("LIMITS", size_of::<Limits>(), MAX_VIPS, Carry::Written),
    array("LIMIT_TOTALS", size_of::<Totals>(), MAX_VIPS, Carry::Wished),
    counters("LIMIT_SHARES", size_of::<Share>(), MAX_VIPS),
    Shape {
        entries: None,
        ..array(SOURCES, size_of::<SourceBlock>(), 0, Carry::Wished)
    },
    shape(
        "OWN_RATES",
        MapType::Hash,
        (size_of::<SourceKey>(), size_of::<OwnRates>()),
        MAX_OWN_RATES,
        Carry::Written,
    ),
];

/// Which flows may have a pin that is proven or old. Pinned only so that all programs of a daemon share it, and made anew
/// by each daemon: no part of the layout.
pub(super) const MARKS: Shape = array("MARKS", size_of::<Marks>(), 1, Carry::Written);

/// The table of all VIPs.
pub(super) const VIP_TABLE: Shape = array("vips", size_of::<VipTable>(), 1, Carry::Needed);

/// A VIP's lookup table, pinned by the VIP's id.
pub(super) const SLOT_TABLE: Shape = array("ID", size_of::<SlotTable>(), 1, Carry::Needed);

/// Since when the slots of a VIP are in their states.
pub(super) const SINCE: Shape = array("ID-since", size_of::<Since>(), 1, Carry::Wished);

/// Since when backends take no new flows.
pub(super) const LEAVING: Shape = array("leaving", size_of::<Leaving>(), 1, Carry::Wished);

/// The shape of an inner map by the name of its pin.
pub(super) fn inner(name: &str) -> Shape {
    if name == VIP_TABLE.name {
        VIP_TABLE
    } else if name == LEAVING.name {
        LEAVING
    } else if name.ends_with("-since") {
        SINCE
    } else {
        SLOT_TABLE
    }
}

/// How a pinned map stands to the shape that is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Likeness {
    /// It is of that shape.
    Same,
    /// Its entries are, and there are more or fewer of them.
    Resized,
    /// It is another thing.
    Other,
}

impl Shape {
    /// Holds a pinned map against the shape.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn compare(&self, path: &Path) -> anyhow::Result<Likeness> {
        let found = Self::of(path)?;
        let is_alike =
            found.kind == self.kind && (found.key, found.value) == (self.key, self.value);
        let is_size = self.entries.is_none() || found.entries == self.entries;
        Ok(match (is_alike, is_size) {
            (true, true) => Likeness::Same,
            (true, false) => Likeness::Resized,
            (false, _) => Likeness::Other,
        })
    }

    /// Refuses a pinned map of another shape.
    ///
    /// # Errors
    /// The difference, and what to do.
    pub(super) fn check(&self, path: &Path) -> anyhow::Result<()> {
        if self.compare(path)? == Likeness::Same {
            return Ok(());
        }
        bail!(
            "the pinned map {} is {}, and this weir wants {self}; {REMEDY}",
            path.display(),
            Self::of(path)?
        )
    }

    /// The shape of a pinned map.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let opening = || format!("opening the pinned map {}", path.display());
        let info = MapInfo::from_pin(path).with_context(opening)?;
        Ok(Self {
            name: "",
            kind: info.map_type().with_context(opening)?,
            key: info.key_size() as usize,
            value: info.value_size() as usize,
            entries: Some(info.max_entries() as usize),
            carry: Carry::Written,
        })
    }
}

/// What an operator can do where pins cannot be taken over.
pub(super) const REMEDY: &str = "what is attached forwards on as it is; go back to the version that pinned it, or \
     begin without what it holds: `weir run --fresh`";

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}+{} bytes", self.kind, self.key, self.value)?;
        match self.entries {
            Some(entries) => write!(f, " times {entries}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The record of the current layout, in the order of [`MAPS`].
    #[test]
    fn the_shapes_of_the_current_layout_are_those_on_record() {
        let record = include_str!("layouts.txt");
        let heading = format!("{}\n", Layout::CURRENT);
        let (_, rest) = record.split_once(&heading).unwrap();
        let recorded: Vec<_> = rest.lines().take_while(|line| !line.is_empty()).collect();
        let inner = [VIP_TABLE, SLOT_TABLE, SINCE, LEAVING];
        let found: Vec<_> = MAPS
            .iter()
            .chain(&inner)
            .map(|shape| format!("{}: {shape}", shape.name))
            .collect();
        assert_eq!(
            found, recorded,
            "the shape of a pinned map has changed: raise Layout::CURRENT and record the new layout in layouts.txt"
        );
    }

    /// A map that is new in the program is recorded too, or is known to hold nothing that outlives a packet.
    #[test]
    fn every_map_of_the_object_is_pinned_or_scratch() {
        const SCRATCH: [&str; 6] = [
            "STEPS",
            "TRACED",
            "NOTED",
            "ANSWER",
            "LIMIT_TATS",
            "AYA_LOGS",
        ];
        const OBSERVERS: [&str; 5] = [
            "WATCHES",
            "WATCH_TATS",
            "WATCH_COUNTERS",
            "RECORDS",
            "SCRATCH",
        ];
        let is_name = |name: &String| {
            name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let others = |object, known: &[&str]| -> BTreeSet<String> {
            super::super::object::tests::symbols(object)
                .filter(is_name)
                .filter(|name| !MAPS.iter().chain([&MARKS]).any(|shape| shape.name == *name))
                .filter(|name| !SCRATCH.contains(&name.as_str()))
                .filter(|name| !known.contains(&name.as_str()))
                .collect()
        };
        // What is left are no maps: settings of the program.
        let settings = [
            "TRACE",
            "HASH_KEYS",
            "SOURCE_SETS",
            "AYA_LOG_LEVEL",
            "LICENSE",
        ]
        .map(String::from);
        let settings = BTreeSet::from(settings);
        assert_eq!(others(super::super::object::OBJECT, &[]), settings);
        assert_eq!(
            others(super::super::object::OBSERVING, &OBSERVERS),
            settings
        );
    }

    #[test]
    fn directories_name_layouts() {
        assert_eq!(Layout::parse("v1"), Some(Layout::of(1)));
        assert_eq!(Layout::of(12).to_string(), "v12");
        for name in ["v", "1", "v01", "v+1", "v-1", "v1.bak", "w1"] {
            assert_eq!(Layout::parse(name), None, "{name}");
        }
    }
}
