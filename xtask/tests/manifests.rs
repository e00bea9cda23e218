//! deploy/kubernetes: what Kubernetes' schemas, kustomize and Helm make of it.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use xtask::workspace;

/// The version of Kubernetes whose schemas judge.
const VERSION: &str = "1.36";

/// Kinds of which Kubernetes itself has no schema.
const FOREIGN: [&str; 1] = ["PodMonitor"];

/// Renders a chart by Helm's own code: manifests by template, and what lies in `crds`.
const RENDER: &str = r#"
import json, sys
from helm_python.chart import Chart
values = json.loads(sys.argv[2])
with Chart.load(sys.argv[1]) as chart:
    chart.validate_schema(values)
    rendered = chart.render(values, name="weir", namespace="weir")
    print(json.dumps({"manifests": rendered, "crds": [crd["data"] for crd in chart.crds]}))
"#;

fn path(name: &str) -> PathBuf {
    workspace::root().join("deploy/kubernetes").join(name)
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn python(program: &str) -> Command {
    let path = workspace::python(program);
    assert!(
        path.exists(),
        "there is no {}: run `cargo xtask setup`",
        path.display()
    );
    Command::new(path)
}

/// What `kubectl apply -k` would apply.
fn kustomized(name: &str) -> String {
    let mut command = Command::new("kubectl");
    let output = command.arg("kustomize").arg(path(name)).output().unwrap();
    assert!(output.status.success(), "{name}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().filter(Value::is_object).collect()
}

/// Objects by kind and name.
fn by_name(documents: Vec<Value>) -> BTreeMap<String, Value> {
    let named = documents.into_iter().map(|object| {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        (format!("{kind} {name}"), object)
    });
    named.collect()
}

/// What Kubernetes' strict schemas say of objects.
fn judged(documents: &[Value]) -> Output {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    for document in documents {
        // JSON is YAML.
        writeln!(file, "---\n{document}").unwrap();
    }
    let mut command = python("kubernetes-validate");
    command.args(["-k", VERSION, "--strict"]).arg(file.path());
    command.output().unwrap()
}

fn assert_valid(what: &str, documents: Vec<Value>) {
    let is_known = |object: &Value| !FOREIGN.contains(&object["kind"].as_str().unwrap());
    let known: Vec<_> = documents.into_iter().filter(is_known).collect();
    assert!(known.len() > 5, "{what}: {known:?}");
    let output = judged(&known);
    assert!(output.status.success(), "{what}: {}", said(&output));
}

/// The overlays, by their folders. Newer than what Debian 12 has of kubectl, which knows only the words of kustomize 2.
fn overlays() -> Option<Vec<String>> {
    let output = Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output()
        .unwrap_or_else(|error| panic!("kubectl: {error}: run `cargo xtask setup`"));
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap();
    if minor < 21 {
        eprintln!(
            "NOT RUN: kubectl 1.{minor} has a kustomize older than patches; the overlays were not looked at"
        );
        return None;
    }
    let folders = fs::read_dir(path("overlays")).unwrap().flatten();
    let names = folders.map(|folder| format!("overlays/{}", folder.file_name().display()));
    Some(names.collect())
}

/// The base as its files have it, in the order of its kustomization.
fn base() -> Vec<Value> {
    let text = fs::read_to_string(path("base/kustomization.yaml")).unwrap();
    let list: Value = serde_saphyr::from_str(&text).unwrap();
    let files = list["resources"].as_array().unwrap().iter();
    let texts = files.map(|file| {
        let file = format!("base/{}", file.as_str().unwrap());
        fs::read_to_string(path(&file)).unwrap()
    });
    texts.flat_map(|text| documents(&text)).collect()
}

fn rendered(values: &Value) -> Result<Vec<Value>, String> {
    let output = python("python")
        .args(["-c", RENDER])
        .arg(path("chart"))
        .arg(values.to_string())
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(said(&output));
    }
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifests = all["manifests"].as_object().unwrap().iter();
    let manifests = manifests.filter(|(name, _)| !name.ends_with("NOTES.txt"));
    let crds = all["crds"].as_array().unwrap().iter();
    let texts = manifests.map(|(_, text)| text).chain(crds);
    Ok(texts
        .flat_map(|text| documents(text.as_str().unwrap()))
        .collect())
}

fn container(objects: &BTreeMap<String, Value>) -> &Value {
    &objects["DaemonSet weir"]["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn every_manifest_passes_kubernetes_strict_schemas() {
    assert_valid("base", base());
    for overlay in overlays().into_iter().flatten() {
        assert_valid(&overlay, documents(&kustomized(&overlay)));
    }
    let all = json!({"namespace": {"create": true}, "podMonitor": {"enabled": true}, "imagePullSecrets": ["registry"]});
    assert_valid("chart", rendered(&all).unwrap());
}

#[test]
fn the_schemas_find_a_slip_of_the_pen() {
    let mut objects = base();
    let daemons = objects
        .iter_mut()
        .find(|object| object["kind"] == "DaemonSet");
    daemons.unwrap()["spec"]["template"]["spec"]["hostNetwrok"] = json!(true);
    let output = judged(&objects);
    assert!(!output.status.success());
    assert!(said(&output).contains("hostNetwrok"), "{}", said(&output));
}

#[test]
fn chart_and_base_render_to_the_same_objects() {
    let chart = by_name(rendered(&json!({"namespace": {"create": true}})).unwrap());
    assert_eq!(chart, by_name(base()));
    if overlays().is_some() {
        assert_eq!(chart, by_name(documents(&kustomized("base"))));
    }
}

/// What an overlay changes, the chart's value of that name changes alike.
#[test]
fn chart_and_overlays_change_the_same() {
    if overlays().is_none() {
        return;
    }
    for (overlay, values) in [
        (
            "overlays/ipip",
            json!({"namespace": {"create": true}, "forward": "ipip"}),
        ),
        (
            "overlays/monitoring",
            json!({"namespace": {"create": true}, "podMonitor": {"enabled": true}}),
        ),
    ] {
        let chart = by_name(rendered(&values).unwrap());
        assert_eq!(chart, by_name(documents(&kustomized(overlay))), "{overlay}");
    }
}

#[test]
fn the_charts_values_fit_its_schema_and_wrong_ones_do_not() {
    rendered(&json!({})).unwrap();
    for (wrong, key) in [
        (json!({"forward": "l3"}), "forward"),
        (json!({"interfaces": []}), "interfaces"),
        (json!({"interfaces": ["eth0", "eth0"]}), "interfaces"),
        (json!({"imagee": {}}), "imagee"),
        (
            json!({"terminationGracePeriodSeconds": 1}),
            "terminationGracePeriodSeconds",
        ),
    ] {
        let error = rendered(&wrong).unwrap_err();
        assert!(error.contains(key), "{wrong}: {error}");
    }
}

/// What a node must have of the `DaemonSet`, whoever edits it.
#[test]
fn the_daemonset_needs_no_more_than_four_capabilities_and_nobody_else_to_live() {
    let objects = by_name(base());
    let pod = &objects["DaemonSet weir"]["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    let security = &container(&objects)["securityContext"];
    assert_eq!(
        security["capabilities"],
        json!({"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"]})
    );
    assert!(security["privileged"].is_null());
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container(&objects)[probe]["httpGet"]["host"], "127.0.0.1");
    }
}
