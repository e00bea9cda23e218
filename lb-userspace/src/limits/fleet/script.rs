//! The script that Redis runs.

/// Its text. It needs Redis 6 or newer, and the right to run `GET`, `SET` and `TIME` under `weir:*`.
pub const TEXT: &str = include_str!("script.lua");
