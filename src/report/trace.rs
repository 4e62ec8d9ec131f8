//! The rows a cell recorded while it ran: `trace.parquet`, as columns of 64-bit floats.

use super::runs::damaged;
use crate::error::{Error, Result};
use polars::prelude::{DataType, ParquetReader, SerReader};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// The recorded columns, all of the same length; a value that was not measured is NaN.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    columns: BTreeMap<String, Vec<f64>>,
}

impl Trace {
    /// The column of this name; empty where it was not recorded.
    #[must_use]
    pub fn column(&self, name: &str) -> &[f64] {
        self.columns.get(name).map_or(&[], Vec::as_slice)
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.values().next().map_or(0, Vec::len)
    }

    /// The rows in which both columns were measured, as `(x, y)`.
    #[must_use]
    pub fn pairs(&self, x: &str, y: &str) -> Vec<(f64, f64)> {
        let (x, y) = (self.column(x), self.column(y));
        x.iter().copied().zip(y.iter().copied()).filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    }
}

impl FromIterator<(String, Vec<f64>)> for Trace {
    fn from_iter<I: IntoIterator<Item = (String, Vec<f64>)>>(columns: I) -> Self {
        Self { columns: columns.into_iter().collect() }
    }
}

/// Reads the numeric columns of a trace.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened, [`Error::Data`] if it is not Parquet or damaged.
pub fn read(path: &Path) -> Result<Trace> {
    let file = File::open(path).map_err(Error::io(path, "read"))?;
    let unreadable = |error: polars::error::PolarsError| damaged(path, format!("not readable as Parquet: {error}"));
    let frame = ParquetReader::new(file).finish().map_err(unreadable)?;
    let mut columns = BTreeMap::new();
    for column in frame.columns() {
        if !column.dtype().is_primitive_numeric() {
            continue;
        }
        let numbers = column.cast(&DataType::Float64).map_err(unreadable)?;
        let numbers = numbers.f64().map_err(unreadable)?;
        columns.insert(column.name().to_string(), numbers.iter().map(|value| value.unwrap_or(f64::NAN)).collect());
    }
    Ok(Trace { columns })
}
