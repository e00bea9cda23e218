//! A rule of weir's broken on purpose: flows that are remembered are forgotten.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapError};

/// The maps of flows that a connection in the midst of a move depends on.
const MAPS: [&str; 2] = ["PINS_PROVEN", "PINS_OLD"];

/// A flow's key and its pin, whatever is in them.
type Pins = HashMap<MapData, [u8; 40], [u8; 16]>;

/// Deletes every entry of the maps of pins, behind the daemon's back. Returns how many there were.
pub fn forget_pins(pin_path: &Path) -> Result<usize> {
    let mut forgotten = 0;
    for layout in fs::read_dir(pin_path).context("read the folder of the pins")? {
        let maps = layout?.path().join("maps");
        if !maps.is_dir() {
            continue;
        }
        for name in MAPS {
            let path = maps.join(name);
            forgotten += forget(&path).with_context(|| format!("empty {}", path.display()))?;
        }
    }
    Ok(forgotten)
}

fn forget(path: &Path) -> Result<usize> {
    let mut pins: Pins = Map::LruHashMap(MapData::from_pin(path)?).try_into()?;
    let flows = pins.keys().collect::<Result<Vec<_>, _>>()?;
    for flow in &flows {
        match pins.remove(flow) {
            // The daemon or a packet was first.
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(flows.len())
}
