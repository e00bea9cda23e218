//! What the data plane should hold, as pure functions: no I/O, no clock, no global state.
