//! The hot path before and after, in one run: the daemons of two versions, side by side on one host, and a measurement
//! that takes the programs from the links that they pin.
//!
//! The older daemon makes its own maps, so nothing here needs to know their layout.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Backend, Lab, Namespace, Protocol, Segment, VIP_V4, VIP_V6, Vip, Weir, WeirConfig},
    progress::{run_visibly, step},
    workspace,
};

/// Port of the VIPs that are measured with backends reached by `l2`, in benches/src/cases.rs.
const PORT: u16 = 443;
/// Backends of each VIP, as there.
const BACKENDS: u8 = 16;
/// Number of the first backend in its segment; the host's is 1.
const FIRST: u8 = 11;
/// The cases that older versions know: no tunnels, no tags.
const CASES: [&str; 6] = [
    "floor: parse and swap",
    "l2, v4 TCP, 1 flow",
    "l2, v4 TCP, 64k",
    "l2, v4 UDP",
    "l2, v6 TCP",
    "not a VIP",
];

/// Keys that the lab writes into the config and older versions do not know, each with what declares it in
/// lb-userspace/src/config/mod.rs.
const NEWER_KEYS: [(&str, &str); 1] = [("state_file", "pub state_file:")];

/// The binaries that are compared, and the one that measures.
pub(super) struct Binaries {
    commit: String,
    source: PathBuf,
}

impl Binaries {
    /// Finds out which commit is meant.
    pub(super) fn of(commit: &str) -> Result<Self> {
        let output = git()
            .args(["rev-parse", "--verify", &format!("{commit}^{{commit}}")])
            .output()
            .context("start git")?;
        ensure!(output.status.success(), "git knows no commit {commit}");
        let commit = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Self {
            source: workspace::root().join("target/before").join(&commit),
            commit,
        })
    }

    /// Unpacks the older source, and builds both.
    pub(super) fn build(&self) -> Result<()> {
        step(&format!("unpack {}", self.commit), || self.unpack())?;
        step("build the weir of that commit", || {
            let linker = workspace::tools().join("bin/bpf-linker");
            run_visibly(
                workspace::cargo()
                    .current_dir(&self.source)
                    .env("WEIR_BPF_LINKER", linker)
                    .env("CARGO_TARGET_DIR", self.source.join("target"))
                    .args(["build", "--release", "-p", "lb-userspace"]),
            )
        })?;
        step("build this weir, and what measures", || {
            run_visibly(workspace::cargo().args([
                "build",
                "--release",
                "-p",
                "lb-userspace",
                "-p",
                "weir-benches",
            ]))
        })
    }

    /// Returns the keys of the lab's config that the older version does not know.
    fn unknown_keys(&self) -> Result<Vec<&'static str>> {
        let path = self.source.join("lb-userspace/src/config/mod.rs");
        let config =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let unknown = NEWER_KEYS
            .iter()
            .filter(|(_, declared)| !config.contains(declared));
        Ok(unknown.map(|(key, _)| *key).collect())
    }

    fn unpack(&self) -> Result<()> {
        if self.source.join("Cargo.toml").is_file() {
            return Ok(());
        }
        fs::create_dir_all(&self.source)
            .with_context(|| format!("create {}", self.source.display()))?;
        let mut archive = git()
            .args(["archive", &self.commit])
            .stdout(Stdio::piped())
            .spawn()
            .context("start git")?;
        let packed = archive.stdout.take().context("git's output")?;
        let unpacked = Command::new("tar")
            .args(["-x", "-C"])
            .arg(&self.source)
            .stdin(packed)
            .status()
            .context("start tar")?;
        ensure!(
            unpacked.success() && archive.wait()?.success(),
            "commit {} could not be unpacked",
            self.commit
        );
        Ok(())
    }
}

/// Both daemons, running.
pub(super) struct Daemons {
    // Fields are dropped in order: the lab, which kills what still runs, comes last.
    running: Vec<(&'static str, Weir)>,
    host: Namespace,
    _lab: Lab,
}

impl Daemons {
    /// Starts both on one host, each on an interface of its own.
    pub(super) fn start(binaries: &Binaries) -> Result<Self> {
        let lab = Lab::new()?;
        let (host, switch) = (lab.namespace("host")?, lab.namespace("switch")?);
        let built = |source: &Path| source.join("target/release/weir");
        let versions = [
            ("before", built(&binaries.source), binaries.unknown_keys()?),
            ("after", built(&workspace::root()), Vec::new()),
        ];
        let mut running = Vec::new();
        for ((name, binary, unknown_keys), number) in versions.into_iter().zip(1..) {
            let segment = Segment::create(&switch, name)?;
            segment.plug(&host, name, &addresses(number))?;
            let config = config(name, number);
            for vip in &config.vips {
                for backend in &vip.backends {
                    // Nobody is there: the programs only run, and send nothing.
                    host.ip(&format!(
                        "neighbour replace {} lladdr 02:00:00:00:01:01 dev {name} nud permanent",
                        backend.address
                    ))?;
                }
            }
            let weir = step(&format!("start the weir of {name}"), || {
                Weir::start_binary(binary, &lab, &host, &config, &unknown_keys)
            })?;
            running.push((name, weir));
        }
        Ok(Self {
            running,
            host,
            _lab: lab,
        })
    }

    /// Returns the command that measures, inside the host, with arguments of the person's own.
    pub(super) fn command(&self, arguments: &[String]) -> Result<Command> {
        let mut command = self
            .host
            .command(workspace::root().join("target/release/weir-bench"));
        for (name, weir) in &self.running {
            let link = weir.pins_in_force()?.join("links").join(name);
            command
                .arg("--link")
                .arg(format!("{name}={}@{name}", link.display()));
        }
        for case in CASES {
            command.args(["--only", case]);
        }
        command.args(arguments);
        Ok(command)
    }
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root());
    git
}

fn v4(segment: u8, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, segment, number)
}

fn v6(segment: u8, number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd78, 0, 0, segment.into(), 0, 0, 0, number.into())
}

fn addresses(segment: u8) -> [String; 2] {
    [
        format!("{}/24", v4(segment, 1)),
        format!("{}/64", v6(segment, 1)),
    ]
}

/// The VIPs of the measured packets, with backends in a segment.
fn config(name: &str, segment: u8) -> WeirConfig {
    let families = [("v4", VIP_V4), ("v6", VIP_V6)];
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let vips = families.into_iter().flat_map(|(family, address)| {
        protocols.map(|(word, protocol)| Vip {
            name: format!("{word}-{family}"),
            address,
            port: PORT,
            protocol,
            flows: None,
            checked: None,
            backends: (FIRST..FIRST + BACKENDS)
                .map(|number| Backend {
                    address: match address {
                        IpAddr::V4(_) => v4(segment, number).into(),
                        IpAddr::V6(_) => v6(segment, number).into(),
                    },
                    weight: 100,
                })
                .collect(),
        })
    });
    WeirConfig {
        node: name.to_owned(),
        interfaces: vec![name.to_owned()],
        metrics: (Ipv4Addr::LOCALHOST, 9406 + u16::from(segment)).into(),
        on_exit: "keep",
        forward: "l2",
        encap_source: Vec::new(),
        announced: None,
        vips: vips.collect(),
    }
}
