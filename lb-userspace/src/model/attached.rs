//! XDP programs on interfaces, as the network tells of them and the data plane puts them there.

use serde::{Deserialize, Serialize};

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's generic path.
    Generic,
}

impl AttachMode {
    /// Name in JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// The XDP program on an interface, anybody's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Xdp {
    /// The kernel's number of it.
    pub program: u32,
    /// How it is attached.
    pub mode: AttachMode,
}

/// Somebody else's XDP program, which weir never replaces.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ForeignProgram {
    /// The kernel's number of it: `bpftool prog show id N`.
    pub id: u32,
    /// Its name, where the kernel tells it: that needs `CAP_SYS_ADMIN`.
    pub name: Option<String>,
}

impl std::fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "id {}", self.id)?;
        match &self.name {
            Some(name) => write!(f, ", name {name}"),
            None => Ok(()),
        }
    }
}

/// Why the program is not attached to an interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Somebody else's program is in the way.
    #[error(
        "another XDP program is attached to {interface} ({}), and weir never replaces one: \
         `ip link set dev {interface} xdp off` takes it off, if nobody needs it",
        foreign.as_ref().map_or_else(|| "not known which".to_owned(), ToString::to_string)
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program, where the kernel tells.
        foreign: Option<ForeignProgram>,
    },
    /// The kernel refuses it.
    #[error("{0}")]
    Failed(String),
}
