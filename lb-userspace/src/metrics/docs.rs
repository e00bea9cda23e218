//! The page that lists all metrics, made from their table.

use std::fmt::Write as _;

use super::{measured::MEASURED, process::PROCESS, table::METRICS};
use lb_common::reason::Reason;

const HEAD: &str = "\
# Metrics

Made from `lb-userspace/src/metrics` and `lb-common/src/reason.rs`; do not edit. To make it anew:
`WEIR_UPDATE_DOCS=1 cargo test -p lb-userspace --test metrics`.

`weir run` serves them at `http://<metrics_listen>/metrics` (default `127.0.0.1:9407`), with `/healthz` (200 if the
daemon's task answers within a second), `/readyz` (200 if the program is attached and the maps hold the
configuration) and `/fleet` (which tables this node has, for the other nodes: [fleet.md](fleet.md#do-the-nodes-agree)). Counters of packets live in pinned maps: they survive a restart of the daemon, and never go back. Others
say below what they start at 0 with. The label `backend` is the backend's address.

The sums over a VIP's backends are the VIP's, for as long as none of them goes: series of what is no longer configured go with
it, those of a backend once no flow may be left of it. An id that is given to another begins at zero. Drops are a VIP's as soon as the packet
is known to be the VIP's; the sums over the VIPs are then those of `weir_packets_total`.

| Metric | Type | Labels | What it tells |
|---|---|---|---|
";

const REASONS: &str = "
## Reasons

Every frame that the XDP program sees is counted once in `weir_packets_total`, under one reason.

| Reason | Verdict | When |
|---|---|---|
";

/// docs/metrics.md, whole.
#[must_use]
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let counted = METRICS.iter().map(|m| (m.name, m.kind, m.labels, m.help));
    let measured = MEASURED.iter().map(|m| (m.name, m.kind, m.labels, m.help));
    let process = PROCESS.iter().map(|m| (m.name, m.kind, m.labels, m.help));
    for (name, kind, labels, help) in counted.chain(measured).chain(process) {
        let kind = kind.as_str();
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        // Writing to a string cannot fail.
        writeln!(page, "| `{name}` | {kind} | {labels} | {help} |").ok();
    }
    page.push_str(REASONS);
    for reason in Reason::ALL {
        let (name, verdict) = (reason.as_str(), reason.verdict().as_str());
        writeln!(
            page,
            "| `{name}` | `{verdict}` | {} |",
            reason.text().trim()
        )
        .ok();
    }
    page
}
