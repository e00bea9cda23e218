//! One value, large, above its course.

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use super::{
    Area, Drawn, Frame,
    style::{self, centred, pixels},
    unit,
};

pub(super) fn draw(area: &Area<'_>, drawn: &Drawn<'_>, frame: &Frame<'_>) -> Result<()> {
    let (_, series) = drawn.series.first().context("a stat without a series")?;
    let values = series.values.iter().filter(|(_, value)| value.is_finite());
    let values: Vec<_> = values
        .map(|(at, value)| (at - frame.time.0, *value))
        .collect();
    let &(_, last) = values.last().context("a stat without a value")?;
    let colour = style::colour(drawn.panel.threshold(last));
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let (width, height) = area.dim_in_pixel();
    let course = area.clone().shrink((0, height / 2), (width, height / 2));
    let mut chart = ChartBuilder::on(&course)
        .build_cartesian_2d(0.0..frame.seconds(), 0.0..(most * 1.1).max(f64::EPSILON))?;
    let line = AreaSeries::new(values, 0.0, colour.mix(0.15));
    chart.draw_series(line.border_style(colour.mix(0.6)))?;
    let shown = unit::show(&drawn.panel.fields.defaults.unit, last);
    let middle = (pixels(width) / 2, pixels(height) / 2 - 12);
    area.draw_text(&shown, &centred(26, colour), middle)?;
    Ok(())
}
