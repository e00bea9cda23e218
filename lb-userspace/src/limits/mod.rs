//! Rate limits: what the daemon has to do with them beside the maps of the data plane.

pub mod fleet;
