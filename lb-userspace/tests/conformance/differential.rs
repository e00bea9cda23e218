//! Program against host: the same frames through both, and whatever must hold of any frame.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use lb_common::{
    flow::Flow,
    pin::{Kind, Pin, Stamp},
    reason::Verdict,
};
use lb_userspace::dataplane::{DataPlane, ReasonCount, Remembered, bpf::Action, memory::Memory};

use super::{
    case::hex,
    planes::{World, on_host},
};

/// So many packets meet one world: flows and fragments are pinned, and what the kernel's LRU maps forget the host
/// remembers.
const PER_WORLD: u64 = 100_000;

/// Runs frames through both, and compares.
pub(crate) struct Differential {
    world: World,
    in_world: u64,
    /// Frames by the name of their reason.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
}

impl Differential {
    pub(crate) fn new() -> Self {
        Self {
            world: World::new(),
            in_world: 0,
            reasons: BTreeMap::new(),
        }
    }

    /// Judges a frame: the same verdict and bytes of both, and the bytes untouched where they must be.
    pub(crate) fn push(&mut self, frame: &[u8]) {
        if self.in_world == PER_WORLD {
            self.finish();
            self.world = World::new();
            self.in_world = 0;
        }
        self.in_world += 1;
        let (outcome, host) = self.world.on_host(frame);
        *self.reasons.entry(outcome.reason.as_str()).or_default() += 1;
        if matches!(outcome.verdict(), Verdict::Pass | Verdict::Drop) {
            assert!(host.packet == frame, "changed: {}", hex(frame));
        }
        let Some(kernel) = self.world.in_kernel(frame) else {
            return;
        };
        assert!(kernel.action != Action::Aborted, "aborted: {}", hex(frame));
        assert!(
            kernel == host,
            "{}\n  in     {}\n  kernel {:?} {}\n  host   {:?} {}",
            outcome.reason.as_str(),
            hex(frame),
            kernel.action,
            hex(&kernel.packet),
            host.action,
            hex(&host.packet),
        );
    }

    /// Whether the real program takes part.
    pub(crate) fn has_kernel(&self) -> bool {
        self.world.kernel.is_some()
    }

    /// Judges a frame that may be shorter than the kernel takes.
    pub(crate) fn push_prefix(&mut self, frame: &[u8]) {
        if frame.len() < 14 {
            // Not counted: the world's two sides would differ.
            let world = Memory::default();
            assert!(on_host(&world, frame).1.packet == frame);
        } else {
            self.push(frame);
        }
    }

    /// Everything that was pushed has been counted: each frame once, under the reason that the host gave.
    pub(crate) fn finish(&self) {
        let Some(kernel_plane) = &self.world.kernel else {
            return;
        };
        let nonzero = |counts: Vec<ReasonCount>| -> Vec<ReasonCount> {
            counts
                .into_iter()
                .filter(|count| count.packets > 0)
                .collect()
        };
        let (kernel, host) = (
            nonzero(kernel_plane.reason_counters().unwrap()),
            nonzero(self.world.host.reason_counters().unwrap()),
        );
        assert_eq!(kernel, host, "counters of kernel and host");
        assert!(
            pins(kernel_plane) == pins(&self.world.host),
            "pins of kernel and host"
        );
    }
}

/// Everything that is pinned, but for the time, which only the kernel's clock tells.
fn pins(plane: &dyn DataPlane) -> HashMap<(Kind, Flow), Pin> {
    let mut pins = HashMap::new();
    let mut visit = |remembered| {
        if let Remembered::Pin(kind, flow, pin) = remembered {
            pins.insert(
                (kind, flow),
                Pin {
                    stamp: Stamp::default(),
                    ..pin
                },
            );
        }
        ControlFlow::Continue(())
    };
    plane.scan().unwrap().walk(&mut visit).unwrap();
    pins
}
