//! The screen: what is known, drawn into a buffer. Pure.

mod backends;
mod help;
mod pane;
pub(super) mod text;
mod vips;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use self::text::{bits, elided, rate};
use super::{
    look::Look,
    model::{Rates, Top},
    state::{Mode, Pane, State},
};

/// From how many columns on there is room for more.
const WIDE: u16 = 110;

/// Below how many lines there is none for the pane.
const LOW: u16 = 16;

/// All that the screen shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) state: &'a State,
    /// `None` until the daemon has answered once.
    pub(super) top: Option<&'a Top>,
    pub(super) away: Option<&'a Away>,
    pub(super) look: Look,
}

/// The daemon does not answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Away {
    /// Since when, in UTC.
    pub(super) since: String,
    pub(super) error: String,
}

/// Draws the screen.
pub(super) fn frame(frame: &mut Frame<'_>, view: &View<'_>) {
    let area = frame.area();
    if view.state.mode == Mode::Help {
        help::draw(frame, area, view);
        return;
    }
    let head = head(view, area.width);
    let pane_height = pane_height(view, area.height);
    let rows = [
        Constraint::Length(u16::try_from(head.len()).unwrap_or(u16::MAX)),
        Constraint::Fill(1),
        Constraint::Length(pane_height),
        Constraint::Length(1),
    ];
    let [head_area, table, below, foot] = Layout::vertical(rows).areas(area);
    for (line, row) in head.into_iter().zip(head_area.rows()) {
        frame.render_widget(line, row);
    }
    match view.top {
        Some(top) if view.state.vip.is_some() => backends::draw(frame, table, view, top),
        Some(top) => vips::draw(frame, table, view, top),
        None => frame.render_widget(Line::raw(nothing_yet(view)), table),
    }
    if let Some(top) = view.top
        && pane_height > 0
    {
        pane::draw(frame, below, view, top);
    }
    frame.render_widget(foot_line(view), foot);
}

fn nothing_yet(view: &View<'_>) -> &'static str {
    if view.away.is_some() {
        "nothing is known yet"
    } else {
        "asking the daemon"
    }
}

/// How many lines the pane has: what is asked for by name may take half.
fn pane_height(view: &View<'_>, height: u16) -> u16 {
    match view.state.pane {
        _ if height < LOW => 0,
        Pane::Drops => (height / 4).clamp(5, 12),
        Pane::Limits | Pane::Sources => height / 2 - 1,
    }
}

/// The lines above the table.
fn head(view: &View<'_>, width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![title(view, width)];
    if let Some(top) = view.top {
        lines.push(totals(top));
    }
    lines.extend(alerts(view, width));
    lines
}

/// Who tells, how often, and when.
fn title(view: &View<'_>, width: u16) -> Line<'static> {
    let interval = view.state.interval.as_secs_f64();
    let time = view.top.and_then(|top| top.time.get(11..19));
    let paused = if view.state.is_paused { "PAUSED  " } else { "" };
    let right = format!("{paused}every {interval} s  {}", time.unwrap_or("--:--:--"));
    let left = view.top.map_or_else(
        || "weir top".to_owned(),
        |top| {
            let ready = if top.ready { "ready" } else { "NOT READY" };
            let (node, version, generation) = (&top.node, &top.version, top.generation);
            format!("{node}: weir {version}, generation {generation}, {ready}")
        },
    );
    let width = usize::from(width);
    let room = width.saturating_sub(right.len() + 1);
    let left = elided(&left, room);
    Line::styled(format!("{left:<room$} {right}"), Look::bar())
}

fn totals(top: &Top) -> Line<'static> {
    Line::raw(format!(
        "all: {}; dropped {}/s, passed {}/s",
        forwarded(&top.forwarded),
        rate(top.dropped_per_second),
        rate(top.passed_per_second)
    ))
}

/// Rates as a sentence has them.
fn forwarded(rates: &Rates) -> String {
    format!(
        "{} packets/s, {}, {} new/s",
        rate(rates.packets_per_second),
        bits(rates.bits_per_second),
        rate(rates.new_connections_per_second)
    )
}

/// What somebody should look at.
fn alerts(view: &View<'_>, width: u16) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let width = usize::from(width);
    let bad = view.look.bad();
    if let Some(away) = view.away {
        let Away { since, error } = away;
        let text = format!("no answer from the daemon since {since}: {error}");
        lines.push(Line::styled(elided(&text, width), bad));
    }
    let Some(top) = view.top else {
        return lines;
    };
    let down = top
        .interfaces
        .iter()
        .filter(|interface| interface.state != "attached")
        .map(|interface| format!("interface {}: {}", interface.name, interface.state));
    let problems: Vec<_> = down.chain(top.problems.iter().cloned()).collect();
    if let Some(first) = problems.first() {
        let more = match problems.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more: weir status)"),
        };
        let text = elided(
            &format!("problem: {first}"),
            width.saturating_sub(more.len()),
        );
        lines.push(Line::styled(format!("{text}{more}"), bad));
    }
    lines
}

/// A line over a part of the screen.
fn bar(text: &str, area: Rect) -> Line<'static> {
    let width = usize::from(area.width);
    Line::styled(format!("{:<width$}", elided(text, width)), Look::bar())
}

/// By what rows are sorted, and which are shown, for the bar of a table.
fn order(view: &View<'_>, shown: usize, all: usize) -> String {
    let state = view.state;
    let reversed = if state.is_reversed { ", reversed" } else { "" };
    let filter = match state.filter() {
        "" => String::new(),
        filter => format!(", {shown} match \"{filter}\""),
    };
    format!("{all} by {}{reversed}{filter}", state.sort.as_str())
}

fn foot_line(view: &View<'_>) -> Line<'static> {
    if view.state.mode == Mode::Filter {
        let text = format!("filter: {}_", view.state.filter());
        let hint = "   Enter keeps it, Esc clears it";
        return Line::from(vec![Span::styled(text, Look::bar()), Span::raw(hint)]);
    }
    let way = if view.state.vip.is_some() {
        "Esc back"
    } else {
        "Enter backends"
    };
    Line::raw(format!(
        "? help  {way}  / filter  p b c n h u sort  l limits  s sources  q quit"
    ))
}

#[cfg(test)]
mod tests;
