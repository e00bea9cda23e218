//! What deploy/ has for Prometheus and Grafana, against the metrics that there are and the runbooks.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use lb_userspace::metrics::{Kind, MEASURED, METRICS, PROCESS};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every series that a scrape can have, with its labels.
fn series() -> BTreeMap<String, BTreeSet<&'static str>> {
    let counted = METRICS.iter().map(|m| (m.name, m.kind, m.labels));
    let measured = MEASURED.iter().map(|m| (m.name, m.kind, m.labels));
    let process = PROCESS.iter().map(|m| (m.name, m.kind, m.labels));
    let mut series = BTreeMap::new();
    for (name, kind, labels) in counted.chain(measured).chain(process) {
        let labels: BTreeSet<_> = labels.iter().copied().chain(["job", "instance"]).collect();
        if kind == Kind::Histogram {
            for part in ["_bucket", "_sum", "_count"] {
                let le = (part == "_bucket").then_some("le");
                let labels = labels.iter().copied().chain(le).collect();
                series.insert(format!("{name}{part}"), labels);
            }
        } else {
            series.insert(name.to_owned(), labels);
        }
    }
    series
}

/// The metrics that a text names, each with the matchers that follow it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let mut named = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in text
        .match_indices("weir_")
        .chain(text.match_indices("process_"))
    {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let rest = &text[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        named.push((name, matchers.map_or("", |(matchers, _)| matchers)));
    }
    named
}

/// The labels of matchers: `vip="web", reason!~"a|b"`.
fn labels(matchers: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    let mut is_text = false;
    let mut start = 0;
    for (at, c) in matchers.char_indices() {
        match c {
            '"' => is_text = !is_text,
            '=' | '!' if !is_text && start < at => {
                labels.push(matchers[start..at].trim());
                start = matchers.len();
            }
            ',' if !is_text => start = at + 1,
            _ => {}
        }
    }
    labels
}

#[test]
fn labels_are_read_from_matchers() {
    assert_eq!(
        labels(r#"vip="a,b", reason!~"c=d|e", kind=~"f""#),
        ["vip", "reason", "kind"]
    );
    assert_eq!(labels(""), Vec::<&str>::new());
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    let series = series();
    let dashboard = read("deploy/grafana/weir.json").replace("\\\"", "\"");
    // `weir_.+` alone is no metric: names of jobs and alerts are written otherwise.
    for (file, text) in [
        ("rules.yml", read("deploy/prometheus/rules.yml")),
        ("rules_test.yml", read("deploy/prometheus/rules_test.yml")),
        ("weir.json", dashboard),
    ] {
        let named = named(&text);
        assert!(named.len() > 20, "{file}: {named:?}");
        for (name, matchers) in named {
            let known = series.get(name);
            let known =
                known.unwrap_or_else(|| panic!("{file} asks for {name}, which nobody tells"));
            for label in labels(matchers) {
                assert!(
                    known.contains(label),
                    "{file}: {name} has no label {label}: {matchers}"
                );
            }
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_a_test() {
    let rules = read("deploy/prometheus/rules.yml");
    let tests = read("deploy/prometheus/rules_test.yml");
    let page = read("docs/OPERATIONS.md");
    let after = |prefix: &str, text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        let found = lines.filter_map(|line| line.strip_prefix(prefix));
        found.map(str::to_owned).collect()
    };
    let alerts = after("- alert: ", &rules);
    assert!(alerts.len() > 20, "{alerts:?}");
    let links: Vec<_> = alerts
        .iter()
        .map(|alert| format!("docs/OPERATIONS.md#{}", alert.to_lowercase()))
        .collect();
    assert_eq!(after("runbook_url: ", &rules), links);
    assert_eq!(
        after("### ", &page),
        alerts,
        "a runbook for each alert, in their order"
    );
    assert_eq!(
        after("- name: ", &tests),
        alerts,
        "a test for each alert, in their order"
    );
}

/// Every event of the log in a text of code: what is between the brackets of its macro.
fn events(code: &str) -> Vec<&str> {
    let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let begins = macros.iter().flat_map(|name| {
        let name = format!("tracing::{name}");
        let at = code.match_indices(&name).map(|(at, name)| at + name.len());
        at.collect::<Vec<_>>()
    });
    let event = |begin: usize| {
        let end = ends(&code[begin..]).find(|(_, c, depth)| *c == ')' && *depth < 0);
        end.map(|(at, ..)| &code[begin..begin + at])
    };
    begins.filter_map(event).collect()
}

/// The characters of code that are in no text, with how many brackets are open after them.
fn ends(code: &str) -> impl Iterator<Item = (usize, char, i32)> {
    let (mut depth, mut is_text, mut before) = (0, false, ' ');
    code.char_indices().filter_map(move |(at, c)| {
        is_text ^= c == '"' && before != '\\';
        before = c;
        if is_text {
            return None;
        }
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        Some((at, c, depth))
    })
}

/// The names of an event's fields: `vip = name, %backend, "text"`.
fn fields(event: &str) -> Vec<&str> {
    let commas = ends(event).filter(|(_, c, depth)| *c == ',' && *depth == 0);
    let commas: Vec<_> = commas.map(|(at, ..)| at).chain([event.len()]).collect();
    let starts = std::iter::once(0).chain(commas.iter().map(|at| at + 1));
    let parts = starts
        .zip(&commas)
        .filter_map(|(from, to)| event.get(from..*to));
    let names = parts.filter(|part| !part.trim_start().starts_with('"'));
    let names = names.map(|part| part.split('=').next().unwrap_or_default());
    let names = names.map(|name| name.trim().trim_start_matches(['%', '?']));
    names.filter(|name| !name.is_empty()).collect()
}

/// Every file of code below a directory.
fn code(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| {
        if path.is_dir() {
            return code(&path);
        }
        vec![fs::read_to_string(path).unwrap()]
    });
    below.collect()
}

#[test]
fn fields_are_read_from_events() {
    let code = r#"tracing::info!(vip, %backend, weight = a(b, c), "text, {x}"); tracing::warn!("no (field"); tracing::error!(error = "a = b", "text")"#;
    let found: Vec<_> = events(code).into_iter().map(fields).collect();
    let expected: [&[&str]; 3] = [&["error"], &[], &["vip", "backend", "weight"]];
    assert_eq!(found, expected);
}

#[test]
fn every_field_of_the_log_is_promised() {
    let page = read("docs/OPERATIONS.md");
    let (_, section) = page.split_once("\n## Logs\n").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split('|').next());
    let promised: BTreeSet<_> = names
        .flat_map(|cell| cell.split(','))
        .map(|name| name.trim().trim_matches('`'))
        .collect();
    let sources = code(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let found: BTreeSet<_> = sources
        .iter()
        .flat_map(|code| events(code))
        .flat_map(fields)
        .collect();
    assert!(found.len() > 50, "{found:?}");
    let missing: Vec<_> = found.difference(&promised).collect();
    assert_eq!(
        missing,
        Vec::<&&str>::new(),
        "list them in docs/OPERATIONS.md, or use names that are there"
    );
}
