//! Models: how outputs follow from parameters. A model built on data is a problem for optimizers, and more: it
//! evaluates itself on held-out rows, counts its parameters and writes weights that can be taken elsewhere.

pub mod glm;
mod inspection;
pub mod mixture;
pub mod network;
mod rows;
mod sheet;
pub mod switch_layer;
mod text;
pub mod transformer;

use crate::data::{Examples, Task};
use crate::device::{Device, Panels};
use crate::error::{Error, Result};
use crate::oracle::{Offer, Problem, Setting, Settings, Vector};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

pub use inspection::{Coefficient, Held, Inspection, RowStatistics, Separability};
pub use rows::{RowOutcomes, RowRatio};
pub use text::{TextData, TokenLosses};

/// The data a model of a table is built on: its splits. What a language model is built on is [`TextData`].
#[derive(Debug, Clone)]
pub struct ModelData {
    /// The only rows that training, standardization included, ever sees.
    pub train: Examples,
    /// Rows for tuning, targets and the choice of the reported iterate; may be empty.
    pub validation: Examples,
    /// Rows read once per recorded point and never chosen on; may be empty.
    pub test: Examples,
    /// What the targets are.
    pub task: Task,
    /// Names of the `d` feature columns.
    pub columns: Vec<String>,
}

/// What a model is built on, of either kind.
#[derive(Debug, Clone, Copy)]
pub enum ModelInput<'a> {
    /// A table.
    Table(&'a ModelData),
    /// A corpus.
    Text(&'a TextData),
}

impl<'a> From<&'a ModelData> for ModelInput<'a> {
    fn from(data: &'a ModelData) -> Self {
        Self::Table(data)
    }
}

impl<'a> From<&'a TextData> for ModelInput<'a> {
    fn from(data: &'a TextData) -> Self {
        Self::Text(data)
    }
}

/// The parts of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Training rows.
    Train,
    /// Validation rows.
    Validation,
    /// Test rows.
    Test,
}

/// A model's quality on some rows; every value is absent where there are no rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean loss per row, without the regularizer: in nats, or half the squared error of a real target. Of a text, nats per
    /// predicted token.
    pub loss: Option<f64>,
    /// Share of rows, or of predicted tokens, whose most probable class is right; absent where the target is a real number.
    pub accuracy: Option<f64>,
    /// Area under the ROC curve, ties counted half; two classes only.
    pub auc: Option<f64>,
    /// Mean over rows of the squared error summed over outputs, not halved: of reconstructions (an autoencoder) or of a
    /// real target.
    pub squared_error: Option<f64>,
    /// 1 less the share of the targets' variance, summed over outputs, that the residuals have.
    pub explained_variance: Option<f64>,
    /// 1 less the squared residuals as a share of those of the training rows' best linear map.
    pub explained_beyond_linear: Option<f64>,
    /// Bits per character of a text: the bits of all predicted tokens divided by the characters that these are.
    pub bits_per_character: Option<f64>,
    /// Mean loss of those tokens that are no answer; of the generated language alone, as the next two.
    pub grammar_loss: Option<f64>,
    /// Mean loss of the answers of facts.
    pub fact_loss: Option<f64>,
    /// Mean loss of the digits of results of sums.
    pub sum_loss: Option<f64>,
}

/// How many parameters a fit has, counted in several ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterCounts {
    /// All parameters.
    pub total: u64,
    /// Parameters that take part in the output of one row.
    pub active: u64,
    /// Parameters that are not zero.
    pub nonzero: u64,
    /// Bytes of all parameters at the precision in which they are stored.
    pub bytes: u64,
}

/// Fitted parameters in a form that can be taken elsewhere: named tensors and text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    /// Tensors by name: shape and values, row by row.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    /// Whether the file holds `f32`, because that is what the values are.
    pub single_precision: bool,
    /// Everything else by name: the model's name and options, feature names, class names.
    pub metadata: BTreeMap<String, String>,
}

/// Inputs and outputs of a layer, row by row, as many of either.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPairs {
    /// Numbers of a row's inputs, and of its outputs.
    pub width: usize,
    /// `rows x width`.
    pub inputs: Vec<f32>,
    /// `rows x width`.
    pub outputs: Vec<f32>,
}

/// A problem that is also a model on data.
pub trait Model: Problem {
    /// Loss, accuracy and area under the curve on a split.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn evaluate(&self, parameters: &Vector, split: Split) -> Result<Evaluation>;

    /// What each row of a split comes to, whose means [`Model::evaluate`] answers. `None` where rows cannot be told apart
    /// or there are none.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn row_outcomes(&self, parameters: &Vector, split: Split) -> Result<Option<RowOutcomes>> {
        let _ = (parameters, split);
        Ok(None)
    }

    /// The regularized training objective and, where it has one, its gradient's infinity norm.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn objective(&self, parameters: &Vector) -> Result<(f64, Option<f64>)>;

    /// The parameters counted.
    fn parameter_counts(&self, parameters: &Vector) -> ParameterCounts;

    /// The parameters in a form that can be taken elsewhere.
    fn weights(&self, parameters: &Vector) -> Weights;

    /// Whether the objective has one optimum that a reference solve can find to high precision.
    fn is_convex(&self) -> bool;

    /// The device that it was built on and whose work its passes are; why it knows the CPU alone, if so.
    fn device(&self) -> Offer<&Device> {
        self.layout().device().ok_or_else(|| "its parameters and rows stay on the CPU".into())
    }

    /// Inputs and outputs of one of its layers, at written weights, of the first `rows` rows that it is trained on (of a text:
    /// tokens). `None` where it has no layers that are recorded.
    ///
    /// # Errors
    /// [`Error::Config`] for a layer that it has not or more rows than there are, or if the weights are not this model's.
    fn layer_pairs(&self, weights: &Weights, layer: &str, rows: usize) -> Result<Option<LayerPairs>> {
        let _ = (weights, layer, rows);
        Ok(None)
    }

    /// Numbers about the model itself that belong into a trace, by name, such as the load of experts: columns `model.*`.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn notes(&self, parameters: &Vector) -> Result<Vec<(&'static str, f64)>> {
        let _ = parameters;
        Ok(Vec::new())
    }

    /// What statistics knows about fitted weights: standard errors, deviances, leverages (docs/methods.md). Intervals are
    /// of confidence `level`; `raw` states coefficients for the columns as they stand in the data. `None` where the model
    /// is no generalized linear model.
    ///
    /// # Errors
    /// If the weights are not this model's, or the information matrix would be larger than the stated limit.
    fn inspect(&self, weights: &Weights, level: f64, raw: bool) -> Result<Option<Inspection>> {
        let _ = (weights, level, raw);
        Ok(None)
    }
}

/// Applies fitted weights to raw rows.
pub trait Predictor {
    /// Names of the raw feature columns expected, in order.
    fn columns(&self) -> &[String];

    /// Names of the classes, in the order of the probabilities; none where classes are not what is predicted.
    fn classes(&self) -> &[String];

    /// Names of the numbers predicted for a row: the classes' probabilities, or a real target's expected value.
    fn outputs(&self) -> Vec<String> {
        output_names(self.classes())
    }

    /// The numbers predicted, `rows x outputs` row by row, of the given rows of raw features.
    ///
    /// # Errors
    /// If the number of columns is not the one expected.
    fn predict(&self, features: &Panels, rows: Range<usize>) -> Result<Vec<f64>>;
}

/// That rows to predict have the columns that a model was fitted on.
fn check_columns(columns: &[String], features: &Panels) -> Result<()> {
    if features.columns() == columns.len() {
        return Ok(());
    }
    Err(Error::config(
        "predict",
        format!("the rows have {} feature columns", features.columns()),
        format!("the model was fitted on {}: {}", columns.len(), columns.join(", ")),
    ))
}

/// Names of what is predicted of so many real targets.
fn target_names(count: usize) -> Vec<String> {
    match count {
        1 => output_names(&[]),
        several => (1..=several).map(|i| format!("predicted_{i}")).collect(),
    }
}

/// Names of what is predicted of classes or, without any, of a real target.
fn output_names(classes: &[String]) -> Vec<String> {
    match classes {
        [] => vec!["predicted".into()],
        classes => classes.iter().map(|class| format!("probability_{class}")).collect(),
    }
}

/// How a model is built, which tells what kind of dataset it takes.
#[derive(Clone, Copy)]
pub enum Build {
    /// On rows of features.
    Table(fn(&ModelData, &Settings) -> Result<Box<dyn Model>>),
    /// On tokens.
    Text(fn(&TextData, &Settings) -> Result<Box<dyn Model>>),
}

/// A registered model.
#[derive(Clone)]
pub struct ModelEntry {
    /// The name used in experiment files.
    pub name: &'static str,
    /// One line on what it is.
    pub summary: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// Its options with ranges and defaults.
    pub settings: &'static [Setting],
    /// Whether its start is drawn at random.
    pub random_start: bool,
    /// Builds it on data of its kind ([`ModelEntry::build`]).
    pub build: Build,
    /// Rebuilds what predicts from weights that this model wrote.
    pub predictor: fn(&Weights) -> Result<Box<dyn Predictor>>,
}

impl ModelEntry {
    /// The model on data.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for data of the other kind, [`Error::Config`] for settings that cannot be, on these data or any.
    pub fn build<'a>(&self, data: impl Into<ModelInput<'a>>, settings: &Settings) -> Result<Box<dyn Model>> {
        let refuse = |problem: &str, reason: String| {
            Err(Error::Unsupported { name: self.name.to_owned(), problem: problem.to_owned(), reason })
        };
        match (self.build, data.into()) {
            (Build::Table(build), ModelInput::Table(data)) => build(data, settings),
            (Build::Text(build), ModelInput::Text(data)) => build(data, settings),
            (Build::Table(_), ModelInput::Text(_)) => refuse(
                "a text",
                format!(
                    "{} takes rows of features with a target, and this dataset is a text; give it a table, or the text \
                     a language model such as transformer",
                    self.name
                ),
            ),
            (Build::Text(_), ModelInput::Table(_)) => refuse(
                "a table",
                format!(
                    "{} takes a text, and this dataset is a table; give it a text, for instance small-language, or the \
                     table a model such as mlp",
                    self.name
                ),
            ),
        }
    }
}

impl std::fmt::Debug for ModelEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelEntry({})", self.name)
    }
}

/// The models of this crate, in the order in which they are listed.
#[must_use]
pub fn registry() -> Vec<ModelEntry> {
    vec![
        glm::LOGISTIC,
        glm::SOFTMAX,
        glm::LEAST_SQUARES,
        network::MLP,
        network::AUTOENCODER,
        mixture::MIXTURE,
        transformer::TRANSFORMER,
        switch_layer::SWITCH_LAYER,
    ]
}
