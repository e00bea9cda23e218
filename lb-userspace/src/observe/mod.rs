//! Packets as they come and as they leave, for whoever watches: `weir capture` and `weir events --packets`.
//!
//! The observing program writes records into a ring ([`lb_common::observe`]). One task looks into the ring many times a
//! second while somebody watches, and hands each record to those whom it is for (`hub`). Nobody is waited for: what a
//! slow reader cannot take is counted, as is what was over a watcher's rate or found the ring full.

mod hub;
mod names;
mod packet;
mod pcapng;
mod wanted;

pub use hub::Subscription;
pub(crate) use hub::{Hub, Reader};
pub(crate) use names::Names;
pub use packet::PacketSeen;
pub(crate) use packet::seen;
pub(crate) use pcapng::Capture;
pub use wanted::{
    CaptureFilter, DEFAULT_RATE, DEFAULT_SECONDS, DEFAULT_SNAPLEN, MAX_RATE, MAX_SECONDS,
    MAX_SNAPLEN, PacketFilter, Side, Wanted, reasons,
};
