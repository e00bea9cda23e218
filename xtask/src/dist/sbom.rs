//! The list of what the binary is made of: `CycloneDX`. The BPF program inside it is built by a build script, which no tool looks
//! into: its crates are added.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Commit, TARGET, tools};
use crate::{progress::run_visibly, workspace};

/// Writes the list.
pub(super) fn write(out: &Path, version: &str, commit: &Commit) -> Result<()> {
    tools::cargo_tool("cargo-cyclonedx", "0.5.9")?;
    let name = format!("weir-{version}.cdx");
    let mut command = workspace::cargo();
    command
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
        .args(["--target", TARGET, "--override-filename", &name])
        .env("PATH", tools::path()?)
        // The commit's time instead of this moment's, and no number at random.
        .env("SOURCE_DATE_EPOCH", &commit.time);
    run_visibly(&mut command)?;
    let file = format!("{name}.json");
    let mut lists = written(&file)?;
    let mut list = lists
        .remove("lb-userspace")
        .context("cargo-cyclonedx wrote nothing")?;
    let program = lists
        .remove("lb-ebpf")
        .context("cargo-cyclonedx knows nothing of lb-ebpf")?;
    add(&mut list, program)?;
    fs::write(out.join(file), format!("{list:#}\n"))?;
    Ok(())
}

/// What it has written, which is a file beside the manifest of every package: taken away from there. Names of the workspace's own
/// packages have its place on this machine in them, which is nobody's business.
fn written(file: &str) -> Result<BTreeMap<String, Value>> {
    let root = workspace::root();
    let here = format!("file://{}/", root.display());
    let mut lists = BTreeMap::new();
    for entry in fs::read_dir(&root)?.flatten() {
        let path = entry.path().join(file);
        if path.is_file() {
            let text = fs::read_to_string(&path)?.replace(&here, "file:///weir/");
            let name = entry.file_name().to_string_lossy().into_owned();
            lists.insert(name, serde_json::from_str(&text)?);
            fs::remove_file(&path)?;
        }
    }
    Ok(lists)
}

/// Adds what a part is made of, and that the whole depends on it.
fn add(whole: &mut Value, mut part: Value) -> Result<()> {
    let name = |list: &Value| {
        let name = list.pointer("/metadata/component/bom-ref");
        name.cloned().context("a list without a component")
    };
    let (own, added) = (name(whole)?, name(&part)?);
    let component = part.pointer_mut("/metadata/component").map(Value::take);
    let mut component = component.context("a list without a component")?;
    // Its targets, of which one is in the binary.
    if let Some(component) = component.as_object_mut() {
        component.remove("components");
    }
    let more = std::iter::once(component).chain(items(&mut part, "components")?);
    merge(whole, ("components", "bom-ref"), more)?;
    let own = json!({"ref": own, "dependsOn": [added]});
    let more = std::iter::once(own).chain(items(&mut part, "dependencies")?);
    merge(whole, ("dependencies", "ref"), more)
}

/// The items of a list of a list.
fn items(list: &mut Value, key: &str) -> Result<Vec<Value>> {
    match list.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => anyhow::bail!("the list has no {key}"),
    }
}

/// Adds items that are not there, by their name, to a list of a list; of those that are there, what they depend on.
fn merge(
    whole: &mut Value,
    (key, name): (&str, &str),
    more: impl Iterator<Item = Value>,
) -> Result<()> {
    let mut all = items(whole, key)?;
    for item in more {
        let Some(known) = all
            .iter_mut()
            .find(|known| known.get(name) == item.get(name))
        else {
            all.push(item);
            continue;
        };
        let on = item.get("dependsOn").and_then(Value::as_array);
        for dependency in on.into_iter().flatten() {
            let known = known.as_object_mut().context("an item is no object")?;
            let list = known.entry("dependsOn").or_insert_with(|| json!([]));
            let list = list.as_array_mut().context("dependsOn is no list")?;
            if !list.contains(dependency) {
                list.push(dependency.clone());
            }
        }
    }
    let whole = whole.as_object_mut().context("a list is no object")?;
    whole.insert(key.to_owned(), Value::Array(all));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str, components: &[&str], dependencies: &Value) -> Value {
        let components = components.iter().map(|name| json!({"bom-ref": name}));
        json!({
            "metadata": {"component": {"bom-ref": name, "components": [{"bom-ref": "a target"}]}},
            "components": components.collect::<Vec<_>>(),
            "dependencies": dependencies,
        })
    }

    #[test]
    fn a_part_is_added_once_and_the_whole_depends_on_it() {
        let mut whole = list(
            "weir",
            &["common", "serde"],
            &json!([{"ref": "weir", "dependsOn": ["common"]}, {"ref": "common"}]),
        );
        let part = list(
            "program",
            &["common", "aya"],
            &json!([{"ref": "program", "dependsOn": ["common", "aya"]}, {"ref": "common", "dependsOn": ["aya"]}]),
        );
        add(&mut whole, part).unwrap();
        assert_eq!(
            whole["components"],
            json!([{"bom-ref": "common"}, {"bom-ref": "serde"}, {"bom-ref": "program"}, {"bom-ref": "aya"}])
        );
        assert_eq!(
            whole["dependencies"],
            json!([
                {"ref": "weir", "dependsOn": ["common", "program"]},
                {"ref": "common", "dependsOn": ["aya"]},
                {"ref": "program", "dependsOn": ["common", "aya"]},
            ])
        );
    }
}
