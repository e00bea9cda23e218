//! What is scraped, as Prometheus' own tool and the documents see it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use xtask::{lab::Metrics, workspace};

/// Holds a live scrape against promtool's rules, and against the page that lists all metrics, both ways.
pub(crate) fn assert_clean(metrics: &Metrics) {
    assert_promtool_is_content(metrics.text());
    let page = fs::read_to_string(workspace::root().join("docs/metrics.md")).unwrap();
    let listed: BTreeMap<_, _> = page.lines().filter_map(row).collect();
    let told = metrics.families();
    for (name, (kind, help)) in &told {
        assert_eq!(listed.get(name), Some(&(*kind, *help)), "{name}");
    }
    // What is not always there says so.
    let names: BTreeSet<_> = told.keys().copied().collect();
    let untold = listed.iter().filter(|(name, _)| !names.contains(**name));
    let lacking: Vec<_> = untold
        .filter(|(_, (_, help))| !help.contains("Absent"))
        .collect();
    assert_eq!(lacking, []);
    assert!(names.len() > 30, "{names:?}");
}

/// Name, type and help in a line of the page's table.
fn row(line: &str) -> Option<(&str, (&str, &str))> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    let (kind, _labels, help) = (cells.next()?, cells.next()?, cells.next()?);
    // Reasons have a table of their own.
    (!kind.starts_with('`')).then_some((name, (kind, help)))
}

fn assert_promtool_is_content(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool =
        promtool.unwrap_or_else(|error| panic!("promtool: {error}: `cargo xtask setup`"));
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
