//! Random changes of a VIP's backends.

use std::fmt;

/// How many backends there are, in the config or not.
pub(super) const BACKENDS: usize = 8;
/// So many serve at any time.
const LEAST: usize = 2;
const WEIGHTS: [u32; 4] = [50, 100, 150, 300];

/// One change; a backend is told by its index.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// It comes into the config, with a weight.
    Add(usize, u32),
    /// It is taken out of the config.
    Remove(usize),
    /// It gets another weight in the config.
    Reweight(usize, u32),
    /// `weir drain`
    Drain(usize),
    /// `weir undrain`
    Undrain(usize),
    /// Its health checks fail for a while, and its server lives on.
    Flap(usize),
    /// The same config is read again.
    Reload,
    /// The daemon is killed and started again.
    Restart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(index, weight) => write!(f, "add backend-{}, weight {weight}", index + 1),
            Self::Remove(index) => write!(f, "remove backend-{}", index + 1),
            Self::Reweight(index, weight) => write!(f, "weight {weight} for backend-{}", index + 1),
            Self::Drain(index) => write!(f, "drain backend-{}", index + 1),
            Self::Undrain(index) => write!(f, "undrain backend-{}", index + 1),
            Self::Flap(index) => write!(f, "flap backend-{}", index + 1),
            Self::Reload => f.write_str("reload"),
            Self::Restart => f.write_str("kill -9 and restart"),
        }
    }
}

/// One backend, as it is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Its weight in the config, if it is there.
    pub(super) weight: Option<u32>,
    /// Whether a command has drained it.
    pub(super) is_drained: bool,
}

/// All backends, as they are to be.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    pub(super) all: [Wanted; BACKENDS],
}

impl Backends {
    /// Six in the config; the others are to come.
    pub(super) fn new() -> Self {
        let mut all = [Wanted {
            weight: Some(100),
            is_drained: false,
        }; BACKENDS];
        for backend in all.iter_mut().skip(6) {
            backend.weight = None;
        }
        Self { all }
    }

    /// Draws changes until one is possible.
    pub(super) fn any_change(&self, random: &mut fastrand::Rng) -> Change {
        loop {
            let index = random.usize(..BACKENDS);
            let weight = *random.choice(&WEIGHTS).unwrap_or(&100);
            let change = match random.u32(..24) {
                0 => Change::Restart,
                1..3 => Change::Reload,
                3..7 => Change::Add(index, weight),
                7..11 => Change::Remove(index),
                11..14 => Change::Reweight(index, weight),
                14..18 => Change::Drain(index),
                18..20 => Change::Flap(index),
                _ => Change::Undrain(index),
            };
            if self.allows(change) {
                return change;
            }
        }
    }

    /// Draws a backend that may flap; none, where too few serve.
    pub(super) fn any_flap(&self, random: &mut fastrand::Rng) -> Option<Change> {
        let flaps = (0..BACKENDS).map(Change::Flap);
        let flaps: Vec<_> = flaps.filter(|flap| self.allows(*flap)).collect();
        random.choice(flaps)
    }

    /// The backends in the config; the others can do without any one of them.
    pub(super) fn configured(&self) -> Vec<usize> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, backend)| backend.weight.is_some())
            .map(|(index, _)| index)
            .collect()
    }

    /// The backends that take new flows.
    pub(super) fn serving(&self) -> Vec<usize> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, backend)| backend.serves())
            .map(|(index, _)| index)
            .collect()
    }

    fn allows(&self, change: Change) -> bool {
        let has =
            |index: usize, wanted: fn(&Wanted) -> bool| self.all.get(index).is_some_and(wanted);
        let is_change = match change {
            Change::Add(index, _) => has(index, |backend| backend.weight.is_none()),
            Change::Remove(index) | Change::Reweight(index, _) => {
                has(index, |backend| backend.weight.is_some())
            }
            Change::Drain(index) | Change::Flap(index) => has(index, Wanted::serves),
            Change::Undrain(index) => has(index, |b| b.weight.is_some() && b.is_drained),
            Change::Reload | Change::Restart => true,
        };
        let mut after = self.clone();
        after.make(match change {
            Change::Flap(index) => Change::Drain(index),
            change => change,
        });
        is_change && after.all.iter().filter(|backend| backend.serves()).count() >= LEAST
    }

    /// Does a change.
    pub(super) fn make(&mut self, change: Change) {
        match change {
            Change::Add(index, weight) | Change::Reweight(index, weight) => {
                self.alter(index, |backend| backend.weight = Some(weight));
            }
            Change::Remove(index) => self.alter(index, |backend| backend.weight = None),
            Change::Drain(index) => self.alter(index, |backend| backend.is_drained = true),
            Change::Undrain(index) => self.alter(index, |backend| backend.is_drained = false),
            Change::Flap(_) | Change::Reload | Change::Restart => {}
        }
    }

    fn alter(&mut self, index: usize, change: impl FnOnce(&mut Wanted)) {
        if let Some(backend) = self.all.get_mut(index) {
            change(backend);
        }
    }
}

impl Wanted {
    fn serves(&self) -> bool {
        self.weight.is_some() && !self.is_drained
    }
}
