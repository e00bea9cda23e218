//! Where maps and links are pinned: `<pin_path>/v<layout>/{maps,tables,steps,links}` on a bpffs.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open, statfs},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// Where systemd and others mount the bpffs.
const BPFFS: &str = "/sys/fs/bpf";

/// The source that marks a bpffs mounted by weir.
const MOUNT_SOURCE: &str = "weir";

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The pins of one data plane. While it lives, no other daemon can take them.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    layout: Layout,
    _lock: OwnedFd,
}

impl Pins {
    /// Makes `pin_path`, mounting a bpffs where there is none, and locks it.
    ///
    /// # Errors
    /// Where another daemon holds `pin_path`, or it cannot be made.
    pub(super) fn open(pin_path: &Path, layout: Layout) -> anyhow::Result<Self> {
        ensure_bpffs(pin_path)?;
        Ok(Self {
            root: pin_path.to_owned(),
            layout,
            _lock: lock(pin_path)?,
        })
    }

    /// Makes the layout's directories.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        for dir in [self.maps(), self.tables(), self.links(), self.steps()] {
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        }
        Ok(())
    }

    /// Removes every pin of this layout but not the directories.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        remove_layout(&self.root.join(self.layout.to_string()))?;
        self.make()
    }

    /// Removes the pins of all other layouts.
    pub(super) fn remove_others(&self) -> anyhow::Result<()> {
        for layout in self.others()? {
            let removed = remove_layout(&self.root.join(layout.to_string()))?;
            tracing::info!(%layout, pins = removed.pins, "pins of another layout removed");
        }
        Ok(())
    }

    /// Whether a layout's program is attached anywhere.
    pub(super) fn has_links(&self, layout: Layout) -> anyhow::Result<bool> {
        let links = self.links_of(layout);
        Ok(links.is_dir() && !entries(&links)?.is_empty())
    }

    /// The other layouts that are pinned here.
    pub(super) fn others(&self) -> anyhow::Result<Vec<Layout>> {
        let mut found = layouts(&self.root)?;
        found.retain(|layout| *layout != self.layout);
        Ok(found)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The layout of these pins.
    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }

    /// Directory of the maps, by name.
    pub(super) fn maps(&self) -> PathBuf {
        self.maps_of(self.layout)
    }

    /// The same, of any layout.
    pub(super) fn maps_of(&self, layout: Layout) -> PathBuf {
        self.root.join(layout.to_string()).join("maps")
    }

    /// Directory of the inner maps: each VIP's lookup table by the VIP's id, and `vips`.
    pub(super) fn tables(&self) -> PathBuf {
        self.tables_of(self.layout)
    }

    /// The same, of any layout.
    pub(super) fn tables_of(&self, layout: Layout) -> PathBuf {
        self.root.join(layout.to_string()).join("tables")
    }

    /// Directory of the maps of later steps, one for each program that is loaded.
    pub(super) fn steps(&self) -> PathBuf {
        self.root.join(self.layout.to_string()).join("steps")
    }

    /// Directory of the links, by interface name.
    pub(super) fn links(&self) -> PathBuf {
        self.links_of(self.layout)
    }

    /// The same, of any layout.
    pub(super) fn links_of(&self, layout: Layout) -> PathBuf {
        self.root.join(layout.to_string()).join("links")
    }
}

/// Name under which what belongs to an interface is pinned: a bpffs takes no dots, and an interface's name has no
/// colon.
pub(super) fn file_name(interface: &str) -> String {
    interface.replace('.', ":")
}

/// The interface that a pin belongs to.
pub(super) fn interface_of(pin: &Path) -> String {
    let name = pin.file_name().unwrap_or_default();
    name.to_string_lossy().replace(':', ".")
}

/// Directory of the maps below `pin_path`, for reading beside the daemon that holds it.
///
/// # Errors
/// Where nothing is pinned there.
pub(super) fn maps(pin_path: &Path) -> anyhow::Result<PathBuf> {
    let maps = pin_path.join(Layout::CURRENT.to_string()).join("maps");
    if maps.is_dir() {
        return Ok(maps);
    }
    let others = if pin_path.is_dir() {
        layouts(pin_path)?
    } else {
        Vec::new()
    };
    match others.first() {
        Some(other) => bail!(
            "what is pinned at {} is of layout {other}, and this weir knows {}",
            pin_path.display(),
            Layout::CURRENT
        ),
        None => bail!(
            "no maps are pinned at {}: is weir running there? (`weir run`)",
            maps.display()
        ),
    }
}

/// Directory of the inner maps below `pin_path`, for reading.
pub(super) fn tables(pin_path: &Path) -> PathBuf {
    pin_path.join(Layout::CURRENT.to_string()).join("tables")
}

/// The interfaces that the program is attached to by links pinned below `pin_path`, sorted by name.
///
/// # Errors
/// Where nothing is pinned there.
pub fn linked_interfaces(pin_path: &Path) -> anyhow::Result<Vec<String>> {
    maps(pin_path)?;
    let links = entries(&pin_path.join(Layout::CURRENT.to_string()).join("links"))?;
    let mut names: Vec<_> = links.iter().map(|link| interface_of(link)).collect();
    names.sort();
    Ok(names)
}

/// The interfaces that a program is attached to by links pinned below `pin_path`, of whatever layout.
///
/// # Errors
/// The directory cannot be read.
pub fn linked_of_any_layout(pin_path: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for layout in layouts(pin_path)? {
        let links = pin_path.join(layout.to_string()).join("links");
        if links.is_dir() {
            names.extend(entries(&links)?.iter().map(|link| interface_of(link)));
        }
    }
    Ok(names)
}

/// What `weir detach` removed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Detached {
    /// The interfaces that the program was taken off.
    pub interfaces: Vec<String>,
    /// How many pinned objects were removed.
    pub pins: usize,
}

/// Takes the program off every interface and removes every pin below `pin_path`.
///
/// # Errors
/// Where a daemon holds `pin_path`, or a pin cannot be removed.
pub fn detach(pin_path: &Path) -> anyhow::Result<Detached> {
    let mut detached = Detached::default();
    if !pin_path.exists() {
        return Ok(detached);
    }
    let lock = lock(pin_path)?;
    for layout in layouts(pin_path)? {
        let removed = remove_layout(&pin_path.join(layout.to_string()))?;
        detached.interfaces.extend(removed.interfaces);
        detached.pins = detached.pins.saturating_add(removed.pins);
    }
    detached.interfaces.sort();
    drop(lock);
    if is_bare(pin_path)? {
        release(pin_path)?;
    }
    Ok(detached)
}

/// Whether nobody's pins are left in a directory.
pub(super) fn is_bare(directory: &Path) -> anyhow::Result<bool> {
    // The kernel puts `maps.debug` and `progs.debug` into every bpffs; anything else is somebody's pin.
    let is_pin = |path: &PathBuf| {
        path.extension()
            .is_none_or(|extension| extension != "debug")
    };
    Ok(!entries(directory)?.iter().any(is_pin))
}

pub(super) fn remove_all(directory: &Path) -> anyhow::Result<usize> {
    let entries = entries(directory)?;
    for entry in &entries {
        fs::remove_file(entry).with_context(|| format!("removing the pin {}", entry.display()))?;
    }
    remove_directory(directory)?;
    Ok(entries.len())
}

pub(super) fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    fs::remove_dir(directory)
        .with_context(|| format!("removing the directory {}", directory.display()))
}

pub(super) fn entries(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    read().with_context(|| format!("reading {}", directory.display()))
}

/// The layouts that are pinned, by the names of directories: `pin_path` may be a whole bpffs with others' pins.
fn layouts(pin_path: &Path) -> anyhow::Result<Vec<Layout>> {
    let entries = entries(pin_path)?;
    let directories = entries.iter().filter(|path| path.is_dir());
    let names = directories.filter_map(|path| path.file_name());
    let mut found: Vec<_> = names
        .filter_map(|name| Layout::parse(&name.to_string_lossy()))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Removes the pins of a layout and their directories.
fn remove_layout(layout: &Path) -> anyhow::Result<Detached> {
    let mut removed = Detached::default();
    let links = layout.join("links");
    if links.is_dir() {
        let links = entries(&links)?;
        removed.interfaces = links.iter().map(|link| interface_of(link)).collect();
    }
    // Links first: the program is off before its maps go.
    for directory in [
        links,
        layout.join("steps"),
        layout.join("tables"),
        layout.join("maps"),
    ] {
        if directory.is_dir() {
            removed.pins = removed.pins.saturating_add(remove_all(&directory)?);
        }
    }
    if layout.is_dir() {
        remove_directory(layout)?;
    }
    Ok(removed)
}

/// Holds the directory for this process; the kernel lets go when the process ends, however it ends.
pub(super) fn lock(pin_path: &Path) -> anyhow::Result<OwnedFd> {
    let directory = open(
        pin_path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("opening {}", pin_path.display()))?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(Errno::WOULDBLOCK) => bail!(
            "another weir daemon holds pin_path {}; stop it first, or give this one a pin_path of its own",
            pin_path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("locking {}", pin_path.display())),
    }
}

/// Makes `pin_path` a directory on a bpffs. Where there is no bpffs yet, mounts one as systemd would.
pub(super) fn ensure_bpffs(pin_path: &Path) -> anyhow::Result<()> {
    if !nearest_is_bpffs(pin_path)? {
        let target = if pin_path.starts_with(BPFFS) {
            Path::new(BPFFS)
        } else {
            pin_path
        };
        fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
        tracing::warn!(path = %target.display(), "no bpffs there: mounting one");
        mount(
            MOUNT_SOURCE,
            target,
            "bpf",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        )
        .with_context(|| {
            format!(
                "mounting a bpffs (by hand: `mount -t bpf bpf {}`)",
                target.display()
            )
        })?;
    }
    fs::create_dir_all(pin_path).with_context(|| format!("making {}", pin_path.display()))
}

/// Whether the nearest directory that exists, `path` itself or above it, is on a bpffs.
///
/// # Errors
/// Where it cannot be looked at.
pub fn nearest_is_bpffs(path: &Path) -> anyhow::Result<bool> {
    for ancestor in path.ancestors() {
        match statfs(ancestor) {
            Ok(stat) => return Ok(u64::try_from(stat.f_type) == Ok(BPF_FS_MAGIC)),
            Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("looking at {}", ancestor.display()));
            }
        }
    }
    Ok(false)
}

/// Unmounts the bpffs that [`ensure_bpffs`] mounted at `pin_path`, and removes the empty directory.
///
/// A mount that somebody else made there stays.
pub(super) fn release(pin_path: &Path) -> anyhow::Result<()> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let target = pin_path.to_string_lossy();
    // Field 5 is the mount point; after the separator come file system, source and options.
    let source = mounts.lines().rev().find_map(|line| {
        (line.split(' ').nth(4)? == target).then(|| line.split_once(" - ")?.1.split(' ').nth(1))?
    });
    match source {
        Some(MOUNT_SOURCE) => {
            unmount(pin_path, UnmountFlags::empty())
                .with_context(|| format!("unmounting {target}"))?;
            remove_directory(pin_path)
        }
        Some(_) => Ok(()),
        None => remove_directory(pin_path),
    }
}
