//! Figure: what each value of a setting came to where an experiment runs a grid of them, all else equal: above all the
//! learning rate. (Searches of `parsimony tune` are drawn by [`sensitivity`](super::sensitivity).)

use super::axes::{Quantity, Scale, range};
use super::curves::{Curve, End, median};
use super::figure::{Axis, Heading};
use super::groups::{Dataset, Model, Series};
use super::lines::{Line, LineFigure, Panel};
use super::quality_time::capitalized;
use super::runs::{CellResult, Status};
use super::scene::Scene;
use super::style::series_style;
use super::units;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Fewer values of a setting are no curve.
const LEAST_VALUES: usize = 3;

/// A number of a result.
type Metric = (&'static str, fn(&CellResult) -> Option<f64>);

/// What is drawn: the first of these that any cell has.
const METRICS: [Metric; 4] = [
    ("Validation loss (nats per row)", |result| result.validation_loss),
    ("Validation accuracy", |result| result.validation_accuracy),
    ("Validation squared error (per row)", |result| result.validation_squared_error),
    ("Training loss (nats per row)", |result| result.train_loss),
];

/// Series that differ in one setting alone.
struct Group<'a> {
    name: String,
    /// By value.
    series: Vec<(f64, &'a Series<'a>)>,
}

/// The settings of which a dataset's cells hold a grid.
#[must_use]
pub fn settings(dataset: &Dataset<'_>) -> Vec<String> {
    let series = || dataset.models.iter().flat_map(|model| &model.series);
    let numbers = series().filter_map(settings_of).flatten().filter(|(_, value)| value.is_number());
    let keys: BTreeSet<&String> = numbers.map(|(key, _)| key).collect();
    let is_grid = |key: &&String| dataset.models.iter().any(|model| !groups_of(model, key).is_empty());
    keys.into_iter().filter(is_grid).cloned().collect()
}

/// The figure of one dataset and setting.
///
/// # Errors
/// A sentence that says what is missing.
pub fn draw(heading: &Heading, dataset: &Dataset<'_>, setting: &str) -> Result<Scene, String> {
    let has = |(_, metric): &&Metric| dataset.cells().any(|cell| metric(&cell.result).is_some());
    let Some((y_title, metric)) = METRICS.iter().find(has) else {
        return Err("no cell has a loss or an accuracy".to_owned());
    };
    let mut panels = Vec::new();
    for model in &dataset.models {
        let of_group = |(index, group): (usize, &Group<'_>)| {
            let points = group.series.iter().filter_map(|(value, one)| Some((*value, middle(one, *metric)?)));
            let curve = Curve { points: points.collect(), end: End::Holds };
            Line::new(&group.name, series_style(index), vec![curve], f64::INFINITY, false)
        };
        let lines: Vec<Line> = groups_of(model, setting).iter().enumerate().map(of_group).collect();
        if !lines.is_empty() {
            panels.push(Panel { title: model.name.clone(), lines, y: Scale::Linear { low: 0.0, high: 1.0 } });
        }
    }
    let points = || panels.iter().flat_map(|panel| &panel.lines).flat_map(Line::points);
    let (Some((low, high)), Some((_, last))) =
        (range(points().map(|point| point.1)), range(points().map(|point| point.0)))
    else {
        return Err("no cell of the grid came to a number".to_owned());
    };
    let margin = 0.06 * (high - low).max(1e-9 * high.abs());
    let least = range(points().map(|point| point.0).filter(|value| *value > 0.0)).map_or(1.0, |(least, _)| least);
    let has_zero = points().any(|point| point.0 <= 0.0);
    let scale = if has_zero {
        Scale::SymLog { linear: least, high: last.max(3.0 * least) * 1.15 }
    } else {
        Scale::log_around(points().map(|point| point.0), 0.04).unwrap_or(Scale::Log { low: 0.1, high: 10.0 })
    };
    // A step that is too large can cost a hundred times the best: beside it, the others would all look alike.
    let y_scale = Scale::log_around([low, high], 0.06).filter(|_| low > 0.0 && high > 5.0 * low);
    let y_how = if y_scale.is_some() { ", logarithmic" } else { "" };
    for panel in &mut panels {
        panel.y = y_scale.unwrap_or(Scale::Linear { low: low - margin, high: high + margin });
    }
    let how = if has_zero { " (logarithmic after zero)" } else { " (logarithmic)" };
    let title = format!("{}{how}", capitalized(&setting.replace('_', " ")));
    let x = Axis { scale, quantity: Quantity::Number, title };
    let mut notes = vec!["Medians over seeds and folds; all other settings equal.".to_owned()];
    let lost = dataset.models.iter().flat_map(|model| groups_of(model, setting)).flat_map(|group| group.series);
    let lost: Vec<String> =
        lost.filter(|(_, one)| middle(one, *metric).is_none()).map(|(value, _)| units::significant(value, 3)).collect();
    if !lost.is_empty() {
        notes.push(format!("Without a point, because no cell came to a number: {}.", lost.join(", ")));
    }
    Ok(LineFigure { heading: heading.clone(), x, y_title: format!("{y_title}{y_how}"), panels, notes }.scene())
}

/// The median over cells that ended with an answer.
fn middle(series: &Series<'_>, metric: fn(&CellResult) -> Option<f64>) -> Option<f64> {
    let answered = series.cells.iter().filter(|cell| matches!(cell.result.status, Status::Finished | Status::TimedOut));
    median(answered.filter_map(|cell| metric(&cell.result)))
}

fn settings_of<'a>(series: &Series<'a>) -> Option<&'a Map<String, Value>> {
    series.cells.first().map(|cell| &cell.config.hyperparameters)
}

/// The grids of a setting within a model: series of one optimizer that differ in nothing else.
fn groups_of<'a>(model: &'a Model<'a>, setting: &str) -> Vec<Group<'a>> {
    let mut found: Vec<(String, Map<String, Value>, Group<'a>)> = Vec::new();
    for series in &model.series {
        let Some(cell) = series.cells.first() else { continue };
        let mut rest = cell.config.hyperparameters.clone();
        let Some(value) = rest.remove(setting).and_then(|value| value.as_f64()) else { continue };
        let label = cell.config.optimizer.label();
        match found.iter_mut().find(|(known, others, _)| known == label && *others == rest) {
            Some((_, _, group)) => group.series.push((value, series)),
            None => {
                let group = Group { name: label.to_owned(), series: vec![(value, series)] };
                found.push((label.to_owned(), rest, group));
            }
        }
    }
    found.retain(|(_, _, group)| group.series.len() >= LEAST_VALUES);
    let all: Vec<(String, Map<String, Value>)> =
        found.iter().map(|(label, rest, _)| (label.clone(), rest.clone())).collect();
    let named = |(label, rest, mut group): (String, Map<String, Value>, Group<'a>)| {
        let rivals: Vec<_> = all.iter().filter(|(other, _)| *other == label).map(|(_, rest)| rest).collect();
        let differing = rest.iter().filter(|(key, value)| rivals.iter().any(|rival| rival.get(*key) != Some(value)));
        let words = differing.map(|(key, value)| format!(", {} {value}", key.replace('_', " ")).replace('"', ""));
        group.name = std::iter::once(label).chain(words).collect();
        group.series.sort_by(|one, other| one.0.total_cmp(&other.0));
        group
    };
    found.into_iter().map(named).collect()
}
