//! Records the frames that arrive at a host's interface, byte for byte, tags included.
//!
//! By an XDP program, since a packet socket sees a frame only after the kernel took its outer tag off.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
    programs::Xdp,
};

use super::{recorder_object, wait};

/// What has arrived at one interface.
pub struct Recorder {
    frames: RingBuf<MapData>,
    pin: PathBuf,
}

impl Recorder {
    /// Loads the program and pins it in `folder`, so that it may be attached by name.
    pub(super) fn load(folder: &Path, name: &str) -> Result<Self> {
        let mut object =
            Ebpf::load(&recorder_object::object().write()?).context("load the recorder")?;
        let program: &mut Xdp = object
            .program_mut(recorder_object::PROGRAM)
            .context("the recorder's program")?
            .try_into()?;
        program
            .load()
            .context("load the recorder into the kernel")?;
        let pin = folder.join(format!("record-{name}"));
        program
            .pin(&pin)
            .with_context(|| format!("pin the recorder at {}", pin.display()))?;
        let map = object
            .take_map(recorder_object::MAP)
            .context("the recorder's map")?;
        Ok(Self {
            frames: map.try_into()?,
            pin,
        })
    }

    /// Waits for a frame that is wanted, and returns its first 256 bytes; frames before it are forgotten.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let mut others = Vec::new();
        let found = wait::eventually(what, patience, || {
            while let Some(frame) = self.frames.next() {
                if wanted(&frame) {
                    return Ok(frame.to_vec());
                }
                others.push(frame.to_vec());
            }
            bail!("none among {}", others.len())
        });
        found.with_context(|| format!("other frames came: {others:02x?}"))
    }

    /// Returns the first 256 bytes of each frame that has arrived and was not returned before.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frames.next() {
            frames.push(frame.to_vec());
        }
        frames
    }

    pub(super) fn program_pin(&self) -> &Path {
        &self.pin
    }
}
