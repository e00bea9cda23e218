//! `cargo xtask setup`: finds what weir needs and installs what is missing.
//!
//! A machine that has everything is told so from a few file look-ups, without the network. A step that
//! cannot be done here names the command that a person must run.

mod linker;
mod packages;
mod python;
mod toolchain;

use std::{
    fs::{self, File},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::workspace;

/// One thing that weir needs on the machine.
struct Need {
    /// What it is, as the person reads it.
    name: String,
    /// What weir needs it for.
    why: &'static str,
    /// What a person must run where [`Need::install`] fails.
    by_hand: String,
    /// Installs it.
    install: Box<dyn FnOnce() -> Result<()>>,
}

/// Checks everything and installs what is missing.
pub fn run() -> Result<()> {
    let started = Instant::now();
    fs::create_dir_all(workspace::tools()).context("create the tools folder")?;
    let lock = lock_tools()?;
    let needs = missing()?;
    if needs.is_empty() {
        println!(
            "==> setup: nothing is missing ({:.1} s)",
            started.elapsed().as_secs_f64()
        );
        return Ok(());
    }
    for need in &needs {
        println!("==> setup: {} is missing; {}", need.name, need.why);
    }
    for need in needs {
        let Need {
            name,
            why: _,
            by_hand,
            install,
        } = need;
        crate::progress::step(&format!("install {name}"), install).map_err(|error| {
            anyhow!("could not install {name} here: {error:#}\nrun this by hand, then try again:\n\n    {by_hand}\n")
        })?;
    }
    let still: Vec<_> = missing()?
        .into_iter()
        .map(|need| format!("{}: run `{}`", need.name, need.by_hand))
        .collect();
    if !still.is_empty() {
        bail!(
            "installed without an error, and yet missing: {}",
            still.join("; ")
        );
    }
    println!("==> setup: done ({:.0} s)", started.elapsed().as_secs_f64());
    drop(lock);
    Ok(())
}

/// Lists what is missing, in the order of installation.
fn missing() -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    needs.extend(packages::missing());
    needs.extend(python::missing());
    needs.extend(toolchain::missing()?);
    needs.extend(linker::missing());
    Ok(needs)
}

/// Waits until no other xtask is setting this workspace up.
fn lock_tools() -> Result<File> {
    let path = workspace::tools().join("setup.lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("==> setup: another xtask is setting this workspace up; waiting for it");
        file.lock()
            .with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}
