//! The container image: made by buildah without its daemon, and taken apart without one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Commit, output, pack, tools};
use crate::{progress::run_visibly, workspace};

/// The end of the archive's name.
pub(super) const END: &str = "-oci.tar";

/// Builds the image from what is laid out, as an OCI archive.
pub(super) fn build(out: &Path, stage: &Path, version: &str, commit: &Commit) -> Result<()> {
    let buildah = tools::debian("buildah", "buildah")?;
    // Its own storage, so that nobody's is touched; of plain folders, which need no driver of the kernel.
    let storage = out.join("stage/.buildah");
    let root = format!("--root={}", storage.join("root").display());
    let runroot = format!("--runroot={}", storage.join("run").display());
    let common = [root.as_str(), &runroot, "--storage-driver=vfs"];
    let context = out.join("stage/.context");
    fs::create_dir_all(&context)?;
    fs::copy(stage.join("weir"), context.join("weir"))?;
    let tag = format!("weir:{version}");
    run_visibly(
        Command::new(&buildah)
            .args(common)
            .args([
                "bud",
                "--isolation=chroot",
                "--timestamp",
                &commit.time,
                "--tag",
                &tag,
            ])
            .arg(format!(
                "--label=org.opencontainers.image.version={version}"
            ))
            .arg(format!(
                "--label=org.opencontainers.image.revision={}",
                commit.name
            ))
            .arg("--file")
            .arg(workspace::root().join("deploy/container/Containerfile"))
            .arg(&context),
    )?;
    let layout = out.join("stage/.oci");
    run_visibly(
        Command::new(&buildah)
            .args(common)
            .args(["push", &tag])
            .arg(format!("oci:{}:{tag}", layout.display())),
    )?;
    // Not by buildah, which gives the files in the archive this moment's time.
    let archive = out.join(format!("weir-{version}{END}"));
    pack(&layout, &archive, commit, &[])?;
    for folder in [storage, context, layout] {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}

/// An image that was taken apart.
pub(super) struct Image {
    /// Its files.
    pub(super) root: PathBuf,
    /// What it runs: program and arguments.
    pub(super) command: Vec<String>,
}

/// Takes an archive apart, as a container runtime does.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<Image> {
    let (blobs, root) = (folder.join("oci"), folder.join("root"));
    for folder in [&blobs, &root] {
        fs::create_dir_all(folder)?;
    }
    let untar = |archive: &Path, to: &Path| {
        output(
            Command::new("tar")
                .arg("--extract")
                .arg("--file")
                .arg(archive)
                .arg("--directory")
                .arg(to),
        )
    };
    untar(archive, &blobs)?;
    let read = |file: &Path| -> Result<Value> {
        let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let blob = |of: &Value| -> Result<PathBuf> {
        let digest = of
            .get("digest")
            .and_then(Value::as_str)
            .context("no digest")?;
        Ok(blobs.join("blobs").join(digest.replace(':', "/")))
    };
    let index = read(&blobs.join("index.json"))?;
    let manifest = read(&blob(
        index.pointer("/manifests/0").context("no manifest")?,
    )?)?;
    for layer in manifest
        .get("layers")
        .and_then(Value::as_array)
        .context("no layers")?
    {
        untar(&blob(layer)?, &root)?;
    }
    let config = read(&blob(manifest.get("config").context("no config")?)?)?;
    let words = |key: &str| -> Vec<String> {
        let words = config
            .pointer(&format!("/config/{key}"))
            .and_then(Value::as_array);
        let words = words.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    };
    let command = [words("Entrypoint"), words("Cmd")].concat();
    Ok(Image { root, command })
}
