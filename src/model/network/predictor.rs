//! Predictions on raw rows from written weights.

use super::stack::Stack;
use crate::device::{self, Activation, Array, Loss, Panels, Selection, Table};
use crate::error::{Error, Result};
use crate::model::{Predictor, Weights, check_columns};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Predicts on raw rows from weights that [`Network`](super::Network) wrote: probabilities of classes, a real number, or
/// an autoencoder's codes.
pub(super) struct NetworkPredictor {
    stack: Stack,
    parameters: Array,
    shift: Vec<f64>,
    factor: Vec<f64>,
    columns: Vec<String>,
    classes: Vec<String>,
    /// The layer whose values are an autoencoder's code, counted from 0.
    code: Option<usize>,
}

fn damaged(what: &str) -> Error {
    Error::config("weights", format!("`{what}` is missing or damaged"), "run the cell again")
}

impl NetworkPredictor {
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let text = |key: &str| weights.metadata.get(key).ok_or_else(|| damaged(key));
        let tensor = |key: &str| weights.tensors.get(key).ok_or_else(|| damaged(key));
        let list = |key: &str| -> Result<Vec<String>> { serde_json::from_str(text(key)?).map_err(|_| damaged(key)) };
        let (columns, mut classes) = (list("columns")?, list("classes")?);
        let (mut widths, mut values) = (vec![columns.len()], Vec::new());
        for l in 1.. {
            let name = format!("layer{l}.weight");
            let Some((shape, weight)) = weights.tensors.get(&name) else { break };
            let [outputs, inputs] = shape[..] else { return Err(damaged(&name)) };
            let bias = &tensor(&format!("layer{l}.bias"))?.1;
            if inputs != widths[l - 1] || weight.len() != outputs * inputs || bias.len() != outputs {
                return Err(damaged(&name));
            }
            widths.push(outputs);
            values.extend(weight.iter().chain(bias).map(|&v| v as f32));
        }
        let layers = widths.len() - 1;
        if layers == 0 {
            return Err(damaged("layer1.weight"));
        }
        let activation = match text("activation")?.as_str() {
            "tanh" => Activation::Tanh,
            "sigmoid" => Activation::Sigmoid,
            "gelu" => Activation::Gelu,
            _ => Activation::Relu,
        };
        let code = (text("model")? == "autoencoder").then_some(layers / 2 - 1);
        let mut activations = vec![activation; layers - 1];
        if let Some(code) = code {
            activations[code] = Activation::Identity;
            classes.clear();
        }
        let loss = match (text("loss")?.as_str(), classes.len()) {
            ("squared", _) | (_, 0) => Loss::Squared,
            ("hinge", _) => Loss::Hinge,
            ("unit-hinge", _) => Loss::UnitHinge,
            _ if widths[layers] == 1 => Loss::Logistic,
            _ => Loss::Softmax,
        };
        if code.is_none() && widths[layers] != 1 && !classes.is_empty() && widths[layers] != classes.len() {
            return Err(damaged("classes"));
        }
        let (shift, factor) = (tensor("input.shift")?.1.clone(), tensor("input.factor")?.1.clone());
        if shift.len() != columns.len() || factor.len() != columns.len() {
            return Err(damaged("input.shift"));
        }
        let stack = Stack::new(device::current(), &widths, &activations, Activation::Identity, loss);
        let mut parameters = stack.device.zeros(values.len());
        stack.device.upload(parameters.view_mut(0, 1, values.len()), &values);
        Ok(Self { stack, parameters, shift, factor, columns, classes, code })
    }

    /// What the outputs of one row say, `classes` or other numbers.
    fn say(&self, outputs: &[f32]) -> Vec<f64> {
        let outputs = outputs.iter().map(|&o| f64::from(o));
        match self.stack.loss {
            _ if self.classes.is_empty() => outputs.collect(),
            Loss::Logistic => outputs.flat_map(|o| [1.0 / (1.0 + o.exp()), 1.0 / (1.0 + (-o).exp())]).collect(),
            // A hinge has no probabilities: the side is told.
            loss if loss.is_hinge() => {
                let side = |o| f64::from(u8::from(o > f64::from(loss.threshold())));
                outputs.map(side).flat_map(|side| [1.0 - side, side]).collect()
            }
            Loss::Softmax => {
                let largest = outputs.clone().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = outputs.clone().map(|o| (o - largest).exp()).sum();
                outputs.map(|o| (o - largest).exp() / total).collect()
            }
            Loss::Squared if self.stack.outputs() == 1 => {
                outputs.map(|o| o.clamp(0.0, 1.0)).flat_map(|p| [1.0 - p, p]).collect()
            }
            _ => {
                // Fits of indicators as shares, moved so that none is negative.
                let lowest = outputs.clone().fold(0.0, f64::min);
                let total: f64 = outputs.clone().map(|o| o - lowest).sum();
                outputs
                    .map(|o| if total > 0.0 { (o - lowest) / total } else { 1.0 / self.classes.len() as f64 })
                    .collect()
            }
        }
    }
}

impl Predictor for NetworkPredictor {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn outputs(&self) -> Vec<String> {
        match self.code {
            Some(code) => (1..=self.stack.layers[code].outputs).map(|unit| format!("code_{unit}")).collect(),
            None if self.classes.is_empty() => crate::model::target_names(self.stack.outputs()),
            None => crate::model::output_names(&self.classes),
        }
    }

    fn predict(&self, features: &Panels, rows: Range<usize>) -> Result<Vec<f64>> {
        check_columns(&self.columns, features)?;
        let stack = &self.stack;
        let table = Table::new(features.clone(), rows.clone(), &self.shift, &self.factor);
        let layer = self.code.unwrap_or(stack.layers.len() - 1);
        let units = stack.layers[layer].outputs;
        let job = stack.job(rows.len(), 0);
        let size = stack.device.block_rows(job);
        let said = Mutex::new(vec![Vec::new(); rows.len()]);
        stack.device.for_blocks(job, &mut stack.device.zeros(0), &|device, block, _, _| {
            stack.with_work(size, |work| {
                let columns = block.len();
                device.load(&table, Selection::Range(block.start, block.end), work.pass.inputs.view_mut(columns));
                stack.forward(device, &self.parameters, &mut work.pass, columns);
                let values = device.download(work.pass.values(layer, columns));
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                for row in 0..columns {
                    let outputs: Vec<f32> = (0..units).map(|unit| values[unit * columns + row]).collect();
                    said[block.start + row] = self.say(&outputs);
                }
            });
            Ok(0.0)
        })?;
        Ok(said.into_inner().unwrap_or_else(PoisonError::into_inner).concat())
    }
}
