//! Since when backends take no new flows: what `drain_timeout` counts from, and what must outlive the daemon.

use lb_common::slot::SLOTS;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

/// Since when backends take no new flows, by id: those that are drained, and those that are leaving. 256 KiB.
///
/// The kernel keeps it beside the lookup tables, and in the clock of the pins, so that it lives as long as the backends' entries do.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Leaving {
    /// Whole seconds of the monotonic clock, rounded up; 0 where a backend takes new flows, or nobody knows. One for
    /// each value of a 16-bit id, which are as many as a VIP has slots.
    pub since_s: [u32; SLOTS],
}

impl Leaving {
    /// A note of these times; a time of 0 is noted as the first second.
    #[must_use]
    pub fn new(times: impl IntoIterator<Item = (u16, u32)>) -> Box<Self> {
        let mut leaving = nobody();
        for (id, since_s) in times {
            if let Some(noted) = leaving.since_s.get_mut(usize::from(id)) {
                *noted = since_s.max(1);
            }
        }
        leaving
    }

    /// The times that are noted, by id.
    pub fn times(&self) -> impl Iterator<Item = (u16, u32)> {
        // By reference: 256 KiB do not belong on the stack.
        let noted = (0..=u16::MAX).zip(self.since_s.iter().copied());
        noted.filter(|(_, since_s)| *since_s != 0)
    }
}

/// A note of no times.
fn nobody() -> Box<Leaving> {
    #[expect(clippy::expect_used, reason = "as any allocation that fails")]
    Leaving::new_box_zeroed().expect("256 KiB for the times of backends")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_nothing_else() {
        let leaving = Leaving::new([(7, 100), (65_533, 0), (1, u32::MAX)]);
        let times: Vec<_> = leaving.times().collect();
        assert_eq!(times, [(1, u32::MAX), (7, 100), (65_533, 1)]);
        assert_eq!(Leaving::new([]).times().count(), 0);
    }
}
