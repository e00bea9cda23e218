//! `cargo xtask dist`: what is given to hosts, made from one static binary: a Debian package, a tarball, a container image,
//! the list of what is in them, and checksums.

mod check;
mod image;
mod sbom;
mod stage;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    progress::{run_visibly, step},
    workspace,
};

/// What the static binary is built for.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// What to make.
#[derive(Args, Debug)]
pub struct Options {
    /// Install, upgrade, run and remove what was made, in roots and namespaces of its own (needs root).
    #[arg(long)]
    check: bool,
    /// Only check what is in target/dist already.
    #[arg(long)]
    check_only: bool,
    /// Pack this static binary instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Leave the list of dependencies out (cargo-cyclonedx takes minutes to install).
    #[arg(long)]
    no_sbom: bool,
}

/// Makes the packages, and tells where they are.
pub fn run(options: &Options) -> Result<ExitCode> {
    let out = folder();
    if !options.check_only {
        make(options, &out)?;
    }
    if options.check || options.check_only {
        check::run(&out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where everything is put.
fn folder() -> PathBuf {
    workspace::root().join("target/dist")
}

fn make(options: &Options, out: &Path) -> Result<()> {
    let commit = Commit::at_hand()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&commit)?,
    };
    if out.exists() {
        fs::remove_dir_all(out).with_context(|| format!("empty {}", out.display()))?;
    }
    fs::create_dir_all(out)?;
    let stage = out.join("stage");
    let version = step("lay out what is packed", || stage::lay_out(&binary, &stage))?;
    step("the Debian package", || deb(out, &commit, &[]))?;
    step("the tarball", || tarball(out, &stage, &version, &commit))?;
    step("the container image", || {
        image::build(out, &stage, &version, &commit)
    })?;
    if !options.no_sbom {
        step("the list of dependencies", || {
            sbom::write(out, &version, &commit)
        })?;
    }
    licences()?;
    step("checksums", || checksums(out))
}

/// The commit that is packed.
struct Commit {
    name: String,
    /// When it was made, in seconds since 1970: the time of everything that is packed, so that packing it again gives the
    /// same bytes.
    time: String,
}

impl Commit {
    fn at_hand() -> Result<Self> {
        let text = output(Command::new("git").args([
            "log",
            "-1",
            "--format=%h %ct",
            "--abbrev=12",
        ]))
        .context(
            "packages are made from a git work tree: its commit and the time of that are in them",
        )?;
        let (name, time) = text.split_once(' ').context("git log")?;
        let changed =
            output(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
        let dirty = if changed.is_empty() { "" } else { "-dirty" };
        Ok(Self {
            name: format!("{name}{dirty}"),
            time: time.to_owned(),
        })
    }
}

/// Builds the static binary.
fn build(commit: &Commit) -> Result<PathBuf> {
    tools::musl()?;
    // Beside cargo's other builds: `target/dist` would be the profile's own folder otherwise.
    let target = workspace::root().join("target/musl");
    step("build the static binary", || {
        let arguments = [
            "build",
            "--locked",
            "--profile",
            "dist",
            "--package",
            "lb-userspace",
        ];
        let mut cargo = workspace::cargo();
        cargo
            .args(arguments)
            .args(["--bin", "weir", "--target", TARGET, "--target-dir"])
            .arg(&target)
            .env("WEIR_COMMIT", &commit.name);
        run_visibly(&mut cargo)
    })?;
    Ok(target.join(TARGET).join("dist/weir"))
}

/// The package of what is laid out; `more` are arguments of cargo-deb.
fn deb(out: &Path, commit: &Commit, more: &[&str]) -> Result<()> {
    let cargo_deb = tools::cargo_tool("cargo-deb", "3.8.0")?;
    let mut command = Command::new(cargo_deb);
    command
        .current_dir(workspace::root())
        .args(["--quiet", "--fast", "--no-build", "--no-strip"])
        .args(["--package", "lb-userspace", "--target", TARGET, "--output"])
        .arg(out)
        .args(more)
        .env("SOURCE_DATE_EPOCH", &commit.time);
    run_visibly(&mut command)
}

/// The binary, the units, the example, pages and completions in one folder.
fn tarball(out: &Path, stage: &Path, version: &str, commit: &Commit) -> Result<()> {
    let name = format!("weir-{version}-x86_64-linux");
    let more = [
        // The time within gzip's own header is not the files'.
        "--use-compress-program=gzip -n".to_owned(),
        format!("--transform=s,^\\.,{name},"),
    ];
    pack(stage, &out.join(format!("{name}.tar.gz")), commit, &more)
}

/// A tar archive of a folder, of the same bytes whoever makes it and whenever; `more` are arguments of tar.
fn pack(folder: &Path, archive: &Path, commit: &Commit, more: &[String]) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args(["--create", "--sort=name", "--owner=0", "--group=0"])
        .arg("--numeric-owner")
        .arg(format!("--mtime=@{}", commit.time))
        .args(more)
        .arg("--file")
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .arg(".");
    run_visibly(&mut command)
}

/// Licences, bans and sources. Advisories are not looked at: they want the net, and are another day's news.
fn licences() -> Result<()> {
    let deny = tools::cargo_tool("cargo-deny", "0.20.2")?;
    step("licences, bans and sources", || {
        let mut command = Command::new(deny);
        command.current_dir(workspace::root());
        run_visibly(command.args(["--offline", "check", "licenses", "bans", "sources"]))
    })
}

/// `SHA256SUMS` of every file that is given away.
fn checksums(out: &Path) -> Result<()> {
    let mut names: Vec<_> = fs::read_dir(out)?
        .flatten()
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    let sums = output(Command::new("sha256sum").current_dir(out).args(&names))?;
    fs::write(out.join("SHA256SUMS"), format!("{sums}\n"))?;
    println!("{sums}\n    in {}", out.display());
    Ok(())
}

/// What a command prints, without the space around it; an unsuccessful end is an error.
fn output(command: &mut Command) -> Result<String> {
    command.current_dir(
        command
            .get_current_dir()
            .map_or_else(workspace::root, Path::to_path_buf),
    );
    let shown = crate::progress::show(command);
    let output = command
        .output()
        .with_context(|| format!("start `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` ended with {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The one file of a folder whose name ends so.
fn only(folder: &Path, end: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(end));
    let first = files.next();
    match (first, files.next()) {
        (Some(file), None) => Ok(file),
        (None, _) => bail!(
            "{} has no file *{end}: run `cargo xtask dist`",
            folder.display()
        ),
        (Some(_), Some(_)) => bail!("{} has more than one file *{end}", folder.display()),
    }
}
