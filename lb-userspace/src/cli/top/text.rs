//! What happened in an interval, as tables that fit 80 columns.

use std::fmt::Write as _;

use comfy_table::Cell;

use super::{
    draw::text::{bits, rate, share, used},
    model::{SampledSources, Top, Vip},
    rates::float,
};
use crate::cli::{
    limits::{limit_rate, si},
    table::{number, table},
};

/// How many sources are told.
const SOURCES: usize = 10;

/// Everything.
pub(super) fn top(top: &Top) -> String {
    let rates = &top.forwarded;
    // Writing to a string cannot fail, here and below.
    let mut text = format!(
        "node {}, in {} s:\n{} packets/s, {}, {} new/s; dropped {}/s, passed {}/s\n",
        top.node,
        top.seconds
            .map_or_else(|| "-".to_owned(), |s| format!("{s:.1}")),
        rate(rates.packets_per_second),
        bits(rates.bits_per_second),
        rate(rates.new_connections_per_second),
        rate(top.dropped_per_second),
        rate(top.passed_per_second)
    );
    if !top.vips.is_empty() {
        writeln!(text, "\n{}", vips(&top.vips)).ok();
    }
    for vip in &top.vips {
        if !vip.backends.is_empty() {
            writeln!(text, "\n{}", backends(vip)).ok();
        }
    }
    if top.vips.iter().any(|vip| !vip.limits.is_empty()) {
        writeln!(text, "\n{}", limits(&top.vips)).ok();
    }
    let dropped = top
        .reasons
        .iter()
        .filter(|reason| matches!(reason.verdict.as_str(), "drop" | "pass") && reason.packets > 0);
    let mut reasons = table(&["REASON", "VERDICT", "PACKETS/S", "PACKETS"], 2);
    for reason in dropped {
        reasons.add_row([
            Cell::new(&reason.reason),
            Cell::new(&reason.verdict),
            number(rate(reason.packets_per_second)),
            number(si(float(reason.packets))),
        ]);
    }
    if !reasons.is_empty() {
        writeln!(text, "\n{}", reasons.trim_fmt()).ok();
    }
    for vip in &top.vips {
        if let Some(sources) = exact(vip) {
            writeln!(text, "\n{sources}").ok();
        }
    }
    if let Some(sources) = &top.sampled_sources {
        writeln!(text, "\n{}", sampled(sources)).ok();
    }
    text
}

fn vips(vips: &[Vip]) -> String {
    let mut table = table(
        &[
            "VIP",
            "DIALLED",
            "STATE",
            "UP",
            "PACKETS/S",
            "BITS/S",
            "NEW/S",
            "LIMIT",
        ],
        3,
    );
    for vip in vips {
        table.add_row([
            Cell::new(&vip.name),
            Cell::new(vip.dialled()),
            Cell::new(vip.state.as_str()),
            number(format!("{}/{}", vip.backends_in_use, vip.configured())),
            number(rate(vip.rates.packets_per_second)),
            number(rate(vip.rates.bits_per_second)),
            number(rate(vip.rates.new_connections_per_second)),
            number(used(vip.limit_used)),
        ]);
    }
    table.trim_fmt()
}

fn backends(vip: &Vip) -> String {
    let name = format!("BACKEND OF {}", vip.name);
    let header = [
        &name,
        "STATE",
        "WEIGHT",
        "SLOTS",
        "TRAFFIC",
        "PACKETS/S",
        "BITS/S",
        "NEW/S",
    ];
    let mut table = table(&header, 2);
    for backend in &vip.backends {
        table.add_row([
            Cell::new(backend.address),
            Cell::new(backend.state.as_str()),
            number(backend.weight.to_string()),
            number(share(backend.slots_share)),
            number(backend.traffic_share.map_or_else(|| "-".to_owned(), share)),
            number(rate(backend.rates.packets_per_second)),
            number(rate(backend.rates.bits_per_second)),
            number(rate(backend.rates.new_connections_per_second)),
        ]);
    }
    table.trim_fmt()
}

fn limits(vips: &[Vip]) -> String {
    let header = ["VIP", "LIMIT", "ACTION", "RATE", "USED", "PASS/S", "OVER/S"];
    let mut table = table(&header, 3);
    for vip in vips {
        for limit in &vip.limits {
            table.add_row([
                Cell::new(&vip.name),
                Cell::new(&limit.limit),
                Cell::new(&limit.action),
                number(limit_rate(&limit.limit, limit.per_second)),
                number(used(limit.used)),
                number(rate(limit.allowed_per_second)),
                number(rate(limit.over_per_second)),
            ]);
        }
    }
    table.trim_fmt()
}

/// The busiest sources of a VIP whose limits tell them apart.
fn exact(vip: &Vip) -> Option<String> {
    let sources = vip.top_sources.as_ref()?;
    let name = format!("SOURCE OF {}", vip.name);
    let mut table = table(&[&name, "PACKETS/S", "NEW/S", "OVER/S"], 1);
    for source in sources.iter().take(SOURCES) {
        table.add_row([
            Cell::new(&source.source),
            number(si(source.packets_per_second)),
            number(si(source.new_connections_per_second)),
            number(si(source.over_per_second)),
        ]);
    }
    (!sources.is_empty()).then(|| table.trim_fmt())
}

fn sampled(sources: &SampledSources) -> String {
    if let Some(why) = &sources.unavailable {
        return format!("no sampled sources: {why}");
    }
    let mut text = format!(
        "{} packets sampled, 1 of {}; estimates:\n",
        sources.samples, sources.sample
    );
    let mut table = table(&["SOURCE", "PACKETS/S", "+-", "BITS/S"], 1);
    for source in sources.top.iter().take(SOURCES) {
        table.add_row([
            Cell::new(source.source),
            number(si(source.packets_per_second)),
            number(si(source.error_per_second + sources.overestimate_per_second)),
            number(bits(Some(source.bits_per_second))),
        ]);
    }
    text.push_str(&table.trim_fmt());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::testing;

    #[test]
    fn everything_is_told_within_80_columns() {
        let shown = top(&testing::top());
        assert!(
            shown.lines().all(|line| line.chars().count() <= 80),
            "{shown}"
        );
        testing::snapshot("once", &shown);
    }
}
