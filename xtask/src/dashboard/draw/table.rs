//! Labels as a table.

use anyhow::Result;
use plotters::prelude::*;

use super::{
    Area, Drawn,
    style::{GRID, MUTED, TEXT, fitting, pixels, text},
};

/// Height of a line.
const LINE: i32 = 24;
/// Size of the text.
const SIZE: u32 = 12;

pub(super) fn draw(area: &Area<'_>, drawn: &Drawn<'_>) -> Result<()> {
    let columns = drawn.panel.columns();
    let (width, height) = area.dim_in_pixel();
    let wide = (pixels(width) - 20) / i32::try_from(columns.len().max(1))?;
    let mut rows: Vec<Vec<&str>> = vec![columns.iter().map(String::as_str).collect()];
    let mut cells: Vec<Vec<&str>> = drawn
        .series
        .iter()
        .map(|(_, series)| {
            let label = |name: &String| series.labels.get(name).map_or("", String::as_str);
            columns.iter().map(label).collect()
        })
        .collect();
    cells.sort();
    rows.extend(cells);
    let fit = usize::try_from(pixels(height) / LINE)?;
    for (line, row) in (0..).zip(rows.iter().take(fit)) {
        let y = line * LINE;
        let colour = if line == 0 { MUTED } else { TEXT };
        for (column, cell) in (0..).zip(row) {
            let cell = fitting(cell, SIZE, wide - 10);
            area.draw_text(&cell, &text(SIZE, colour), (12 + column * wide, y + 5))?;
        }
        let rule = [(10, y + LINE - 2), (pixels(width) - 10, y + LINE - 2)];
        area.draw(&PathElement::new(rule, GRID))?;
    }
    Ok(())
}
