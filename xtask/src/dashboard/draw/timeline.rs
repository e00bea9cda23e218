//! States over time, a bar for each series.

use anyhow::Result;
use plotters::prelude::*;

use super::{
    Area, Drawn, Frame,
    style::{
        self, BACKGROUND, MUTED, TEXT, centred, fitting, minutes, pixels, text, ticks, width_of,
    },
};

/// Width of the names.
const NAMES: u32 = 170;
/// Height of a bar, at most, with the space below it.
const BAR: i32 = 48;
/// Height of the times below.
const TIMES: i32 = 22;
/// Size of the text.
const SIZE: u32 = 11;

pub(super) fn draw(area: &Area<'_>, drawn: &Drawn<'_>, frame: &Frame<'_>) -> Result<()> {
    let mut series: Vec<_> = drawn.series.iter().collect();
    series.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (width, height) = area.dim_in_pixel();
    let names = pixels(NAMES.min(width / 3));
    let (left, right) = (names + 10, pixels(width) - 14);
    let count = i32::try_from(series.len().max(1))?;
    let step = ((pixels(height) - TIMES - 6) / count).min(BAR);
    let at = |seconds: f64| {
        let part = (seconds / frame.seconds()).clamp(0.0, 1.0);
        left + (part * f64::from(right - left)) as i32
    };
    for (row, (name, series)) in (0..).zip(series) {
        let top = row * step + 4;
        let bottom = top + (step - 6).max(3);
        let name = fitting(name, SIZE, names - 12);
        area.draw_text(
            &name,
            &text(SIZE, TEXT),
            (10, i32::midpoint(top, bottom) - 6),
        )?;
        for (from, to, value) in states(&series.values) {
            let (from, to) = (at(from - frame.time.0), at(to - frame.time.0));
            let (state, colour) = drawn.panel.mapped(value).unwrap_or(("", "blue"));
            let colour = style::colour(colour);
            area.draw(&Rectangle::new(
                [(from, top), (to, bottom)],
                colour.mix(0.8).filled(),
            ))?;
            if width_of(state, SIZE) + 10 < to - from {
                let middle = (i32::midpoint(from, to), i32::midpoint(top, bottom));
                area.draw_text(state, &centred(SIZE, BACKGROUND), middle)?;
            }
        }
    }
    let end = count * step + 6;
    for (seconds, colour) in frame.marks() {
        let x = at(seconds);
        area.draw(&PathElement::new([(x, 2), (x, end)], colour.mix(0.6)))?;
    }
    for seconds in ticks(frame.seconds()) {
        area.draw_text(
            &minutes(seconds),
            &centred(SIZE, MUTED),
            (at(seconds), end + 10),
        )?;
    }
    Ok(())
}

/// From when to when a series had which value.
fn states(values: &[(f64, f64)]) -> Vec<(f64, f64, f64)> {
    let mut states: Vec<(f64, f64, f64)> = Vec::new();
    for &(at, value) in values {
        match states.last_mut() {
            Some((_, to, last)) if at - *to < 1.5 => {
                *to = at;
                if last.to_bits() != value.to_bits() {
                    states.push((at, at, value));
                }
            }
            _ => states.push((at, at, value)),
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_lasts_until_the_next_and_ends_with_a_gap() {
        let values = [(1.0, 1.0), (2.0, 1.0), (3.0, 0.0), (4.0, 0.0), (9.0, 0.0)];
        let expected = [(1.0, 3.0, 1.0), (3.0, 4.0, 0.0), (9.0, 9.0, 0.0)];
        assert_eq!(states(&values), expected);
    }
}
