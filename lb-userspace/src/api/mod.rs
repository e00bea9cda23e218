//! The control API: HTTP and JSON over a Unix socket.
//!
//! `docs/api.md` lists the paths. A change answers with [`Changed`], and names the generation that it is based on
//! in `If-Match`; every error is `{"error": "…"}`, with `findings` where a configuration is refused. Peers are held
//! against [`Access`] before anything that they send is read. The server decides nothing else: it passes
//! [`Command`]s to the task that owns the data plane, through a [`Handle`].

mod access;
mod announce;
mod block;
mod change;
pub mod client;
mod event;
mod fleet;
mod flows;
mod handle;
mod health;
mod kubernetes;
mod limits;
mod observe;
mod openapi;
mod plan;
mod profile;
mod request;
mod server;
mod socket;
mod status;

pub use crate::agreement::{
    Agreement, AgreementStatus, By, NodeAgreement, NodeCounts, NodeState, TableOf, VipAgreement,
    VipDifference,
};
pub use crate::dataplane::bpf::Detached;
pub use crate::observe::{CaptureFilter, PacketFilter, PacketSeen, Side};
pub use access::Access;
pub use announce::AnnouncementStatus;
pub(crate) use block::time_text;
pub use block::{BlockList, BlockStatus, NewBlock, OldBlock, is_configured};
pub use change::{
    Actor, Apply, Base, Change, Changed, Generation, NewConfig, NewWeight, Refusal, Request, Target,
};
pub(crate) use event::Events;
pub use event::{Event, What};
pub use fleet::{FailureCount, FleetStatus, ShareStatus};
pub use flows::{
    DEFAULT_LIMIT as DEFAULT_FLOWS, FlowCount, FlowFilter, FlowStatus, Flows, FlowsBasis,
};
pub use handle::{Command, Handle, HandleError};
pub use health::{HealthState, HealthStatus};
pub use kubernetes::{KubernetesStatus, ObjectCount};
pub use limits::{
    DEFAULT_SECONDS, DEFAULT_TOP, LimitFilter, LimitStatus, LimitUse, Limits, LimitsBasis,
    SourceStatus, Sources, Spread, VipBasis, VipLimits,
};
pub use openapi::document;
pub(crate) use plan::within;
pub use plan::{Plan, PlanBasis};
pub use profile::ProfileFilter;
pub use server::serve;
pub use socket::Socket;
pub use status::{
    AccessCount, AccessStatus, AnnounceStatus, AnnouncementCount, AttachMode, BackendStatus,
    ConfigStatus, DropStatus, ForeignProgram, InterfaceState, InterfaceStatus, LeavingStatus,
    ListStatus, MapStatus, ObservedStatus, OverrideStatus, PinsStatus, ProgramStatus, ReasonStatus,
    SlotsStatus, Status, VipStatus,
};
