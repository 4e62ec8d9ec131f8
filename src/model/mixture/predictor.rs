//! Predictions on raw rows from written weights.

use super::parts::Parts;
use crate::device::Panels;
use crate::device::cpu::design::{Design, Expansion, Selection, Transform};
use crate::device::cpu::mixture::{self, Routing, Shape};
use crate::error::{Error, Result};
use crate::model::{Predictor, Weights, check_columns};
use std::ops::Range;
use std::sync::Arc;

/// Predicts on raw rows from weights that [`Mixture`](super::Mixture) wrote.
pub(super) struct MixturePredictor {
    shape: Shape,
    /// In the order of a pass.
    theta: Vec<f64>,
    transform: Arc<Transform>,
    columns: Vec<String>,
    classes: Vec<String>,
}

fn damaged(what: &str) -> Error {
    Error::config("weights", format!("`{what}` is missing or damaged"), "run the cell again")
}

impl MixturePredictor {
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let text = |key: &str| weights.metadata.get(key).ok_or_else(|| damaged(key));
        let number = |key: &str| text(key)?.parse::<usize>().map_err(|_| damaged(key));
        let tensor = |key: &str| weights.tensors.get(key).map(|(_, values)| values).ok_or_else(|| damaged(key));
        let list = |key: &str| -> Result<Vec<String>> { serde_json::from_str(text(key)?).map_err(|_| damaged(key)) };
        let (columns, classes) = (list("columns")?, list("classes")?);
        if classes.len() < 2 {
            return Err(damaged("classes"));
        }
        let experts = number("experts")?;
        // The gate tells how many experts there are before anything of their number is made.
        if experts == 0 || tensor("gate.bias")?.len() != experts {
            return Err(damaged("experts"));
        }
        let routing = if text("routing")? == "top-1" { Routing::TopOne } else { Routing::Soft };
        let shape = Shape { experts, hidden: number("hidden")?, outputs: classes.len() - 1, routing };
        if shape.hidden > 0 && tensor("expert1.hidden.bias")?.len() != shape.hidden {
            return Err(damaged("expert1.hidden.bias"));
        }
        let parts = Parts::new(shape, columns.len());
        let mut values = Vec::with_capacity(parts.layout.len());
        for block in parts.layout.blocks() {
            let tensor = tensor(&block.name)?;
            if tensor.len() != block.rows * block.columns {
                return Err(damaged(&block.name));
            }
            values.extend_from_slice(tensor);
        }
        let (mean, sd) = (tensor("mean")?, tensor("standard_deviation")?);
        if mean.len() != columns.len() || sd.len() != mean.len() {
            return Err(damaged("mean"));
        }
        let transform = Arc::new(Transform::standardized(Expansion::Linear, true, columns.len(), mean, sd));
        let theta = parts.places.iter().map(|&place| values[place]).collect();
        Ok(Self { shape, theta, transform, columns, classes })
    }
}

impl Predictor for MixturePredictor {
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
        let logarithms = mixture::log_probabilities(&design, self.shape, &self.theta, Selection::Range(0, rows.len()));
        Ok(logarithms.into_iter().map(f64::exp).collect())
    }
}
