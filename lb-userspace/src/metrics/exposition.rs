//! A status in Prometheus' text format.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::{
    measured,
    table::{Kind, METRICS, Metric},
};
use crate::api::Status;

/// Every metric of a status, and what has been measured, in Prometheus' text format, version 0.0.4.
///
/// # Errors
/// A metric's name or labels are not Prometheus': a defect.
pub fn text(status: &Status, measured: &Registry) -> prometheus::Result<String> {
    let registry = Registry::new();
    for metric in METRICS {
        register(metric, status, &registry)?;
    }
    measured::last_durations(status, &registry)?;
    let mut families = registry.gather();
    families.extend(measured.gather());
    TextEncoder::new().encode_to_string(&families)
}

fn register(metric: &Metric, status: &Status, registry: &Registry) -> prometheus::Result<()> {
    let options = Opts::new(metric.name, metric.help);
    let samples = (metric.samples)(status);
    match metric.kind {
        Kind::Counter => {
            let counter = IntCounterVec::new(options, metric.labels)?;
            for (labels, value) in samples {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                counter.get_metric_with_label_values(&labels)?.inc_by(value);
            }
            registry.register(Box::new(counter))
        }
        Kind::Gauge | Kind::Histogram => {
            let gauge = IntGaugeVec::new(options, metric.labels)?;
            for (labels, value) in samples {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauge.get_metric_with_label_values(&labels)?.set(value);
            }
            registry.register(Box::new(gauge))
        }
    }
}
