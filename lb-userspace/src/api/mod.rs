//! The control API: HTTP and JSON over a Unix socket.
//!
//! - `GET /v1/status`: a [`Status`].
//! - `POST /v1/detach`: takes the program off every interface, removes every pin and ends the daemon;
//!   answers with a [`Detached`].
//!
//! Every error is `{"error": "…"}`. The server decides nothing: it passes [`Command`]s to the task that owns
//! the data plane, through a [`Handle`].

pub mod client;
mod handle;
mod server;
mod socket;
mod status;

pub use crate::dataplane::bpf::Detached;
pub use handle::{Command, Handle, HandleError};
pub use server::serve;
pub use socket::Socket;
pub use status::{AttachMode, BackendStatus, InterfaceStatus, ReasonStatus, Status, VipStatus};
