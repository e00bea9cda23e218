//! What a profile of the daemon is asked for by.

use std::time::Duration;

use serde::Deserialize;

/// Where `pprof` and its relatives look for it.
pub(super) const PROFILE: &str = "/debug/pprof/profile";

/// As long as others take if nothing is said.
const DEFAULT_SECONDS: u64 = 30;

/// The longest time, in seconds.
const LONGEST: u64 = 300;

/// How long the daemon is profiled.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ProfileFilter {
    /// For how many seconds samples are taken, 30 unless said, 300 at most.
    pub seconds: Option<u64>,
}

impl ProfileFilter {
    /// How long samples are taken.
    #[must_use]
    pub fn time(self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(DEFAULT_SECONDS).clamp(1, LONGEST))
    }
}
