//! The client of the soak, and what it has told so far.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{
    lab::{Process, Topology, VIP_V4, eventually, until},
    traffic::lasting::event::{Broken, Event, Refused, Tally},
    workspace,
};

/// How long all connections may take to open, to talk twice, or to close.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running client.
#[derive(Debug)]
pub(crate) struct Traffic {
    process: Process,
    log: BufReader<File>,
    line: String,
    connections: u32,
    pub(crate) tally: Tally,
    pub(crate) broken: Vec<Broken>,
    pub(crate) refused: Vec<Refused>,
}

impl Traffic {
    /// Starts the client; returns once all connections are open.
    pub(crate) fn start(topology: &Topology, connections: u32, passing: u32) -> Result<Self> {
        Self::start_to(topology, VIP_V4, connections, passing)
    }

    /// The same, with connections to another VIP.
    pub(crate) fn start_to(
        topology: &Topology,
        vip: IpAddr,
        connections: u32,
        passing: u32,
    ) -> Result<Self> {
        let client = &topology.client.namespace;
        let mut command = client.command(workspace::xtask_binary()?);
        let target = Topology::lasting(vip).to_string();
        let count = connections.to_string();
        let passing = passing.to_string();
        command.args(["lab-connect", &target, "--connections", &count]);
        command.args(["--passing", &passing]);
        // Each client a log of its own: what another one told is not this one's.
        let name = format!("connect-{}", fastrand::u64(..));
        let process = Process::start(client, &name, &mut command)?;
        let log = File::open(process.log()).context("open the client's log")?;
        let mut traffic = Self {
            process,
            log: BufReader::new(log),
            line: String::new(),
            connections,
            tally: Tally::default(),
            broken: Vec::new(),
            refused: Vec::new(),
        };
        traffic.wait_for("all connections to be open", |traffic| {
            traffic.tally.open == connections
        })?;
        Ok(traffic)
    }

    /// Waits until every connection has, on average, spoken twice from now.
    pub(crate) fn wait_for_a_round(&mut self) -> Result<()> {
        let wanted = self.tally.messages + 2 * u64::from(self.connections);
        self.wait_for("every connection to speak twice", |traffic| {
            traffic.tally.messages >= wanted
        })
    }

    fn wait_for(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        until(what, PATIENCE, || {
            self.read()?;
            Ok(is_so(self))
        })
        .with_context(|| {
            format!(
                "{:?}; {:?}; {:?}",
                self.tally,
                self.broken.first(),
                self.refused.first()
            )
        })
    }

    /// Reads what the client has told since.
    pub(crate) fn read(&mut self) -> Result<()> {
        while self.log.read_line(&mut self.line)? > 0 {
            if !self.line.ends_with('\n') {
                break;
            }
            let event = serde_json::from_str(&self.line)
                .with_context(|| format!("read the client's {:?}", self.line))?;
            self.line.clear();
            match event {
                Event::Tally(tally) => self.tally = tally,
                Event::Broken(broken) => self.broken.push(broken),
                Event::Refused(refused) => self.refused.push(refused),
            }
        }
        Ok(())
    }

    /// Lets every connection speak once more, and ends.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.wait_for_a_round()?;
        let status = self.process.end_by(Signal::TERM, PATIENCE)?;
        anyhow::ensure!(
            status.success(),
            "the client ended with {status}: {}",
            self.process.log_tail()
        );
        eventually("the client's last words", PATIENCE, || self.read())
    }
}
