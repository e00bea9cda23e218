//! Numbers and names as the screen has them.

use ratatui::{
    text::Line,
    widgets::{Cell, Row, Table},
};

use crate::cli::{limits::si, top::look::Look};

/// A rate with three digits; `-` where it is not known.
pub(in crate::cli::top) fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), si)
}

/// Bits a second, with their unit.
pub(in crate::cli::top) fn bits(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{}bit/s", si(rate)))
}

/// A share of all: `33.3%`.
pub(in crate::cli::top) fn share(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// How much of a limit is used; with a mark where that is all of it.
pub(in crate::cli::top) fn used(used: Option<f64>) -> String {
    match used {
        None => "-".to_owned(),
        Some(used) => {
            let mark = if used >= 1.0 { "!" } else { "" };
            format!("{:.0}%{mark}", used * 100.0)
        }
    }
}

/// What fits; of what does not, both ends, as they tell addresses apart.
pub(super) fn elided(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    // Sentences lose their end, names their middle.
    let tail = if text.contains(' ') { 0 } else { room / 2 };
    let start: String = text.chars().take(room - tail).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// The length of the longest.
pub(super) fn longest(texts: impl Iterator<Item = usize>) -> u16 {
    u16::try_from(texts.max().unwrap_or_default()).unwrap_or(u16::MAX)
}

pub(super) fn number(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).right_aligned())
}

/// A table with names over its columns, those from `numbers` on to the right.
pub(super) fn table(
    rows: Vec<Row<'static>>,
    columns: &[(&'static str, u16)],
    numbers: usize,
    look: Look,
) -> Table<'static> {
    let names = columns.iter().enumerate().map(|(index, (name, _))| {
        let line = Line::raw(*name);
        Cell::from(if index < numbers {
            line
        } else {
            line.right_aligned()
        })
    });
    let header = Row::new(names).style(look.heading());
    Table::new(rows, columns.iter().map(|(_, width)| *width))
        .header(header)
        .row_highlight_style(Look::chosen())
        .highlight_symbol(">")
}

/// What is left of a width for the columns without a width of their own, with a column between each two and the mark of
/// the chosen row.
pub(super) fn room(width: u16, others: &[(&str, u16)], own: u16) -> u16 {
    let taken: u16 = others.iter().map(|(_, width)| width + 1).sum();
    width.saturating_sub(taken + own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_middle_and_sentences_their_end() {
        assert_eq!(elided("web", 3), "web");
        assert_eq!(elided("2001:db8::1234", 8), "2001…234");
        assert_eq!(elided("no answer yet", 8), "no answ…");
        assert_eq!(elided("web", 1), "…");
        assert_eq!(elided("web", 0), "");
    }

    #[test]
    fn what_is_not_known_is_no_number() {
        assert_eq!((rate(None), rate(Some(0.0))), ("-".into(), "0".into()));
        assert_eq!(bits(Some(1.5e9)), "1.5Gbit/s");
        assert_eq!(
            (used(Some(0.999)), used(Some(1.2))),
            ("100%".into(), "120%!".into())
        );
    }
}
