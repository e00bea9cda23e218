//! The configuration's access lists on their way to the maps: a thread that writes them ([`writer`]), and a task that
//! sees when their files change ([`watch`]).

pub mod watch;
pub mod writer;
