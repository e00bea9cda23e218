//! Prefixes that are blocked by command: what is asked for, and `GET /v1/blocks`. Field names are stable: scripts read them.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Prefix},
    model::blocks::{Block, BlockName, Blocks},
};

/// Longest time that a block can be for: ten years.
const LONGEST: Duration = Duration::from_hours(24 * 3653);

/// Longest reason, in characters.
const LONGEST_REASON: usize = 200;

/// `PUT /v1/blocks`: whom to block.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBlock {
    /// Whose packets: an address or a prefix.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Name of the VIP that they may not reach; none: all VIPs.
    #[serde(default)]
    pub vip: Option<String>,
    /// For how long, in seconds; none: until it is undone.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Why, for whoever reads the list later.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `DELETE /v1/blocks`: which block is to go.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OldBlock {
    /// The prefix, as it was blocked.
    #[param(value_type = String)]
    pub prefix: Prefix,
    /// Name of the VIP that it was blocked for; none: all VIPs.
    pub vip: Option<String>,
}

impl NewBlock {
    /// How long it is for; the error is for whoever asked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn time(&self) -> Result<Option<Duration>, String> {
        let Some(seconds) = self.seconds else {
            return Ok(None);
        };
        let time = Duration::try_from_secs_f64(seconds).ok();
        let is_fit = |time: &Duration| !time.is_zero() && *time <= LONGEST;
        time.filter(is_fit).map(Some).ok_or_else(|| {
            format!(
                "a block is for more than 0 s and at most ten years, and {seconds} s was asked for"
            )
        })
    }

    /// Why, if it is said in a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn reason(&self) -> Result<Option<String>, String> {
        let Some(reason) = &self.reason else {
            return Ok(None);
        };
        if reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control) {
            return Err(format!(
                "a reason is a line of at most {LONGEST_REASON} characters"
            ));
        }
        Ok(Some(reason.clone()))
    }
}

/// `GET /v1/blocks`: everything that is blocked by command.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct BlockList {
    /// By VIP and prefix; what is blocked for all VIPs comes first.
    pub blocks: Vec<BlockStatus>,
}

/// A prefix that is blocked by command.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, utoipa::ToSchema)]
pub struct BlockStatus {
    /// Whose packets.
    #[schema(value_type = String)]
    pub prefix: Prefix,
    /// Name of the VIP that they may not reach; `null` for all VIPs.
    pub vip: Option<String>,
    /// Since when, in UTC (RFC 3339).
    pub since: String,
    /// Until when, in UTC (RFC 3339); `null` until it is undone.
    pub until: Option<String>,
    /// How long that is from now.
    pub seconds_left: Option<f64>,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
    /// Who did it.
    pub by: String,
    /// Whether there is that VIP: else it blocks nobody.
    pub configured: bool,
}

impl BlockList {
    /// Every block, held against a configuration.
    #[must_use]
    pub fn new(blocks: &Blocks, config: &Config, now: SystemTime) -> Self {
        let status = |(name, block): (&BlockName, &Block)| BlockStatus {
            prefix: name.prefix,
            vip: name.vip.clone(),
            since: time_text(block.since),
            until: block.until.map(time_text),
            seconds_left: block
                .until
                .map(|until| until.duration_since(now).unwrap_or_default().as_secs_f64()),
            reason: block.reason.clone(),
            by: block.by.clone(),
            configured: is_configured(name, config),
        };
        Self {
            blocks: blocks.iter().map(status).collect(),
        }
    }
}

/// Whether a configuration has the VIP of a block.
#[must_use]
pub fn is_configured(name: &BlockName, config: &Config) -> bool {
    let is_there = |vip: &String| config.vips.iter().any(|known| known.name == *vip);
    name.vip.as_ref().is_none_or(is_there)
}

/// A time in UTC (RFC 3339).
pub(crate) fn time_text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
