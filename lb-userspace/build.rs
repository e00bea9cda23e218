//! Builds the BPF objects from lb-ebpf, with the same toolchain, and hands them to `include_bytes!`; and notes the commit.
//!
//! aya-build would do most of this, but it replaces RUSTFLAGS, and the target CPU and features must pass.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// Binaries of lb-ebpf: the product, and what only measurements and tests load.
const OBJECTS: [&str; 7] = [
    "weir-ebpf",
    "weir-observe-ebpf",
    "weir-decap-ebpf",
    "weir-dsr-ebpf",
    "weir-bench-ebpf",
    "weir-bench-classic-ebpf",
    "weir-bench-reader-ebpf",
];

const FLAGS: [&str; 5] = [
    // Atomics with results, 32-bit registers, and jumps on them.
    "-Ctarget-cpu=v3",
    // x86-64 and arm64 read unaligned words, and the verifier lets them: one load instead of eight.
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Cpanic=abort",
];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let manifest =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = manifest
        .parent()
        .expect("lb-userspace lies in the workspace");
    for path in [
        "lb-ebpf",
        "lb-common/src",
        "lb-common/Cargo.toml",
        "Cargo.toml",
        "rust-toolchain.toml",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=WEIR_BPF_LINKER");
    note_commit(workspace);
    note_settings(&out);

    let linker = linker(workspace);
    require_rust_src();

    // One directory for all profiles: core is built once, and cargo's own lock serialises the builds.
    let target = target_dir(&out).join("bpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={}", linker.display()),
    ];
    flags.extend(FLAGS.map(String::from));

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args([
            "build",
            "--package",
            "lb-ebpf",
            "--profile",
            "bpf",
            "--locked",
        ])
        .args([
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(&target)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // What the outer cargo, clippy or a coverage tool set is meant for the host.
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "building the BPF program failed ({status}); the reason is above"
        )),
        Err(error) => fail(&format!(
            "running cargo for the BPF program failed: {error}"
        )),
    }

    for object in OBJECTS {
        let from = target.join("bpfel-unknown-none/bpf").join(object);
        let to = out.join(object);
        if let Err(error) = fs::copy(&from, &to) {
            fail(&format!("copying {} failed: {error}", from.display()));
        }
    }
}

/// The commit that is built: named by the environment (as for a source archive), or git's, or unknown.
///
/// Only optimised builds ask git: all others would be built anew after every commit.
fn note_commit(workspace: &Path) {
    const NAME: &str = "WEIR_COMMIT";
    println!("cargo::rerun-if-env-changed={NAME}");
    let named = env::var(NAME).ok().filter(|name| !name.is_empty());
    let commit = named.or_else(|| {
        if env::var("PROFILE").as_deref() != Ok("release") {
            return None;
        }
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            let output = command.current_dir(workspace).args(arguments).output();
            let output = output.ok().filter(|output| output.status.success())?;
            let text = String::from_utf8(output.stdout).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        // Its log grows with whatever changes the commit at hand.
        let log = workspace.join(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
        if log.exists() {
            println!("cargo::rerun-if-changed={}", log.display());
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env={NAME}={commit}");
}

/// How it is built, for `weir --version`.
fn note_settings(out: &Path) {
    let of_cargo = |name: &str| env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    let profile = out.ancestors().nth(3).and_then(Path::file_name);
    let profile = profile.map_or("unknown".into(), |name| name.to_string_lossy());
    println!("cargo::rustc-env=WEIR_PROFILE={profile}");
    println!("cargo::rustc-env=WEIR_TARGET={}", of_cargo("TARGET"));
    let has_kubernetes = env::var_os("CARGO_FEATURE_KUBERNETES").is_some();
    let features = if has_kubernetes { "kubernetes" } else { "none" };
    println!("cargo::rustc-env=WEIR_FEATURES={features}");
    let output = Command::new(of_cargo("RUSTC")).arg("--version").output();
    let rustc = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let rustc = rustc.ok().filter(|text| !text.is_empty());
    println!(
        "cargo::rustc-env=WEIR_RUSTC={}",
        rustc.as_deref().unwrap_or("unknown")
    );
}

/// bpf-linker: named by the environment, built by `cargo xtask setup`, or on the path.
fn linker(workspace: &Path) -> PathBuf {
    if let Some(linker) = env::var_os("WEIR_BPF_LINKER") {
        return linker.into();
    }
    let managed = workspace.join(".tools/bin/bpf-linker");
    if managed.is_file() {
        return managed;
    }
    let on_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path)
            .map(|dir| dir.join("bpf-linker"))
            .find(|file| file.is_file())
    });
    on_path
        .unwrap_or_else(|| fail("bpf-linker is missing: run `cargo xtask setup`, which builds it"))
}

/// cargo's own message for a missing rust-src is hard to read.
fn require_rust_src() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    let Ok(sysroot) = sysroot else { return };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        fail(
            "the Rust source is missing: run `cargo xtask setup`, or `rustup component add rust-src`",
        );
    }
}

/// `target/` from `target/PROFILE/build/lb-userspace-HASH/out`.
fn target_dir(out: &Path) -> PathBuf {
    out.ancestors()
        .nth(4)
        .expect("OUT_DIR lies four levels below the target directory")
        .to_path_buf()
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}
