//! Where things are: the workspace, the tools that setup manages, the binaries beside this one.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Returns the root of the workspace that this binary was built from.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or(manifest.clone(), Path::to_path_buf)
}

/// Returns the directory that setup installs tools into.
#[must_use]
pub fn tools() -> PathBuf {
    root().join(".tools")
}

/// Returns a program of the Python packages that setup installs.
#[must_use]
pub fn python(program: &str) -> PathBuf {
    tools().join("python/bin").join(program)
}

/// Returns a command that runs cargo in the workspace.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Finds the `weir` binary: `WEIR_BIN` if set, else the one built beside this binary.
pub fn weir_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("WEIR_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("WEIR_BIN names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    beside_this("weir").context(
        "no weir binary: build it with `cargo build -p lb-userspace`, or name it in WEIR_BIN",
    )
}

/// Finds the `xtask` binary, whose hidden commands run inside lab hosts.
pub fn xtask_binary() -> Result<PathBuf> {
    beside_this("xtask")
        .context("no xtask binary beside this one: build it with `cargo build -p xtask`")
}

/// Finds a binary of the same build. A test binary lies one folder deeper, in `deps`.
fn beside_this(name: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("find the running binary")?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("looked for {name} beside {}", this.display()))
}

/// Finds a program in `PATH` or in the system folders that an ordinary user's `PATH` leaves out.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_holds_the_workspace_manifest() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask").is_dir());
    }

    #[test]
    fn finds_programs_only_where_they_are() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-of-weir"), None);
    }
}
