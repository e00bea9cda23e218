//! A status in Prometheus' text format.

use prometheus::{
    Registry, TextEncoder,
    proto::{self, LabelPair, MetricFamily, MetricType},
};

use super::{
    process::{PROCESS, Usage},
    table::{Kind, METRICS, Metric, Sample},
};
use crate::api::Status;

/// Every metric of a status, of the process, and of what has been measured, in Prometheus' text format, version 0.0.4.
///
/// The families of a status are made as they are written: a registry's vectors, which look for every series by its
/// labels, take several times as long with thousands of backends.
///
/// # Errors
/// A metric's name is not Prometheus': a defect.
pub fn text(status: &Status, measured: &Registry) -> prometheus::Result<String> {
    let mut families: Vec<_> = METRICS.iter().filter_map(|m| family(m, status)).collect();
    families.extend(measured.gather());
    match Usage::read() {
        Ok(usage) => families.extend(PROCESS.iter().filter_map(|m| family(m, &usage))),
        Err(error) => tracing::debug!(%error, "what the daemon uses is not known"),
    }
    TextEncoder::new().encode_to_string(&families)
}

/// A metric with its samples; `None` where it has none.
fn family<T>(metric: &Metric<T>, of: &T) -> Option<MetricFamily> {
    let samples = (metric.samples)(of);
    if samples.is_empty() {
        return None;
    }
    let samples = samples.into_iter().map(|sample| series(metric, sample));
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge | Kind::Histogram => MetricType::GAUGE,
    });
    family.set_metric(samples.collect());
    Some(family)
}

fn series<T>(metric: &Metric<T>, (values, value): Sample) -> proto::Metric {
    let pair = |(name, value): (&&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    };
    let mut labels: Vec<_> = metric.labels.iter().zip(values).map(pair).collect();
    labels.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    let mut series = proto::Metric::from_label(labels);
    match metric.kind {
        Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            series.set_counter(counter);
        }
        Kind::Gauge | Kind::Histogram => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            series.set_gauge(gauge);
        }
    }
    series
}
