//! What several of the measurements need.

#![forbid(unsafe_code)]

pub mod sets;
