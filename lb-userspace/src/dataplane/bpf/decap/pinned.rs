//! What is pinned: finding it again, reading it, removing it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, MapError};

use super::{
    Addresses, COUNTERS, Counters, DecapCount, DecapSettings, LINK, LOCAL, SETTINGS, VIPS, counts,
};
use crate::dataplane::bpf::{pins, value::Value};

/// The pins' directory, with the version of their layout; other than a daemon's, so that both can share a `pin_path`.
const LAYOUT: &str = "decap1";

/// The program on one interface.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// What the program was told.
    pub settings: DecapSettings,
    /// What it counted.
    pub counts: Vec<DecapCount>,
}

/// Directory of an interface's pins. A bpffs takes no dots in names, and an interface's name has no colon.
pub(super) fn directory(pin_path: &Path, interface: &str) -> PathBuf {
    pin_path.join(LAYOUT).join(interface.replace('.', ":"))
}

/// The interfaces that have pins below `pin_path`, sorted.
fn interfaces(pin_path: &Path) -> anyhow::Result<Vec<String>> {
    let layout = pin_path.join(LAYOUT);
    if !layout.is_dir() {
        return Ok(Vec::new());
    }
    let mut names: Vec<_> = pins::entries(&layout)?
        .iter()
        .filter_map(|path| path.file_name())
        .map(|name| name.to_string_lossy().replace(':', "."))
        .collect();
    names.sort();
    Ok(names)
}

/// The programs that are pinned below `pin_path`, by interface.
///
/// # Errors
/// Where a pin cannot be read (needs root, or `CAP_BPF`).
pub fn attached(pin_path: &Path) -> anyhow::Result<Vec<Attached>> {
    interfaces(pin_path)?
        .into_iter()
        .map(|interface| {
            read(&directory(pin_path, &interface), &interface)
                .with_context(|| format!("reading what is pinned for {interface}"))
        })
        .collect()
}

fn read(directory: &Path, interface: &str) -> anyhow::Result<Attached> {
    let settings: Array<MapData, Value<lb_common::decap::Settings>> =
        open(directory, SETTINGS, Map::Array)?;
    let Value(settings) = settings.get(&0, 0).context("reading the settings")?;
    let addresses = |name| -> anyhow::Result<Vec<_>> {
        let map: Addresses = open(directory, name, Map::HashMap)?;
        map.keys()
            .map(|key| Ok(key.with_context(|| format!("reading {name}"))?.0))
            .collect()
    };
    let counters: Counters = open(directory, COUNTERS, Map::PerCpuArray)?;
    Ok(Attached {
        interface: interface.to_owned(),
        settings: DecapSettings::from_kernel(&settings, addresses(LOCAL)?, addresses(VIPS)?),
        counts: counts(&counters)?,
    })
}

fn open<M: TryFrom<Map, Error = MapError>>(
    directory: &Path,
    name: &str,
    kind: fn(MapData) -> Map,
) -> anyhow::Result<M> {
    let path = directory.join(name);
    let data =
        MapData::from_pin(&path).with_context(|| format!("opening the pin {}", path.display()))?;
    kind(data)
        .try_into()
        .with_context(|| format!("the pinned map {name} has another type"))
}

/// Takes the program off one interface, or all, and removes the pins. Returns the interfaces it was taken off.
///
/// # Errors
/// Where a pin cannot be removed.
pub fn detach(pin_path: &Path, interface: Option<&str>) -> anyhow::Result<Vec<String>> {
    let mut detached = interfaces(pin_path)?;
    if let Some(interface) = interface {
        detached.retain(|name| name == interface);
    }
    if detached.is_empty() {
        return Ok(detached);
    }
    let lock = pins::lock(pin_path)?;
    for interface in &detached {
        let directory = directory(pin_path, interface);
        // The link first: the program is off before its maps go.
        let link = directory.join(LINK);
        if link.exists() {
            fs::remove_file(&link).with_context(|| format!("removing {}", link.display()))?;
        }
        pins::remove_all(&directory)?;
    }
    drop(lock);
    let layout = pin_path.join(LAYOUT);
    if pins::entries(&layout)?.is_empty() {
        pins::remove_directory(&layout)?;
        if pins::is_bare(pin_path)? {
            pins::release(pin_path)?;
        }
    }
    Ok(detached)
}
