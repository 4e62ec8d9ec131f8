//! From a cell's record back to its problem: the dataset opened, split, and the model built on it.

use super::record::{CellConfig, content_hash};
use crate::data::open::Data;
use crate::data::{RowOrder, RowSet, SplitSpec, Splits, Table, available_memory, examples};
use crate::device::PANEL_ROWS;
use crate::device::panels::keep_resident;
use crate::error::{DataError, Result};
use crate::model::{Model, ModelData, ModelEntry, TextData};
use crate::oracle::Settings;
use crate::workbench::Workbench;
use serde_json::json;

/// A dataset divided, as models take it.
pub enum Divided {
    /// A table, with the rows that are trained on.
    Table(Box<ModelData>, RowSet),
    /// A corpus.
    Text(TextData),
}

impl Divided {
    /// Divides a dataset; `withhold_test` leaves the test part out, `evaluation_tokens` is [`TextData::evaluation_tokens`].
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a split that does not fit.
    pub fn new(data: &Data, split: &SplitSpec, withhold_test: bool, evaluation_tokens: Option<usize>) -> Result<Self> {
        Ok(match data {
            Data::Table(table) => {
                let splits = split.apply(table)?.withholding(withhold_test);
                Self::Table(Box::new(model_data(table, &splits)), splits.train)
            }
            Data::Corpus(corpus) => {
                let corpus = corpus.split(split)?.withholding(withhold_test);
                Self::Text(TextData { corpus, evaluation_tokens })
            }
        })
    }

    /// Builds a model on it.
    ///
    /// # Errors
    /// As [`ModelEntry::build`].
    pub fn build(&self, entry: &ModelEntry, settings: &Settings) -> Result<Box<dyn Model>> {
        match self {
            Self::Table(data, _) => entry.build(&**data, settings),
            Self::Text(data) => entry.build(data, settings),
        }
    }
}

/// Rows, or tokens, of the three parts.
///
/// # Errors
/// As [`Divided::new`].
pub fn part_sizes(data: &Data, split: &SplitSpec) -> Result<[usize; 3]> {
    Ok(match data {
        Data::Table(table) => {
            let splits = split.apply(table)?;
            [splits.train.len(), splits.validation.len(), splits.test.len()]
        }
        Data::Corpus(corpus) => split.positions(&corpus.name, corpus.len())?.map(|range| range.len()),
    })
}

/// The splits of a table as models take them.
fn model_data(table: &Table, splits: &Splits) -> ModelData {
    ModelData {
        train: examples(table, &splits.train),
        validation: examples(table, &splits.validation),
        test: examples(table, &splits.test),
        task: table.task.clone(),
        columns: table.columns.clone(),
    }
}

/// A hash of what a table is made of apart from its numbers: names of the columns, task and number of rows. The
/// fingerprint is that of the source, of which two stores may hold different columns as the target. Of a corpus, whose
/// fingerprint tells all, what its tokens are and how many.
#[must_use]
pub fn layout(data: &Data) -> String {
    content_hash(&match data {
        Data::Table(table) => json!({ "columns": table.columns, "task": table.task, "rows": table.rows() }),
        Data::Corpus(corpus) => json!({ "tokens": corpus.tokens_are(), "length": corpus.len() }),
    })
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
    /// The rows of a table that are trained on; none of a corpus.
    pub train: RowSet,
}

/// Opens a cell's dataset and builds its model with the given settings.
///
/// # Errors
/// If the dataset is not the one that was planned with, or whatever opening and building report.
pub fn open(workbench: &Workbench, config: &CellConfig, settings: &Settings) -> Result<Opened> {
    let dataset = &config.dataset;
    let data = dataset.source.open(&workbench.datasets, &|_, _| ())?.data;
    let same = data.fingerprint() == dataset.fingerprint && data.order() == dataset.order;
    if !same || layout(&data) != dataset.layout {
        let finding = "its content is not what it was when the experiment was planned";
        return Err(DataError::new(&dataset.name, finding, "run the experiment again").into());
    }
    let evaluation_tokens = dataset.source.corpus.evaluation_tokens;
    let divided = Divided::new(&data, &dataset.split, config.withhold_test, evaluation_tokens)?;
    drop(data);
    let model = divided.build(workbench.model(&config.model.name)?, settings)?;
    let train = match divided {
        Divided::Table(_, train) => train,
        Divided::Text(_) => RowSet::Range(0..0),
    };
    Ok(Opened { model, block_rows: block_rows(dataset.order), train })
}

/// The model's settings as recorded, checked again.
///
/// # Errors
/// If a setting is no longer known or in range.
pub fn model_settings(workbench: &Workbench, config: &CellConfig) -> Result<Settings> {
    let entry = workbench.model(&config.model.name)?;
    Settings::check(&format!("config.json, model {}", entry.name), entry.settings, &config.model.settings)
}
