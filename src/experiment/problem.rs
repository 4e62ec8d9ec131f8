//! From a cell's record back to its problem: the dataset opened, split, and the model built on it.

use super::record::{CellConfig, content_hash};
use crate::data::{RowOrder, RowSet, Splits, Table, available_memory, examples};
use crate::device::PANEL_ROWS;
use crate::device::panels::keep_resident;
use crate::error::{DataError, Result};
use crate::model::{Model, ModelData};
use crate::oracle::Settings;
use crate::workbench::Workbench;
use serde_json::json;

/// The splits of a table as models take them.
#[must_use]
pub fn model_data(table: &Table, splits: &Splits) -> ModelData {
    ModelData {
        train: examples(table, &splits.train),
        validation: examples(table, &splits.validation),
        test: examples(table, &splits.test),
        task: table.task.clone(),
        columns: table.columns.clone(),
    }
}

/// A hash of what a table is made of apart from its numbers: names of the columns, task and number of rows. The
/// fingerprint is that of the source, of which two stores may hold different columns as the target.
#[must_use]
pub fn layout(table: &Table) -> String {
    content_hash(&json!({ "columns": table.columns, "task": table.task, "rows": table.rows() }))
}

/// Rows that stay together in minibatches: panels of a table that was shuffled when it was stored, else single rows.
#[must_use]
pub fn block_rows(order: RowOrder) -> usize {
    match order {
        RowOrder::Shuffled { .. } => PANEL_ROWS,
        RowOrder::AsRead => 1,
    }
}

/// What a process takes beside its mapped files: code, threads, and the sums of a model of a few hundred coefficients.
const OWN_MEMORY: u64 = 200 << 20;

/// Keeps mapped files within `limit`, what the process takes itself included; without a limit, within four fifths of the
/// memory that is available.
pub fn limit_memory(limit: Option<u64>) {
    match (limit, available_memory()) {
        (Some(limit), _) => keep_resident(limit.saturating_sub(OWN_MEMORY)),
        (None, Some(available)) => keep_resident(available / 5 * 4),
        (None, None) => {}
    }
}

/// A cell's model on its data.
pub struct Opened {
    /// The model, which is also the problem.
    pub model: Box<dyn Model>,
    /// Rows that stay together in minibatches.
    pub block_rows: usize,
    /// The dataset's rows that are trained on.
    pub train: RowSet,
}

/// Opens a cell's dataset and builds its model with the given settings.
///
/// # Errors
/// If the dataset is not the one that was planned with, or whatever opening and building report.
pub fn open(workbench: &Workbench, config: &CellConfig, settings: &Settings) -> Result<Opened> {
    let dataset = &config.dataset;
    let table = dataset.source.open(&workbench.datasets, &|_, _| ())?.table;
    let same = table.fingerprint == dataset.fingerprint && table.order == dataset.order;
    if !same || layout(&table) != dataset.layout {
        let finding = "its content is not what it was when the experiment was planned";
        return Err(DataError::new(&dataset.name, finding, "run the experiment again").into());
    }
    let splits = dataset.split.apply(&table)?.withholding(config.withhold_test);
    let data = model_data(&table, &splits);
    drop(table);
    let model = (workbench.model(&config.model.name)?.build)(&data, settings)?;
    Ok(Opened { model, block_rows: block_rows(dataset.order), train: splits.train })
}

/// The model's settings as recorded, checked again.
///
/// # Errors
/// If a setting is no longer known or in range.
pub fn model_settings(workbench: &Workbench, config: &CellConfig) -> Result<Settings> {
    let entry = workbench.model(&config.model.name)?;
    Settings::check(&format!("config.json, model {}", entry.name), entry.settings, &config.model.settings)
}
