//! The hot path before and after, in one run: the daemons of two versions, side by side on one host, and a measurement
//! that takes the programs from the links that they pin.
//!
//! The older daemon makes its own maps, so nothing here needs to know their layout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::serving;
use crate::{
    lab::{Lab, Namespace, Segment, Weir},
    progress::{run_visibly, step},
    workspace,
};

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
            let (weir, _) =
                serving::start(&lab, &host, &segment, (name, number), binary, &unknown_keys)?;
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
