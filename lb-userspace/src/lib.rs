//! weir's daemon and CLI: what is wanted ([`config`]) → the model of it ([`model`]) → the data plane
//! ([`dataplane`]). Imports go one way only, from the right to the left of that line.

#![deny(unsafe_code)]

pub mod agreement;
pub mod announce;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod dsr;
pub mod health;
mod http;
pub mod import;
mod interfaces;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod limits;
pub mod lists;
pub mod logging;
pub mod metrics;
pub mod model;
pub mod neighbours;
pub mod observe;
mod profile;
mod reconciler;
mod service_manager;
mod state;
pub mod trace;

/// The commit that this was built from; "unknown" outside of a checkout.
pub const COMMIT: &str = env!("WEIR_COMMIT");
