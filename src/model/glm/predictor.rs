//! Predictions on raw rows from written weights.

use crate::device::Panels;
use crate::device::cpu::design::{Design, Expansion, Selection, Transform};
use crate::device::cpu::glm::{self, Likelihood};
use crate::error::{Error, Result};
use crate::model::{Predictor, Weights, check_columns};
use std::ops::Range;
use std::sync::Arc;

/// Predicts on raw rows from weights that [`Glm`](super::Glm) wrote.
pub(super) struct GlmPredictor {
    likelihood: Likelihood,
    transform: Arc<Transform>,
    coefficients: Vec<f64>,
    columns: Vec<String>,
    classes: Vec<String>,
}

impl GlmPredictor {
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let damaged =
            |what: &str| Error::config("weights", format!("`{what}` is missing or damaged"), "run the cell again");
        let text = |key: &str| weights.metadata.get(key).ok_or_else(|| damaged(key));
        let tensor = |key: &str| weights.tensors.get(key).ok_or_else(|| damaged(key));
        let list = |key: &str| -> Result<Vec<String>> { serde_json::from_str(text(key)?).map_err(|_| damaged(key)) };
        let (columns, classes) = (list("columns")?, list("classes")?);
        let expansion: Expansion =
            serde_json::from_str(&format!("\"{}\"", text("features")?)).map_err(|_| damaged("features"))?;
        let intercept = text("intercept")? == "true";
        let (mean, sd) = (&tensor("mean")?.1, &tensor("standard_deviation")?.1);
        if mean.len() != expansion.columns(columns.len()) || sd.len() != mean.len() {
            return Err(damaged("mean"));
        }
        let likelihood = match text("model")?.as_str() {
            "logistic" => Likelihood::Binary,
            "least-squares" => Likelihood::Gaussian,
            _ => Likelihood::Multinomial { classes: classes.len(), reference: text("reference")? == "true" },
        };
        let transform = Arc::new(Transform::standardized(expansion, intercept, columns.len(), mean, sd));
        let coefficients = tensor("coefficients")?.1.clone();
        if classes.len() != likelihood.classes() || coefficients.len() != likelihood.outputs() * transform.columns() {
            return Err(damaged("coefficients"));
        }
        Ok(Self { likelihood, transform, coefficients, columns, classes })
    }
}

impl Predictor for GlmPredictor {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn predict(&self, features: &Panels, rows: Range<usize>) -> Result<Vec<f64>> {
        check_columns(&self.columns, features)?;
        let targets = Panels::from_fn(features.rows(), 1, |_, _| 0.0);
        let design = Design::new(features.clone(), targets, rows.clone(), Arc::clone(&self.transform));
        let (outputs, all) = (self.likelihood.outputs(), Selection::Range(0, rows.len()));
        let eta = glm::linear_predictors(&design, outputs, &self.coefficients, all);
        Ok(probabilities(self.likelihood, &eta))
    }
}

/// Probabilities of all classes from linear predictors, row by row; the predictor itself where the target is a real number.
pub(super) fn probabilities(likelihood: Likelihood, eta: &[f64]) -> Vec<f64> {
    if likelihood == Likelihood::Gaussian {
        return eta.to_vec();
    }
    let outputs = likelihood.outputs();
    let zeros = likelihood.classes() - outputs;
    let mut probabilities = Vec::with_capacity(eta.len() / outputs * likelihood.classes());
    for eta in eta.chunks_exact(outputs) {
        let logits = || std::iter::repeat_n(0.0, zeros).chain(eta.iter().copied());
        let largest = logits().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits().map(|l| (l - largest).exp()).sum();
        probabilities.extend(logits().map(|l| (l - largest).exp() / total));
    }
    probabilities
}
