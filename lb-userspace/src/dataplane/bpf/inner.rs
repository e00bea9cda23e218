//! Inner maps, and the pins by which they are found again.

use std::{fs, path::Path, thread};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData, MapError};

use super::{layout, object::Inner, value::Value};

/// The one value of a pinned inner map.
///
/// aya hands values around by value. Of one of half a megabyte there may be fifteen copies on the stack where nothing is
/// optimised away, as much as a thread has: so it is read on one that has more.
pub(super) fn read_pinned<T: Copy + Send>(path: &Path) -> anyhow::Result<Option<Box<T>>>
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

pub(super) fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
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

pub(super) fn inner_map<T>(value: &T) -> anyhow::Result<Array<MapData, Value<T>>>
where
    Value<T>: aya::Pod,
{
    let mut map = Array::<MapData, Value<T>>::create(1, 0).context("creating a table")?;
    map.set(0, Value::from_ref(value), 0)
        .context("filling a table")?;
    Ok(map)
}

pub(super) fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}
