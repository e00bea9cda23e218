//! A status in Prometheus' text format.

use std::fmt::Write as _;

use prometheus::{Registry, TextEncoder};

use super::{
    process::{PROCESS, Usage},
    table::{METRICS, Metric},
};
use crate::api::Status;

/// Every metric of a status, of the process, and of what has been measured, in Prometheus' text format, version 0.0.4.
///
/// What a status tells is written as it is read. A registry's vectors look for every series by its labels and keep each of them
/// as a message before it is written: several times as long, and tens of megabytes, with thousands of backends.
///
/// # Errors
/// What has been measured has names that are not Prometheus': a defect.
pub fn text(status: &Status, measured: &Registry) -> prometheus::Result<String> {
    let mut text = String::new();
    for metric in METRICS {
        write(&mut text, metric, status);
    }
    TextEncoder::new().encode_utf8(&measured.gather(), &mut text)?;
    match Usage::read() {
        Ok(usage) => {
            for metric in PROCESS {
                write(&mut text, metric, &usage);
            }
        }
        Err(error) => tracing::debug!(%error, "what the daemon uses is not known"),
    }
    Ok(text)
}

/// Writes a metric, if there are samples of it; their labels by name.
fn write<T>(text: &mut String, metric: &Metric<T>, of: &T) {
    let samples = (metric.samples)(of);
    if samples.is_empty() {
        return;
    }
    let (name, kind, help) = (metric.name, metric.kind.as_str(), metric.help);
    // Writing to a string cannot fail.
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    let mut order: Vec<_> = metric.labels.iter().copied().enumerate().collect();
    order.sort_unstable_by_key(|(_, label)| *label);
    for (values, value) in samples {
        text.push_str(name);
        let mut before = '{';
        for (place, label) in &order {
            text.push(before);
            text.push_str(label);
            text.push_str("=\"");
            push_escaped(text, values.get(*place).map_or("", String::as_str));
            text.push('"');
            before = ',';
        }
        text.push_str(if order.is_empty() { " " } else { "} " });
        writeln!(text, "{value}").ok();
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::table::Kind, *};

    #[test]
    fn labels_are_told_by_name_and_escaped() {
        let metric = Metric {
            name: "weir_odd",
            kind: Kind::Gauge,
            labels: &["vip", "backend"],
            help: "Odd.",
            samples: |value: &f64| vec![(vec!["a\\b\"c\nd".to_owned(), "x".to_owned()], *value)],
        };
        let mut text = String::new();
        write(&mut text, &metric, &1.5);
        write(&mut text, &metric, &9_007_199_254_740_992.0);
        let head = "# HELP weir_odd Odd.\n# TYPE weir_odd gauge\nweir_odd{backend=\"x\",vip=\"a\\\\b\\\"c\\nd\"}";
        assert_eq!(text, format!("{head} 1.5\n{head} 9007199254740992\n"));
    }
}
