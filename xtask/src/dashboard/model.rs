//! The dashboard as Grafana reads it, as far as its panels are asked for and drawn here.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// The file.
pub const FILE: &str = "deploy/grafana/weir.json";

/// All of it.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    panels: Vec<Panel>,
    annotations: Annotations,
}

#[derive(Debug, Deserialize)]
struct Annotations {
    list: Vec<Annotation>,
}

/// Moments that are marked in every panel.
#[derive(Debug, Clone, Deserialize)]
pub struct Annotation {
    /// What they are.
    pub name: String,
    /// When it is not empty.
    pub expr: String,
    /// The colour of the mark.
    #[serde(rename = "iconColor")]
    pub colour: String,
}

/// One panel, or the title of those below it.
#[derive(Debug, Clone, Deserialize)]
pub struct Panel {
    /// `row`, `timeseries`, `stat`, `state-timeline` or `table`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Where it is.
    #[serde(rename = "gridPos")]
    pub place: Place,
    /// What it asks.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// How it looks.
    #[serde(default, rename = "fieldConfig")]
    pub fields: Fields,
    /// What is done with a table's columns.
    #[serde(default)]
    pub transformations: Vec<Value>,
}

/// A place on the grid, which is 24 columns wide.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Place {
    /// Column.
    pub x: u32,
    /// Line.
    pub y: u32,
    /// Width in columns.
    pub w: u32,
    /// Height in lines.
    pub h: u32,
}

/// One query.
#[derive(Debug, Clone, Deserialize)]
pub struct Target {
    /// In `PromQL`, with Grafana's variables.
    pub expr: String,
    /// The name of each series, with labels in braces.
    #[serde(rename = "legendFormat")]
    pub legend: String,
}

/// How values look.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Fields {
    /// All of them.
    #[serde(default)]
    pub defaults: Defaults,
    /// Those of some series.
    #[serde(default)]
    pub overrides: Vec<Override>,
}

/// How all values of a panel look.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Defaults {
    /// `pps`, `bps`, `cps`, `percentunit`, `s`, `bytes` or `short`.
    #[serde(default)]
    pub unit: String,
    /// The least of the axis.
    pub min: Option<f64>,
    /// The most of the axis.
    pub max: Option<f64>,
    /// Kind-specific.
    #[serde(default)]
    pub custom: Custom,
    /// The texts and colours of values.
    #[serde(default)]
    pub mappings: Vec<Mapping>,
    /// Colours from a value on.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// How lines are drawn.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Custom {
    /// `linear` or `stepAfter`.
    #[serde(default, rename = "lineInterpolation")]
    pub interpolation: String,
    /// Whether series lie on one another.
    #[serde(default)]
    pub stacking: Stacking,
}

/// Whether series lie on one another.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Stacking {
    /// `none` or `normal`.
    pub mode: String,
}

/// Colours from a value on.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Thresholds {
    /// In order; the first has no value.
    pub steps: Vec<Step>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// From here on.
    pub value: Option<f64>,
    /// This colour.
    pub color: String,
}

/// The texts and colours of values.
#[derive(Debug, Clone, Deserialize)]
pub struct Mapping {
    /// By value, or a range.
    pub options: Value,
}

/// How one series looks.
#[derive(Debug, Clone, Deserialize)]
pub struct Override {
    /// Which.
    pub matcher: Matcher,
    /// How.
    pub properties: Vec<Value>,
}

/// Which series.
#[derive(Debug, Clone, Deserialize)]
pub struct Matcher {
    /// Its name.
    pub options: String,
}

impl Dashboard {
    /// Reads the file of a workspace.
    pub fn read(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Every title with the panels below it.
    #[must_use]
    pub fn rows(&self) -> Vec<(&str, Vec<&Panel>)> {
        let mut rows = Vec::new();
        for panel in &self.panels {
            if panel.kind == "row" {
                rows.push((panel.title.as_str(), Vec::new()));
            } else if let Some((_, panels)) = rows.last_mut() {
                panels.push(panel);
            }
        }
        rows
    }

    /// What is marked in every panel.
    #[must_use]
    pub fn annotations(&self) -> &[Annotation] {
        &self.annotations.list
    }

    /// Every query with the title of its panel, as Prometheus takes it.
    #[must_use]
    pub fn queries(&self, window: &str) -> Vec<(String, String)> {
        let of_panels = self.panels.iter().flat_map(|panel| {
            let targets = panel.targets.iter();
            targets.map(|target| (panel.title.clone(), asked(&target.expr, window)))
        });
        let marks = self.annotations().iter();
        let marks = marks.map(|mark| (mark.name.clone(), asked(&mark.expr, window)));
        of_panels.chain(marks).collect()
    }
}

/// A query with every node and VIP chosen, and a window for rates.
pub(super) fn asked(expr: &str, window: &str) -> String {
    expr.replace("$__rate_interval", window)
        .replace("$instance", ".*")
        .replace("$vip", ".*")
}

impl Panel {
    /// The text and the colour of a value, where there are any.
    #[must_use]
    pub fn mapped(&self, value: f64) -> Option<(&str, &str)> {
        let found = self.fields.defaults.mappings.iter().find_map(|mapping| {
            let options = &mapping.options;
            if let Some(from) = options.get("from").and_then(Value::as_f64) {
                return options.get("result").filter(|_| value >= from);
            }
            options.get(format!("{value}"))
        })?;
        Some((found.get("text")?.as_str()?, found.get("color")?.as_str()?))
    }

    /// The colour of a value by the thresholds.
    #[must_use]
    pub fn threshold(&self, value: f64) -> &str {
        let steps = self.fields.defaults.thresholds.steps.iter();
        let mut reached = steps.filter(|step| step.value.is_none_or(|from| value >= from));
        let last = reached.next_back();
        last.map_or("blue", |step| step.color.as_str())
    }

    /// The colour that a series has of its own.
    #[must_use]
    pub fn colour_of(&self, series: &str) -> Option<&str> {
        let own = self.fields.overrides.iter();
        let own = own.filter(|own| own.matcher.options == series);
        let mut properties = own.flat_map(|own| &own.properties);
        properties.find_map(|property| property.pointer("/value/fixedColor")?.as_str())
    }

    /// A table's columns, in order.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        let order = self
            .transformations
            .iter()
            .find_map(|transformation| transformation.pointer("/options/indexByName")?.as_object());
        let mut columns: Vec<_> = order
            .into_iter()
            .flatten()
            .map(|(name, place)| (place.as_u64(), name.clone()))
            .collect();
        columns.sort();
        columns.into_iter().map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_dashboard_is_as_it_is_read() {
        let dashboard = Dashboard::read(&workspace::root()).unwrap();
        let mut ids = Vec::new();
        for (title, panels) in dashboard.rows() {
            assert!(!panels.is_empty(), "{title} has no panel");
            for panel in &panels {
                assert!(
                    ["timeseries", "stat", "state-timeline", "table"]
                        .contains(&panel.kind.as_str()),
                    "{} is drawn by nobody: {}",
                    panel.title,
                    panel.kind
                );
                assert!(!panel.targets.is_empty(), "{} asks nothing", panel.title);
                assert!(panel.place.x + panel.place.w <= 24, "{}", panel.title);
                let is_mapped = panel.kind != "state-timeline" || panel.mapped(1.0).is_some();
                assert!(is_mapped, "{} has states without a text", panel.title);
                let is_table = panel.kind == "table";
                assert_eq!(is_table, !panel.columns().is_empty(), "{}", panel.title);
                ids.push((panel.place.x, panel.place.y));
            }
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "two panels at one place");
        for (title, query) in dashboard.queries("1m") {
            assert!(!query.contains('$'), "{title}: {query}");
        }
    }

    #[test]
    fn values_have_texts_and_colours() {
        let text = r#"{"type": "state-timeline", "title": "t", "gridPos": {"x": 0, "y": 0, "w": 1, "h": 1},
            "fieldConfig": {"defaults": {"mappings": [
                {"type": "value", "options": {"1": {"text": "agree", "color": "green"}}},
                {"type": "range", "options": {"from": 2.0, "to": null, "result": {"text": "differ", "color": "red"}}}],
              "thresholds": {"steps": [{"value": null, "color": "green"}, {"value": 5, "color": "red"}]}},
              "overrides": [{"matcher": {"options": "drop"}, "properties": [{"id": "color", "value": {"fixedColor": "red"}}]}]}}"#;
        let panel: Panel = serde_json::from_str(text).unwrap();
        assert_eq!(panel.mapped(1.0), Some(("agree", "green")));
        assert_eq!(panel.mapped(7.0), Some(("differ", "red")));
        assert_eq!(panel.mapped(0.0), None);
        assert_eq!(
            (panel.threshold(4.9), panel.threshold(5.0)),
            ("green", "red")
        );
        assert_eq!(
            (panel.colour_of("drop"), panel.colour_of("tx")),
            (Some("red"), None)
        );
    }
}
