//! The Debian package in a clean Debian root: installed, upgraded under traffic, and purged.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Segment,
    jail::{Bounds, Jail},
    output,
};
use crate::{
    dist::{Commit, deb, only, tools},
    lab::{Topology, VIP_V4},
    traffic::client,
};

/// The release that packages are tried on.
const RELEASE: &str = "bookworm";

/// The root, kept as an archive for the next time: making it takes the net and a minute.
const ARCHIVE: &str = "target/debian-root.tar";

/// Requests in a row while something goes on.
const REQUESTS: u32 = 200;

pub(super) fn run(out: &Path) -> Result<()> {
    let segment = Segment::new()?;
    let root = debian_root(&segment.lab.folder().join("debian"))?;
    let jail = Jail::new(&segment, root)?;
    // The lab has pins of its own.
    let (before, pins_before) = (files(jail.root())?, files(jail.bpffs())?);

    // A package of the next revision, for the upgrade.
    let newer = segment.lab.folder().join("newer");
    fs::create_dir_all(&newer)?;
    deb(&newer, &Commit::at_hand()?, &["--deb-revision", "2"])?;

    install(&jail, &only(out, ".deb")?)?;
    let said = jail.run(&["/usr/bin/weir", "--version"])?;
    println!("    installed: {}", said.lines().next().unwrap_or_default());
    ensure!(
        jail.root().join("usr/share/man/man1/weir.1.gz").exists(),
        "no man page"
    );
    ensure!(
        [
            "usr/lib/systemd/system/weir.service",
            "lib/systemd/system/weir.service"
        ]
        .iter()
        .any(|unit| jail.root().join(unit).exists()),
        "no unit"
    );
    jail.write("etc/weir/weir.toml", &segment.config())?;
    // systemd makes it (RuntimeDirectory=).
    fs::create_dir_all(jail.root().join("run/weir"))?;
    let start = || jail.start("packaged", Bounds::Capabilities, &["/usr/bin/weir", "run"]);
    let mut daemon = start()?;
    jail.serves(&mut daemon)?;
    ensure!(segment.answering(100)? == segment.topology.backend_names());

    let ((), requests) = under_traffic(&segment, || install(&jail, &only(&newer, ".deb")?))?;
    ensure!(daemon.ended()?.is_none(), "the upgrade ended the daemon");
    let version = jail.run(&["dpkg-query", "--show", "--showformat=${Version}", "weir"])?;
    ensure!(version.ends_with("-2"), "{version}");
    println!("    upgraded to {version} under {requests} requests, none failed");

    let (second, requests) = under_traffic(&segment, || {
        daemon.end_by(
            rustix::process::Signal::TERM,
            std::time::Duration::from_secs(10),
        )?;
        let mut next = start()?;
        jail.serves(&mut next)?;
        Ok(next)
    })?;
    drop(second);
    println!("    restarted under {requests} requests, none failed");

    jail.run(&["dpkg", "--purge", "weir"])?;
    ensure!(!segment.is_attached()?, "the program is still on eth0");
    let pins = files(jail.bpffs())?;
    let left: Vec<_> = pins.difference(&pins_before).collect();
    ensure!(left.is_empty(), "pins are left: {left:?}");
    let after = files(jail.root())?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "files are left: {left:?}");
    println!("    purged: no program, no pin, no file is left");
    Ok(())
}

fn install(jail: &Jail, package: &Path) -> Result<()> {
    fs::copy(package, jail.root().join("tmp/weir.deb"))?;
    jail.run(&["dpkg", "--install", "/tmp/weir.deb"])?;
    fs::remove_file(jail.root().join("tmp/weir.deb"))?;
    Ok(())
}

/// Does something while a client makes requests, of which none may fail; returns how many there were.
fn under_traffic<T: Send>(
    segment: &Segment,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, u32)> {
    let is_done = AtomicBool::new(false);
    let fetch = || {
        let mut made = 0;
        // Once more after its end.
        loop {
            let is_last = is_done.load(Ordering::Acquire);
            let options = client::Options::new(Topology::http(VIP_V4), REQUESTS);
            let summary = client::fetch(&options)?;
            ensure!(
                summary.failed == 0,
                "{} requests failed: {:?}",
                summary.failed,
                summary.errors
            );
            made += REQUESTS;
            if is_last {
                return Ok(made);
            }
        }
    };
    thread::scope(|scope| {
        let client = scope.spawn(|| segment.topology.client.namespace.inside(fetch));
        let done = work();
        is_done.store(true, Ordering::Release);
        match client.join() {
            Ok(made) => Ok((done?, made?)),
            Err(_) => bail!("the client panicked"),
        }
    })
}

/// A Debian root without anything that is not essential.
fn debian_root(root: &Path) -> Result<PathBuf> {
    let archive = crate::workspace::root().join(ARCHIVE);
    if !archive.exists() {
        let debootstrap = tools::debian("debootstrap", "debootstrap")?;
        let beside = archive.with_extension("new");
        let made = root.with_extension("made");
        output(
            Command::new(debootstrap)
                .args(["--variant=minbase", RELEASE])
                .arg(&made),
        )
        .context("make a Debian root, which takes a mirror of Debian")?;
        output(
            Command::new("tar")
                .arg("--create")
                .arg("--file")
                .arg(&beside)
                .arg("--directory")
                .arg(&made)
                .arg("."),
        )?;
        fs::rename(&beside, &archive)?;
        fs::remove_dir_all(&made)?;
    }
    fs::create_dir_all(root)?;
    output(
        Command::new("tar")
            .arg("--extract")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(root),
    )?;
    Ok(root.to_owned())
}

/// Every path, but for what dpkg notes of its own work.
fn files(root: &Path) -> Result<BTreeSet<String>> {
    let listed = output(
        Command::new("find")
            .arg(root)
            .args(["-xdev", "-printf", "%P\\n"]),
    )?;
    let is_noted = |path: &str| {
        ["var/lib/dpkg", "var/log", "var/cache", "proc", "sys"]
            .iter()
            .any(|folder| path.starts_with(folder))
    };
    let paths = listed.lines().filter(|path| !is_noted(path));
    Ok(paths.map(str::to_owned).collect())
}
