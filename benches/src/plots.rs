//! The plots, as SVG.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

use crate::{
    cases::sizes::{BACKENDS, VIPS, all_of, of_backends, one_of},
    report::Report,
};

/// Writes those plots into a directory for which the run has the cases.
pub(crate) fn write(report: &Report, directory: &Path) -> anyhow::Result<()> {
    let bars: Vec<_> = BARS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), report.spread(name)?)))
        .collect();
    if bars.len() == BARS.len() {
        let path = directory.join("packets.svg");
        draw_bars(&bars, &path).with_context(|| format!("drawing {}", path.display()))?;
    }
    let lines = [
        (
            "packets-flows.svg",
            "A packet, by the number of flows",
            "flows",
            of_flows(report),
        ),
        (
            "packets-vips.svg",
            "A packet, by the number of VIPs",
            "VIPs",
            of_vips(report),
        ),
        (
            "packets-backends.svg",
            "A packet, by the number of backends of its VIP",
            "backends",
            vec![line(
                report,
                "l2, v4 TCP, 64k flows",
                BACKENDS.map(|count| (count.into(), of_backends(count))),
            )],
        ),
    ];
    for (name, title, unit, lines) in lines {
        let lines: Vec<_> = lines
            .into_iter()
            .filter(|line| line.points.len() > 1)
            .collect();
        if !lines.is_empty() {
            let path = directory.join(name);
            draw_lines(&lines, title, unit, &path)
                .with_context(|| format!("drawing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Cases that are put side by side, the top one first.
const BARS: [&str; 14] = [
    "floor: parse and swap, v4",
    "floor: parse and push outer, v4",
    "floor: hash lookup, 20-byte key",
    "not a VIP, v4 TCP",
    "l2, v4 TCP, 1 flow",
    "l2, v4 TCP, 10,000,000 flows",
    "l2, v4 TCP, SYN flood",
    "l2, v6 TCP, 1 flow",
    "ipip, v4 TCP in v4, 1 flow",
    "ipip, v6 TCP in v6, 1 flow",
    "gue, v4 TCP over v4, 1 flow",
    "limit, packets in total, 1,024 sources",
    "limit, packets of a source, 1,024 sources",
    "access, 1M prefixes, not on it, 1M flows",
];

/// A line: its name, and (number, ns).
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

fn line<const N: usize>(report: &Report, name: &str, cases: [(u32, String); N]) -> Line {
    let points = cases.into_iter().filter_map(|(number, case)| {
        report
            .spread(&case)
            .map(|(median, ..)| (f64::from(number), median))
    });
    Line {
        name: name.to_owned(),
        points: points.collect(),
    }
}

fn of_flows(report: &Report) -> Vec<Line> {
    const FLOWS: [(u32, &str); 4] = [
        (1, "1 flow"),
        (1 << 16, "64k flows"),
        (1 << 20, "1M flows"),
        (10_000_000, "10,000,000 flows"),
    ];
    let kinds = [
        ("l2, v4 TCP", "l2, v4 TCP"),
        ("l2, v6 TCP", "l2, v6 TCP"),
        ("ipip, v4 TCP in v4", "ipip, v4 TCP in v4"),
        ("slots Holding, flows pinned", "Holding, pinned"),
        ("the classic design: a table of all flows", "flow table"),
    ];
    kinds
        .into_iter()
        .map(|(name, case)| {
            line(
                report,
                name,
                FLOWS.map(|(count, word)| (count, format!("{case}, {word}"))),
            )
        })
        .collect()
}

fn of_vips(report: &Report) -> Vec<Line> {
    vec![
        line(
            report,
            "packets to one of them",
            VIPS.map(|count| (count, one_of(count))),
        ),
        line(
            report,
            "packets to all of them",
            // One is all of one.
            VIPS.map(|count| (count, if count == 1 { one_of(1) } else { all_of(count) })),
        ),
    ]
}

impl Report {
    /// Median and quartiles of a case.
    fn spread(&self, name: &str) -> Option<(f64, f64, f64)> {
        let case = self.cases.iter().find(|case| case.name == name)?;
        let [first, third] = case.quartiles_ns;
        Some((case.median_ns, first, third))
    }
}

fn draw_bars(bars: &[(String, (f64, f64, f64))], path: &Path) -> anyhow::Result<()> {
    let most = bars
        .iter()
        .map(|(_, (_, _, third))| *third)
        .fold(0.0, f64::max);
    let area = SVGBackend::new(path, (860, 60 + 34 * bars.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "What a packet costs: median, and the middle half of the runs",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(300)
        .build_cartesian_2d(0.0..most * 1.08, (0..bars.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc("net ns per packet")
        .y_labels(bars.len() + 1)
        .y_label_formatter(&|at| match at {
            SegmentValue::CenterOf(index) => {
                let from_top = bars.len().checked_sub(index + 1);
                let bar = from_top.and_then(|index| bars.get(index));
                bar.map_or_else(String::new, |(name, _)| name.clone())
            }
            _ => String::new(),
        })
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, (name, (median, first, third))) in bars.iter().rev().enumerate() {
        let colour = Palette99::pick(usize::from(!name.starts_with("floor")));
        let row = |at| SegmentValue::CenterOf(at);
        let mut bar = Rectangle::new(
            [
                (0.0, SegmentValue::Exact(index)),
                (median.max(0.0), SegmentValue::Exact(index + 1)),
            ],
            colour.filled(),
        );
        bar.set_margin(7, 7, 0, 0);
        chart.draw_series([bar])?;
        chart.draw_series([PathElement::new(
            vec![(first.max(0.0), row(index)), (*third, row(index))],
            BLACK,
        )])?;
        chart.draw_series([Text::new(
            format!("{median:.0}"),
            (third.max(*median) + most * 0.01, row(index)),
            ("sans-serif", 13),
        )])?;
    }
    area.present()?;
    Ok(())
}

fn draw_lines(lines: &[Line], title: &str, unit: &str, path: &Path) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().map(|(number, _)| *number).fold(1.0, f64::max);
    let highest = points().map(|(_, ns)| *ns).fold(0.0, f64::max);
    let area = SVGBackend::new(path, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((0.8..most * 1.3).log_scale(), 0.0..highest * 1.3)?;
    chart
        .configure_mesh()
        .x_desc(unit)
        .x_label_formatter(&|number| format!("{number}"))
        .y_desc("net ns per packet (median)")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = Palette99::pick(index).filled().stroke_width(2);
        chart
            .draw_series(LineSeries::new(line.points.clone(), colour).point_size(3))?
            .label(&line.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 10, y + 4)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .draw()?;
    area.present()?;
    Ok(())
}
