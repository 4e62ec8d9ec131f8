//! Sorts the cells of a run into what is drawn together: datasets, within them models (the panels of a figure), within
//! those series (an optimizer with its hyperparameters), whose cells differ in seed and fold alone.
//!
//! Names carry only those options and hyperparameters that tell one from another.

use super::runs::{Cell, Labelled, Runs, Status};
use super::style::{SeriesStyle, series_style};
use super::units;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The cells on one dataset.
#[derive(Debug, Clone)]
pub struct Dataset<'a> {
    /// What reports call it.
    pub name: String,
    /// Number of rows of all parts together, where the record states it; of a text, of tokens.
    pub rows: Option<u64>,
    /// What is counted: `rows` or `tokens`.
    pub unit: &'static str,
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

    /// The name and the number of rows or tokens.
    #[must_use]
    pub fn description(&self) -> String {
        match self.rows {
            Some(rows) => format!("{}, {} {}", self.name, units::count(rows), self.unit),
            None => self.name.clone(),
        }
    }
}

/// The datasets of a run, with their models and series.
#[must_use]
pub fn datasets(runs: &Runs) -> Vec<Dataset<'_>> {
    let mut styles: BTreeMap<String, usize> = BTreeMap::new();
    let by_dataset = partition(runs.cells.iter(), |cell| dataset_identity(&cell.config.dataset));
    let dataset_names = distinct_names(&by_dataset, |cell| {
        (label(cell, &cell.result.dataset, &cell.config.dataset), dataset_options(&cell.config.dataset))
    });
    let mut datasets = Vec::new();
    for (cells, name) in by_dataset.iter().zip(dataset_names) {
        let by_model = partition(cells.iter().copied(), |cell| identity(&cell.config.model));
        let model_names = distinct_names(&by_model, |cell| {
            (label(cell, &cell.result.model, &cell.config.model), cell.config.model.options.clone())
        });
        let mut models = Vec::new();
        for (cells, name) in by_model.iter().zip(model_names) {
            let key = |cell: &Cell| {
                let hyperparameters = Value::Object(cell.config.hyperparameters.clone()).to_string();
                format!("{}{hyperparameters}", cell.config.optimizer.label())
            };
            let by_optimizer = partition(cells.iter().copied(), key);
            let names = distinct_names(&by_optimizer, |cell| {
                let label = label(cell, &cell.result.optimizer, &cell.config.optimizer);
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
        let rows = cells.iter().find_map(|cell| total_rows(&cell.config.dataset));
        let rows = rows.filter(|_| !name.contains(", rows "));
        let unit = cells.first().map_or("rows", |cell| unit(&cell.config.dataset));
        datasets.push(Dataset { name, rows, unit, models });
    }
    datasets
}

/// The label a report shows.
fn label(cell: &Cell, reported: &str, configured: &Labelled) -> String {
    let label = if reported.is_empty() || cell.result_text.is_none() { configured.label() } else { reported };
    label.to_owned()
}

fn identity(part: &Labelled) -> String {
    format!("{}{}{}", part.name, part.label(), Value::Object(part.options.clone()))
}

/// What a dataset is, whichever of its folds tests: the fold decides how many rows each part has, and nothing else.
fn dataset_identity(dataset: &Labelled) -> String {
    let mut options = dataset.options.clone();
    options.remove("rows");
    if let Some(folds) = options.get_mut("split").and_then(|split| split.get_mut("folds")?.as_object_mut()) {
        folds.remove("fold");
    }
    format!("{}{}{:?}{}", dataset.name, dataset.label(), total_rows(dataset), Value::Object(options))
}

/// Rows to train on, for validation and for testing, together.
fn total_rows(dataset: &Labelled) -> Option<u64> {
    dataset.options.get("rows")?.as_array()?.iter().map(Value::as_u64).sum()
}

/// What the sizes of a dataset count.
fn unit(dataset: &Labelled) -> &'static str {
    let is_text = dataset.options.get("text").and_then(Value::as_bool).unwrap_or(false);
    if is_text { "tokens" } else { "rows" }
}

/// What a name may say to tell a dataset from another of its label: a few words for each thing that people choose.
/// Whatever else the record holds follows from these or is no reading matter.
fn dataset_options(dataset: &Labelled) -> Map<String, Value> {
    let mut words = Map::new();
    let mut add = |key: &str, text: String| words.insert(key.to_owned(), Value::String(text));
    if let Some(rows) = total_rows(dataset) {
        add("rows", units::count(rows));
    }
    let source = dataset.options.get("source");
    if let Some(seed) = source.and_then(|source| source.get("seed")?.as_u64()) {
        add("seed", seed.to_string());
    }
    let corpus = source.and_then(|source| source.get("corpus")?.as_object());
    for (key, value) in corpus.into_iter().flatten() {
        add(key, short(value));
    }
    let file = source.and_then(|source| source.get("file"));
    if let Some(path) = file.and_then(|file| file.get("path")?.as_str()) {
        add("in", folder_name(path));
    }
    let read = file.and_then(|file| file.get("read")?.as_object());
    // Beside the path, what is read and how.
    for (key, value) in read.into_iter().flatten().filter(|(key, _)| *key != "dense_limit") {
        add(key, short(value));
    }
    if let Some((kind, rule)) = dataset.options.get("split").and_then(|split| split.as_object()?.iter().next()) {
        add("split", split_words(kind, rule));
    }
    words
}

/// The folder that a file lies in, by its own name.
fn folder_name(path: &str) -> String {
    let folder = std::path::Path::new(path).parent().and_then(|folder| folder.file_name());
    folder.map_or_else(|| "/".to_owned(), |folder| folder.to_string_lossy().into_owned())
}

/// A split as it stands in a record, in a few words.
fn split_words(kind: &str, rule: &Value) -> String {
    let number = |key: &str| rule.get(key).and_then(Value::as_f64).map(|value| units::significant(value, 4));
    let list = |keys: &[&str]| keys.iter().filter_map(|key| number(key)).collect::<Vec<_>>().join("/");
    let range = |key: &str| {
        let bounds: Vec<_> = rule.get(key)?.as_array()?.iter().map(short).collect();
        Some(bounds.join("–"))
    };
    let seed = number("seed").filter(|seed| seed != "0").map(|seed| format!(" seed {seed}")).unwrap_or_default();
    match kind {
        "fractions" => {
            let how = if rule.get("stratified") == Some(&Value::Bool(true)) { "stratified" } else { "at random" };
            format!("{} {how}{seed}", list(&["train", "validation", "test"]))
        }
        "last" => format!("last {}", list(&["validation", "test"])),
        "ranges" => ["train", "validation", "test"].into_iter().filter_map(range).collect::<Vec<_>>().join("/"),
        "folds" => {
            let share = number("validation").map(|share| format!(" validation {share}{seed}")).unwrap_or_default();
            format!("{} folds{share}", number("count").unwrap_or_default())
        }
        other => other.to_owned(),
    }
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

/// A name for each part: its label, followed, where several parts share a label, by the options in which those differ;
/// by a number, where what differs is nothing that a name can say. A label is taken from a cell with a result where there
/// is one, which knows more than a plan does.
fn distinct_names(parts: &[Vec<&Cell>], describe: impl Fn(&Cell) -> (String, Map<String, Value>)) -> Vec<String> {
    let described: Vec<(String, Map<String, Value>)> = parts
        .iter()
        .filter_map(|cells| cells.iter().find(|cell| cell.result_text.is_some()).or(cells.first()))
        .map(|cell| describe(cell))
        .collect();
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
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
        .map(|name| {
            let count = taken.entry(name.clone()).or_default();
            *count += 1;
            if *count > 1 { format!("{name} ({count})") } else { name }
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
    let (mut folds, mut seeds) = (Counts::default(), Counts::default());
    for series in models.into_iter().flat_map(|model| &model.series) {
        let distinct = |number: &dyn Fn(&Cell) -> Option<u64>| {
            series.cells.iter().filter_map(|cell| number(cell)).collect::<BTreeSet<_>>().len()
        };
        folds.add(distinct(&|cell| cell.config.fold));
        seeds.add(distinct(&|cell| Some(cell.config.seed)));
    }
    match (folds.most, seeds.most) {
        (_, 0) => "no cells".to_owned(),
        (0, 1) => "one seed each".to_owned(),
        (0, _) => format!("medians of {}", seeds.words("seed")),
        (1, 1) => "one fold each".to_owned(),
        (1, _) => format!("medians of {} in one fold", seeds.words("seed")),
        (_, 1) => format!("medians of {}", folds.words("fold")),
        _ => format!("medians of {} with {} each", folds.words("fold"), seeds.words("seed")),
    }
}

/// The fewest and the most of something among series.
struct Counts {
    fewest: usize,
    most: usize,
}

impl Default for Counts {
    fn default() -> Self {
        Self { fewest: usize::MAX, most: 0 }
    }
}

impl Counts {
    fn add(&mut self, count: usize) {
        self.fewest = self.fewest.min(count);
        self.most = self.most.max(count);
    }

    /// `3 seeds`, `1 to 3 seeds`.
    fn words(&self, noun: &str) -> String {
        let Self { fewest, most } = self;
        let ending = if *most == 1 { "" } else { "s" };
        if fewest == most { format!("{most} {noun}{ending}") } else { format!("{fewest} to {most} {noun}{ending}") }
    }
}

/// How cells end without finishing, in words.
const ENDINGS: [(Status, &str); 5] = [
    (Status::TimedOut, "timed out"),
    (Status::Diverged, "diverged"),
    (Status::Failed, "failed"),
    (Status::Skipped, "skipped"),
    (Status::Interrupted, "not finished"),
];

/// A sentence for each series of which some cells did not finish, with the first reason given.
#[must_use]
pub fn endings(models: &[Model<'_>]) -> Vec<String> {
    endings_but(models, None)
}

/// The same for below a figure: of pairs that do not fit, which have nothing to draw, their number alone.
#[must_use]
pub fn endings_of_figure(models: &[Model<'_>]) -> Vec<String> {
    let mut sentences = endings_but(models, Some(Status::Skipped));
    let has_skipped = |series: &&Series<'_>| series.cells.iter().any(|cell| cell.result.status == Status::Skipped);
    match models.iter().flat_map(|model| &model.series).filter(has_skipped).count() {
        0 => {}
        1 => sentences.push("One pair of model and optimizer that does not fit was skipped.".to_owned()),
        count => sentences.push(format!("{count} pairs of model and optimizer that do not fit were skipped.")),
    }
    sentences
}

fn endings_but(models: &[Model<'_>], left_out: Option<Status>) -> Vec<String> {
    let mut sentences = Vec::new();
    for model in models {
        for series in &model.series {
            for (status, word) in ENDINGS.into_iter().filter(|(status, _)| Some(*status) != left_out) {
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
