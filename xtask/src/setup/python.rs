//! What judges the Kubernetes manifests, from the Python package index, in a virtual environment of its own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Need, packages};
use crate::{
    progress::run_visibly,
    workspace::{find_program, python, tools},
};

/// Kubernetes' own schemas, offline; and Helm's own code (v4) as a library, since no distribution has its program.
const PACKAGES: [&str; 2] = ["kubernetes-validate==1.37.0", "helm-python-sdk==0.2.2"];

/// Returns the environment where it is missing, or has other versions.
pub(super) fn missing() -> Option<Need> {
    let folder = tools().join("python");
    let noted = fs::read_to_string(note(&folder)).unwrap_or_default();
    if noted == PACKAGES.join("\n") && python("python").exists() {
        return None;
    }
    Some(Need {
        name: format!("the Python packages {}", PACKAGES.join(" and ")),
        why: "they judge the Kubernetes manifests and render the Helm chart",
        by_hand: format!(
            "sudo apt-get install python3-venv && python3 -m venv {0} && {0}/bin/pip install {1}",
            folder.display(),
            PACKAGES.join(" ")
        ),
        install: Box::new(move || install(&folder)),
    })
}

fn install(folder: &Path) -> Result<()> {
    let system = find_program("python3").context("there is no python3 here")?;
    // Debian has what makes environments in a package of its own.
    let has_venv = Command::new(&system)
        .args(["-c", "import ensurepip, venv"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_venv {
        packages::install("python3-venv")?;
    }
    run_visibly(
        Command::new(system)
            .args(["-m", "venv", "--clear"])
            .arg(folder),
    )?;
    let mut pip = Command::new(python("python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run_visibly(pip.args(PACKAGES))?;
    let note = note(folder);
    fs::write(&note, PACKAGES.join("\n")).with_context(|| format!("write {}", note.display()))
}

/// Where it is written what was installed.
fn note(folder: &Path) -> std::path::PathBuf {
    folder.join("packages.txt")
}
