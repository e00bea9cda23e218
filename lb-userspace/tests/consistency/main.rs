//! The invariant of connection consistency: over any sequence of changes a connection breaks only if its own backend
//! died. Searched exhaustively over one slot ([`search`]).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod search;
mod world;
