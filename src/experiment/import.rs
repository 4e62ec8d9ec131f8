//! Traces from outside: rows that another program recorded become cells of a run, and stand in its figures and tables.
//!
//! The file is Parquet or CSV with the columns of a trace (docs/file-formats.md). What the cells are of (dataset, split,
//! model) is taken from a cell of the run; a later run of the experiment leaves them where they are.

use super::budget::Budget;
use super::record::{
    CellConfig, CellFolder, CellResult, ComponentRecord, Status, Values, content_hash, read_json, write_json,
};
use super::runner;
use super::trace::{COLUMNS, Trace};
use crate::error::{DataError, Error, Result};
use crate::oracle::did_you_mean;
use polars::prelude::{CsvReadOptions, DataFrame, DataType, ParquetReader, SerReader};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What is said about a trace beside its file.
#[derive(Debug, Clone)]
pub struct Import {
    /// Parquet or CSV.
    pub file: PathBuf,
    /// The folder of the run.
    pub into: PathBuf,
    /// What reports call the optimizer.
    pub optimizer: String,
    /// Its settings, to tell one from another.
    pub settings: Values,
    /// A cell of the run with the same dataset and model, by its ID or the beginning of it.
    pub like: Option<String>,
    /// The seed, where the file has no such column.
    pub seed: u64,
    /// The fold, where the file has no such column.
    pub fold: Option<usize>,
    /// How the fit ended.
    pub status: Status,
    /// Number of parameters, where it is not that of the cell that it is like.
    pub parameters: Option<u64>,
}

/// Marks a cell's folder as imported.
pub(super) const MARK: &str = "imported.json";

/// Columns beside those of a trace: they tell one fit of the file from another.
const SEED: &str = "seed";
const FOLD: &str = "fold";

/// Columns of a trace that may not decrease.
const RISING: [&str; 3] = ["step", "data_passes", "train_seconds"];

/// Takes a trace in; the folders of its cells, one for each seed and fold of the file.
///
/// # Errors
/// [`Error::Data`] names file, line and column of what cannot be used; [`Error::Config`] where the run has no such cell;
/// [`Error::Io`].
pub fn import(what: &Import) -> Result<Vec<PathBuf>> {
    let configs = configs(&what.into)?;
    let like = like(what, &configs)?;
    let frame = read(&what.file)?;
    let mut fits: BTreeMap<(u64, Option<usize>), Trace> = BTreeMap::new();
    let columns = columns(&what.file, &frame)?;
    for row in 0..frame.height() {
        let place = Place { file: &what.file, row };
        let whole = |name: &str| columns.get(name).map(|values| place.whole(name, values[row])).transpose();
        let seed = whole(SEED)?.unwrap_or(what.seed);
        let fold = whole(FOLD)?.map(|fold| fold as usize).or(what.fold);
        let trace = fits.entry((seed, fold)).or_default();
        place.add(trace, &columns)?;
    }
    let _lock = runner::lock(&what.into)?;
    let bytes = std::fs::read(&what.file).map_err(Error::io(&what.file, "read"))?;
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut written = Vec::new();
    for ((seed, fold), trace) in fits {
        let config = config(what, sibling(&configs, like, fold, &what.into)?, seed, fold);
        let folder = CellFolder::new(what.into.join("cells").join(&config.cell));
        std::fs::create_dir_all(folder.path()).map_err(Error::io(folder.path(), "create"))?;
        write_json(&folder.path().join(MARK), &json!({ "file": what.file, "sha256": digest, "rows": trace.rows() }))?;
        trace.write(&folder.trace())?;
        write_json(&folder.config(), &config)?;
        write_json(&folder.result(), &result(what, &config, &trace, &configs))?;
        written.push(folder.path().to_owned());
    }
    Ok(written)
}

/// A row of the file.
struct Place<'a> {
    file: &'a Path,
    row: usize,
}

impl Place<'_> {
    /// The complaint about a value. In CSV the header is line 1; in Parquet rows are counted the same way.
    fn refuse(&self, column: &str, finding: impl std::fmt::Display, remedy: &str) -> Error {
        DataError::new(self.file, finding, remedy).at_line(self.row as u64 + 2).at_column(column).into()
    }

    fn whole(&self, column: &str, value: f64) -> Result<u64> {
        if value >= 0.0 && value.fract() == 0.0 && value < 9e15 {
            return Ok(value as u64);
        }
        Err(self.refuse(column, format!("{value} is no whole number of at least 0"), "write 0, 1, 2 ..."))
    }

    /// Checks the row and adds it to the trace of its fit.
    fn add(&self, trace: &mut Trace, columns: &BTreeMap<String, Vec<f64>>) -> Result<()> {
        let last = trace.rows().checked_sub(1);
        let mut row: Vec<(&str, f64)> = Vec::new();
        for (name, values) in columns.iter().filter(|(name, _)| ![SEED, FOLD].contains(&name.as_str())) {
            let value = values[self.row];
            let is_missing = value.is_nan();
            if name == "train_seconds" && is_missing {
                return Err(self.refuse(name, "it is empty", "every row needs its seconds of training so far"));
            }
            if (name.ends_with("accuracy") || name == "test_auc") && !is_missing && !(0.0..=1.0).contains(&value) {
                return Err(self.refuse(name, format!("{value} is not from 0 to 1"), "write a share, not per cent"));
            }
            if value.is_infinite() {
                return Err(self.refuse(name, "it is infinite", "leave it empty; --status diverged says how it ended"));
            }
            if RISING.contains(&name.as_str()) && !is_missing {
                let before = last.map_or(0.0, |last| trace.columns()[name][last]);
                if value < before {
                    let finding = format!("{value} comes after {before}");
                    return Err(self.refuse(name, finding, "write the rows of a fit in the order of time, from 0 on"));
                }
            }
            row.push((name, value));
        }
        if !columns.contains_key("step") {
            row.push(("step", trace.rows() as f64));
        }
        trace.push(row);
        Ok(())
    }
}

fn read(path: &Path) -> Result<DataFrame> {
    let remedy = "give Parquet (.parquet) or CSV with a header (.csv): docs/file-formats.md lists the columns";
    let unreadable = |error: polars::error::PolarsError| DataError::new(path, error, remedy).into();
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("parquet") => ParquetReader::new(file).finish().map_err(unreadable),
        Some("csv") => {
            let options = CsvReadOptions::default().with_infer_schema_length(None).with_has_header(true);
            options.into_reader_with_file_handle(file).finish().map_err(unreadable)
        }
        _ => Err(DataError::new(path, "its name ends in neither .parquet nor .csv", remedy).into()),
    }
}

/// The columns of the file as numbers, empty values as NaN.
fn columns(path: &Path, frame: &DataFrame) -> Result<BTreeMap<String, Vec<f64>>> {
    let refuse = |finding: String, remedy: &str| Err(DataError::new(path, finding, remedy).into());
    let mut columns = BTreeMap::new();
    for column in frame.columns() {
        let name = column.name().as_str();
        let is_known = COLUMNS.contains(&name) || [SEED, FOLD].contains(&name) || name.starts_with("optimizer.");
        if !is_known {
            let guess = did_you_mean(name, COLUMNS.into_iter());
            let all = COLUMNS.join(", ");
            return refuse(
                format!("there is no column `{name}` in a trace"),
                &format!("{guess}leave it out, or call it optimizer.{name}; known: {all}, seed, fold, optimizer.*"),
            );
        }
        let numbers = column.as_materialized_series();
        if !numbers.dtype().is_primitive_numeric() && numbers.null_count() < numbers.len() {
            let row = first_text(frame, name);
            let error = DataError::new(path, "it is not a number", "write numbers; leave what was not measured empty");
            return Err(error.at_line(row as u64 + 2).at_column(name).into());
        }
        let numbers = numbers.cast(&DataType::Float64).and_then(|numbers| numbers.f64().cloned());
        let numbers = numbers.map_err(|error| DataError::new(path, error, "write numbers"))?;
        columns.insert(name.to_owned(), numbers.iter().map(|value| value.unwrap_or(f64::NAN)).collect());
    }
    if frame.height() == 0 {
        return refuse("it has no rows".into(), "record a row at every evaluation");
    }
    if !columns.contains_key("train_seconds") {
        return refuse(
            "there is no column `train_seconds`".into(),
            "record the seconds of training so far in every row",
        );
    }
    let endings = ["loss", "accuracy", "auc", "objective", "squared_error", "bits_per_character", "explained_variance"];
    let metrics: Vec<_> = COLUMNS.into_iter().filter(|name| endings.iter().any(|end| name.ends_with(end))).collect();
    if !metrics.iter().any(|name| columns.contains_key(*name)) {
        return refuse("it records no metric".into(), &format!("record at least one of {}", metrics.join(", ")));
    }
    Ok(columns)
}

/// The first row whose text is no number.
fn first_text(frame: &DataFrame, name: &str) -> usize {
    let texts = frame.column(name).and_then(|column| column.str().cloned());
    let is_text = |text: Option<&str>| text.is_some_and(|text| text.trim().parse::<f64>().is_err());
    texts.map_or(0, |texts| texts.iter().position(is_text).unwrap_or(0))
}

/// What the cells of a run are, in the order of their IDs, with those imported before left out.
fn configs(run: &Path) -> Result<Vec<CellConfig>> {
    let cells = run.join("cells");
    if !cells.is_dir() {
        let finding = if run.is_dir() { "it has no folder `cells`" } else { "there is no such folder" };
        return Err(Error::config(
            run.display(),
            finding,
            "name a folder that `parsimony run` wrote, such as runs/NAME",
        ));
    }
    let entries = std::fs::read_dir(&cells).map_err(Error::io(&cells, "read"))?;
    let mut folders = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(&cells, "read"))?;
    folders.sort();
    let own = folders.iter().filter(|folder| folder.join("config.json").exists() && !folder.join(MARK).exists());
    own.map(|folder| read_json(&CellFolder::new(folder.as_path()).config())).collect()
}

/// The cell whose dataset and model the trace shares.
fn like<'a>(what: &Import, configs: &'a [CellConfig]) -> Result<&'a CellConfig> {
    let run = what.into.display();
    if let Some(id) = &what.like {
        let found = configs.iter().find(|config| config.cell.starts_with(id.as_str()));
        return found.ok_or_else(|| {
            let remedy = "`parsimony summary RUN --format json` shows the cells with their IDs";
            Error::config("--like", format!("{run} has no cell {id}"), remedy)
        });
    }
    let Some(first) = configs.first() else {
        return Err(Error::config(run, "it has no cells", "run the experiment first"));
    };
    let mut kinds: Vec<&CellConfig> = vec![first];
    for config in configs {
        if !kinds.iter().any(|kind| is_same_problem(kind, config)) {
            kinds.push(config);
        }
    }
    if kinds.len() == 1 {
        return Ok(first);
    }
    let several = super::Names::new(kinds.iter().copied());
    let list: Vec<_> = kinds
        .iter()
        .map(|kind| format!("--like {} ({}, {})", kind.cell, kind.dataset.label, several.model(kind)))
        .collect();
    let remedy = format!("say which one the trace is of: {}", list.join("; "));
    Err(Error::config(run, "it has several datasets or models", remedy))
}

/// Whether two cells have one dataset and model, whichever fold tests.
fn is_same_problem(one: &CellConfig, other: &CellConfig) -> bool {
    one.dataset.label == other.dataset.label
        && one.dataset.source == other.dataset.source
        && one.model == other.model
        && (one.fold.is_some() || one.problem == other.problem)
}

/// The cell of another fold of the same problem.
fn sibling<'a>(
    configs: &'a [CellConfig],
    like: &'a CellConfig,
    fold: Option<usize>,
    run: &Path,
) -> Result<&'a CellConfig> {
    let Some(wanted) = fold.filter(|_| like.fold != fold) else { return Ok(like) };
    let found = configs.iter().find(|config| config.fold == Some(wanted) && is_same_problem(config, like));
    found.ok_or_else(|| {
        let remedy = "leave `fold` out where the dataset is not split into folds, or run that fold too";
        Error::config(run.display(), format!("it has no cell of fold {wanted}"), remedy)
    })
}

fn config(what: &Import, like: &CellConfig, seed: u64, fold: Option<usize>) -> CellConfig {
    let fold = fold.or(like.fold);
    let cell = content_hash(&json!({
        "imported": what.optimizer,
        "settings": what.settings,
        "seed": seed,
        "fold": fold,
        "problem": like.problem,
    }));
    let (name, label) = (what.optimizer.clone(), what.optimizer.clone());
    CellConfig {
        cell,
        optimizer: ComponentRecord { name, label, settings: Values::new() },
        hyperparameters: what.settings.clone(),
        seed,
        fold,
        budget: Budget::default(),
        ..like.clone()
    }
}

fn result(what: &Import, config: &CellConfig, trace: &Trace, configs: &[CellConfig]) -> CellResult {
    let name = what.file.file_name().unwrap_or_default().to_string_lossy();
    let mut result = CellResult::bare(config, what.status, format!("imported from {name}"));
    let last = trace.rows().saturating_sub(1);
    let value = |name: &str| trace.columns().get(name)?.get(last).copied().filter(|value| !value.is_nan());
    if what.status == Status::Finished || what.status == Status::TimedOut {
        result.take_quality(value);
    }
    result.steps = value("step").map(|steps| steps as u64);
    result.data_passes = value("data_passes");
    result.gradient_equivalents = value("gradient_equivalents");
    result.flops = value("flops");
    result.bytes_moved = value("bytes_moved");
    result.train_seconds = value("train_seconds");
    result.time_to_target_seconds = config.target.as_ref().and_then(|target| {
        let metric = trace.columns().get(&target.metric)?;
        let reached = metric.iter().position(|&value| target.is_reached(value))?;
        trace.columns()["train_seconds"].get(reached).copied()
    });
    // The model is the same, so its size is.
    let measured = || {
        let same = configs.iter().filter(|other| other.problem == config.problem);
        let cells = what.into.join("cells");
        same.into_iter().find_map(|other| CellFolder::new(cells.join(&other.cell)).read_result()?.parameters_total)
    };
    result.parameters_total = what.parameters.or_else(measured);
    result
}
