//! Tables and numbers of all commands, which fit 80 columns.

use std::io::{self, IsTerminal as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};
use lb_common::slot::SLOTS;

use crate::logging::no_colour;

const WIDTH: u16 = 80;

/// What fits on a line; json has all of it.
pub(super) fn fit(text: &str) -> String {
    let width = usize::from(WIDTH);
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let start: String = text.chars().take(width - 1).collect();
    format!("{}…", start.trim_end())
}

/// An empty table whose columns from `numbers` on are numbers.
pub(super) fn table(header: &[&str], numbers: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let is_terminal = io::stdout().is_terminal();
    if !is_terminal || no_colour() {
        table.force_no_tty();
    }
    let terminal = is_terminal.then(|| Table::new().width()).flatten();
    table.set_width(terminal.unwrap_or(WIDTH));
    table.set_header(header.iter().enumerate().map(|(index, name)| {
        let cell = Cell::new(name);
        if index < numbers {
            cell
        } else {
            cell.set_alignment(CellAlignment::Right)
        }
    }));
    // One space between columns is enough, and leaves room for IPv6.
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

pub(super) fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Slots as a share of all.
pub(super) fn share(slots: u32) -> String {
    let permille = (u64::from(slots) * 1000 + SLOTS as u64 / 2) / SLOTS as u64;
    format!("{}.{}%", permille / 10, permille % 10)
}

pub(super) fn count(number: u64) -> String {
    scaled(number, "")
}

pub(super) fn bytes(number: u64) -> String {
    format!("{}B", scaled(number, " "))
}

/// Whole below 10,000, else three digits at most, a decimal and a prefix.
fn scaled(number: u64, space: &str) -> String {
    if number < 10_000 {
        return format!("{number}{space}");
    }
    let (mut value, mut rest, mut prefix) = (number, 0, "");
    for larger in ["k", "M", "G", "T", "P", "E"] {
        if value < 1000 {
            break;
        }
        (value, rest, prefix) = (value / 1000, value % 1000 / 100, larger);
    }
    format!("{value}.{rest}{space}{prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_large_numbers() {
        assert_eq!(count(0), "0");
        assert_eq!(count(9_999), "9999");
        assert_eq!(count(12_345), "12.3k");
        assert_eq!(count(9_999_999), "9.9M");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(10), "10 B");
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(share(32768), "50.0%");
    }
}
