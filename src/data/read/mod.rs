//! Readers: any supported file becomes a [`Table`] of `f32` (or, for plain text, a [`Text`]).
//!
//! The format is recognized from the content as well as from the name and can be forced. All readers feed rows, in
//! file order, to one sink: memory for [`read`], a file for `store::import`. Numbers are the `f32` nearest
//! to the decimal text; missing values and infinities are refused, by file, line and column, unless
//! [`ReadOptions::missing`] says that such rows are to be left out.

mod delimited;
mod format;
mod idx;
mod labels;
mod layout;
mod libsvm;
mod numbers;
#[cfg(feature = "workbench")]
mod parquet;
mod pipeline;
mod sink;
mod source;
mod text;

pub use format::{Format, detect};
pub use labels::RawTargets;
pub use text::{Text, read_text};

pub(in crate::data) use sink::{Assembler, PanelSink};
pub(in crate::data) use source::{hex, open_file};

use super::{RowOrder, Table, Task};
use crate::device::Panels;
use crate::error::{DataError, Error, Result};
use serde::{Deserialize, Serialize};
use sink::MemorySink;
use std::path::Path;

/// What the targets are to be taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Targets are names of classes, whatever they look like.
    Classification,
    /// Targets are real numbers.
    Regression,
}

/// What to do with rows in which a value is missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Refuse the file, naming the first missing value and how many there are.
    #[default]
    Refuse,
    /// Leave such rows out; how many is reported.
    DropRows,
    /// Keep such rows with NaN where a feature is missing, and leave out those without a target (CSV, TSV, Parquet).
    /// Nothing can be trained on such a table: it serves a description alone, and no file can ask for it.
    #[serde(skip)]
    Keep,
}

/// How a file is to be read; the default recognizes everything from the file itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadOptions {
    /// The format; `None` recognizes it.
    pub format: Option<Format>,
    /// The target column by name or, counted from 1, by number (CSV, TSV, Parquet); `y*` for all columns whose names begin
    /// with `y`, as several real targets. By default the column named
    /// `label`, `target`, `class` or `y`, else the first of a HIGGS-shaped file without a header, else the last.
    pub target: Option<String>,
    /// Whether the first line holds column names; `None` recognizes it.
    pub header: Option<bool>,
    /// What the targets are; by default classes if they are texts, at most [`MAX_NUMERIC_CLASSES`] integers, or whole
    /// numbers in an IDX file.
    pub task: Option<TaskKind>,
    /// What happens to missing values.
    pub missing: Missing,
    /// Columns to leave out, by name or number counted from 1 (CSV, TSV, Parquet).
    pub exclude: Vec<String>,
    /// The number of features of a LIBSVM file whose rows never mention the last ones.
    pub features: Option<usize>,
    /// The most bytes that sparse input may take once dense, and 512 rows of anything wide (CSV, TSV, Parquet).
    pub dense_limit: u64,
}

impl ReadOptions {
    /// What the names of several target columns begin with, where there are several.
    pub(super) fn target_prefix(&self) -> Option<&str> {
        self.target.as_deref()?.strip_suffix('*')
    }
}

/// Numeric targets with at most this many distinct values, all integers, are classes unless regression is asked for.
pub const MAX_NUMERIC_CLASSES: usize = 20;

/// Sparse or very wide input is refused when its dense form would be larger, unless [`ReadOptions::dense_limit`] is raised.
pub const DENSE_LIMIT: u64 = 4 << 30;

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            target: None,
            header: None,
            task: None,
            missing: Missing::default(),
            exclude: Vec::new(),
            features: None,
            dense_limit: DENSE_LIMIT,
        }
    }
}

/// Everything a reader learns besides the features, which went to the sink.
pub(in crate::data) struct Outcome {
    pub format: Format,
    pub columns: Vec<String>,
    pub target_name: Option<String>,
    pub targets: Option<RawTargets>,
    pub rows: usize,
    /// Rows left out because a value was missing.
    pub dropped: u64,
    /// SHA-256 of the source bytes, in hexadecimal.
    pub fingerprint: String,
}

/// `(bytes of the source done, bytes of the source in all)`.
pub(in crate::data) type Progress<'a> = &'a dyn Fn(u64, u64);

/// Reads a table into memory, or opens it if it is a store.
///
/// # Errors
/// [`DataError`] with file, line, column, finding and remedy for anything that cannot be used as it is: see the
/// module's documentation.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Table> {
    Ok(read_counted(path, options)?.0)
}

/// Reads a table to describe it: missing values of a text table are NaN instead of a reason to refuse it, unless the
/// options have such rows left out. Also returns the number of rows left out.
///
/// # Errors
/// As [`read`].
pub(in crate::data) fn read_to_describe(path: &Path, options: &ReadOptions) -> Result<(Table, u64)> {
    let format = options.format.map_or_else(|| detect(path), Ok)?;
    let keeps = matches!(format, Format::Csv | Format::Tsv | Format::Parquet) && options.missing == Missing::Refuse;
    let missing = if keeps { Missing::Keep } else { options.missing };
    read_counted(path, &ReadOptions { format: Some(format), missing, ..options.clone() })
}

/// The table and the number of rows left out.
fn read_counted(path: &Path, options: &ReadOptions) -> Result<(Table, u64)> {
    let format = options.format.map_or_else(|| detect(path), Ok)?;
    if format == Format::Store {
        check_options(format, options)?;
        return Ok((super::store::open(path)?, 0));
    }
    let mut sink = MemorySink::default();
    let outcome = read_into(path, options, None, &mut sink, &|_, _| {})?;
    let (targets, task) = encode_targets(path, options, &outcome)?;
    let table = Table {
        name: path.display().to_string(),
        simulated: false,
        fingerprint: outcome.fingerprint,
        features: sink.into_panels(outcome.columns.len()),
        targets: targets_panels(&targets),
        task,
        columns: outcome.columns,
        order: RowOrder::AsRead,
    };
    let table = match options.target_prefix() {
        Some(prefix) => several_targets(path, table, prefix)?,
        None => table,
    };
    Ok((table, outcome.dropped))
}

/// Takes the columns whose names begin with `prefix` from the features to the targets; the first of them is there already.
fn several_targets(path: &Path, table: Table, prefix: &str) -> Result<Table> {
    let is_target = |&column: &usize| table.columns[column].starts_with(prefix);
    let (targets, features): (Vec<usize>, Vec<usize>) = (0..table.columns.len()).partition(is_target);
    if features.is_empty() {
        let remedy = "give a longer beginning of the targets' names";
        return Err(
            DataError::new(path, format!("all columns are targets: all names begin with {prefix:?}"), remedy).into()
        );
    }
    let rows = table.rows();
    let from = &table.features;
    let pick = |column: usize, row: usize| from.get(row, column);
    Ok(Table {
        targets: Panels::from_fn(rows, targets.len() + 1, |row, column| match column {
            0 => table.targets.get(row, 0),
            _ => pick(targets[column - 1], row),
        }),
        columns: features.iter().map(|&column| table.columns[column].clone()).collect(),
        features: Panels::from_fn(rows, features.len(), |row, column| pick(features[column], row)),
        ..table
    })
}

/// Reads the columns `wanted`, in that order, and the targets where the file has them: raw rows for a prediction.
///
/// Columns are matched by name where the file has names. Without names they are matched by their number: as many
/// columns as wanted, or one more, which is then the target.
///
/// # Errors
/// As [`read`]; and when a wanted column is not in the file or the numbers of columns do not fit.
pub fn read_features(path: &Path, options: &ReadOptions, wanted: &[String]) -> Result<(Panels, Option<RawTargets>)> {
    if options.format.map_or_else(|| detect(path), Ok)? == Format::Store {
        return super::store::read_features(path, wanted);
    }
    let mut sink = MemorySink::default();
    let outcome = read_into(path, options, Some(wanted), &mut sink, &|_, _| {})?;
    Ok((sink.into_panels(wanted.len()), outcome.targets))
}

/// Runs the reader for the file's format. With `wanted`, only those features, and targets are optional.
pub(in crate::data) fn read_into(
    path: &Path,
    options: &ReadOptions,
    wanted: Option<&[String]>,
    sink: &mut dyn PanelSink,
    progress: Progress<'_>,
) -> Result<Outcome> {
    let format = options.format.map_or_else(|| detect(path), Ok)?;
    if wanted.is_none() {
        check_options(format, options)?;
    }
    let mut rows = Assembler::new(sink);
    let outcome = match format {
        Format::Csv | Format::Tsv => delimited::read(path, format, options, wanted, &mut rows, progress)?,
        Format::Libsvm => libsvm::read(path, options, wanted, &mut rows, progress)?,
        Format::Idx => idx::read(path, wanted, &mut rows)?,
        #[cfg(feature = "workbench")]
        Format::Parquet => parquet::read(path, options, wanted, &mut rows, progress)?,
        #[cfg(not(feature = "workbench"))]
        Format::Parquet => {
            let remedy = "give the store that `parsimony data import` makes of it";
            return Err(DataError::new(path, "Parquet, which this program was built without", remedy).into());
        }
        Format::Text => {
            return Err(DataError::new(
                path,
                "plain text rather than a table of numbers",
                "give a CSV, TSV, LIBSVM, Parquet or IDX file, or force a format if this is one; \
                 an experiment takes plain text with format = \"text\", for a language model",
            )
            .into());
        }
        Format::Store => {
            return Err(DataError::new(path, "already a store", "use it as it is; it needs no import").into());
        }
    };
    rows.finish()?;
    if outcome.rows == 0 {
        return Err(no_rows(path, outcome.dropped).into());
    }
    Ok(outcome)
}

/// Refuses options that mean nothing for the format, rather than leave them without effect.
pub(in crate::data) fn check_options(format: Format, options: &ReadOptions) -> Result<()> {
    let given = [
        ("target", options.target.is_some(), &[Format::Csv, Format::Tsv, Format::Parquet][..]),
        ("exclude", !options.exclude.is_empty(), &[Format::Csv, Format::Tsv, Format::Parquet]),
        ("header", options.header.is_some(), &[Format::Csv, Format::Tsv]),
        ("missing (--drop-missing)", options.missing != Missing::Refuse, &[Format::Csv, Format::Tsv, Format::Parquet]),
        ("features", options.features.is_some(), &[Format::Libsvm]),
        (
            "dense_limit",
            options.dense_limit != DENSE_LIMIT,
            &[Format::Csv, Format::Tsv, Format::Parquet, Format::Libsvm],
        ),
        ("task", options.task.is_some(), &[Format::Csv, Format::Tsv, Format::Parquet, Format::Libsvm, Format::Idx]),
    ];
    for (key, given, formats) in given {
        if given && !formats.contains(&format) {
            let names = formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
            let remedy = match format {
                Format::Store => format!("leave it out; it belongs to the import that made the store ({names})"),
                _ => format!("leave it out; it belongs to {names}"),
            };
            return Err(Error::config(key, format!("the format {format} has no such option"), remedy));
        }
    }
    Ok(())
}

/// Turns what was read as targets into numbers and says what they mean.
pub(in crate::data) fn encode_targets(
    path: &Path,
    options: &ReadOptions,
    outcome: &Outcome,
) -> Result<(Vec<f32>, Task)> {
    let name = outcome.target_name.as_deref().unwrap_or("of the labels");
    let Some(targets) = &outcome.targets else {
        return Err(DataError::new(path, "no target column", "name the target column").into());
    };
    // IDX is made for labelled images: its whole numbers are classes however many there are.
    let whole = || match targets {
        RawTargets::Numbers { values, .. } => values.iter().all(|value| value.fract() == 0.0),
        RawTargets::Names { .. } => false,
    };
    let by_format = || (outcome.format == Format::Idx && whole()).then_some(TaskKind::Classification);
    let task = match (options.target_prefix(), options.task) {
        (Some(_), Some(TaskKind::Classification)) => {
            let finding = "task = \"classification\" for several targets";
            return Err(DataError::new(path, finding, "several targets are real numbers; name one column").into());
        }
        (Some(_), _) => Some(TaskKind::Regression),
        (None, task) => task.or_else(by_format),
    };
    targets.classify(task).map_err(|(finding, remedy)| DataError::new(path, finding, remedy).at_column(name).into())
}

/// Lays `n` targets out as an `n x 1` matrix.
pub(in crate::data) fn targets_panels(targets: &[f32]) -> Panels {
    let mut values = targets.to_vec();
    values.resize(crate::device::panels::panel_len(targets.len(), 1), 0.0);
    Panels::from_values(values, targets.len(), 1)
}

fn no_rows(path: &Path, dropped: u64) -> DataError {
    if dropped == 0 {
        DataError::new(path, "no rows of data", "the file must hold at least one row besides a header")
    } else {
        DataError::new(
            path,
            format!("a value is missing in each of the {dropped} rows"),
            "exclude the columns that are never filled, or fill them",
        )
    }
}
