//! Panels as SVG, a picture for each row of the dashboard.

mod lines;
mod stat;
mod style;
mod table;
mod timeline;
mod unit;

use std::path::Path;

use anyhow::Result;
use plotters::{coord::Shift, prelude::*};

use self::style::{BACKGROUND, COLUMN, GAP, HEAD, LINE, MUTED, PANEL, TEXT, TITLE, WIDTH, text};
use super::model::Panel;
use crate::lab::Series;

/// Where is drawn.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A panel with what Prometheus answered, each series with its name.
pub(super) struct Drawn<'a> {
    pub(super) panel: &'a Panel,
    pub(super) series: Vec<(String, Series)>,
}

/// A moment that is marked in every panel.
pub(super) struct Mark {
    /// In seconds since 1970.
    pub(super) at: f64,
    pub(super) colour: String,
}

/// What all panels of a picture share.
struct Frame<'a> {
    marks: &'a [Mark],
    /// From and to, in seconds since 1970.
    time: (f64, f64),
}

impl Frame<'_> {
    /// How long it is, in seconds.
    fn seconds(&self) -> f64 {
        self.time.1 - self.time.0
    }

    /// The marks that are in it, in seconds from its beginning.
    fn marks(&self) -> impl Iterator<Item = (f64, RGBColor)> {
        let from_start = |mark: &Mark| (mark.at - self.time.0, style::colour(&mark.colour));
        let marks = self.marks.iter().map(from_start);
        marks.filter(|(at, _)| *at > 0.0 && *at < self.seconds())
    }
}

/// Draws a row of the dashboard.
pub(super) fn row(
    path: &Path,
    title: &str,
    panels: &[Drawn<'_>],
    marks: &[Mark],
    time: (f64, f64),
) -> Result<()> {
    let places = || panels.iter().map(|drawn| drawn.panel.place);
    let top = places().map(|place| place.y).min().unwrap_or_default();
    let bottom = places().map(|place| place.y + place.h).max();
    let height = (bottom.unwrap_or_default() - top) * LINE + HEAD;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&BACKGROUND)?;
    area.draw_text(&format!("▾ {title}"), &text(15, TEXT), (10, 8))?;
    let frame = Frame { marks, time };
    for drawn in panels {
        let place = drawn.panel.place;
        let (x, y) = (place.x * COLUMN, (place.y - top) * LINE + HEAD);
        let size = (place.w * COLUMN - GAP, place.h * LINE - GAP);
        let area = area.clone().shrink((x + GAP / 2, y), size);
        one(&area, drawn, &frame)?;
    }
    area.present()?;
    Ok(())
}

fn one(area: &Area<'_>, drawn: &Drawn<'_>, frame: &Frame<'_>) -> Result<()> {
    area.fill(&PANEL)?;
    area.draw_text(&drawn.panel.title, &text(13, TEXT), (10, 8))?;
    let (width, height) = area.dim_in_pixel();
    let body = area.clone().shrink((0, TITLE), (width, height - TITLE));
    let has_values = drawn.series.iter().any(|(_, series)| {
        let mut values = series.values.iter();
        values.any(|(_, value)| value.is_finite())
    });
    match drawn.panel.kind.as_str() {
        _ if !has_values => nothing(&body),
        "stat" => stat::draw(&body, drawn, frame),
        "state-timeline" => timeline::draw(&body, drawn, frame),
        "table" => table::draw(&body, drawn),
        _ => lines::draw(&body, drawn, frame),
    }
}

/// What Grafana says where there is nothing.
fn nothing(area: &Area<'_>) -> Result<()> {
    let (width, height) = area.dim_in_pixel();
    let middle = (style::pixels(width) / 2, style::pixels(height) / 2 - 8);
    area.draw_text("No data", &style::centred(14, MUTED), middle)?;
    Ok(())
}
