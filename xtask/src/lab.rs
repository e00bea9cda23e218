//! Hosts made of network namespaces, and the certainty that they are gone afterwards.
//!
//! ```text
//! Lab                one run: a unique id, /run/weir-lab/<id> with logs, a bpffs of its own
//!  ├─ Namespace      a host: `weir-<id>-<name>`; runs commands, processes or closures inside
//!  ├─ Segment        a bridge in a namespace; `plug` wires a host to it by a veth pair
//!  ├─ Observer       an XDP program on the bridge's side of a cable: passes all, counts by source address
//!  ├─ Recorder       an XDP program on a host's side: keeps the frames that arrive, tags included
//!  ├─ Terminal         a shell on a screen that is read, with keys that are pressed
//!  ├─ Topology       client, switch, load balancer and backends, ready to use
//!  ├─ Weir           the daemon under test, as a process
//!  ├─ Bird           a BGP speaker
//!  └─ Prometheus     a server that scrapes it
//! ```
//!
//! Cleaning up happens when [`Lab`] is dropped, on Ctrl-C, SIGTERM and SIGHUP, and, for a run that was
//! killed outright, when the next lab is made anywhere on the machine.

mod bird;
mod bpf_object;
mod cleanup;
mod config;
mod ecmp;
mod exec;
mod forget;
mod frame;
mod id;
mod metrics;
mod namespace;
mod observer;
mod observer_object;
mod process;
mod prometheus;
mod recorder;
mod recorder_object;
mod segment;
mod statistics;
mod terminal;
mod topology;
mod wait;
mod weir;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result};

pub use self::{
    bird::{Bird, example},
    cleanup::{kept, leftovers, remove, sweep},
    config::{Backend, FlowTimes, Protocol, Vip, WeirConfig},
    ecmp::Ecmp,
    forget::forget_pins,
    frame::{FrameSocket, tagged},
    id::LabId,
    metrics::{Labels, Metrics},
    namespace::Namespace,
    observer::Observer,
    process::Process,
    prometheus::{Prometheus, Series},
    recorder::Recorder,
    segment::{Nic, Segment},
    statistics::Statistics,
    terminal::Terminal,
    topology::{Host, Plan, Topology, VIP_V4, VIP_V6},
    wait::{eventually, until},
    weir::{
        AnnounceStatus, BackendStatus, InterfaceStatus, ReasonStatus, SlotsStatus, Status,
        VipStatus, Weir, program_exists,
    },
};

/// One lab: everything made through it disappears with it.
#[derive(Debug)]
pub struct Lab {
    id: LabId,
    keep: bool,
}

impl Lab {
    /// Removes what dead runs left behind, then makes an empty lab.
    pub fn new() -> Result<Self> {
        crate::root::require("the lab")?;
        cleanup::on_signals();
        sweep()?;
        let lab = Self {
            id: LabId::unused()?,
            keep: false,
        };
        lab.mount_bpffs()?;
        Ok(lab)
    }

    /// Returns the id that is part of every name of this lab.
    #[must_use]
    pub fn id(&self) -> &LabId {
        &self.id
    }

    /// Returns the folder for logs, sockets and configs of this lab.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.id.folder()
    }

    /// Returns the mount point of this lab's bpffs.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.id.folder().join("bpf")
    }

    /// Makes a host with its loopback up.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(&self.id, name)
    }

    /// Writes a file into the lab's folder.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Leaves the lab standing when this value and this process end; [`remove`] takes it down.
    pub fn keep(mut self) -> Result<LabId> {
        self.write("keep", "")?;
        self.keep = true;
        Ok(self.id.clone())
    }

    fn mount_bpffs(&self) -> Result<()> {
        let path = self.bpffs();
        exec::gated(|| {
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
            exec::run_ungated(exec::command("mount", ["-t", "bpf", "bpf"]).arg(&path))
        })
        .map(drop)
        .with_context(|| format!("mount a bpffs on {}", path.display()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = remove(&self.id) {
            eprintln!(
                "lab {}: not everything could be removed: {error:#}",
                self.id
            );
        }
    }
}

/// Makes a small lab with a server in it, prints its id, and holds it until the process is ended by a signal.
#[expect(
    clippy::print_stdout,
    reason = "the test that holds the other end reads the id"
)]
pub fn hold() -> Result<()> {
    let lab = Lab::new()?;
    let topology = Topology::build(&lab, &Plan::default())?;
    println!("{} {}", lab.id(), topology.backends.len());
    loop {
        thread::park();
    }
}

/// Returns the folder under which every lab has its own.
fn labs() -> &'static Path {
    Path::new("/run/weir-lab")
}
