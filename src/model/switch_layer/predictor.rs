//! Predictions on raw rows from written weights.

use super::layer::{Layer, Shape};
use crate::device::{self, Array, Panels, Selection, Table};
use crate::error::{Error, Result};
use crate::model::{Predictor, Weights, check_columns};
use std::ops::Range;

/// Applies a layer to raw rows: its outputs in the units of the targets.
pub(super) struct LayerPredictor {
    layer: Layer,
    parameters: Array,
    columns: Vec<String>,
    shift: Vec<f64>,
    factor: Vec<f64>,
    output_shift: Vec<f64>,
    output_factor: f64,
}

fn damaged(what: &str) -> Error {
    Error::config("weights", format!("`{what}` is missing or damaged"), "run the cell again")
}

impl LayerPredictor {
    pub fn from_weights(weights: &Weights) -> Result<Self> {
        let tensor = |key: &str| weights.tensors.get(key).ok_or_else(|| damaged(key));
        let columns = weights.metadata.get("columns").ok_or_else(|| damaged("columns"))?;
        let columns: Vec<String> = serde_json::from_str(columns).map_err(|_| damaged("columns"))?;
        let experts = (0..).take_while(|i| weights.tensors.contains_key(&format!("expert{i}.input.weight"))).count();
        let rows = |key: &str| Ok::<_, Error>(tensor(key)?.1.len());
        let (hidden, outputs) = (rows("expert0.input.bias")?, rows("expert0.output.bias")?);
        let layer = Layer::new(device::current(), Shape { inputs: columns.len(), hidden, outputs, experts });
        let mut values: Vec<f32> = Vec::with_capacity(layer.layout.len());
        for block in layer.layout.blocks() {
            let [weight, bias] = ["weight", "bias"].map(|part| format!("{}.{part}", block.name));
            let inputs = block.columns - 1;
            let (shape, weight_values) = tensor(&weight)?;
            let biases = &tensor(&bias)?.1;
            if shape[..] != [block.rows, inputs]
                || weight_values.len() != block.rows * inputs
                || biases.len() != block.rows
            {
                return Err(damaged(&weight));
            }
            for (row, bias) in biases.iter().enumerate() {
                let weights = &weight_values[row * inputs..(row + 1) * inputs];
                values.extend(weights.iter().chain([bias]).map(|&v| v as f32));
            }
        }
        let sized = |key: &str, len: usize| -> Result<Vec<f64>> {
            Some(tensor(key)?.1.clone()).filter(|values| values.len() == len).ok_or_else(|| damaged(key))
        };
        let (shift, factor) = (sized("input.shift", columns.len())?, sized("input.factor", columns.len())?);
        let (output_shift, output_factor) = (sized("output.shift", outputs)?, sized("output.factor", 1)?[0]);
        let mut parameters = layer.device.zeros(values.len());
        layer.device.upload(parameters.view_mut(0, 1, values.len()), &values);
        Ok(Self { layer, parameters, columns, shift, factor, output_shift, output_factor })
    }
}

impl Predictor for LayerPredictor {
    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn outputs(&self) -> Vec<String> {
        crate::model::target_names(self.output_shift.len())
    }

    fn predict(&self, features: &Panels, rows: Range<usize>) -> Result<Vec<f64>> {
        check_columns(&self.columns, features)?;
        let (layer, outputs) = (&self.layer, self.output_shift.len());
        let count = rows.len();
        let inputs = Table::new(features.clone(), rows, &self.shift, &self.factor);
        let mut predicted = Vec::with_capacity(count * outputs);
        layer.for_pieces(Selection::Range(0, count), |piece, room| {
            layer.load_inputs(&inputs, piece, &mut room.pass);
            layer.route(&self.parameters, &mut room.pass);
            layer.forward(&self.parameters, &mut room.pass);
            layer.outputs(&room.pass, &mut room.work);
            let values = layer.rows_in_order(&room.pass, room.work.d.view(0, room.pass.n, outputs));
            for row in values.chunks_exact(outputs) {
                let of = row.iter().zip(&self.output_shift);
                predicted.extend(of.map(|(&value, shift)| shift + self.output_factor * f64::from(value)));
            }
        });
        layer.device.check()?;
        Ok(predicted)
    }
}
