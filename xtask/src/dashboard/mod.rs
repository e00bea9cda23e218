//! `cargo xtask dashboard`: a fleet in the lab with traffic and things that go wrong, a Prometheus that scrapes it, and the
//! panels of the Grafana dashboard, drawn from the answers to their own queries into docs/pictures.
//!
//! Grafana itself is not needed: what is drawn here is the dashboard's file (panels, queries, units, colours, marks), in
//! this program's own hand.

mod draw;
mod model;
mod scene;

use std::{collections::BTreeMap, ffi::OsString, fs, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

pub use self::model::{Dashboard, FILE};
use self::{
    draw::{Drawn, Mark},
    model::{Panel, asked},
};
use crate::{
    lab::{Prometheus, Series},
    progress::{run_visibly, step},
    root, setup, workspace,
};

/// The window of rates: what Grafana takes for a scrape a second.
const WINDOW: &str = "4s";

/// How the fleet runs.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// The binary is built already (what xtask tells itself when it goes on as root).
    #[arg(long, hide = true)]
    built: bool,
}

/// Runs the fleet and draws the panels.
pub fn run(options: &Options) -> Result<ExitCode> {
    if !options.built {
        setup::run()?;
        step("build weir and its XDP program", || {
            run_visibly(workspace::cargo().args(["build", "-p", "lb-userspace"]))
        })?;
    }
    if !root::is_root() {
        root::again_as_root("the lab", &["dashboard", "--built"].map(OsString::from))?;
    }
    let dashboard = Dashboard::read(&workspace::root())?;
    let scene = scene::play()?;
    step("draw the panels into docs/pictures", || {
        draw_all(&dashboard, &scene.prometheus, (scene.began, scene.ended))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn draw_all(dashboard: &Dashboard, prometheus: &Prometheus, time: (f64, f64)) -> Result<()> {
    let folder = workspace::root().join("docs/pictures");
    fs::create_dir_all(&folder).context("make docs/pictures")?;
    let marks = marks(dashboard, prometheus, time)?;
    for (title, panels) in dashboard.rows() {
        let drawn = panels.iter().map(|panel| {
            let series = series(panel, prometheus, time)?;
            Ok(Drawn { panel, series })
        });
        let drawn = drawn.collect::<Result<Vec<_>>>()?;
        let path = folder.join(format!("dashboard-{}.svg", slug(title)));
        draw::row(&path, title, &drawn, &marks, time)
            .with_context(|| format!("draw {}", path.display()))?;
    }
    Ok(())
}

/// A title as a part of a file's name: its first word.
fn slug(title: &str) -> String {
    let word = title.split(|c: char| !c.is_alphanumeric()).next();
    word.unwrap_or_default().to_lowercase()
}

/// The series of a panel, each with its name.
fn series(
    panel: &Panel,
    prometheus: &Prometheus,
    time: (f64, f64),
) -> Result<Vec<(String, Series)>> {
    let mut all = Vec::new();
    for target in &panel.targets {
        let expr = asked(&target.expr, WINDOW);
        let found = if panel.kind == "table" {
            prometheus.query(&expr)?
        } else {
            prometheus.query_range(&expr, time, 1)?
        };
        all.extend(
            found
                .into_iter()
                .map(|series| (name(&target.legend, &series.labels), series)),
        );
    }
    Ok(all)
}

/// A legend with the values of its labels.
fn name(legend: &str, labels: &BTreeMap<String, String>) -> String {
    let mut name = legend.to_owned();
    for (label, value) in labels {
        name = name.replace(&format!("{{{{{label}}}}}"), value);
    }
    name
}

/// The moments from which on an annotation's expression had a value that it had not before.
fn marks(dashboard: &Dashboard, prometheus: &Prometheus, time: (f64, f64)) -> Result<Vec<Mark>> {
    let mut marks = Vec::new();
    for annotation in dashboard.annotations() {
        for series in prometheus.query_range(&asked(&annotation.expr, WINDOW), time, 1)? {
            let mut last = f64::NEG_INFINITY;
            for (at, _) in series.values {
                if at - last > 1.5 {
                    let colour = annotation.colour.clone();
                    marks.push(Mark { at, colour });
                }
                last = at;
            }
        }
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legends_name_series() {
        let labels = [("vip", "web"), ("backend", "10.0.0.11")];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned()));
        assert_eq!(
            name("{{vip}} at {{backend}}", &labels.into()),
            "web at 10.0.0.11"
        );
        assert_eq!(slug("Backends: shares against weights"), "backends");
    }
}
