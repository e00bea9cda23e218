//! The daemon, asked for samples.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::rates::Sample;
use crate::api::{
    LimitFilter, Limits, Status,
    client::{Client, ClientError},
};

/// How many sources of a VIP are asked for.
const SOURCES: usize = 50;

/// A daemon, and since when times are counted.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) client: Client,
    origin: Instant,
}

impl Daemon {
    pub(super) fn new(client: Client) -> Self {
        let origin = Instant::now();
        Self { client, origin }
    }

    /// Time on the clock of samples.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Its status; counters are taken to be read in the middle between question and answer.
    pub(super) async fn sample(&self) -> Result<Sample, ClientError> {
        let began = self.now();
        let status = self.client.status().await?;
        let took = self.now().saturating_sub(began);
        Ok(Sample {
            at: began + took / 2,
            time: now_text(),
            status,
        })
    }

    /// The limits and exact top sources, measured for about so long.
    pub(super) async fn limits(&self, time: Duration) -> Result<Limits, ClientError> {
        let seconds = (time + Duration::from_millis(500)).as_secs();
        let filter = LimitFilter {
            vip: None,
            top: Some(SOURCES),
            seconds: Some(seconds.max(1)),
        };
        self.client.limits(&filter).await
    }
}

/// Whether some limit tells sources apart: only then the daemon has more to tell of limits than the status does.
pub(super) fn limits_sources(status: &Status) -> bool {
    let mut limits = status.vips.iter().flat_map(|vip| &vip.limits);
    limits.any(|limit| limit.limit.ends_with("_per_source"))
}

/// Now, in UTC (RFC 3339, seconds).
pub(super) fn now_text() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
