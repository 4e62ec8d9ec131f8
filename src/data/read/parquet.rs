//! Parquet through polars: numeric and boolean columns become features, the target may also be text.
//!
//! Rows are read in slices, so that memory stays bounded for files with many row groups; columns that are not used are not
//! decoded. Damage makes polars panic in places: such a panic is caught and told as damage.

use super::labels::{Dictionary, RawTargets, label_name, too_many_classes};
use super::layout::{Columns, Role, assign, place};
use super::sink::{Assembler, check_memory};
use super::source::{Source, open_file};
use super::{Format, Missing, Outcome, Progress, ReadOptions, TaskKind};
use crate::error::{DataError, Result};
use polars::prelude::{Column, DataFrame, DataType, ParquetReader, PolarsError, SerReader};
use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Once;

/// Numbers in a slice.
const SLICE: usize = 1 << 23;

/// Reads a Parquet file.
pub(super) fn read(
    path: &Path,
    options: &ReadOptions,
    wanted: Option<&[String]>,
    rows: &mut Assembler<'_>,
    progress: Progress<'_>,
) -> Result<Outcome> {
    let source = Source::open(path)?;
    if !source.head().starts_with(b"PAR1") {
        let finding = "the file does not begin with the magic number PAR1 of Parquet";
        return Err(DataError::new(path, finding, "force another format, or fetch the file again").into());
    }
    let reader = || -> Result<ParquetReader<std::fs::File>> { Ok(ParquetReader::new(open_file(path)?.0)) };
    let mut opened = reader()?;
    let (total, schema) = guarded(path, || Ok((opened.num_rows()?, opened.schema()?)))?;
    let names: Vec<String> = schema.iter_names().map(ToString::to_string).collect();
    if names.is_empty() {
        return Err(DataError::new(path, "no columns", "a table needs a target and at least one feature").into());
    }
    let columns = assign(path, names, true, None, options, wanted)?;
    let remedy = "raise dense_limit if there is room, or exclude columns";
    check_memory(path, None, columns.features.len(), options.dense_limit, remedy)?;
    rows.begin(&columns.features)?;
    let mut target = Target { options, values: None, dictionary: Dictionary::default() };
    let (mut count, mut dropped) = (0, 0);
    let used: Vec<String> = (columns.names.iter().zip(&columns.roles))
        .filter(|(_, role)| **role != Role::Skip)
        .map(|(name, _)| name.clone())
        .collect();
    let slice = (SLICE / used.len().max(1)).max(1);
    for start in (0..total).step_by(slice) {
        let wanted_rows = (start, slice.min(total - start));
        let reader = reader()?.with_columns(Some(used.clone())).with_slice(Some(wanted_rows));
        let frame = guarded(path, || reader.finish())?;
        if frame.height() != wanted_rows.1 {
            let finding = format!("it states {total} rows, and ends after {}", start + frame.height());
            return Err(DataError::new(path, finding, DAMAGE_REMEDY).into());
        }
        let mut batch = Batch::new(path, &columns, start, frame.height());
        batch.fill(&frame, options.missing)?;
        if let Some(column) = columns.target {
            let values = guarded(path, || frame.column(&columns.names[column]))?;
            target.take(&batch, column, values)?;
        }
        count += batch.kept.iter().filter(|&&kept| kept).count();
        dropped += batch.kept.iter().filter(|&&kept| !kept).count() as u64;
        for (row, _) in batch.values.chunks_exact(columns.features.len()).zip(&batch.kept).filter(|(_, kept)| **kept) {
            rows.push_rows(row)?;
        }
        progress((start + wanted_rows.1) as u64, total as u64);
    }
    Ok(Outcome {
        format: Format::Parquet,
        target_name: columns.target.map(|target| place(&columns.names, target)),
        columns: columns.features,
        targets: target.values,
        rows: count,
        dropped,
        fingerprint: source.finish()?,
    })
}

const DAMAGE_REMEDY: &str = "fetch or write the file again";

/// What polars answers; its errors and panics as damage of the file.
fn guarded<T>(path: &Path, ask: impl FnOnce() -> Result<T, PolarsError>) -> Result<T> {
    thread_local!(static ASKING: Cell<bool> = const { Cell::new(false) });
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Those of this thread are told as errors; those of polars' own threads come back to it.
            let is_polars = std::thread::current().name().is_some_and(|name| name.starts_with("polars"));
            if !is_polars && !ASKING.get() {
                usual(panic);
            }
        }));
    });
    ASKING.set(true);
    let answer = std::panic::catch_unwind(AssertUnwindSafe(ask));
    ASKING.set(false);
    let finding = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => format!("not a readable Parquet file ({error})"),
        Err(_) => "not a readable Parquet file (its parts contradict each other)".to_owned(),
    };
    Err(DataError::new(path, finding, DAMAGE_REMEDY).into())
}

/// Whether a column holds numbers, or what stands for them.
fn is_number(kind: &DataType) -> bool {
    kind.is_primitive_numeric() || kind.is_bool() || kind.is_decimal()
}

/// Some rows of the file.
struct Batch<'a> {
    path: &'a Path,
    columns: &'a Columns,
    /// The number of the first row.
    start: usize,
    /// Features, one row after another.
    values: Vec<f32>,
    /// Rows in which nothing is missing.
    kept: Vec<bool>,
}

impl<'a> Batch<'a> {
    fn new(path: &'a Path, columns: &'a Columns, start: usize, rows: usize) -> Self {
        let values = vec![0.0; rows * columns.features.len()];
        Self { path, columns, start, values, kept: vec![true; rows] }
    }

    fn error(&self, column: usize, row: usize, finding: &str, remedy: &str) -> DataError {
        let finding = format!("row {}: {finding}", self.start + row + 1);
        DataError::new(self.path, finding, remedy).at_column(place(&self.columns.names, column))
    }

    fn fill(&mut self, frame: &DataFrame, missing: Missing) -> Result<()> {
        let width = self.columns.features.len();
        for (column, &role) in self.columns.roles.iter().enumerate().filter(|(_, role)| **role != Role::Skip) {
            let series = guarded(self.path, || frame.column(&self.columns.names[column]))?;
            let feature = if let Role::Feature(feature) = role { Some(feature) } else { None };
            let kind = series.dtype();
            if feature.is_some() && !is_number(kind) {
                let finding = format!("a column of type {kind} is no feature");
                let remedy = "exclude the column, or name it as the target";
                let at = place(&self.columns.names, column);
                return Err(DataError::new(self.path, finding, remedy).at_column(at).into());
            }
            let numbers = if is_number(kind) {
                // Straight to f32: the nearest to what the file holds.
                Some(guarded(self.path, || to_floats(series, &DataType::Float32))?)
            } else {
                None
            };
            let nulls = series.is_null();
            for (row, null) in nulls.iter().map(|null| null.unwrap_or(true)).enumerate() {
                let value = numbers.as_ref().map_or(0.0, |numbers| numbers[row] as f32);
                if null || value.is_nan() {
                    if missing == Missing::Refuse {
                        let remedy = "fill it in, exclude the column, or leave out such rows with \
                                      missing = \"drop_rows\"";
                        let count = series.null_count();
                        let finding = format!("the value is missing ({count} nulls in these rows of the column)");
                        return Err(self.error(column, row, &finding, remedy).into());
                    }
                    match feature.filter(|_| missing == Missing::Keep) {
                        Some(feature) => self.values[row * width + feature] = f32::NAN,
                        None => self.kept[row] = false,
                    }
                } else if value.is_infinite() {
                    let remedy = "correct or remove the row, or rescale the column";
                    return Err(self.error(column, row, "not a finite 32-bit number", remedy).into());
                } else if let Some(feature) = feature {
                    self.values[row * width + feature] = value;
                }
            }
        }
        Ok(())
    }
}

/// A column as floats; nulls become NaN.
fn to_floats(column: &Column, kind: &DataType) -> Result<Vec<f64>, PolarsError> {
    let cast = column.cast(kind)?.cast(&DataType::Float64)?;
    Ok(cast.f64()?.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

/// The targets as they are collected.
struct Target<'a> {
    options: &'a ReadOptions,
    values: Option<RawTargets>,
    dictionary: Dictionary,
}

impl Target<'_> {
    fn take(&mut self, batch: &Batch<'_>, at: usize, column: &Column) -> Result<()> {
        let refuse = |finding: String, remedy: &str| batch.error(at, 0, &finding, remedy);
        let kind = column.dtype();
        let named = self.options.task == Some(TaskKind::Classification) || !is_number(kind);
        let empty = if named { RawTargets::names() } else { RawTargets::numbers() };
        let targets = self.values.get_or_insert(empty);
        let kept = |row: usize| batch.kept[row];
        let failed =
            |error: PolarsError| refuse(format!("a column of type {kind} is no target ({error})"), TARGET_REMEDY);
        if !named {
            let exact = to_floats(column, &DataType::Float64).map_err(failed)?;
            exact.iter().enumerate().filter(|(row, _)| kept(*row)).for_each(|(_, &v)| targets.push_number(v, v as f32));
            return Ok(());
        }
        let text = column.cast(&DataType::String).map_err(failed)?;
        let RawTargets::Names { names, codes } = targets else { return Ok(()) };
        for (row, label) in text.str().map_err(failed)?.iter().enumerate().filter(|(row, _)| kept(*row)) {
            let label = label_name(label.unwrap_or_default().as_bytes());
            let code = self.dictionary.code(&label, names);
            codes.push(code.ok_or_else(|| {
                let (finding, remedy) = too_many_classes();
                batch.error(at, row, &finding, &remedy)
            })?);
        }
        Ok(())
    }
}

const TARGET_REMEDY: &str = "name a column of numbers or text as the target";
