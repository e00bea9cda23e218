//! Counts, by source address, every frame that a host sends: the witness of direct server return.
//!
//! The program sits on the switch's end of the host's cable, where a frame arrives whichever way the host sent it:
//! through its stack, by `XDP_TX` or by a redirect. A capture could lose frames, and tc never sees `XDP_TX`.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
    programs::Xdp,
};

use super::observer_object;

/// The counters of one cable.
#[derive(Debug)]
pub struct Observer {
    counts: HashMap<MapData, [u8; 16], u64>,
    pin: PathBuf,
}

impl Observer {
    /// Loads the program and pins it in `folder`, so that it may be attached by name.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self> {
        let mut object =
            Ebpf::load(&observer_object::object().write()?).context("load the observer")?;
        let program: &mut Xdp = object
            .program_mut(observer_object::PROGRAM)
            .context("the observer's program")?
            .try_into()?;
        program
            .load()
            .context("load the observer into the kernel")?;
        let pin = folder.join(format!("observe-{name}"));
        // A cable that was pulled leaves its observer's pin.
        if pin.exists() {
            fs::remove_file(&pin).with_context(|| format!("remove {}", pin.display()))?;
        }
        program
            .pin(&pin)
            .with_context(|| format!("pin the observer at {}", pin.display()))?;
        let map = object
            .take_map(observer_object::MAP)
            .context("the observer's map")?;
        Ok(Self {
            counts: map.try_into()?,
            pin,
        })
    }

    /// Counts frames from `source` from now on.
    pub fn watch(&mut self, source: IpAddr) -> Result<()> {
        self.counts
            .insert(key(source), 0, 0)
            .context("watch an address")
    }

    /// Returns how many frames from a watched address have passed.
    pub fn seen(&self, source: IpAddr) -> Result<u64> {
        match self.counts.get(&key(source), 0) {
            Err(MapError::KeyNotFound) => anyhow::bail!("nobody watches {source}"),
            other => other.context("read the observer's counter"),
        }
    }

    pub(super) fn program_pin(&self) -> &Path {
        &self.pin
    }
}

/// Returns the key of an address: IPv4 is mapped into IPv6, as the program does.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
