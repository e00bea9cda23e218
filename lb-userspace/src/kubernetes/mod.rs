//! Services of type `LoadBalancer` (docs/kubernetes.md): what the cluster's objects say becomes VIPs beside those of the
//! file, and one node of all writes what the cluster should know.
//!
//! `objects` holds what was read; `model` makes of it, without I/O or a clock, what is served and what is written:
//! `endpoints` has kube-proxy's rules, `pools` says who gets which address, `served` makes VIPs. `source` watches,
//! `lease` says who writes, `writer` writes, `owners` says which node announces which address, and `members` who is there; `task` keeps all of it
//! going, `kept` is for restarts.

pub mod endpoints;
mod kept;
mod lease;
mod members;
pub mod model;
pub mod objects;
pub mod owners;
pub mod pools;
pub mod served;
mod source;
mod task;
pub mod told;
pub mod vip_pool;
mod writer;

pub use lease::{Election, Observed, Step};
pub use task::{Start, run};

use sha2::{Digest as _, Sha256};

/// What weir's annotations begin with.
pub const PREFIX: &str = "weir.dev/";

/// The name under which weir writes, as `managedFields` tells it.
pub const WRITER: &str = "weir";

/// A short name for a text, the same on every node.
fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let start = digest.iter().take(6);
    let number = start.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:012x}")
}

/// What the API server said, or why it said nothing.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("HTTP {}", status.code),
        kube::Error::Api(status) => status.message.clone(),
        other => {
            // The causes tell what the outermost does not: which host, and why.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(error) = source {
                let said = error.to_string();
                if !text.contains(&said) {
                    text = format!("{text}: {said}");
                }
                source = error.source();
            }
            text
        }
    }
}
