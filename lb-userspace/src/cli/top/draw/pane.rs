//! What is below the table: drops, limits or sources.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::Line,
    widgets::{Cell, Row},
};

use super::{
    View, bar,
    text::{bits, elided, longest, number, rate, room, table, used},
};
use crate::{
    api::SourceStatus,
    cli::{
        limits::{limit_rate, si},
        top::{
            look::Look,
            model::{LimitUse, Reason, SampledSource, SampledSources, Top, Vip},
            rates::float,
            state::Pane,
        },
    },
};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, top: &Top) {
    let [bar_area, area] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let (title, rows) = match view.state.pane {
        Pane::Drops => {
            let rows = drops(frame, area, view.look, top);
            ("What was not forwarded, by reason".to_owned(), rows)
        }
        Pane::Limits => {
            let rows = limits(frame, area, view, top);
            ("Limits, the nearest first".to_owned(), rows)
        }
        Pane::Sources => {
            sources(frame, area, view, top);
            // There are always more.
            (sources_title(top), 0)
        }
    };
    // The names of the columns take one.
    let fit = usize::from(area.height.saturating_sub(1));
    let more = if rows > fit {
        format!(" ({fit} of {rows})")
    } else {
        String::new()
    };
    frame.render_widget(bar(&format!("{title}{more}"), bar_area), bar_area);
}

/// The VIPs that are meant: all, or the one that is drilled into.
fn meant<'a>(view: &View<'_>, top: &'a Top) -> Vec<&'a Vip> {
    match &view.state.vip {
        Some(_) => view.state.drilled(top).into_iter().collect(),
        None => top.vips.iter().collect(),
    }
}

/// Reasons of drops, then those of what was passed to the kernel; the most first. Returns how many there are.
fn drops(frame: &mut Frame<'_>, area: Rect, look: Look, top: &Top) -> usize {
    let mut reasons: Vec<_> = top
        .reasons
        .iter()
        .filter(|reason| matches!(reason.verdict.as_str(), "drop" | "pass"))
        .filter(|reason| reason.packets > 0)
        .collect();
    if reasons.is_empty() {
        frame.render_widget(Line::raw("nothing so far"), area);
        return 0;
    }
    let key = |reason: &&Reason| {
        let rate = reason.packets_per_second.unwrap_or_default();
        // Rates are not negative, and their bits are in their order.
        (reason.verdict == "drop", rate.to_bits(), reason.packets)
    };
    reasons.sort_by_key(|reason| std::cmp::Reverse(key(reason)));
    let name = longest(reasons.iter().map(|reason| reason.reason.len())).max(20);
    let columns = [
        ("REASON", name),
        ("VERDICT", 7),
        ("PACKETS/S", 9),
        ("PACKETS", 9),
    ];
    let rows = reasons.iter().map(|reason| {
        let is_dropping = reason.verdict == "drop" && reason.packets_per_second > Some(0.0);
        let style = if is_dropping {
            look.unusual()
        } else {
            Style::new()
        };
        let cells = [
            Cell::from(reason.reason.clone()),
            Cell::from(reason.verdict.clone()),
            number(rate(reason.packets_per_second)),
            number(si(float(reason.packets))),
        ];
        Row::new(cells).style(style)
    });
    let table = table(rows.collect(), &columns, 2, look);
    frame.render_widget(table, area);
    reasons.len()
}

/// Returns how many there are.
fn limits(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, top: &Top) -> usize {
    let vips = meant(view, top);
    let mut all: Vec<(&Vip, &LimitUse)> = vips
        .iter()
        .flat_map(|vip| vip.limits.iter().map(move |limit| (*vip, limit)))
        .collect();
    if all.is_empty() {
        let text = "no limit here ([vip.limit] in the configuration)";
        frame.render_widget(Line::raw(text), area);
        return 0;
    }
    all.sort_by(|(_, a), (_, b)| {
        let used = |limit: &LimitUse| limit.used.unwrap_or(-1.0);
        used(b).total_cmp(&used(a))
    });
    let mut columns = vec![
        ("LIMIT", 26),
        ("ACTION", 7),
        ("RATE", 10),
        ("USED", 6),
        ("PASS/S", 6),
        ("OVER/S", 6),
    ];
    let name = room(area.width, &columns, 0);
    columns.insert(0, ("VIP", name));
    let rows = all.iter().map(|(vip, limit)| {
        let style = match limit.used {
            Some(used) if used >= 1.0 => view.look.bad(),
            Some(used) if used >= 0.8 => view.look.unusual(),
            _ => Style::new(),
        };
        let cells = [
            Cell::from(elided(&vip.name, name.into())),
            Cell::from(limit.limit.clone()),
            Cell::from(limit.action.clone()),
            number(limit_rate(&limit.limit, limit.per_second)),
            Cell::from(Line::raw(used(limit.used)).right_aligned()).style(style),
            number(rate(limit.allowed_per_second)),
            number(rate(limit.over_per_second)),
        ];
        Row::new(cells)
    });
    let table = table(rows.collect(), &columns, 3, view.look);
    frame.render_widget(table, area);
    all.len()
}

fn sources_title(top: &Top) -> String {
    let Some(sampled) = &top.sampled_sources else {
        return "Top sources".to_owned();
    };
    match &sampled.unavailable {
        Some(why) => format!("Top sources; no samples: {why}"),
        None => format!(
            "Top sources; sampled 1 of {}, {} samples in {:.0} s: estimates",
            sampled.sample, sampled.samples, sampled.seconds
        ),
    }
}

/// A line of the sources.
struct Talker {
    source: String,
    vip: String,
    packets: String,
    error: String,
    bits: String,
    new: String,
    over: String,
}

/// What limits tell exactly, then what samples tell; each has half the room where both have more than that.
fn sources(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, top: &Top) {
    let exact = exact_sources(&meant(view, top));
    let sampled = top.sampled_sources.as_ref();
    let of = view.state.vip.as_deref().unwrap_or("(all)");
    let sampled = sampled.map(|sampled| sampled_sources(sampled, of));
    let sampled = sampled.unwrap_or_default();
    let room_for = usize::from(area.height.saturating_sub(1));
    let half = room_for
        .div_ceil(2)
        .max(room_for.saturating_sub(sampled.len()));
    let rows: Vec<_> = exact.into_iter().take(half).chain(sampled).collect();
    if rows.is_empty() {
        let why = match &top.sampled_sources {
            Some(sampled) if sampled.unavailable.is_some() => {
                "no samples, and no VIP here has a limit that tells sources apart"
            }
            _ => "nobody so far",
        };
        frame.render_widget(Line::raw(why), area);
        return;
    }
    let mut columns = vec![
        ("VIP", 14),
        ("PACKETS/S", 9),
        ("+-", 6),
        ("BITS/S", 10),
        ("NEW/S", 6),
        ("OVER/S", 6),
    ];
    let source = room(area.width, &columns, 0);
    columns.insert(0, ("SOURCE", source));
    let rows = rows.into_iter().map(|row| {
        Row::new([
            Cell::from(elided(&row.source, source.into())),
            Cell::from(elided(&row.vip, 14)),
            number(row.packets),
            number(row.error),
            number(row.bits),
            number(row.new),
            number(row.over),
        ])
    });
    let table = table(rows.collect(), &columns, 2, view.look);
    frame.render_widget(table, area);
}

fn exact_sources(vips: &[&Vip]) -> Vec<Talker> {
    let mut all: Vec<(&str, &SourceStatus)> = vips
        .iter()
        .flat_map(|vip| {
            let sources = vip.top_sources.iter().flatten();
            sources.map(|source| (vip.name.as_str(), source))
        })
        .collect();
    all.sort_by(|(_, a), (_, b)| b.packets_per_second.total_cmp(&a.packets_per_second));
    let row = |(vip, source): (&str, &SourceStatus)| Talker {
        source: source.source.clone(),
        vip: vip.to_owned(),
        packets: si(source.packets_per_second),
        error: "exact".to_owned(),
        bits: "-".to_owned(),
        new: si(source.new_connections_per_second),
        over: si(source.over_per_second),
    };
    all.into_iter().map(row).collect()
}

fn sampled_sources(sampled: &SampledSources, vip: &str) -> Vec<Talker> {
    let row = |source: &SampledSource| Talker {
        source: source.source.to_string(),
        vip: vip.to_owned(),
        packets: si(source.packets_per_second),
        error: si(source.error_per_second + sampled.overestimate_per_second),
        bits: bits(Some(source.bits_per_second)),
        new: "-".to_owned(),
        over: "-".to_owned(),
    };
    sampled.top.iter().map(row).collect()
}
