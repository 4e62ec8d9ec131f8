//! Sorts the cells of a run into what is drawn together: datasets, within them models (the panels of a figure), within
//! those series (an optimizer with its hyperparameters), whose cells differ in seed and fold alone.
//!
//! Names carry only those options and hyperparameters that tell one from another.

use super::runs::{Cell, Labelled, Runs, Status};
use super::style::{SeriesStyle, series_style};
use super::units;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The cells on one dataset.
#[derive(Debug, Clone)]
pub struct Dataset<'a> {
    /// What reports call it.
    pub name: String,
    /// Number of rows, where the options state it.
    pub rows: Option<u64>,
    /// Its models, the smallest first.
    pub models: Vec<Model<'a>>,
}

/// The cells of one model on one dataset.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    /// What reports call it.
    pub name: String,
    /// Its optimizers, in the plan's order.
    pub series: Vec<Series<'a>>,
}

/// The cells that differ in seed and fold alone.
#[derive(Debug, Clone)]
pub struct Series<'a> {
    /// The optimizer, with the hyperparameters that differ between the series of a model.
    pub name: String,
    /// How it is drawn, the same in all figures of a run.
    pub style: SeriesStyle,
    /// Its cells.
    pub cells: Vec<&'a Cell>,
}

impl Model<'_> {
    /// Number of parameters, where any cell states it.
    #[must_use]
    pub fn parameters(&self) -> Option<u64> {
        self.cells().find_map(|cell| cell.result.parameters_total)
    }

    /// All its cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.series.iter().flat_map(|series| series.cells.iter().copied())
    }
}

impl Dataset<'_> {
    /// All its cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.models.iter().flat_map(Model::cells)
    }

    /// The name and the number of rows.
    #[must_use]
    pub fn description(&self) -> String {
        match self.rows {
            Some(rows) => format!("{}, {} rows", self.name, units::count(rows)),
            None => self.name.clone(),
        }
    }
}

/// The datasets of a run, with their models and series.
#[must_use]
pub fn datasets(runs: &Runs) -> Vec<Dataset<'_>> {
    let mut styles: BTreeMap<String, usize> = BTreeMap::new();
    let by_dataset = partition(runs.cells.iter(), |cell| identity(&cell.config.dataset));
    let dataset_names = distinct_names(&by_dataset, |cell| label(cell, &cell.result.dataset, &cell.config.dataset));
    let mut datasets = Vec::new();
    for (cells, name) in by_dataset.iter().zip(dataset_names) {
        let by_model = partition(cells.iter().copied(), |cell| identity(&cell.config.model));
        let model_names = distinct_names(&by_model, |cell| label(cell, &cell.result.model, &cell.config.model));
        let mut models = Vec::new();
        for (cells, name) in by_model.iter().zip(model_names) {
            let key = |cell: &Cell| {
                let hyperparameters = Value::Object(cell.config.hyperparameters.clone()).to_string();
                format!("{}{hyperparameters}", cell.config.optimizer.label())
            };
            let by_optimizer = partition(cells.iter().copied(), key);
            let names = distinct_names(&by_optimizer, |cell| {
                let (label, _) = label(cell, &cell.result.optimizer, &cell.config.optimizer);
                (label, cell.config.hyperparameters.clone())
            });
            let series = by_optimizer.into_iter().zip(names).map(|(cells, name)| {
                let next = styles.len();
                let style = series_style(*styles.entry(name.clone()).or_insert(next));
                Series { name, style, cells }
            });
            models.push(Model { name, series: series.collect() });
        }
        models.sort_by_key(|model| model.parameters().unwrap_or(u64::MAX));
        let rows = cells.iter().find_map(|cell| cell.config.dataset.options.get("rows")?.as_u64());
        let rows = rows.filter(|_| !name.contains(" rows"));
        datasets.push(Dataset { name, rows, models });
    }
    datasets
}

/// The label a report shows, and the options beside it.
fn label(cell: &Cell, reported: &str, configured: &Labelled) -> (String, Map<String, Value>) {
    let label = if reported.is_empty() || cell.result_text.is_none() { configured.label() } else { reported };
    (label.to_owned(), options(configured))
}

/// The options without those that only choose a part of the rows to hold out.
fn options(part: &Labelled) -> Map<String, Value> {
    let mut options = part.options.clone();
    options.retain(|key, _| key != "fold" && key != "seed");
    options
}

fn identity(part: &Labelled) -> String {
    format!("{}{}{}", part.name, part.label(), Value::Object(options(part)))
}

/// Parts with equal keys, in the order in which each key first comes.
fn partition<'a>(cells: impl Iterator<Item = &'a Cell>, key: impl Fn(&Cell) -> String) -> Vec<Vec<&'a Cell>> {
    let mut index: BTreeMap<String, usize> = BTreeMap::new();
    let mut parts: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        let part = *index.entry(key(cell)).or_insert(parts.len());
        if part == parts.len() {
            parts.push(Vec::new());
        }
        parts[part].push(cell);
    }
    parts
}

/// A name for each part: its label, followed, where several parts share a label, by the options in which those differ.
/// A label is taken from a cell with a result where there is one, which knows more than a plan does.
fn distinct_names(parts: &[Vec<&Cell>], describe: impl Fn(&Cell) -> (String, Map<String, Value>)) -> Vec<String> {
    let described: Vec<(String, Map<String, Value>)> = parts
        .iter()
        .filter_map(|cells| cells.iter().find(|cell| cell.result_text.is_some()).or(cells.first()))
        .map(|cell| describe(cell))
        .collect();
    described
        .iter()
        .map(|(label, options)| {
            let rivals: Vec<_> = described.iter().filter(|(other, _)| other == label).map(|(_, other)| other).collect();
            let differing = options
                .iter()
                .filter(|(key, value)| rivals.iter().any(|rival| rival.get(*key) != Some(value)))
                .map(|(key, value)| format!("{} {}", key.replace('_', " "), short(value)));
            std::iter::once(label.clone()).chain(differing).collect::<Vec<_>>().join(", ")
        })
        .collect()
}

/// An option's value in a few characters.
fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |number| units::significant(number, 4))
        }
        other => other.to_string().replace('"', ""),
    }
}

/// How many seeds and folds stand behind the medians of these series, in words.
#[must_use]
pub fn replicates<'a>(models: impl IntoIterator<Item = &'a Model<'a>>) -> String {
    let mut fewest = usize::MAX;
    let mut most = 0;
    let mut folds = false;
    for series in models.into_iter().flat_map(|model| &model.series) {
        fewest = fewest.min(series.cells.len());
        most = most.max(series.cells.len());
        folds |= series.cells.iter().any(|cell| cell.config.fold.is_some());
    }
    let noun = if folds { "fold" } else { "seed" };
    match (fewest, most) {
        (_, 0) => "no cells".to_owned(),
        (1, 1) => format!("one {noun} each"),
        _ if fewest == most => format!("medians of {most} {noun}s"),
        _ => format!("medians of {fewest} to {most} {noun}s"),
    }
}

/// A sentence for each series of which some cells did not finish, with the first reason given.
#[must_use]
pub fn endings(models: &[Model<'_>]) -> Vec<String> {
    const STATUSES: [(Status, &str); 5] = [
        (Status::TimedOut, "timed out"),
        (Status::Diverged, "diverged"),
        (Status::Failed, "failed"),
        (Status::Skipped, "skipped"),
        (Status::Interrupted, "not finished"),
    ];
    let mut sentences = Vec::new();
    for model in models {
        for series in &model.series {
            for (status, word) in STATUSES {
                let ended: Vec<_> = series.cells.iter().filter(|cell| cell.result.status == status).collect();
                let Some(first) = ended.first() else { continue };
                let place = if models.len() > 1 { format!(" ({})", model.name) } else { String::new() };
                let share = match series.cells.len() {
                    1 => String::new(),
                    all => format!(" {} of {all}", ended.len()),
                };
                let reason = first.result.reason.as_deref().map(|reason| format!(": {}", clipped(reason)));
                sentences.push(format!("× {}{place}{share} {word}{}.", series.name, reason.unwrap_or_default()));
            }
        }
    }
    sentences
}

/// The first line of a reason, at most 140 characters long.
fn clipped(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    if line.chars().count() <= 140 {
        return line.to_owned();
    }
    line.chars().take(139).chain(['…']).collect()
}
