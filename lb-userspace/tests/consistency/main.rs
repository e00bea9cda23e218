//! The invariant of connection consistency: over any sequence of changes a connection breaks only if its own backend
//! died. Searched exhaustively over one slot ([`search`]).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it found"
)]

mod search;
mod world;
