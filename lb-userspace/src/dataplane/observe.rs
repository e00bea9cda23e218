//! The program that observes, and what it tells ([`lb_common::observe`]).
//!
//! It is loaded when somebody watches for the first time, and kept: loading takes the verifier about a second. It takes the
//! normal program's place while somebody watches, and no longer.

use anyhow::bail;
use lb_common::observe::{Told, Watches};

use super::bpf::Observer;

/// Loads the observing program, on whatever thread this is called.
pub type Load = Box<dyn FnOnce() -> anyhow::Result<Box<Observer>> + Send>;

/// A data plane whose packets can be watched. One that says nothing else is none.
pub trait Observing {
    /// How to load the observing program over the maps of this data plane.
    fn load_observer(&self) -> anyhow::Result<Load> {
        bail!("packets of this data plane cannot be watched")
    }

    /// Takes the loaded program, and returns what it tells. It is on no interface yet.
    fn take_observer(&mut self, _observer: Box<Observer>) -> anyhow::Result<Box<dyn Records>> {
        bail!("packets of this data plane cannot be watched")
    }

    /// Writes who watches what. Whoever has begun to watch gets the whole rate.
    fn set_watches(&mut self, _watches: &Watches) -> anyhow::Result<()> {
        bail!("packets of this data plane cannot be watched")
    }

    /// Swaps the observing program in on every interface, or the normal one.
    fn observe(&mut self, _is_wanted: bool) -> anyhow::Result<()> {
        Ok(())
    }

    /// Whether the observing program is in.
    fn is_observed(&self) -> bool {
        false
    }

    /// The kernel's number of the observing program, once it is loaded.
    fn observer_id(&self) -> Option<u32> {
        None
    }
}

/// What the observing program tells.
pub trait Records: Send {
    /// Takes all records that there are, the oldest first.
    fn drain(&mut self, take: &mut dyn FnMut(&[u8]));

    /// What became of what a watcher was to be told, since the program was loaded, summed over the CPUs.
    fn told(&self, watcher: usize) -> anyhow::Result<Told>;
}
