//! What the maps remember of flows, one entry after the other.

use std::ops::ControlFlow;

use lb_common::{
    flow::Flow,
    fragment::FragmentKey,
    pin::{Kind, Pin},
};

/// One thing that the maps remember.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remembered {
    /// A flow's backend.
    Pin(Kind, Flow, Pin),
    /// The backend of a fragmented packet.
    Fragment(FragmentKey, u16),
}

impl Remembered {
    /// The backend that is named.
    #[must_use]
    pub const fn backend(&self) -> u16 {
        match self {
            Self::Pin(_, _, pin) => pin.backend,
            Self::Fragment(_, backend) => *backend,
        }
    }
}

/// Takes what a scan finds; [`ControlFlow::Break`] ends the scan.
pub type Visit<'a, T = Remembered> = dyn FnMut(T) -> ControlFlow<()> + 'a;

/// All that the maps remember, be it of flows: pins in the order of [`Kind::ALL`], then fragmented packets. What is
/// there from beginning to end is seen; what comes or goes meanwhile may be, and anything may be seen twice.
pub struct Scan<T = Remembered>(Walk<T>);

type Walk<T> = Box<dyn FnOnce(&mut Visit<'_, T>) -> anyhow::Result<()> + Send>;

impl<T> Scan<T> {
    /// A scan that is done by `walk`.
    pub(super) fn new(
        walk: impl FnOnce(&mut Visit<'_, T>) -> anyhow::Result<()> + Send + 'static,
    ) -> Self {
        Self(Box::new(walk))
    }

    /// Reads the maps, on whatever thread this is called.
    ///
    /// # Errors
    /// Where a map cannot be read, or changes faster than it can be read: then the scan is not complete.
    pub fn walk(self, visit: &mut Visit<'_, T>) -> anyhow::Result<()> {
        (self.0)(visit)
    }
}
