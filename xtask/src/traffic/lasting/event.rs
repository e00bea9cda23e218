//! What the client tells, one JSON object a line.

use serde::{Deserialize, Serialize};

/// Something that the client saw.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// How things stand; told every second, and last of all.
    Tally(Tally),
    /// A connection broke that had been open.
    Broken(Broken),
    /// A new connection did not come about.
    Refused(Refused),
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Tally {
    /// Long-lived connections that are open.
    pub open: u32,
    /// Lines echoed as they should be.
    pub messages: u64,
    /// Other connections that began, lived for a few seconds, and ended well.
    pub passed: u64,
}

/// The end that no connection should have.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Broken {
    /// Who served it.
    pub backend: String,
    /// The client's port.
    pub port: u16,
    /// How long ago it was begun, in milliseconds.
    pub age_ms: u64,
    /// When it ended, in milliseconds of the monotonic clock.
    pub at_ms: u64,
    /// What happened.
    pub why: String,
}

/// A connection that did not come about.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Refused {
    /// Why.
    pub why: String,
    /// How long ago it was begun, in milliseconds.
    pub took_ms: u64,
    /// When it was given up, in milliseconds of the monotonic clock.
    pub at_ms: u64,
}
