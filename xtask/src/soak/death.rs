//! Backends that die in a soak: their own connections may break with them, and no others.

use crate::traffic::lasting::event::{Broken, Refused};

/// A backend died, or failed its checks, which is the same to weir.
#[derive(Debug)]
pub(super) struct Death {
    /// The backend's name.
    pub(super) backend: String,
    /// The moment before, in ms of the monotonic clock.
    pub(super) from_ms: u64,
    /// From here on nothing new comes to it, until it is back.
    pub(super) until_ms: u64,
}

impl Death {
    /// Whether a connection was the backend's, began before all knew, and broke after.
    pub(super) fn explains(&self, broken: &Broken) -> bool {
        let began_ms = broken.at_ms.saturating_sub(broken.age_ms);
        broken.backend == self.backend && self.falls_between(began_ms, broken.at_ms)
    }

    /// Whether a connection was to be made just then: nobody knows whose it would have been.
    pub(super) fn excuses(&self, refused: &Refused) -> bool {
        let began_ms = refused.at_ms.saturating_sub(refused.took_ms);
        self.falls_between(began_ms, refused.at_ms)
    }

    const fn falls_between(&self, began_ms: u64, ended_ms: u64) -> bool {
        began_ms <= self.until_ms && self.from_ms <= ended_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_explains_only_what_was_there_before_it() {
        let death = Death {
            backend: "b1".to_owned(),
            from_ms: 1000,
            until_ms: 3000,
        };
        let explains = |backend: &str, began_ms, at_ms| {
            death.explains(&Broken {
                backend: backend.to_owned(),
                port: 1,
                age_ms: at_ms - began_ms,
                at_ms,
                why: String::new(),
            })
        };
        assert!(explains("b1", 10, 2000) && explains("b1", 2999, 9000));
        assert!(!explains("b2", 10, 2000), "another's");
        assert!(!explains("b1", 10, 999), "before it");
        assert!(!explains("b1", 3001, 4000), "of the backend that came back");
        let excuses = |took_ms, at_ms| {
            death.excuses(&Refused {
                why: String::new(),
                took_ms,
                at_ms,
            })
        };
        assert!(excuses(500, 1200) && excuses(9000, 11_000));
        assert!(!excuses(500, 900) && !excuses(500, 4000));
    }
}
