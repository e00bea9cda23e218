//! Values over time.

use std::{collections::BTreeMap, ops::Range};

use anyhow::Result;
use plotters::{
    coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    prelude::*,
};

use super::{
    Area, Drawn, Frame,
    style::{
        self, GRID, MUTED, TEXT, fitting, minutes, over_panel, palette, pixels, text, ticks,
        width_of,
    },
    unit,
};

/// Height of a line of the legend.
const LEGEND: u32 = 17;
/// How many lines it may have.
const LEGENDS: usize = 3;
/// Size of its text.
const SIZE: u32 = 11;

/// Values of a series in seconds from the beginning, without a gap.
type Piece = Vec<(f64, f64)>;

/// The axis of times: so many seconds, labelled every half minute.
struct Seconds(f64);

impl Ranged for Seconds {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * value / self.0) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        ticks(self.0)
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0
    }
}

impl ValueFormatter<f64> for Seconds {
    fn format(value: &f64) -> String {
        minutes(*value)
    }
}

/// One series, as it is drawn.
struct Line<'a> {
    name: &'a str,
    colour: RGBColor,
    pieces: Vec<Piece>,
}

pub(super) fn draw(area: &Area<'_>, drawn: &Drawn<'_>, frame: &Frame<'_>) -> Result<()> {
    let defaults = &drawn.panel.fields.defaults;
    let is_stacked = defaults.custom.stacking.mode == "normal";
    let is_stepped = defaults.custom.interpolation == "stepAfter";
    let mut lines = lines(drawn, frame.time.0);
    if is_stacked {
        stack(&mut lines);
    }
    let (width, height) = area.dim_in_pixel();
    let rows = legend(&lines, pixels(width) - 20);
    let legend_height = LEGEND * u32::try_from(rows.len())? + 4;
    let (upper, lower) = area.split_vertically(height - legend_height);
    draw_legend(&lower, &lines, &rows)?;

    let range = range(&lines, defaults.min, defaults.max);
    let mut chart = ChartBuilder::on(&upper)
        .margin_right(14)
        .margin_top(4)
        .x_label_area_size(22)
        .y_label_area_size(66)
        .build_cartesian_2d(Seconds(frame.seconds()), range)?;
    let label = text(SIZE, MUTED);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(label)
        .y_labels(5)
        .x_label_formatter(&|seconds| minutes(*seconds))
        .y_label_formatter(&|value| unit::show(&defaults.unit, *value))
        .draw()?;
    let (bottom, top) = (chart.y_range().start, chart.y_range().end);
    // What lies on all others is drawn first.
    for line in lines.iter().rev() {
        for piece in &line.pieces {
            let piece = if is_stepped {
                steps(piece)
            } else {
                piece.clone()
            };
            if is_stacked {
                let fill = over_panel(line.colour, 40);
                let area = AreaSeries::new(piece, bottom.max(0.0), fill);
                chart.draw_series(area.border_style(line.colour))?;
            } else {
                let style = line.colour.stroke_width(2);
                chart.draw_series(LineSeries::new(piece, style))?;
            }
        }
    }
    for (at, colour) in frame.marks() {
        let mark = vec![(at, bottom), (at, top)];
        chart.draw_series([PathElement::new(mark, colour.mix(0.45))])?;
    }
    Ok(())
}

/// The series, sorted by name so that colours last.
fn lines<'a>(drawn: &'a Drawn<'_>, began: f64) -> Vec<Line<'a>> {
    let mut series: Vec<_> = drawn.series.iter().collect();
    series.sort_by(|(a, _), (b, _)| a.cmp(b));
    let lines = series
        .into_iter()
        .enumerate()
        .map(|(number, (name, series))| {
            let own = drawn.panel.colour_of(name);
            let mut pieces: Vec<Piece> = Vec::new();
            let mut last = f64::NEG_INFINITY;
            for &(at, value) in series.values.iter().filter(|(_, value)| value.is_finite()) {
                match pieces.last_mut() {
                    Some(piece) if at - last < 1.5 => piece.push((at - began, value)),
                    _ => pieces.push(vec![(at - began, value)]),
                }
                last = at;
            }
            Line {
                name,
                colour: own.map_or_else(|| palette(number), style::colour),
                pieces,
            }
        });
    lines.collect()
}

/// Puts every series on those before it.
fn stack(lines: &mut [Line<'_>]) {
    let mut below = BTreeMap::new();
    for line in lines {
        for (at, value) in line.pieces.iter_mut().flatten() {
            // Times of one answer are the same in all series; as whole milliseconds they can be compared.
            let sum: &mut f64 = below.entry((*at * 1000.0).round() as i64).or_default();
            *sum += *value;
            *value = *sum;
        }
    }
}

/// A value lasts until the next.
fn steps(piece: &[(f64, f64)]) -> Piece {
    let mut stepped = Vec::new();
    let mut last = None;
    for &(at, value) in piece {
        if let Some(last) = last {
            stepped.push((at, last));
        }
        stepped.push((at, value));
        last = Some(value);
    }
    stepped
}

fn range(lines: &[Line<'_>], min: Option<f64>, max: Option<f64>) -> Range<f64> {
    let values = || lines.iter().flat_map(|line| line.pieces.iter().flatten());
    let most = values()
        .map(|(_, value)| *value)
        .fold(f64::NEG_INFINITY, f64::max);
    let least = values()
        .map(|(_, value)| *value)
        .fold(f64::INFINITY, f64::min);
    let room = ((most - least) * 0.08).max(most.abs() * 0.02);
    let room = if room > 0.0 { room } else { 1.0 };
    let low = min.unwrap_or(least - room);
    let high = max.unwrap_or(most + room);
    low..high.max(low + f64::EPSILON)
}

/// The series of each line of the legend.
fn legend(lines: &[Line<'_>], width: i32) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = vec![Vec::new()];
    let mut used = 0;
    for (number, line) in lines.iter().enumerate() {
        let wide = entry(line.name);
        if used + wide > width && used > 0 {
            rows.push(Vec::new());
            used = 0;
        }
        used += wide;
        if let Some(row) = rows.last_mut() {
            row.push(number);
        }
    }
    rows.truncate(LEGENDS);
    rows
}

fn entry(name: &str) -> i32 {
    24 + width_of(name, SIZE) + 8
}

fn draw_legend(area: &Area<'_>, lines: &[Line<'_>], rows: &[Vec<usize>]) -> Result<()> {
    let (width, _) = area.dim_in_pixel();
    for (row, numbers) in (0..).zip(rows) {
        let y = row * pixels(LEGEND) + 1;
        let mut x = 12;
        for line in numbers.iter().filter_map(|number| lines.get(*number)) {
            let name = fitting(line.name, SIZE, pixels(width) - x - 26);
            area.draw(&PathElement::new(
                [(x, y + 6), (x + 14, y + 6)],
                line.colour.stroke_width(3),
            ))?;
            area.draw_text(&name, &text(SIZE, TEXT), (x + 20, y))?;
            x += entry(line.name);
        }
    }
    Ok(())
}
