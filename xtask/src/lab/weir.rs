//! The daemon under test, as a process inside a host.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Lab, Metrics, config::WeirConfig, exec, namespace::Namespace, process::Process, wait};
use crate::workspace;

/// How long the daemon may take to load, attach, fill its tables and find every backend's MAC address.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);

/// A running `weir run`.
#[derive(Debug)]
pub struct Weir {
    binary: PathBuf,
    host: Namespace,
    node: String,
    config: PathBuf,
    pin_path: PathBuf,
    socket: PathBuf,
    metrics: SocketAddr,
    process: Process,
}

/// What `weir status -o json` tells.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Whether the program is attached and its tables are written.
    pub ready: bool,
    /// Grows with every start, configuration and command.
    pub generation: u64,
    /// Whether a command withdraws all of its VIPs. (Older versions do not tell.)
    #[serde(default)]
    pub drained: bool,
    /// The interfaces it is attached to.
    pub interfaces: Vec<InterfaceStatus>,
    /// The VIPs.
    pub vips: Vec<VipStatus>,
    /// What became of every packet.
    pub reasons: Vec<ReasonStatus>,
    /// What an operator should look at.
    pub problems: Vec<String>,
}

/// An interface of the load balancer.
#[derive(Debug, Clone, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// `attached`, `absent`, `foreign` or `refused`. (Versions that attach only at the start do not tell it.)
    #[serde(default)]
    pub state: String,
    /// `native` or `generic`, where it is attached.
    pub mode: Option<String>,
    /// The kernel's number of the interface, if there is one.
    pub ifindex: Option<u32>,
}

/// A VIP and its counters.
#[derive(Debug, Clone, Deserialize)]
pub struct VipStatus {
    /// How its address is announced, if it is. (Older versions do not tell.)
    #[serde(default)]
    pub announce: Option<AnnounceStatus>,
    /// Its slots by state.
    pub slots: SlotsStatus,
    /// Its name.
    pub name: String,
    /// Frames forwarded.
    pub packets: u64,
    /// New connections.
    pub new_connections: u64,
    /// CRC32 of the lookup table that is wanted.
    pub table_digest: String,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// How a VIP's address is announced.
#[derive(Debug, Clone, Deserialize)]
pub struct AnnounceStatus {
    /// Whether the network is told of it.
    pub announced: bool,
    /// Whether it should be.
    pub wanted: bool,
    /// Why, or why not.
    pub reason: String,
}

/// How many slots of a VIP are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct SlotsStatus {
    /// Forwarded to their owner, nothing remembered.
    pub stable: u32,
    /// About to move, or just moved: every flow is pinned where it is.
    pub holding: u32,
    /// New flows go to the new owner, others are kept where they were.
    pub moving: u32,
    /// Moved, with flows that are still kept elsewhere.
    pub settling: u32,
}

/// A backend of a VIP and its counters.
#[derive(Debug, Clone, Deserialize)]
pub struct BackendStatus {
    /// Its own address.
    pub address: std::net::IpAddr,
    /// The weight that counts. (Versions before commands do not tell it.)
    #[serde(default)]
    pub weight: u32,
    /// Whether a command lets it take no new flows.
    #[serde(default)]
    pub drained: bool,
    /// Slots of the lookup table that name it.
    pub slots: u32,
    /// Whether it passes its checks; `None` where there are none, or nothing is known yet.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// Whether its MAC address is known.
    pub resolved: bool,
    /// Frames forwarded to it.
    pub packets: u64,
}

/// How many packets ended for one reason.
#[derive(Debug, Clone, Deserialize)]
pub struct ReasonStatus {
    /// The reason.
    pub reason: String,
    /// `tx`, `redirect`, `pass`, `drop` or `aborted`.
    pub verdict: String,
    /// How many.
    pub packets: u64,
}

impl Status {
    /// Returns how many frames the XDP program has sent on to backends.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        let sent = self
            .reasons
            .iter()
            .filter(|reason| matches!(reason.verdict.as_str(), "tx" | "redirect"));
        sent.map(|reason| reason.packets).sum()
    }

    /// Returns how many frames of VIPs' flows it has sent on, its own answers left out.
    #[must_use]
    pub fn sent_on(&self) -> u64 {
        const ON: [&str; 3] = ["forwarded", "fragment_orphan", "icmp_error"];
        let on = self
            .reasons
            .iter()
            .filter(|reason| ON.contains(&reason.reason.as_str()));
        on.map(|reason| reason.packets).sum()
    }

    /// Returns the VIP of a name.
    pub fn vip(&self, name: &str) -> Result<&VipStatus> {
        self.vips
            .iter()
            .find(|vip| vip.name == name)
            .with_context(|| format!("weir knows no VIP {name}"))
    }

    fn serves(&self) -> bool {
        self.ready
            && self
                .vips
                .iter()
                .flat_map(|vip| &vip.backends)
                .all(|backend| backend.resolved)
    }
}

impl Weir {
    /// Writes the config and starts the daemon in `host`; returns once every backend can be reached.
    pub fn start(lab: &Lab, host: &Namespace, config: &WeirConfig) -> Result<Self> {
        Self::start_binary(workspace::weir_binary()?, lab, host, config, &[])
    }

    /// The same with another binary, such as one of an older version, and without keys of the config that it does not
    /// know.
    pub fn start_binary(
        binary: PathBuf,
        lab: &Lab,
        host: &Namespace,
        config: &WeirConfig,
        unknown_keys: &[&str],
    ) -> Result<Self> {
        let folder = lab.folder();
        let text: String = config
            .to_toml(&folder)
            .split_inclusive('\n')
            .filter(|line| {
                let key = line.split_whitespace().next();
                !key.is_some_and(|key| unknown_keys.contains(&key))
            })
            .collect();
        let path = lab.write(&format!("{}.toml", config.node), &text)?;
        let process = launch(&binary, host, &config.node, &path, &[])?;
        let mut weir = Self {
            binary,
            host: host.clone(),
            node: config.node.clone(),
            config: path,
            pin_path: config.pin_path(&folder),
            socket: config.socket(&folder),
            metrics: config.metrics,
            process,
        };
        weir.wait_until_serving()?;
        Ok(weir)
    }

    /// Starts the daemon again after its end, with the same config.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with(&[])
    }

    /// The same, with more arguments for `weir run`.
    pub fn restart_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.relaunch(arguments)?;
        self.wait_until_serving()
    }

    /// The same, without waiting for it.
    pub fn relaunch(&mut self, arguments: &[&str]) -> Result<()> {
        self.process = launch(
            &self.binary,
            &self.host,
            &self.node,
            &self.config,
            arguments,
        )?;
        Ok(())
    }

    /// Waits until the daemon answers, which it does once its maps are filled and its program is attached.
    pub fn answers(&mut self) -> Result<()> {
        wait::until("weir to answer", START, || {
            if let Some(status) = self.process.ended()? {
                bail!("weir ended with {status}:\n{}", self.process.log_tail());
            }
            // Until the new daemon listens, the old one's socket refuses.
            let Ok(mut stream) = UnixStream::connect(&self.socket) else {
                return Ok(false);
            };
            stream.set_read_timeout(Some(START))?;
            stream.write_all(
                b"GET /v1/generation HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n",
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.starts_with("HTTP/1.1 200 "))
        })
    }

    /// Starts the daemon again after its end from another binary, as an upgrade does.
    pub fn upgrade(&mut self, binary: PathBuf) -> Result<()> {
        self.binary = binary;
        self.restart()
    }

    /// Returns the binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Writes another config into the file; the daemon reads it when it is told to.
    pub fn rewrite(&self, lab: &Lab, config: &WeirConfig) -> Result<()> {
        let text = config.to_toml(&lab.folder());
        fs::write(&self.config, text).with_context(|| format!("write {}", self.config.display()))
    }

    /// Returns the states of the first VIP's slots.
    pub fn slots(&self) -> Result<SlotsStatus> {
        let status = self.status()?;
        let vip = status.vips.first().context("the daemon has no VIP")?;
        Ok(vip.slots)
    }

    /// Makes the daemon read its config again by SIGHUP; returns once it has.
    pub fn reload(&self) -> Result<()> {
        let before = self.status()?.generation;
        self.process.signal(Signal::HUP)?;
        wait::until("the config to be read again", END, || {
            Ok(self.status()?.generation > before)
        })
    }

    /// Runs a weir command that asks this daemon, and returns what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        self.cli(&[arguments, &["--socket", &socket]].concat())
    }

    /// The same of a daemon that may be degraded.
    pub fn ask_degraded(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.socket.to_string_lossy();
        let output = self.output(&[arguments, &["--socket", &socket]].concat())?;
        if !matches!(output.status.code(), Some(0 | 3)) {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("weir {arguments:?} ended with {}: {said}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Tells what became of packets, for whoever has lost one: the reasons that something was counted under, what was made of pins,
    /// the VIPs' slots, and the end of the daemon's log.
    #[must_use]
    pub fn account(&self) -> String {
        let told = self
            .ask_degraded(&["status", "-o", "json"])
            .and_then(|text| {
                let status: Value = serde_json::from_str(&text)?;
                let list = |name: &str| {
                    let list = status.get(name).and_then(Value::as_array);
                    list.into_iter().flatten()
                };
                let is_counted = |reason: &&Value| reason.get("packets") != Some(&json!(0));
                let reasons: Vec<_> = list("reasons").filter(is_counted).collect();
                let slots: Vec<_> = list("vips")
                    .map(|vip| json!([vip.get("name"), vip.get("slots")]))
                    .collect();
                let pins: Vec<_> = list("pins").collect();
                Ok(json!({ "reasons": reasons, "pins": pins, "slots": slots }))
            });
        let told = told.map_or_else(|error| format!("{error:#}"), |told| told.to_string());
        let log = self.process.log_tail();
        format!("{}: {told}\nits log ends:\n{log}", self.node)
    }

    /// Returns the config file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the socket of the API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Returns the folder of the pins.
    #[must_use]
    pub fn pin_path(&self) -> PathBuf {
        self.pin_path.clone()
    }

    /// Returns the daemon's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns how many flows are remembered.
    pub fn pins(&self) -> Result<u64> {
        let flows: Value =
            serde_json::from_str(&self.ask(&["flows", "--limit", "0", "-o", "json"])?)?;
        let total = flows.get("total").and_then(Value::as_u64);
        total.context("the number of flows")
    }

    /// Returns the folder of the pins in force: that of the daemon's own layout.
    pub fn pins_in_force(&self) -> Result<PathBuf> {
        let entries = fs::read_dir(&self.pin_path).context("read the folder of the pins")?;
        let layouts = entries.flatten().map(|entry| entry.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let digits = name.strip_prefix('v').unwrap_or_default();
            digits.parse::<u32>().is_ok()
        });
        layouts.max().context("nothing is pinned")
    }

    /// Returns the file that the daemon logs to.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Asks the daemon what it does; one that is degraded answers too.
    pub fn status(&self) -> Result<Status> {
        let socket = self.socket.to_string_lossy();
        let output = self.output(&["status", "-o", "json", "--socket", &socket])?;
        if !matches!(output.status.code(), Some(0 | 3)) || output.stdout.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("weir status ended with {}: {said}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("read the status {text}"))
    }

    /// Scrapes the daemon's metrics, as Prometheus does.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::scrape(&self.host, self.metrics)
    }

    /// Sends the daemon a signal that does not end it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends the daemon by SIGTERM and waits for it.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.end_by(Signal::TERM)
    }

    /// Ends the daemon by a signal and waits for it.
    pub fn end_by(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.end_by(signal, END)
    }

    /// Takes the program off the interfaces and removes the pins.
    pub fn detach(&self) -> Result<()> {
        self.cli(&["detach", "--config", &self.config.to_string_lossy()])
            .map(drop)
    }

    /// Runs a weir command inside the host and returns what it printed; an unsuccessful end is an error.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        exec::run(self.host.command(&self.binary).args(arguments))
    }

    /// Returns a weir command to be run inside the host.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&self.binary);
        command.args(arguments);
        command
    }

    /// Runs a weir command inside the host, whatever its end.
    pub fn output(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = self.command(arguments);
        let output = command.stdin(Stdio::null()).output();
        output.with_context(|| format!("run weir {arguments:?}"))
    }

    /// Tells whether an XDP program is attached to an interface of the host, by what the kernel says.
    pub fn xdp_on(&self, nic: &str) -> Result<bool> {
        Ok(self
            .host
            .ip(&format!("-j link show dev {nic}"))?
            .contains("\"xdp\""))
    }

    /// Returns the kernel's number of the XDP program on an interface of the host.
    pub fn program_on(&self, nic: &str) -> Result<u32> {
        let links: Value =
            serde_json::from_str(&self.host.ip(&format!("-j link show dev {nic}"))?)?;
        let id = links.pointer("/0/xdp/prog/id");
        let id = id.and_then(Value::as_u64);
        let id = id.with_context(|| format!("no XDP program is on {nic}: {links}"))?;
        Ok(u32::try_from(id)?)
    }

    fn wait_until_serving(&mut self) -> Result<()> {
        let mut last = String::from("it never answered");
        let waited = wait::until("weir to be ready with all backends resolved", START, || {
            if let Some(status) = self.process.ended()? {
                bail!("weir ended with {status}");
            }
            match self.status() {
                Ok(status) if status.serves() => Ok(true),
                Ok(status) => {
                    last = format!("{status:?}");
                    Ok(false)
                }
                Err(error) => {
                    last = format!("{error:#}");
                    Ok(false)
                }
            }
        });
        waited.with_context(|| {
            format!(
                "last status: {last}\nits log ends:\n{}\n",
                self.process.log_tail()
            )
        })
    }
}

/// Tells whether the kernel has a BPF program of this number.
pub fn program_exists(id: u32) -> Result<bool> {
    for program in aya::programs::loaded_programs() {
        match program {
            Ok(program) if program.id() == id => return Ok(true),
            // One that went between its number and its opening is nobody's answer.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

fn launch(
    binary: &Path,
    host: &Namespace,
    node: &str,
    config: &Path,
    arguments: &[&str],
) -> Result<Process> {
    let mut command: Command = host.command(binary);
    command
        .args(["run", "--config"])
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null());
    Process::start(host, node, &mut command)
}
