//! Reads a run folder: what each cell was (`config.json`), how it ended (`result.json`) and what was recorded on the
//! way (`trace.parquet`), with the reference optima and the plan. docs/file-formats.md describes the files.
//!
//! A cell without `result.json` is not finished: it is kept and called interrupted. A file that is there but cannot be
//! read is an error that names it.

use super::trace::{self, Trace};
use crate::claim::{Claim, Subject};
use crate::error::{DataError, Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// A name, the label reports show for it, and the options it was given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Labelled {
    /// The registered name.
    pub name: String,
    /// What reports call it; the name where absent.
    #[serde(default)]
    pub label: Option<String>,
    /// The options given.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl Labelled {
    /// What reports call it.
    #[must_use]
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

/// A metric's value whose first reaching is timed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Target {
    /// The metric's column in the trace.
    pub metric: String,
    /// The value to reach.
    pub value: f64,
}

/// Whether more of a metric is better.
pub(super) fn rises(metric: &str) -> bool {
    metric.ends_with("accuracy") || metric.contains("explained")
}

impl Target {
    /// Whether a value reaches the target: at least this for an accuracy or a share explained, at most this for anything else.
    #[must_use]
    pub fn is_reached(&self, value: f64) -> bool {
        if rises(&self.metric) { value >= self.value } else { value <= self.value }
    }
}

/// What a cell is: its `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Config {
    /// The cell's ID.
    pub cell: String,
    /// The experiment's name.
    #[serde(default)]
    pub experiment: String,
    /// The dataset.
    pub dataset: Labelled,
    /// The model.
    pub model: Labelled,
    /// The optimizer.
    pub optimizer: Labelled,
    /// Every hyperparameter of the optimizer.
    #[serde(default)]
    pub hyperparameters: Map<String, Value>,
    /// The hash of what is minimized.
    #[serde(default)]
    pub problem: String,
    /// The seed.
    #[serde(default)]
    pub seed: u64,
    /// The fold, where the dataset is split into folds.
    #[serde(default)]
    pub fold: Option<u64>,
    /// The target, if any.
    #[serde(default)]
    pub target: Option<Target>,
}

/// How a cell ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It ran to its end.
    Finished,
    /// It ran out of its budget in seconds.
    TimedOut,
    /// Its numbers left the finite ones.
    Diverged,
    /// It stopped with an error.
    Failed,
    /// It was never run.
    Skipped,
    /// It was stopped, or is still running.
    #[default]
    Interrupted,
}

impl Status {
    /// The word the files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::TimedOut => "timed-out",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a cell ended, in numbers: its `result.json`. The fields stand in the order in which they are printed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CellResult {
    /// The cell's ID.
    pub cell: String,
    /// The experiment's name.
    pub experiment: String,
    /// The dataset's label, with "(simulated)" where it is.
    pub dataset: String,
    /// The model's label.
    pub model: String,
    /// The optimizer's label.
    pub optimizer: String,
    /// Every hyperparameter of the optimizer.
    pub hyperparameters: Map<String, Value>,
    /// The seed.
    pub seed: u64,
    /// The fold.
    pub fold: Option<u64>,
    /// The hash of what is minimized.
    pub problem: String,
    /// How it ended.
    pub status: Status,
    /// Why it ended so.
    pub reason: Option<String>,
    /// What was noticed: separation, rank deficiency ...
    pub findings: Vec<Finding>,
    /// Nats per row, with the regularizer.
    pub objective: Option<f64>,
    /// Nats per row.
    pub train_loss: Option<f64>,
    /// Nats per row.
    pub validation_loss: Option<f64>,
    /// Nats per row.
    pub test_loss: Option<f64>,
    /// Share of rows.
    pub train_accuracy: Option<f64>,
    /// Share of rows.
    pub validation_accuracy: Option<f64>,
    /// Share of rows.
    pub test_accuracy: Option<f64>,
    /// Area under the ROC curve.
    pub test_auc: Option<f64>,
    /// Mean over rows, summed over outputs.
    pub train_squared_error: Option<f64>,
    /// Mean over rows, summed over outputs.
    pub validation_squared_error: Option<f64>,
    /// Mean over rows, summed over outputs.
    pub test_squared_error: Option<f64>,
    /// Share of the targets' variance.
    pub validation_explained_variance: Option<f64>,
    /// Share of what the best linear map leaves.
    pub validation_explained_beyond_linear: Option<f64>,
    /// Share of the targets' variance.
    pub test_explained_variance: Option<f64>,
    /// Share of what the best linear map leaves.
    pub test_explained_beyond_linear: Option<f64>,
    /// Bits per character of a text.
    pub validation_bits_per_character: Option<f64>,
    /// Nats per token that is no answer, of the generated language.
    pub validation_grammar_loss: Option<f64>,
    /// Nats per answer of a fact, of the generated language.
    pub validation_fact_loss: Option<f64>,
    /// Nats per digit of a result, of the generated language.
    pub validation_sum_loss: Option<f64>,
    /// Bits per character of a text.
    pub test_bits_per_character: Option<f64>,
    /// Nats per token that is no answer, of the generated language.
    pub test_grammar_loss: Option<f64>,
    /// Nats per answer of a fact, of the generated language.
    pub test_fact_loss: Option<f64>,
    /// Nats per digit of a result, of the generated language.
    pub test_sum_loss: Option<f64>,
    /// Experts to which no training row goes.
    pub dead_experts: Option<u64>,
    /// Count.
    pub parameters_total: Option<u64>,
    /// Count.
    pub parameters_active: Option<u64>,
    /// Count.
    pub parameters_nonzero: Option<u64>,
    /// Bytes.
    pub parameter_bytes: Option<u64>,
    /// Their bytes after lossless compression.
    pub parameter_compressed_bytes: Option<u64>,
    /// Bytes.
    pub optimizer_state_bytes: Option<u64>,
    /// Count.
    pub steps: Option<u64>,
    /// Passes over the training rows.
    pub data_passes: Option<f64>,
    /// Work in units of one full gradient.
    pub gradient_equivalents: Option<f64>,
    /// Count.
    pub flops: Option<f64>,
    /// Bytes.
    pub bytes_moved: Option<f64>,
    /// Seconds.
    pub setup_seconds: Option<f64>,
    /// Seconds.
    pub train_seconds: Option<f64>,
    /// Seconds.
    pub evaluation_seconds: Option<f64>,
    /// Seconds.
    pub record_seconds: Option<f64>,
    /// Seconds.
    pub wall_seconds: Option<f64>,
    /// Seconds of training; absent is a miss.
    pub time_to_target_seconds: Option<f64>,
    /// Bytes.
    pub peak_resident_bytes: Option<u64>,
    /// Bytes.
    pub peak_anonymous_bytes: Option<u64>,
    /// Bytes of a GPU's memory.
    pub peak_device_bytes: Option<u64>,
    /// Infinity norm at the reported iterate.
    pub gradient_norm: Option<f64>,
}

/// Something noticed while a cell ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Finding {
    /// What it is: `separation`, `rank-deficiency` ...
    pub kind: String,
    /// The same in a sentence.
    pub message: String,
    /// The columns it is about.
    pub columns: Vec<String>,
}

/// One cell of a run.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// What it is.
    pub config: Config,
    /// How it ended.
    pub result: CellResult,
    /// What was recorded on the way; empty where nothing was.
    pub trace: Trace,
    /// The text of its `result.json`, which keeps every digit; absent for an unfinished cell.
    pub result_text: Option<String>,
    /// What it is to an expectation.
    pub subject: Subject,
    /// Its folder.
    pub folder: PathBuf,
}

impl Cell {
    /// Seconds of training until the target was first reached; infinity for a miss, which a cell that diverged is too.
    /// `None` of a cell that was cut short: nobody knows what it would have reached.
    #[must_use]
    pub fn time_to_target(&self) -> Option<f64> {
        match self.result.status {
            Status::Finished | Status::TimedOut => Some(self.result.time_to_target_seconds.unwrap_or(f64::INFINITY)),
            Status::Diverged => Some(f64::INFINITY),
            Status::Failed | Status::Skipped | Status::Interrupted => None,
        }
    }
}

/// The smallest objective of a convex problem.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reference {
    /// The hash of what is minimized.
    pub problem: String,
    /// Its smallest value, nats per row.
    pub objective: f64,
    /// The gradient's norm there.
    #[serde(default)]
    pub gradient_norm: Option<f64>,
    /// How it was found.
    #[serde(default)]
    pub method: Option<String>,
}

/// Everything a run folder holds.
#[derive(Debug, Clone, Default)]
pub struct Runs {
    /// The folder.
    pub folder: PathBuf,
    /// The experiment's name.
    pub name: String,
    /// The question the experiment asks, if it states one.
    pub question: Option<String>,
    /// The claim it tests.
    pub claim: Claim,
    /// The cells, in the plan's order where there is one.
    pub cells: Vec<Cell>,
    /// Cells of the plan that have not begun.
    pub pending: Vec<Subject>,
    /// Shapes that the plan counted: subjects, and values by metric.
    pub shapes: Vec<(Subject, BTreeMap<String, f64>)>,
    /// The reference optima, by problem.
    pub references: BTreeMap<String, Reference>,
}

/// Reads the run folder `folder`.
///
/// # Errors
/// [`Error::Config`] if it is not a run folder; [`Error::Data`] names a damaged file; [`Error::Io`] one that cannot be
/// opened.
pub fn load(folder: &Path) -> Result<Runs> {
    let cells_folder = folder.join("cells");
    if !cells_folder.is_dir() {
        let finding = if folder.is_dir() { "it has no folder `cells`" } else { "there is no such folder" };
        let remedy = "name a folder that `parsimony run` wrote, such as runs/NAME";
        return Err(Error::config(folder.display(), finding, remedy));
    }
    let mut cells = Vec::new();
    for path in entries(&cells_folder)? {
        if path.is_dir()
            && let Some(cell) = load_cell(&path)?
        {
            cells.push(cell);
        }
    }
    let (planned, shapes) = planned(&folder.join("plan.json"))?;
    let order: BTreeMap<&str, usize> =
        planned.iter().enumerate().map(|(index, (id, _))| (id.as_str(), index)).collect();
    let begun: BTreeSet<&str> = cells.iter().map(|cell| cell.config.cell.as_str()).collect();
    let pending =
        planned.iter().filter(|(id, config)| !begun.contains(id.as_str()) && config.get("optimizer").is_some());
    let pending = pending.map(|(_, config)| Subject::of_config(config)).collect();
    cells.sort_by_cached_key(|cell| {
        let config = &cell.config;
        let planned = order.get(config.cell.as_str()).copied().unwrap_or(usize::MAX);
        let names = [&config.dataset, &config.model, &config.optimizer].map(|part| part.label().to_owned());
        (planned, names, Value::Object(config.hyperparameters.clone()).to_string(), config.fold, config.seed)
    });
    let mut references = BTreeMap::new();
    let references_folder = folder.join("references");
    if references_folder.is_dir() {
        for path in entries(&references_folder)? {
            if path.extension().is_some_and(|extension| extension == "json") {
                let reference: Reference = parse_json(&path, &read(&path)?)?;
                references.insert(reference.problem.clone(), reference);
            }
        }
    }
    let (stated_name, question, claim) = experiment(&folder.join("experiment.toml"))?;
    let name = cells
        .iter()
        .map(|cell| cell.config.experiment.clone())
        .find(|name| !name.is_empty())
        .or(stated_name)
        .or_else(|| folder.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "experiment".to_owned());
    Ok(Runs { folder: folder.to_owned(), name, question, claim, cells, pending, shapes, references })
}

/// The cell in this folder; `None` while it has no `config.json`, that is, before it began.
fn load_cell(folder: &Path) -> Result<Option<Cell>> {
    let config_path = folder.join("config.json");
    if !config_path.exists() {
        return Ok(None);
    }
    let config_text = read(&config_path)?;
    let config: Config = parse_json(&config_path, &config_text)?;
    let subject = Subject::of_config(&parse_json(&config_path, &config_text)?);
    let result_path = folder.join("result.json");
    let (result, result_text) = if result_path.exists() {
        let text = read(&result_path)?;
        (parse_json(&result_path, &text)?, Some(text))
    } else {
        (unfinished(&config), None)
    };
    let trace_path = folder.join("trace.parquet");
    let trace = if trace_path.exists() { trace::read(&trace_path)? } else { Trace::default() };
    Ok(Some(Cell { config, result, trace, result_text, subject, folder: folder.to_owned() }))
}

/// What is known of a cell that has no result.
fn unfinished(config: &Config) -> CellResult {
    CellResult {
        cell: config.cell.clone(),
        experiment: config.experiment.clone(),
        dataset: config.dataset.label().to_owned(),
        model: config.model.label().to_owned(),
        optimizer: config.optimizer.label().to_owned(),
        hyperparameters: config.hyperparameters.clone(),
        seed: config.seed,
        fold: config.fold,
        problem: config.problem.clone(),
        status: Status::Interrupted,
        reason: Some("not finished: run the experiment again to go on with it".to_owned()),
        ..CellResult::default()
    }
}

/// The cells of a plan with their IDs, in the order in which the experiment file names them, and its shapes.
type Planned = (Vec<(String, Value)>, Vec<(Subject, BTreeMap<String, f64>)>);

fn planned(path: &Path) -> Result<Planned> {
    if !path.exists() {
        return Ok(Planned::default());
    }
    let plan: Value = parse_json(path, &read(path)?)?;
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let id = |cell: &Value| {
        cell.as_str().or_else(|| cell.get("cell").or_else(|| cell.get("id"))?.as_str()).map(str::to_owned)
    };
    let cells = list(Some(plan.get("cells").unwrap_or(&plan)));
    let cells = cells.into_iter().filter_map(|cell| Some((id(&cell)?, cell))).collect();
    let shape = |shape: &Value| {
        let values = shape.get("values").and_then(Value::as_object).into_iter().flatten();
        let values = values.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        (Subject::of_config(shape), values)
    };
    Ok((cells, list(plan.get("shapes")).iter().map(shape).collect()))
}

/// The name and the question of the experiment file, wherever in it they stand, and its claim.
fn experiment(path: &Path) -> Result<(Option<String>, Option<String>, Claim)> {
    if !path.exists() {
        return Ok((None, None, Claim::default()));
    }
    let table: toml::Table = toml::from_str(&read(path)?).map_err(|error| {
        DataError::new(path, format!("not readable as TOML: {}", error.message()), "restore the experiment file")
    })?;
    let find = |key: &str| {
        let inner = table.get("experiment").and_then(toml::Value::as_table);
        let value = table.get(key).or_else(|| inner?.get(key))?;
        value.as_str().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    Ok((find("name"), find("question").or_else(|| find("title")), Claim::of_experiment(&table)))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(Error::io(folder, "read"))?;
    paths.sort();
    Ok(paths)
}

pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => damaged(path, "it is not text").into(),
        _ => Error::io(path, "read")(error),
    })
}

pub(super) fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line() as u64, error.column());
        damaged(path, error).at_line(line).at_column(column).into()
    })
}

/// The error about a file of a run that cannot be used.
pub(super) fn damaged(path: &Path, finding: impl fmt::Display) -> DataError {
    let remedy = "delete the folder that holds it and run the experiment again: whatever else is finished is kept";
    DataError::new(path, finding, remedy)
}
