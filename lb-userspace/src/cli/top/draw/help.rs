//! The help: every key.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{View, bar};

const LINES: [(&str, &str); 20] = [
    (
        "Up Down j k",
        "choose a row; PgUp, PgDn, Home, End for more",
    ),
    ("Enter", "the backends of this VIP; Esc goes back"),
    ("/", "show only rows with this text; Esc clears it"),
    ("p b c", "sort by packets, bits, new connections"),
    ("n h", "sort by name, by health (the worst first)"),
    (
        "u",
        "sort by use: nearest to a limit; furthest from its slots",
    ),
    ("r", "sort the other way round"),
    ("d l s", "below: drops by reason, limits, top sources"),
    ("+ -", "a longer or shorter interval"),
    ("space", "hold the picture, or go on"),
    ("q Ctrl-C", "quit; Ctrl-Z suspends"),
    ("", ""),
    ("UP", "backends that take packets, of those configured"),
    (
        "LIMIT",
        "of the limit that is nearest: what is used; ! is all of it",
    ),
    (
        "SLOTS",
        "what a backend owns of the table: by weight, among the usable",
    ),
    (
        "TRAFFIC",
        "what it got of the VIP's packets in this interval",
    ),
    (
        "-",
        "not known: new since the last sample, or counted from 0 again",
    ),
    ("+-", "how far an estimate may be off, 95 times of 100"),
    ("", ""),
    ("", "Bits are those of frames as received, without the FCS."),
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, view: &View<'_>) {
    let title = bar("weir top: help. Any key goes back.", area);
    let lines = LINES.iter().map(|(key, what)| {
        if key.is_empty() {
            return Line::raw(*what);
        }
        let heading = Span::styled(format!("{key:<13}"), view.look.heading());
        Line::from(vec![heading, Span::raw(*what)])
    });
    let all = std::iter::once(title).chain(lines);
    for (line, row) in all.zip(area.rows()) {
        frame.render_widget(line, row);
    }
}
