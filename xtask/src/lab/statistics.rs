//! The kernel's statistics of BPF programs.

use std::fs;

use anyhow::{Context as _, Result};

/// While it lives, the kernel counts how often BPF programs run and how long.
#[derive(Debug)]
pub struct Statistics {
    before: String,
}

impl Statistics {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Turns it on.
    ///
    /// # Errors
    /// Where the kernel has no such switch, or lets nobody use it.
    pub fn on() -> Result<Self> {
        let before =
            fs::read_to_string(Self::SWITCH).context("read the switch of BPF statistics")?;
        fs::write(Self::SWITCH, "1").context("turn BPF statistics on")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::SWITCH, &self.before) {
            eprintln!("BPF statistics stay on: {error}");
        }
    }
}
