//! The backend's program (`weir decap`): loaded, attached and pinned for each interface on its own, without a daemon.
//!
//! Pins lie below `<pin_path>/decap1/<interface>`: the link, the counters, and the maps with the settings. Settings never
//! change in place: attaching again loads a new program over new maps and swaps it through the link, so that every
//! packet meets the old settings or the new ones, whole. Counters go on.

mod pinned;
mod settings;

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    decap::{Counter, MAX_REASONS, Reason},
    flow::Address,
};

pub use self::{
    pinned::{Attached, attached, detach},
    settings::{DecapSettings, IpPrefix},
};

use super::{
    Run, attach as links,
    inner::remove_if_there,
    object::{check_pinned, take},
    pins, test_run,
    value::Value,
};
use crate::config::XdpMode;

/// The object that lb-userspace/build.rs made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-decap-ebpf"));

/// The program's name in the object.
const PROGRAM: &str = "weir_decap";

/// Names of the maps in the object, and of their pins.
const SETTINGS: &str = "DECAP_SETTINGS";
const LOCAL: &str = "DECAP_LOCAL";
const VIPS: &str = "DECAP_VIPS";
const COUNTERS: &str = "DECAP_COUNTERS";

/// Name of the link's pin.
const LINK: &str = "link";

/// What a pinned map of counters must be to be used on.
const COUNTERS_SIZES: (u32, u32, u32) = (4, size_of::<Counter>() as u32, MAX_REASONS as u32);

type Addresses = HashMap<MapData, Value<Address>, u32>;
type Counters = PerCpuArray<MapData, Value<Counter>>;

/// Frames counted under one reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DecapCount {
    /// Why frames went where they went.
    pub reason: Reason,
    /// How many frames, and their bytes as received.
    pub counter: Counter,
}

/// The loaded program, with its settings.
pub struct Decap {
    ebpf: Ebpf,
    settings: Array<MapData, Value<lb_common::decap::Settings>>,
    local: Addresses,
    vips: Addresses,
    counters: Counters,
}

impl Decap {
    /// Loads a private copy, attached to nothing and gone with the value.
    ///
    /// # Errors
    /// Where the settings do not fit, or the kernel refuses.
    pub fn private(settings: &DecapSettings) -> anyhow::Result<Self> {
        Self::load(None, settings)
    }

    /// Loads the program over new maps, except that counters pinned in `directory` go on.
    fn load(directory: Option<&Path>, settings: &DecapSettings) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        let counters = directory.map(|directory| directory.join(COUNTERS));
        if let Some(path) = &counters {
            check_pinned(COUNTERS, path, COUNTERS_SIZES)?;
            loader.map_pin_path(COUNTERS, path);
        }
        let mut ebpf = loader
            .load(OBJECT)
            .context("loading the BPF maps (needs root, or CAP_BPF and CAP_NET_ADMIN)")?;
        let mut decap = Self {
            settings: take(&mut ebpf, SETTINGS)?,
            local: take(&mut ebpf, LOCAL)?,
            vips: take(&mut ebpf, VIPS)?,
            counters: take(&mut ebpf, COUNTERS)?,
            ebpf,
        };
        decap.write(settings)?;
        decap.program()?.load().context(
            "loading the XDP program (needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON)",
        )?;
        Ok(decap)
    }

    fn write(&mut self, settings: &DecapSettings) -> anyhow::Result<()> {
        let kernel = settings.to_kernel()?;
        self.settings
            .set(0, Value::from_ref(&kernel), 0)
            .context("writing the settings")?;
        let insert = |map: &mut Addresses, addresses: &[IpAddr], what| {
            addresses.iter().try_for_each(|address| {
                map.insert(Value(settings::to_kernel(*address)), 0, 0)
                    .with_context(|| format!("writing {what} {address}"))
            })
        };
        insert(&mut self.local, &settings.local, "this host's address")?;
        insert(&mut self.vips, &settings.vips, "VIP")
    }

    fn program(&mut self) -> anyhow::Result<&mut Xdp> {
        test_run::xdp(&mut self.ebpf, PROGRAM)
    }

    /// Runs the program on a frame.
    ///
    /// # Errors
    /// The kernel takes frames from 14 bytes to a page less the headroom.
    pub fn test_run(&mut self, frame: &[u8]) -> anyhow::Result<Run> {
        test_run::run(self.program()?, frame, None)
    }

    /// Frames counted under each reason.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn counts(&self) -> anyhow::Result<Vec<DecapCount>> {
        counts(&self.counters)
    }

    /// Pins the maps with the settings in place of an older program's.
    fn pin(self, directory: &Path) -> anyhow::Result<()> {
        let at = |name| -> anyhow::Result<PathBuf> {
            let path = directory.join(name);
            remove_if_there(&path)?;
            Ok(path)
        };
        self.settings
            .pin(at(SETTINGS)?)
            .context("pinning the settings")?;
        self.local
            .pin(at(LOCAL)?)
            .context("pinning the addresses")?;
        self.vips.pin(at(VIPS)?).context("pinning the VIPs")
    }
}

fn counts(counters: &Counters) -> anyhow::Result<Vec<DecapCount>> {
    Reason::ALL
        .iter()
        .map(|reason| {
            let values = counters
                .get(&(*reason as u32), 0)
                .context("reading the counters")?;
            let mut counter = Counter::default();
            for Value(value) in values.iter() {
                counter.packets = counter.packets.wrapping_add(value.packets);
                counter.bytes = counter.bytes.wrapping_add(value.bytes);
            }
            Ok(DecapCount {
                reason: *reason,
                counter,
            })
        })
        .collect()
}

/// Attaches the program to an interface and pins it, or swaps it in with new settings where it is attached already.
///
/// # Errors
/// Where the settings do not fit, the interface does not exist, carries somebody else's program or bears no XDP in
/// the wanted mode, or the kernel refuses.
pub fn attach(
    pin_path: &Path,
    interface: &str,
    mode: XdpMode,
    settings: &DecapSettings,
) -> anyhow::Result<()> {
    ensure!(
        !settings.from.is_empty(),
        "nobody may send: the fleet has no address"
    );
    ensure!(
        !settings.local.is_empty(),
        "no tunnel ends here: this host has no address"
    );
    pins::ensure_bpffs(pin_path)?;
    let lock = pins::lock(pin_path)?;
    let directory = pinned::directory(pin_path, interface);
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let attached = Decap::load(Some(&directory), settings).and_then(|mut decap| {
        let link = directory.join(LINK);
        links::attach(decap.program()?, interface, mode, Some(&link), None)?;
        decap.pin(&directory)
    });
    drop(lock);
    if attached.is_err() && !directory.join(LINK).exists() {
        // Nothing is attached, so nothing should look as if it were.
        detach(pin_path, Some(interface)).ok();
    }
    attached
}

#[cfg(test)]
mod tests {
    use super::{super::object::tests::symbols, *};

    #[test]
    fn no_panic_is_linked_into_the_object() {
        for needle in ["panicking", "panic_fmt", "panic_bounds_check"] {
            let found = symbols(OBJECT).any(|name| name.contains(needle));
            assert!(!found, "{needle} is linked into the BPF object");
        }
        assert!(symbols(OBJECT).any(|name| name == PROGRAM));
    }
}
