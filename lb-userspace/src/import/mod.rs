//! `weir import`: other balancers' configurations as a `weir.toml`, and what of them weir does not have.
//!
//! [`ipvsadm`] and [`keepalived`] read; `service` holds what they found against what weir can do; [`write`] makes the
//! file, which weir's own reader must take.

mod ipvsadm;
mod keepalived;
mod report;
mod service;
mod write;

use std::{io, path::Path};

use report::Report;
pub use report::{Kind, Remark};
use service::Service;

use crate::config::{Config, Errors};

/// What an import is to know of the node that no other configuration tells.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The interfaces that packets come by.
    pub interfaces: Vec<String>,
    /// This node's own addresses, from which it sends encapsulated packets.
    pub encap_source: Vec<std::net::IpAddr>,
}

/// What a configuration has become.
#[derive(Clone, Debug)]
pub struct Imported {
    /// A `weir.toml` that weir takes.
    pub config: String,
    /// How many VIPs it has.
    pub vips: usize,
    /// What was left out or is not quite the same, in the order of the lines.
    pub remarks: Vec<Remark>,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file as it was named.
        file: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has no virtual server that weir could serve; why not is said of each line.
    #[error("{file}: no virtual server that weir can serve")]
    Nothing {
        /// The file as it was named.
        file: String,
        /// Why not.
        remarks: Vec<Remark>,
    },
    /// weir does not take what came out.
    #[error("what came out is not a valid configuration:\n{0}")]
    Invalid(#[from] Errors),
}

/// Imports what `ipvsadm -Sn` printed.
///
/// # Errors
/// There is nothing in it that weir can serve.
pub fn ipvsadm(text: &str, file: &str, node: &Node) -> Result<Imported, Error> {
    let mut report = Report::default();
    let services = ipvsadm::read(text, file, &mut report);
    finish(services, node, report, ("ipvsadm", file))
}

/// Imports a keepalived.conf; what it includes is sought relative to `directory`.
///
/// # Errors
/// There is nothing in it that weir can serve.
pub fn keepalived(
    text: &str,
    file: &str,
    directory: &Path,
    node: &Node,
) -> Result<Imported, Error> {
    let mut report = Report::default();
    let (services, interfaces) = keepalived::read(text, file, directory, &mut report);
    let mut node = node.clone();
    if node.interfaces.is_empty() {
        node.interfaces = interfaces;
    }
    finish(services, &node, report, ("keepalived", file))
}

fn finish(
    services: Vec<Service>,
    node: &Node,
    mut report: Report,
    (format, file): (&str, &str),
) -> Result<Imported, Error> {
    let vips = service::fit(services, &mut report);
    if vips.is_empty() {
        return Err(Error::Nothing {
            file: file.to_owned(),
            remarks: report.finish(),
        });
    }
    let config = write::text(&vips, node, (format, file), &mut report);
    Config::parse_offline(&config, "weir.toml")?;
    Ok(Imported {
        config,
        vips: vips.len(),
        remarks: report.finish(),
    })
}
