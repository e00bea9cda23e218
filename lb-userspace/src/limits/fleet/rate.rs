//! Cells per second.

use std::fmt;

/// A rate in whole thousandths of cells per second: shares of a low limit among many nodes are less than one cell.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Rate(u64);

impl Rate {
    /// The largest: Redis computes in doubles, which are exact up to 2^53. Far beyond 100 Gbit/s in bytes.
    pub const MOST: Self = Self(1 << 52);

    /// A rate in whole cells per second; at most [`Self::MOST`].
    #[must_use]
    pub const fn per_second(cells: u64) -> Self {
        Self::from_thousandths(cells.saturating_mul(1000))
    }

    /// A rate in thousandths of cells per second; at most [`Self::MOST`].
    #[must_use]
    pub const fn from_thousandths(thousandths: u64) -> Self {
        if thousandths > Self::MOST.0 {
            Self::MOST
        } else {
            Self(thousandths)
        }
    }

    /// In thousandths of cells per second.
    #[must_use]
    pub const fn thousandths(self) -> u64 {
        self.0
    }

    /// In cells per second, for people and metrics.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "under 2^53")]
        let thousandths = self.0 as f64;
        thousandths / 1000.0
    }

    /// An even part of it for one of several nodes.
    #[must_use]
    pub fn part(self, nodes: u32) -> Self {
        Self(self.0 / u64::from(nodes.max(1)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.as_f64())
    }
}
