//! Metrics that no status tells: how long things take, as the tasks that do them measured it.

use super::table::Kind;
use crate::{health, reconciler::meter};

/// One of them.
pub struct Measured {
    /// Its whole name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it tells, in a sentence.
    pub help: &'static str,
}

/// All of them, in the order of the page that lists them.
pub const MEASURED: &[Measured] = &[
    Measured {
        name: health::DURATIONS,
        kind: Kind::Histogram,
        labels: &["check"],
        help: health::DURATIONS_HELP,
    },
    Measured {
        name: meter::RECONCILES,
        kind: Kind::Counter,
        labels: &["result"],
        help: meter::RECONCILES_HELP,
    },
    Measured {
        name: meter::DURATIONS,
        kind: Kind::Histogram,
        labels: &[],
        help: meter::DURATIONS_HELP,
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus::Registry;

    use super::*;
    use crate::{health::Health, reconciler::meter::Meter};

    #[tokio::test]
    async fn what_is_listed_is_what_the_tasks_measure() {
        let registry = Registry::new();
        let (health, _snapshots) = Health::start().unwrap();
        let durations = health.durations();
        durations.with_label_values(&["tcp"]).observe(0.1);
        registry.register(Box::new(durations.clone())).unwrap();
        Meter::new().unwrap().register(&registry).unwrap();
        let families = registry.gather();
        let measured: BTreeMap<_, _> = families
            .iter()
            .map(|family| (family.name(), family))
            .collect();
        assert_eq!(MEASURED.len(), measured.len());
        for metric in MEASURED {
            let family = measured[metric.name];
            assert_eq!(family.help(), metric.help);
            let labels = family.get_metric()[0].get_label();
            let labels: Vec<_> = labels
                .iter()
                .map(prometheus::proto::LabelPair::name)
                .collect();
            assert_eq!(labels, metric.labels, "{}", metric.name);
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            assert_eq!(kind, metric.kind.as_str());
        }
    }
}
