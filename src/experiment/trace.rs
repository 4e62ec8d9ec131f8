//! The rows that a cell records: columns of numbers, NaN where nothing was measured, and their Parquet file; and the
//! outcomes of its test rows.

use super::record::write_whole;
use crate::error::{Error, Result};
use crate::model::RowOutcomes;
use polars::prelude::{
    Column, DataFrame, DataType, NamedFrom, ParquetCompression, ParquetReader, ParquetWriter, SerReader, Series,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Columns that every trace has, in this order; what optimizer and model note follows as `optimizer.*` and `model.*`.
pub const COLUMNS: [&str; 32] = [
    "step",
    "data_passes",
    "gradient_equivalents",
    "flops",
    "bytes_moved",
    "train_seconds",
    "objective",
    "train_loss",
    "train_accuracy",
    "train_squared_error",
    "gradient_norm",
    "validation_loss",
    "validation_accuracy",
    "validation_squared_error",
    "validation_explained_variance",
    "validation_explained_beyond_linear",
    "validation_bits_per_character",
    "validation_grammar_loss",
    "validation_fact_loss",
    "validation_sum_loss",
    "test_loss",
    "test_accuracy",
    "test_auc",
    "test_squared_error",
    "test_explained_variance",
    "test_explained_beyond_linear",
    "test_bits_per_character",
    "test_grammar_loss",
    "test_fact_loss",
    "test_sum_loss",
    "parameters_nonzero",
    "resident_bytes",
];

/// Columns of whole numbers.
const WHOLE: [&str; 3] = ["step", "parameters_nonzero", "resident_bytes"];

/// The trace of a cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    rows: usize,
    columns: BTreeMap<String, Vec<f64>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { rows: 0, columns: COLUMNS.iter().map(|name| ((*name).to_owned(), Vec::new())).collect() }
    }
}

impl Trace {
    /// A trace from its columns, all of one length.
    #[must_use]
    pub fn from_columns(columns: BTreeMap<String, Vec<f64>>) -> Option<Self> {
        let rows = columns.get("step")?.len();
        let whole = COLUMNS.iter().all(|name| columns.contains_key(*name)) && columns.values().all(|c| c.len() == rows);
        whole.then_some(Self { rows, columns })
    }

    /// The columns by name.
    #[must_use]
    pub fn columns(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.columns
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row; a column that appears for the first time is NaN in the rows before.
    pub fn push<'a>(&mut self, row: impl IntoIterator<Item = (&'a str, f64)>) {
        for (name, value) in row {
            let column = self.columns.entry(name.to_owned()).or_default();
            column.resize(self.rows, f64::NAN);
            column.push(value);
        }
        self.rows += 1;
        for column in self.columns.values_mut() {
            column.resize(self.rows, f64::NAN);
        }
    }

    /// Writes the trace as Parquet.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Numeric`] where the encoder refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let notes = self.columns.keys().filter(|name| !COLUMNS.contains(&name.as_str()));
        let names = COLUMNS.iter().copied().chain(notes.map(String::as_str));
        let columns: Vec<Column> = names.map(|name| column(name, &self.columns[name])).collect();
        write_frame(path, DataFrame::new(self.rows, columns).map_err(|error| refused(path, &error))?)
    }
}

/// Writes what each test row comes to, as Parquet: `loss` and, of classes, `correct`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Numeric`] where the encoder refuses.
pub fn write_row_outcomes(path: &Path, rows: RowOutcomes) -> Result<()> {
    let count = rows.loss.len();
    let mut columns: Vec<Column> = vec![Series::new("loss".into(), rows.loss).into()];
    columns.extend(rows.correct.map(|correct| Column::from(Series::new("correct".into(), correct))));
    for ratio in rows.ratios {
        columns.push(Series::new(ratio.metric.into(), ratio.parts).into());
        columns.push(Series::new(format!("{}_weight", ratio.metric).into(), ratio.weights).into());
    }
    let frame = DataFrame::new(count, columns).map_err(|error| refused(path, &error))?;
    write_frame(path, frame)
}

fn write_frame(path: &Path, mut frame: DataFrame) -> Result<()> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Uncompressed)
        .finish(&mut frame)
        .map_err(|error| refused(path, &error))?;
    write_whole(path, &bytes)
}

fn refused(path: &Path, error: &polars::error::PolarsError) -> Error {
    Error::Numeric(format!("{}: {error}", path.display()))
}

fn column(name: &str, values: &[f64]) -> Column {
    if WHOLE.contains(&name) {
        let values: Vec<Option<u64>> = values.iter().map(|v| (!v.is_nan()).then_some(*v as u64)).collect();
        Series::new(name.into(), values).into()
    } else {
        let values: Vec<Option<f64>> = values.iter().map(|v| (!v.is_nan()).then_some(*v)).collect();
        Series::new(name.into(), values).into()
    }
}

/// Reads a trace that this program wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::Numeric`] where the file is no trace.
pub fn read(path: &Path) -> Result<Trace> {
    let refused = |error: polars::error::PolarsError| Error::Numeric(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let frame = ParquetReader::new(file).finish().map_err(refused)?;
    let mut columns = BTreeMap::new();
    for column in frame.columns() {
        let numbers = column.cast(&DataType::Float64).map_err(refused)?;
        let numbers = numbers.f64().map_err(refused)?.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        columns.insert(column.name().to_string(), numbers);
    }
    Trace::from_columns(columns).ok_or_else(|| Error::Numeric(format!("{}: it is no trace", path.display())))
}

/// The smallest value of a column of a trace on disk.
///
/// # Errors
/// [`Error::Io`]; [`Error::Numeric`] where the file is no trace.
pub fn smallest(path: &Path, name: &str) -> Result<Option<f64>> {
    let refused = |error| refused(path, &error);
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let frame = ParquetReader::new(file).with_columns(Some(vec![name.to_owned()])).finish().map_err(refused)?;
    let values = frame.column(name).and_then(|column| column.f64()).map_err(refused)?;
    Ok(values.iter().flatten().reduce(f64::min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up() {
        let mut trace = Trace::default();
        trace.push([("step", 0.0), ("objective", 0.7)]);
        trace.push([("step", 1.0), ("optimizer.damping", 2.0)]);
        assert_eq!(trace.columns()["step"], [0.0, 1.0]);
        assert!(trace.columns()["optimizer.damping"][0].is_nan() && trace.columns()["objective"][1].is_nan());
        assert_eq!(trace.columns().len(), COLUMNS.len() + 1);
        let again = Trace::from_columns(trace.columns().clone()).unwrap();
        assert_eq!(again.rows(), 2);
        assert_eq!(Trace::from_columns(BTreeMap::from([("step".into(), vec![])])), None);
    }
}
