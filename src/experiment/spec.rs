//! Experiment files: what they say, checked as far as that is possible without data.
//!
//! docs/experiment-files.md lists the keys. Every complaint names file and line, key and value, and what is accepted.

use super::budget::{Budget, Schedule};
use super::document::{Field, Section, Source};
use super::shape::Shape;
use super::tune::{self, Tune};
use crate::claim::{Claim, Comparison, Expectation, place_mistake};
use crate::data::open::{Choice, CorpusOptions, Source as DataSource, SplitChoice};
use crate::data::registry::find_in;
use crate::data::{ReadOptions, SplitSpec};
use crate::device::{DeviceName, DeviceWish};
use crate::error::{DataError, Error, Result};
use crate::measure::environment::available_threads;
use crate::oracle::{SettingValue, did_you_mean};
use crate::workbench::Workbench;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What an experiment file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name: that of the folder below `runs/`.
    pub name: String,
    /// The question it asks.
    pub question: Option<String>,
    /// The claim it tests, with what must hold for it.
    pub claim: Claim,
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// Which folds to run, where a dataset is split into folds.
    pub folds: Folds,
    /// What each cell may use up, unless its optimizer says otherwise.
    pub budget: Option<Budget>,
    /// The value whose first reaching is timed.
    pub target: Option<Target>,
    /// Which iterate is reported.
    pub report: Reported,
    /// When cells are evaluated.
    pub evaluate: Schedule,
    /// Whether what statistics knows about each fit is recorded, leave-one-out above all.
    pub inspect: bool,
    /// Threads of each cell.
    pub threads: usize,
    /// The device that models live on.
    pub device: DeviceWish,
    /// The datasets.
    pub datasets: Vec<DatasetSpec>,
    /// The models, with grids of settings.
    pub models: Vec<ComponentSpec>,
    /// The optimizers, with grids of settings.
    pub optimizers: Vec<ComponentSpec>,
    /// Shapes that are counted and not trained.
    pub shapes: Vec<Shape>,
    /// How its optimizers are tuned, where it says so.
    pub tune: Option<Tune>,
    /// Whether cells are given no test rows: those of a search, which must not see any.
    pub withhold_test: bool,
    /// The text of the file.
    pub text: String,
}

/// Which folds to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Folds {
    /// The one that the split names, else the first.
    #[default]
    One,
    /// All of them.
    All,
    /// These.
    Some(Vec<usize>),
}

/// A metric's value whose first reaching is timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The metric's column in the trace.
    pub metric: String,
    /// The value to reach: at least this for an accuracy, at most this for anything else.
    pub value: f64,
}

impl Target {
    /// Metrics that a target may name: those of the test rows are not among them, since nothing is chosen on them.
    pub const METRICS: [&'static str; 14] = [
        "validation_accuracy",
        "validation_loss",
        "validation_squared_error",
        "validation_explained_variance",
        "validation_explained_beyond_linear",
        "validation_bits_per_character",
        "validation_grammar_loss",
        "validation_fact_loss",
        "validation_sum_loss",
        "train_accuracy",
        "train_loss",
        "train_squared_error",
        "objective",
        "gradient_norm",
    ];

    /// Whether a value reaches the target.
    #[must_use]
    pub fn is_reached(&self, value: f64) -> bool {
        let is_share = self.metric.ends_with("accuracy") || self.metric.contains("explained");
        if is_share { value >= self.value } else { value <= self.value }
    }
}

/// Which iterate a cell reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reported {
    /// The last.
    #[default]
    Last,
    /// Of the iterates evaluated, the first with the smallest validation loss.
    BestValidation,
}

/// A dataset and its split.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetSpec {
    /// File, line and table, for messages.
    pub place: String,
    /// What reports call it.
    pub label: Option<String>,
    /// The dataset.
    pub choice: Choice,
    /// Its split.
    pub split: SplitChoice,
    /// Whether the experiment is run without it where it is not here.
    pub optional: bool,
}

/// A model or an optimizer with its settings; several values for a setting are a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentSpec {
    /// File, line and table, for messages.
    pub place: String,
    /// Its registered name.
    pub name: String,
    /// What reports call it.
    pub label: Option<String>,
    /// Values by setting.
    pub grid: BTreeMap<String, Vec<SettingValue>>,
    /// A budget of its own.
    pub budget: Option<Budget>,
}

impl ComponentSpec {
    /// All points of the grid; the setting that comes last in the alphabet varies fastest.
    #[must_use]
    pub fn points(&self) -> Vec<BTreeMap<String, SettingValue>> {
        let mut points = vec![BTreeMap::new()];
        for (name, values) in &self.grid {
            points = points
                .iter()
                .flat_map(|point| {
                    values.iter().map(move |value| {
                        let mut point = point.clone();
                        point.insert(name.clone(), value.clone());
                        point
                    })
                })
                .collect();
        }
        points
    }

    fn size(&self) -> usize {
        self.grid.values().fold(1, |size: usize, values| size.saturating_mul(values.len()))
    }
}

/// An experiment with more cells than this is a mistake.
pub(super) const MOST_CELLS: usize = 100_000;

const LABEL: &str = "a text: what reports call it";

impl Spec {
    /// Reads and checks an experiment file.
    ///
    /// # Errors
    /// [`Error::Config`] with file and line, key and value, and what is accepted; [`Error::Io`] or [`Error::Data`] for a
    /// file that cannot be read.
    pub fn load(path: &Path, workbench: &Workbench) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| DataError::new(path, "it is not a text", "give an experiment file: TOML, encoded as UTF-8"))?;
        Self::parse(&text, path, workbench)
    }

    /// Checks the text of an experiment file; `path` names it in messages, gives the experiment its name and paths of
    /// datasets their start.
    ///
    /// # Errors
    /// As [`Spec::load`].
    pub fn parse(text: &str, path: &Path, workbench: &Workbench) -> Result<Self> {
        let name = path.display().to_string();
        let source = Source { name: &name, text };
        let document = source.parse()?;
        let root = Section::new(&source, "", document.get_ref(), 0..0);
        let shapes: Vec<Shape> =
            root.tables_if_any("shape", "[[shape]]")?.iter().map(Shape::read).collect::<Result<_>>()?;
        // What is only counted needs nothing to be trained on.
        let parts = |key, header| {
            if shapes.is_empty() { root.tables(key, header) } else { root.tables_if_any(key, header) }
        };
        let text_of = |key| root.get(key).map(|f| f.text("a text").map(str::to_owned)).transpose();
        let spec = Self {
            name: experiment_name(&root, path)?,
            question: text_of("question")?,
            claim: Claim {
                text: text_of("claim")?,
                source: text_of("source")?,
                about: about(&root, workbench)?,
                expectations: root
                    .tables_if_any("expect", "[[expect]]")?
                    .iter()
                    .map(expectation)
                    .collect::<Result<_>>()?,
            },
            seeds: seeds(&root)?,
            folds: folds(&root)?,
            budget: budget(&root)?,
            target: target(&root)?,
            report: reported(&root)?,
            evaluate: evaluate(&root)?,
            inspect: switch(&root, "inspect")?,
            threads: match root.get("threads") {
                Some(field) => field.whole(1..1025, "a whole number from 1 to 1024 (default: all)")? as usize,
                None => available_threads(),
            },
            device: device(&root)?,
            datasets: parts("dataset", "[[dataset]]")?
                .iter()
                .map(|section| dataset(section, path, workbench))
                .collect::<Result<_>>()?,
            models: {
                let names: Vec<_> = workbench.models.iter().map(|entry| entry.name).collect();
                let tables = parts("model", "[[model]]")?;
                tables.iter().map(|section| component(section, "model", &names, false)).collect::<Result<_>>()?
            },
            optimizers: {
                let names: Vec<_> = workbench.optimizers.iter().map(|entry| entry.name).collect();
                let tables = parts("optimizer", "[[optimizer]]")?;
                tables.iter().map(|section| component(section, "optimizer", &names, true)).collect::<Result<_>>()?
            },
            shapes: shapes.clone(),
            tune: tune::read_section(&root)?,
            withhold_test: false,
            text: text.to_owned(),
        };
        root.finish()?;
        if let (None, Some(optimizer)) = (spec.budget, spec.optimizers.iter().find(|o| o.budget.is_none())) {
            let finding = format!("there is no `budget`, and `{}` has none of its own", optimizer.name);
            return Err(Error::config(path.display(), finding, format!("`budget` takes {}", Budget::ACCEPTS)));
        }
        let sizes = [&spec.models, &spec.optimizers]
            .map(|parts| parts.iter().map(ComponentSpec::size).fold(0, usize::saturating_add));
        let cells =
            sizes.iter().fold(spec.seeds.len() * spec.datasets.len(), |cells, size| cells.saturating_mul(*size));
        if cells > MOST_CELLS {
            let finding = format!("{cells} cells or more");
            return Err(Error::config(path.display(), finding, format!("an experiment has at most {MOST_CELLS}")));
        }
        Ok(spec)
    }
}

fn device(root: &Section<'_>) -> Result<DeviceWish> {
    let Some(field) = root.get("device") else { return Ok(DeviceWish::Named(DeviceName::Cpu)) };
    let accepts = format!("{} (default: \"cpu\")", DeviceWish::ACCEPTS);
    field.text(&accepts)?.parse().map_err(|_| field.refuse(&accepts))
}

fn experiment_name(root: &Section<'_>, path: &Path) -> Result<String> {
    const ACCEPTS: &str =
        "letters, digits, `-`, `_` and `.`, beginning with a letter or digit (default: the file's name)";
    let usable = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.len() <= 100
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    match root.get("name") {
        Some(field) => match field.text(ACCEPTS)? {
            name if usable(name) => Ok(name.to_owned()),
            _ => Err(field.refuse(ACCEPTS)),
        },
        None => {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if usable(&stem) {
                Ok(stem)
            } else {
                let finding = format!("the file's name {stem:?} cannot be the experiment's");
                Err(Error::config(path.display(), finding, format!("add `name`, which takes {ACCEPTS}")))
            }
        }
    }
}

/// The dataset that the claim is about.
fn about(root: &Section<'_>, workbench: &Workbench) -> Result<Option<String>> {
    let Some(field) = root.get("about") else { return Ok(None) };
    let names = || workbench.datasets.iter().map(|entry| entry.name.as_str());
    let accepts = || {
        let names = names().collect::<Vec<_>>().join(", ");
        format!("\"any\", where the claim does not depend on the data, or the name of a registered dataset: {names}")
    };
    match field.text(&accepts())? {
        name if name == "any" || names().any(|known| known == name) => Ok(Some(name.to_owned())),
        name => Err(field.refuse(format!("{}{}", did_you_mean(name, names()), accepts()))),
    }
}

/// Something that must hold for the claim.
fn expectation(section: &Section<'_>) -> Result<Expectation> {
    const ACCEPTS: &str =
        "a comparison in quotes, such as \"median(irls.test_accuracy) >= 0.64\" (docs/expectations.md)";
    let field = section.require("that", ACCEPTS)?;
    let text = field.text(ACCEPTS)?.trim();
    let place = format!("{}, [[expect]]", field.place());
    let comparison = Comparison::parse(text).map_err(|mistake| place_mistake(&place, text, &mistake))?;
    let why = section.get("why").map(|field| field.text("a text").map(str::to_owned)).transpose()?;
    section.finish()?;
    Ok(Expectation { place, text: text.to_owned(), comparison, why })
}

fn seeds(root: &Section<'_>) -> Result<Vec<u64>> {
    const ACCEPTS: &str = "a list of distinct whole numbers of at least 0, such as [1, 2, 3], or how many (1 to 1000)";
    let Some(field) = root.get("seeds") else { return Ok(vec![1]) };
    if !field.is_array() {
        return Ok((1..=field.whole(1..1001, ACCEPTS)?).collect());
    }
    let seeds: Vec<u64> = field.items().iter().map(|item| item.whole(0..1 << 62, ACCEPTS)).collect::<Result<_>>()?;
    let distinct: BTreeSet<_> = seeds.iter().collect();
    if seeds.is_empty() || seeds.len() > 1000 || distinct.len() < seeds.len() {
        return Err(field.refuse(ACCEPTS));
    }
    Ok(seeds)
}

fn folds(root: &Section<'_>) -> Result<Folds> {
    const ACCEPTS: &str = "\"all\" or a list of distinct folds counted from 0, such as [0, 1]";
    let Some(field) = root.get("folds") else { return Ok(Folds::One) };
    if !field.is_array() {
        return if field.text(ACCEPTS)? == "all" { Ok(Folds::All) } else { Err(field.refuse(ACCEPTS)) };
    }
    let items = field.items();
    let folds: Vec<usize> =
        items.iter().map(|item| Ok(item.whole(0..1 << 32, ACCEPTS)? as usize)).collect::<Result<_>>()?;
    let distinct: BTreeSet<_> = folds.iter().collect();
    if folds.is_empty() || distinct.len() < folds.len() {
        return Err(field.refuse(ACCEPTS));
    }
    Ok(Folds::Some(folds))
}

fn budget(section: &Section<'_>) -> Result<Option<Budget>> {
    let Some(field) = section.get("budget") else { return Ok(None) };
    let mut budget = Budget::default();
    let items = field.items();
    for item in &items {
        budget = budget.with(item.text(Budget::ACCEPTS)?).ok_or_else(|| item.refuse(Budget::ACCEPTS))?;
    }
    if items.is_empty() {
        return Err(field.refuse(Budget::ACCEPTS));
    }
    Ok(Some(budget))
}

fn target(root: &Section<'_>) -> Result<Option<Target>> {
    let accepts = format!(
        "{{ metric = \"validation_accuracy\", value = 0.64 }}; metrics: {} (not those of the test rows, on which \
         nothing is chosen)",
        Target::METRICS.join(", ")
    );
    let Some(field) = root.get("target") else { return Ok(None) };
    let Some(section) = field.table("target") else { return Err(field.refuse(accepts)) };
    let metric = section.require("metric", &accepts)?;
    let value = section.require("value", &accepts)?.number("a number")?;
    let name = metric.text(&accepts)?;
    if !Target::METRICS.contains(&name) {
        return Err(metric.refuse(format!("{}one of {}", did_you_mean(name, Target::METRICS.into_iter()), accepts)));
    }
    section.finish()?;
    Ok(Some(Target { metric: name.to_owned(), value }))
}

/// `true` or `false`, which it is without the key.
fn switch(section: &Section<'_>, key: &'static str) -> Result<bool> {
    Ok(section.get(key).map(|field| field.read_into("true or false", |_| ())).transpose()?.unwrap_or(false))
}

fn reported(root: &Section<'_>) -> Result<Reported> {
    const ACCEPTS: &str = "\"last\" or \"best-validation\" (the evaluated iterate with the smallest validation loss)";
    let Some(field) = root.get("report") else { return Ok(Reported::Last) };
    match field.text(ACCEPTS)? {
        "last" => Ok(Reported::Last),
        "best-validation" => Ok(Reported::BestValidation),
        _ => Err(field.refuse(ACCEPTS)),
    }
}

fn evaluate(root: &Section<'_>) -> Result<Schedule> {
    let Some(field) = root.get("evaluate") else { return Ok(Schedule::default()) };
    field.text(Schedule::ACCEPTS)?.parse().map_err(|_| field.refuse(Schedule::ACCEPTS))
}

fn dataset(section: &Section<'_>, experiment: &Path, workbench: &Workbench) -> Result<DatasetSpec> {
    const SPLIT: &str = "the name of a registered split, or a rule: { last = { test = 1000, validation = 1000 } }, \
                         { fractions = { train = 0.7, validation = 0.15, test = 0.15, seed = 1 } }, \
                         { folds = { count = 5 } } or { ranges = { train = [0, 70], validation = [70, 85], test = [85, 100] } }";
    let place = section.place();
    let label = section.get("label").map(|field| field.text(LABEL).map(str::to_owned)).transpose()?;
    let rows = section.get("rows").map(|f| f.whole(1..1 << 32, "a whole number of at least 1")).transpose()?;
    let seed = section.get("seed").map(|f| f.whole(0..1 << 62, "a whole number of at least 0")).transpose()?;
    let count = |key| section.get(key).map(|f| f.whole(1..1 << 48, "a whole number of at least 1")).transpose();
    let corpus = CorpusOptions {
        tokens: section.get("tokens").map(|f| f.read_into("\"characters\" or \"bytes\"", |_| ())).transpose()?,
        length: count("length")?.map(|length| length as usize),
        evaluation_tokens: count("evaluation_tokens")?.map(|tokens| tokens as usize),
        facts: count("facts")?.map(|facts| facts as usize),
        digits: count("digits")?.map(|digits| digits as usize),
    };
    let optional = switch(section, "optional")?;
    let split = match section.get("split") {
        None => SplitChoice::Standard,
        Some(field) if field.table("").is_none() => SplitChoice::Named(field.text(SPLIT)?.to_owned()),
        Some(field) => {
            // The fold may be left to the experiment's `folds`.
            let first_fold = |value: &mut toml::Value| {
                if let Some(folds) = value.get_mut("folds").and_then(toml::Value::as_table_mut) {
                    folds.entry("fold").or_insert(toml::Value::Integer(0));
                }
            };
            SplitChoice::Rule(field.read_into::<SplitSpec>(SPLIT, first_fold)?)
        }
    };
    let source = match (section.get("name"), section.get("path")) {
        (Some(name), None) => {
            const ACCEPTS: &str = "the name of a registered dataset (`parsimony data list`); a file goes under `path`";
            let text = name.text(ACCEPTS)?;
            find_in(&workbench.datasets, text).map_err(|error| at(&name, error))?;
            section.finish()?;
            DataSource::Registered(text.to_owned())
        }
        (None, Some(path)) => {
            let text = path.text("the path of a file")?;
            let read = read_options(section)?;
            section.finish()?;
            DataSource::File { path: resolve(text, experiment), read }
        }
        _ => {
            let remedy = "give either `name`, a registered dataset, or `path`, a file";
            return Err(Error::config(place, "neither or both of `name` and `path`", remedy));
        }
    };
    let choice = Choice { source, rows: rows.map(|rows| rows as usize), seed, corpus };
    Ok(DatasetSpec { place, label, choice, split, optional })
}

/// Moves an error about a value to the field that holds it.
fn at(field: &Field<'_>, error: Error) -> Error {
    match error {
        Error::Config { finding, remedy, .. } => Error::config(field.place(), finding, remedy),
        other => other,
    }
}

/// The keys of [`ReadOptions`], read by serde one by one so that a complaint finds its line.
fn read_options(section: &Section<'_>) -> Result<ReadOptions> {
    fn take<T: serde::de::DeserializeOwned>(
        section: &Section<'_>,
        key: &'static str,
        accepts: &str,
    ) -> Result<Option<T>> {
        section.get(key).map(|field| field.read_into(accepts, |_| ())).transpose()
    }
    let standard = ReadOptions::default();
    let columns = "a list of column names or numbers counted from 1";
    Ok(ReadOptions {
        format: take(section, "format", "csv, tsv, libsvm, parquet, idx, text or store")?,
        target: match section.get("target") {
            None => None,
            Some(field) => match field.scalar()? {
                SettingValue::Word(name) => Some(name),
                SettingValue::Whole(number) if number > 0 => Some(number.to_string()),
                _ => return Err(field.refuse("the name of a column or its number counted from 1")),
            },
        },
        header: take(section, "header", "true or false")?,
        task: take(section, "task", "\"classification\" or \"regression\"")?,
        missing: take(section, "missing", "\"refuse\" or \"drop_rows\"")?.unwrap_or(standard.missing),
        exclude: take(section, "exclude", columns)?.unwrap_or(standard.exclude),
        features: take(section, "features", "a whole number of at least 1")?,
        dense_limit: take(section, "dense_limit", "a number of bytes")?.unwrap_or(standard.dense_limit),
    })
}

/// Relative paths start at the folder of the experiment file or, where nothing lies there, at the current folder.
fn resolve(text: &str, experiment: &Path) -> PathBuf {
    let beside = experiment.parent().map(|folder| folder.join(text)).filter(|path| path.exists());
    let path = beside.unwrap_or_else(|| PathBuf::from(text));
    std::path::absolute(&path).unwrap_or(path)
}

fn component(section: &Section<'_>, kind: &str, names: &[&'static str], has_budget: bool) -> Result<ComponentSpec> {
    let accepts = format!("the name of a registered {kind}: {}", names.join(", "));
    let field = section.require("name", &accepts)?;
    let name = field.text(&accepts)?;
    if !names.contains(&name) {
        let finding = format!("there is no {kind} `{name}`");
        let remedy = format!("{}`name` takes {accepts}", did_you_mean(name, names.iter().copied()));
        return Err(Error::config(field.place(), finding, remedy));
    }
    let label = section.get("label").map(|field| field.text(LABEL).map(str::to_owned)).transpose()?;
    let budget = if has_budget { budget(section)? } else { None };
    let mut grid = BTreeMap::new();
    for field in section.rest() {
        let values: Vec<_> = field.items().iter().map(Field::scalar).collect::<Result<_>>()?;
        let is_repeated = |(index, value): (usize, &SettingValue)| values[..index].contains(value);
        if values.is_empty() || values.iter().enumerate().any(is_repeated) {
            return Err(field.refuse("a value, or an array of distinct ones"));
        }
        grid.insert(field.key.clone(), values);
    }
    Ok(ComponentSpec { place: format!("{} {name}", section.place()), name: name.to_owned(), label, grid, budget })
}
