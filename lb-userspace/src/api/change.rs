//! Changes that are asked for, and what becomes of them.

use std::{fmt, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::NewBlock;
use crate::{
    config::{Config, Errors, Finding},
    model::blocks::BlockName,
};

/// A change, who asks for it, and what they had seen.
#[derive(Debug)]
pub struct Request {
    /// The state that it is based on.
    pub base: Base,
    /// Who asks, for logs and events.
    pub by: Actor,
    /// What is asked for.
    pub change: Change,
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Actor {
    /// SIGHUP.
    Hangup,
    /// A user, through the API.
    User {
        /// Number of the user.
        uid: u32,
        /// Number of the process, where it is known.
        pid: Option<i32>,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hangup => f.write_str("SIGHUP"),
            Self::User { uid, pid: None } => write!(f, "uid {uid}"),
            Self::User {
                uid,
                pid: Some(pid),
            } => write!(f, "uid {uid}, pid {pid}"),
        }
    }
}

/// The state that a change is based on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Base {
    /// Whatever there is.
    Any,
    /// The state of a generation and no other.
    Generation(u64),
}

/// What is asked for.
#[derive(Debug)]
pub enum Change {
    /// Take another configuration.
    Apply(Box<Apply>),
    /// Let a backend take no new flows (`true`), or let it again.
    Drain(Target, bool),
    /// Withdraw every address of this node (`true`), or announce again.
    DrainNode(bool),
    /// Announce the address of the VIP of this name (`true`), or let nobody find it here.
    Announce(String, bool),
    /// Block a prefix.
    Block(NewBlock),
    /// Let a prefix send again.
    Unblock(BlockName),
    /// Give a backend of a VIP a weight; `None`: the configuration's again.
    Weight(String, IpAddr, Option<u16>),
}

/// A configuration that was read and found valid on this host.
#[derive(Debug)]
pub struct Apply {
    /// The configuration.
    pub config: Config,
    /// Its text, for the places of what is refused.
    pub text: String,
    /// The file that the text is from.
    pub file: PathBuf,
    /// Whether every flow may move to another backend, as with a new seed.
    pub force: bool,
    /// The share of any VIP's slots, in percent, that may move.
    pub max_move_percent: Option<f64>,
}

/// Which backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// The backend of one VIP, by the VIP's name.
    OfVip(String, IpAddr),
    /// The backend of every VIP that has it.
    OfAll(IpAddr),
}

/// `PUT /v1/config`: a configuration to be taken.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewConfig {
    /// The file that it is from, absolute: for messages, and where relative paths in it begin.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Whether every flow may move to another backend, as with a new seed.
    #[serde(default)]
    pub force: bool,
    /// The share of any VIP's slots, in percent, that may move; a VIP that goes counts as all of its slots.
    #[serde(default)]
    pub max_move_percent: Option<f64>,
}

/// `PUT …/weight`: a weight to be set.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWeight {
    /// Share of new flows against the VIP's other backends, 0 to 65,535.
    pub weight: u16,
}

/// `GET /v1/generation`: what a change is based on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Generation {
    /// Grows with every start, configuration and command.
    pub generation: u64,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Changed {
    /// Whether anything changed: not if all was so already.
    pub changed: bool,
    /// The generation from then on.
    pub generation: u64,
}

/// Why a change was refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It was based on a state that is no more.
    #[error(
        "the change is based on generation {base}, and the daemon is at {now}: somebody else has changed \
         something; look again (`weir status`) and repeat it"
    )]
    Stale {
        /// What it was based on.
        base: u64,
        /// What there is.
        now: u64,
    },
    /// It is not put as it should be.
    #[error("{0}")]
    Malformed(String),
    /// It names something that is not there.
    #[error("{0}")]
    Unknown(String),
    /// The configuration cannot be used.
    #[error("{0}")]
    Invalid(#[from] Errors),
    /// It moves more than was allowed.
    #[error("{0}")]
    TooMuch(String),
    /// It was tried, and could not be done.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// What is wrong with a configuration, place by place.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Invalid(errors) => errors.findings(),
            Self::Stale { .. }
            | Self::Malformed(_)
            | Self::Unknown(_)
            | Self::TooMuch(_)
            | Self::Failed(_) => &[],
        }
    }
}
