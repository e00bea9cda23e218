//! Why Redis gave no answer, in words that hold nothing of its URL.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::limits::fleet::wire::Nonsense;

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Nothing came in time.
    #[error("no answer within {0:?}; Redis is too slow, or too far for `timeout`")]
    Timeout(Duration),
    /// There is no connection.
    #[error("no connection: {0}")]
    Connection(String),
    /// Redis does not let in whoever the URL names.
    #[error("the user or the password in the URL of `[redis]` is wrong or missing")]
    Authentication,
    /// Redis lets in, but not do what is needed.
    #[error(
        "this user may not run the script; in Redis: `ACL SETUSER <user> +evalsha +eval +get +set +time ~weir:*`"
    )]
    Permission,
    /// A replica, or a Redis that is starting or failing over.
    #[error("Redis cannot write now: {0}")]
    Unready(String),
    /// The Sentinels know no master.
    #[error("the Sentinels give no master: {0}")]
    Sentinel(String),
    /// Redis refused the script, or the script failed.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// What came back is no answer.
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
}

impl Error {
    /// Every class.
    pub const CLASSES: [&str; 8] = [
        "timeout",
        "connection",
        "authentication",
        "permission",
        "unready",
        "sentinel",
        "refused",
        "nonsense",
    ];

    /// Its class: a label of metrics.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Connection(_) => "connection",
            Self::Authentication => "authentication",
            Self::Permission => "permission",
            Self::Unready(_) => "unready",
            Self::Sentinel(_) => "sentinel",
            Self::Refused(_) => "refused",
            Self::Nonsense(_) => "nonsense",
        }
    }
}

impl From<&RedisError> for Error {
    fn from(error: &RedisError) -> Self {
        let text = || {
            let code = error.code().unwrap_or("");
            let detail = error.detail().unwrap_or("");
            format!("{code} {detail}").trim().to_owned()
        };
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                Self::Authentication
            }
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::Permission,
            (
                ErrorKind::Server(
                    ServerErrorKind::ReadOnly
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::TryAgain,
                ),
                _,
            ) => Self::Unready(text()),
            (ErrorKind::Io | ErrorKind::InvalidClientConfig, _) => {
                Self::Connection(error.to_string())
            }
            (
                ErrorKind::MasterNameNotFoundBySentinel
                | ErrorKind::NoValidReplicasFoundBySentinel
                | ErrorKind::EmptySentinelList,
                _,
            ) => Self::Sentinel(error.to_string()),
            (ErrorKind::UnexpectedReturnType | ErrorKind::Parse, _) => {
                Self::Nonsense(Nonsense::Malformed)
            }
            // So long a command is not even read of somebody who has not logged in.
            _ if text().contains("unauthenticated") => Self::Authentication,
            // What the script may not do is told as its own failure.
            _ if [
                "ACL failure",
                "can't run this command",
                "No permissions",
                "can't access",
            ]
            .iter()
            .any(|part| text().contains(part)) =>
            {
                Self::Permission
            }
            _ => Self::Refused(text()),
        }
    }
}
