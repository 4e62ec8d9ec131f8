//! The results of all cells as one data frame, for CSV and Parquet: one row per cell, the columns of `result.json` in
//! its order; objects and lists as JSON text.

use super::runs::{CellResult, Runs};
use polars::prelude::{Column, CsvWriter, DataFrame, NamedFrom, ParquetWriter, SerWriter, Series};
use std::io;

/// The results as CSV.
///
/// # Errors
/// Where polars refuses.
pub fn csv(runs: &Runs) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame(runs)?).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The results as a Parquet file.
///
/// # Errors
/// Where polars refuses.
pub fn parquet(runs: &Runs) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes).finish(&mut frame(runs)?).map_err(io::Error::other)?;
    Ok(bytes)
}

fn frame(runs: &Runs) -> io::Result<DataFrame> {
    let text = |name: &str, value: &dyn Fn(&CellResult) -> Option<String>| {
        column(name, runs.cells.iter().map(|cell| value(&cell.result)).collect::<Vec<_>>())
    };
    let count = |name: &str, value: fn(&CellResult) -> Option<u64>| {
        column(name, runs.cells.iter().map(|cell| value(&cell.result)).collect::<Vec<_>>())
    };
    let real = |name: &str, value: fn(&CellResult) -> Option<f64>| {
        column(name, runs.cells.iter().map(|cell| value(&cell.result)).collect::<Vec<_>>())
    };
    let columns = vec![
        text("cell", &|result| Some(result.cell.clone())),
        text("experiment", &|result| Some(result.experiment.clone())),
        text("dataset", &|result| Some(result.dataset.clone())),
        text("model", &|result| Some(result.model.clone())),
        text("optimizer", &|result| Some(result.optimizer.clone())),
        text("hyperparameters", &|result| serde_json::to_string(&result.hyperparameters).ok()),
        count("seed", |result| Some(result.seed)),
        count("fold", |result| result.fold),
        text("problem", &|result| Some(result.problem.clone())),
        text("status", &|result| Some(result.status.to_string())),
        text("reason", &|result| result.reason.clone()),
        text("findings", &|result| serde_json::to_string(&result.findings).ok()),
        real("objective", |result| result.objective),
        real("train_loss", |result| result.train_loss),
        real("validation_loss", |result| result.validation_loss),
        real("test_loss", |result| result.test_loss),
        real("train_accuracy", |result| result.train_accuracy),
        real("validation_accuracy", |result| result.validation_accuracy),
        real("test_accuracy", |result| result.test_accuracy),
        real("test_auc", |result| result.test_auc),
        real("train_squared_error", |result| result.train_squared_error),
        real("validation_squared_error", |result| result.validation_squared_error),
        real("test_squared_error", |result| result.test_squared_error),
        real("validation_explained_variance", |result| result.validation_explained_variance),
        real("validation_explained_beyond_linear", |result| result.validation_explained_beyond_linear),
        real("test_explained_variance", |result| result.test_explained_variance),
        real("test_explained_beyond_linear", |result| result.test_explained_beyond_linear),
        real("validation_bits_per_character", |result| result.validation_bits_per_character),
        real("validation_grammar_loss", |result| result.validation_grammar_loss),
        real("validation_fact_loss", |result| result.validation_fact_loss),
        real("validation_sum_loss", |result| result.validation_sum_loss),
        real("test_bits_per_character", |result| result.test_bits_per_character),
        real("test_grammar_loss", |result| result.test_grammar_loss),
        real("test_fact_loss", |result| result.test_fact_loss),
        real("test_sum_loss", |result| result.test_sum_loss),
        count("dead_experts", |result| result.dead_experts),
        count("parameters_total", |result| result.parameters_total),
        count("parameters_active", |result| result.parameters_active),
        count("parameters_nonzero", |result| result.parameters_nonzero),
        count("parameter_bytes", |result| result.parameter_bytes),
        count("parameter_compressed_bytes", |result| result.parameter_compressed_bytes),
        count("optimizer_state_bytes", |result| result.optimizer_state_bytes),
        count("steps", |result| result.steps),
        real("data_passes", |result| result.data_passes),
        real("gradient_equivalents", |result| result.gradient_equivalents),
        real("flops", |result| result.flops),
        real("bytes_moved", |result| result.bytes_moved),
        real("setup_seconds", |result| result.setup_seconds),
        real("train_seconds", |result| result.train_seconds),
        real("evaluation_seconds", |result| result.evaluation_seconds),
        real("record_seconds", |result| result.record_seconds),
        real("wall_seconds", |result| result.wall_seconds),
        real("time_to_target_seconds", |result| result.time_to_target_seconds),
        count("peak_resident_bytes", |result| result.peak_resident_bytes),
        count("peak_anonymous_bytes", |result| result.peak_anonymous_bytes),
        count("peak_device_bytes", |result| result.peak_device_bytes),
        real("gradient_norm", |result| result.gradient_norm),
    ];
    DataFrame::new(runs.cells.len(), columns).map_err(io::Error::other)
}

fn column<T>(name: &str, values: Vec<Option<T>>) -> Column
where
    Series: NamedFrom<Vec<Option<T>>, [Option<T>]>,
{
    Series::new(name.into(), values).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::runs::Cell;

    #[test]
    fn the_columns_are_the_keys_of_a_result() {
        let runs = Runs { cells: vec![Cell::default()], ..Runs::default() };
        let frame = frame(&runs).expect("a frame");
        let mut columns: Vec<String> = frame.columns().iter().map(|column| column.name().to_string()).collect();
        columns.sort();
        let object = serde_json::to_value(CellResult::default()).expect("an object");
        let keys: Vec<String> = object.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(columns, keys);
    }
}
