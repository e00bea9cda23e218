//! The plots, as SVG.

use std::path::Path;

use anyhow::Context as _;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use crate::measure::Row;

/// Writes every plot into a directory.
pub(crate) fn write(rows: &[Row], directory: &Path) -> anyhow::Result<()> {
    let draw = |name: &str, title, unit, scale, value: fn(&Row) -> f64| {
        let plot = Plot {
            rows,
            title,
            unit,
            value,
        };
        let path = directory.join(name);
        plot.draw(&path, scale)
            .with_context(|| format!("draw {}", path.display()))
    };
    draw(
        "tables-deviation.svg",
        "Standard deviation of the shares, equal weights",
        "% of the share",
        Scale::Log(0.005..200.0),
        |row| row.equal.deviation * 100.0,
    )?;
    draw(
        "tables-peak.svg",
        "Largest share, equal weights",
        "peak / mean",
        Scale::Log(0.9..12.0),
        |row| row.equal.peak,
    )?;
    draw(
        "tables-excess.svg",
        "Slots moved beyond the minimum when a backend leaves",
        "% of all slots",
        Scale::Linear(-0.05..1.0),
        |row| row.leave.excess / 655.36,
    )?;
    draw(
        "tables-build.svg",
        "Time to make a table of 65,536 slots on one core",
        "ms",
        Scale::Log(0.1..200.0),
        |row| row.build_ms.median,
    )
}

/// Of the vertical axis.
enum Scale {
    Linear(std::ops::Range<f64>),
    Log(std::ops::Range<f64>),
}

/// One value against the number of backends, with a line for each algorithm.
struct Plot<'a> {
    rows: &'a [Row],
    title: &'a str,
    unit: &'a str,
    value: fn(&Row) -> f64,
}

impl Plot<'_> {
    fn draw(&self, path: &Path, scale: Scale) -> anyhow::Result<()> {
        match scale {
            Scale::Linear(range) => self.draw_over(path, range),
            Scale::Log(range) => self.draw_over(path, range.log_scale()),
        }
    }

    fn draw_over<Y>(&self, path: &Path, range: Y) -> anyhow::Result<()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let area = SVGBackend::new(path, (760, 440)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            // Room for the legend beyond 10,000.
            .build_cartesian_2d((8.0..90_000.0f64).log_scale(), range)?;
        chart
            .configure_mesh()
            .x_desc("backends")
            .x_label_formatter(&|backends| format!("{backends}"))
            .y_desc(self.unit)
            .light_line_style(TRANSPARENT)
            .draw()?;
        let by_algorithm = self.rows.chunk_by(|a, b| a.algorithm == b.algorithm);
        for (index, rows) in by_algorithm.enumerate() {
            let colour = Palette99::pick(index).filled().stroke_width(2);
            let points: Vec<_> = rows
                .iter()
                .map(|row| (f64::from(row.backends), (self.value)(row)))
                .collect();
            let name = rows.first().map_or("", |row| row.algorithm.as_str());
            chart
                .draw_series(LineSeries::new(points, colour).point_size(3))?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .draw()?;
        area.present()?;
        Ok(())
    }
}
