//! bpf-linker, which turns what rustc compiled for BPF into the object that the kernel loads.

use std::process::Command;

use super::Need;
use crate::{progress::run_visibly, workspace};

/// The newest version that uses rustc's own LLVM; later ones want an LLVM development package (docs/decisions/0001).
const VERSION: &str = "0.10.3";

/// Returns bpf-linker when the tools folder does not hold the right version.
pub(super) fn missing() -> Option<Need> {
    let binary = workspace::tools().join("bin/bpf-linker");
    let found = Command::new(&binary).arg("--version").output().ok();
    let found = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if found.as_deref() == Some(&format!("bpf-linker {VERSION}")) {
        return None;
    }
    let arguments = vec![
        "install".to_owned(),
        "--locked".to_owned(),
        "--force".to_owned(),
        format!("bpf-linker@{VERSION}"),
        "--root".to_owned(),
        workspace::tools().to_string_lossy().into_owned(),
    ];
    Some(Need {
        name: format!("bpf-linker {VERSION}"),
        why: "it links the XDP program; it is compiled from source, which takes about two minutes",
        by_hand: format!("cargo {}", arguments.join(" ")),
        install: Box::new(move || run_visibly(workspace::cargo().args(arguments))),
    })
}
