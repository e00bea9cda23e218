//! `cargo xtask dist --check`: what was made is used as hosts use it, in roots and namespaces of its own.

mod deb;
mod jail;

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{
    image::{self, unpack},
    only, output, tools,
};
use crate::{
    lab::{Lab, Plan, Topology, VIP_V4},
    progress::step,
    root,
    traffic::client,
};
use jail::{Bounds, Jail};

/// A configuration for the lab with the places that packages have: only VIP and backends are the lab's.
const CONFIG: &str = r#"[node]
interfaces = ["eth0"]
xdp_mode   = "native"
seed       = "check"

[[vip]]
name     = "web"
address  = "VIP"
port     = PORT
protocol = "tcp"
"#;

/// Uses everything.
pub(super) fn run(out: &Path) -> Result<()> {
    root::require("installing and running packages")?;
    tools::debian("capsh", "libcap2-bin")?;
    step("checksums", || {
        output(
            Command::new("sha256sum")
                .args(["--check", "--quiet", "SHA256SUMS"])
                .current_dir(out),
        )
        .map(drop)
    })?;
    step("the static binary on a root without a libc", || bare(out))?;
    step("the image with its capabilities alone", || in_image(out))?;
    step("the Debian package: installed, upgraded, purged", || {
        deb::run(out)
    })
}

/// A root that has the binary and a configuration, and nothing else.
fn bare(out: &Path) -> Result<()> {
    let lab = Lab::new()?;
    let root = lab.folder().join("bare");
    fs::create_dir_all(&root)?;
    output(
        Command::new("tar")
            .args(["--extract", "--gzip", "--strip-components=1", "--file"])
            .arg(only(out, ".tar.gz")?)
            .arg("--directory")
            .arg(&root),
    )?;
    for entry in fs::read_dir(&root)?.flatten() {
        if !matches!(
            entry.file_name().to_str(),
            Some("weir" | "weir.example.toml")
        ) {
            if entry.path().is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
    }
    let run = |arguments: &[&str]| {
        output(
            Command::new("chroot")
                .arg(&root)
                .arg("/weir")
                .args(arguments),
        )
    };
    let version = run(&["--version"])?;
    println!("    {}", version.lines().next().unwrap_or_default());
    let checked = run(&["check", "--offline", "/weir.example.toml"])?;
    println!("    {checked}");
    Ok(())
}

/// The lab that packages are tried in: three backends on a segment.
struct Segment {
    // Dropped in order: the lab comes last.
    topology: Topology,
    lab: Lab,
}

impl Segment {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let plan = Plan {
            near: 3,
            far: 0,
            routed: 0,
        };
        let topology = Topology::build(&lab, &plan)?;
        Ok(Self { topology, lab })
    }

    fn config(&self) -> String {
        let port = Topology::http(VIP_V4).port().to_string();
        let mut text = CONFIG
            .replace("VIP", &VIP_V4.to_string())
            .replace("PORT", &port);
        for backend in &self.topology.backends {
            let address = backend.address(VIP_V4);
            // Writing to a string cannot fail.
            writeln!(text, "[[vip.backend]]\naddress = \"{address}\"").ok();
        }
        text
    }

    /// Who answers so many requests; none may fail.
    fn answering(&self, requests: u32) -> Result<Vec<String>> {
        let options = client::Options::new(Topology::http(VIP_V4), requests);
        let summary = self
            .topology
            .client
            .namespace
            .inside(|| client::fetch(&options))?;
        ensure!(
            summary.failed == 0,
            "{} requests failed: {:?}",
            summary.failed,
            summary.errors
        );
        Ok(summary.by_backend.into_keys().collect())
    }

    fn is_attached(&self) -> Result<bool> {
        let links = self.topology.lb.namespace.ip("-j link show dev eth0")?;
        Ok(links.contains("\"xdp\""))
    }
}

/// The image forwards real packets with the four capabilities that docs/install.md gives it.
fn in_image(out: &Path) -> Result<()> {
    let segment = Segment::new()?;
    let image = unpack(&only(out, image::END)?, &segment.lab.folder().join("image"))?;
    let jail = Jail::new(&segment, image.root)?;
    jail.write("etc/weir/weir.toml", &segment.config())?;
    for folder in ["run/weir", "var/lib/weir"] {
        fs::create_dir_all(jail.root().join(folder))?;
    }
    let words: Vec<&str> = image.command.iter().map(String::as_str).collect();
    let mut daemon = jail.start("image", Bounds::Capabilities, &words)?;
    jail.serves(&mut daemon)?;
    let answering = segment.answering(300)?;
    ensure!(
        answering == segment.topology.backend_names(),
        "only {answering:?} answer"
    );
    jail.run(&["/usr/bin/weir", "detach"])?;
    ensure!(!segment.is_attached()?, "the program is still there");
    println!(
        "    300 requests over {} backends, none failed",
        answering.len()
    );
    Ok(())
}
