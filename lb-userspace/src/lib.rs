//! weir's daemon and CLI: what is wanted ([`config`]) → the model of it ([`model`]) → the data plane
//! ([`dataplane`]). Imports go one way only, from the right to the left of that line.

pub mod config;
pub mod dataplane;
pub mod model;
pub mod neighbours;
