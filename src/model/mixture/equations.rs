//! Normal equations of mixtures of logistic regressions: the information of what is observed, all parameters jointly, and
//! that of EM's complete data, block by block. Both are means over rows with the ridge added, positive semi-definite, and not
//! the Hessian of the objective.
//!
//! The gate's outputs can all be moved by the same amount; without a ridge its last expert's coefficients are therefore
//! redundant and can be held. Whether a hyperplane separates the classes of an expert's rows is not looked for: which rows are its
//! own moves with every step.

use super::Mixture;
use crate::device::cpu::glm;
use crate::device::cpu::linalg;
use crate::device::cpu::mixture::{self, Sums};
use crate::error::{Error, Result};
use crate::oracle::{
    Answer, BlockInformation, BlockSystem, CompleteEquations, Cost, Information, Layer, NormalEquations, NormalSystem,
    Offer, Rows, Separation, Vector,
};
use ndarray::Array2;

/// The largest number of coefficients for which matrices are formed: 128 MB in `f64`.
const MOST_COEFFICIENTS: usize = 4000;

/// A remaining diagonal below this share of its column's own marks a column as dependent on earlier ones.
const RANK_TOLERANCE: f64 = 1e-10;

impl Mixture {
    /// Whether normal equations are formed.
    pub(super) fn has_equations(&self) -> Offer<()> {
        let coefficients = self.parts.layout.len();
        if self.shape().hidden > 0 {
            return Err(
                "experts with rectifiers are no generalized linear models; admm takes them with variant = \"proximal\""
                    .into(),
            );
        }
        if coefficients > MOST_COEFFICIENTS {
            return Err(format!("it has {coefficients} coefficients; matrices are formed up to {MOST_COEFFICIENTS}"));
        }
        Ok(())
    }

    /// Value and gradient from a pass's sums.
    fn system_of(&self, at: &Vector, rows: Rows<'_>, sums: &Sums) -> (f64, Vector) {
        let (_, divisor) = self.selection(rows);
        let mut gradient = Vector::zeros(&self.parts.layout);
        self.unpack(&sums.gradient, divisor, &mut gradient);
        self.add_ridge(at, rows, &mut gradient);
        (self.objective_of(at, sums, rows), gradient)
    }

    /// The ridge that stands on a coordinate's diagonal.
    fn ridge_at(&self, coordinate: usize, rows: Rows<'_>) -> f64 {
        if !matches!(rows, Rows::Part { .. }) && self.parts.is_weight(coordinate) { self.ridge } else { 0.0 }
    }

    /// Operations of a row for `grams` Gram matrices of `columns` columns, and the bare pass.
    fn gram_cost(&self, rows: usize, grams: usize, columns: usize) -> Cost {
        let mut cost = self.cost(rows, 2.0);
        cost.flops += rows as f64 * (grams * columns * (columns + 1)) as f64;
        cost
    }

    /// A part's block from sums whose rows have the bias first.
    fn block(&self, layer: Layer, sums: &[f64], rows: Rows<'_>) -> BlockInformation {
        let (_, divisor) = self.selection(rows);
        let size = layer.parameters();
        let weights = layer.inputs * layer.outputs;
        let place = |i: usize| {
            let (output, column) = (i / (layer.inputs + 1), i % (layer.inputs + 1));
            if column == 0 { weights + output } else { output * layer.inputs + column - 1 }
        };
        let mut matrix = Array2::zeros((size, size));
        for i in 0..size {
            for j in 0..size {
                matrix[[place(i), place(j)]] = sums[i * size + j] / divisor;
            }
        }
        for i in 0..size {
            matrix[[i, i]] += self.ridge_at(layer.start + i, rows);
        }
        BlockInformation { start: layer.start, matrix }
    }
}

impl NormalEquations for Mixture {
    fn normal_system(&self, at: &Vector, rows: Rows<'_>, bound: bool) -> Result<Answer<NormalSystem>> {
        if bound {
            return Err(Error::Numeric("a mixture's information has no bound that is formed".into()));
        }
        let theta = self.packed(at);
        let (selection, divisor) = self.selection(rows);
        let (balance, balance_cost) = self.balance_slopes(&theta, rows, self.high);
        let (sums, lower) = mixture::information(&self.train, self.shape(), &theta, selection, &balance, self.high);
        let (value, gradient) = self.system_of(at, rows, &sums);
        let (size, places) = (theta.len(), &self.parts.places);
        let mut matrix = Array2::zeros((size, size));
        for i in 0..size {
            for j in 0..=i {
                let value = lower[i * size + j] / divisor;
                matrix[[places[i], places[j]]] = value;
                matrix[[places[j], places[i]]] = value;
            }
        }
        for i in 0..size {
            matrix[[i, i]] += self.ridge_at(i, rows);
        }
        let terms = if self.shape().outputs == 1 { 1 } else { self.classes.len() };
        let mut cost = self.gram_cost(selection.len(), terms, size);
        cost += balance_cost;
        Ok(Answer { value: NormalSystem { value, gradient, information: Information::Dense(matrix) }, cost })
    }

    fn dense_limit(&self) -> usize {
        MOST_COEFFICIENTS
    }

    fn is_hessian(&self) -> bool {
        false
    }

    fn redundant_coordinates(&self) -> Vec<usize> {
        let gate = self.parts.gate();
        let weights = gate.start + gate.inputs * gate.outputs;
        let bias = weights + gate.outputs - 1;
        if self.ridge > 0.0 { vec![bias] } else { (weights - gate.inputs..weights).chain([bias]).collect() }
    }

    fn dependent_coordinates(&self) -> Result<Answer<Vec<(usize, String)>>> {
        if self.ridge > 0.0 {
            return Ok(Answer { value: Vec::new(), cost: Cost::default() });
        }
        let columns = self.parts.columns();
        let (gram, cost) = self.design_gram();
        let gram = Array2::from_shape_vec((columns, columns), gram).map_err(|e| Error::Numeric(e.to_string()))?;
        let dependent = linalg::dependent_columns(&gram, RANK_TOLERANCE);
        let rows = 0..self.shape().rows();
        let name = |j: usize| if j == 0 { "(intercept)".to_owned() } else { self.columns[j - 1].clone() };
        let places = &self.parts.places;
        let value = rows.flat_map(|r| dependent.iter().map(move |&j| (places[r * columns + j], name(j)))).collect();
        Ok(Answer { value, cost })
    }

    fn separation(&self, _at: &Vector, _step: &Vector) -> Result<Answer<Option<Separation>>> {
        Ok(Answer { value: None, cost: Cost::default() })
    }

    fn largest_predictor(&self, at: &Vector) -> Result<Answer<f64>> {
        let (all, _) = self.selection(Rows::All);
        let first = self.shape().rows() * self.parts.columns();
        let eta = glm::linear_predictors(&self.train, self.shape().rows(), &self.packed(at)[..first], all);
        let value = eta.iter().fold(0.0, |largest: f64, eta| largest.max(eta.abs()));
        Ok(Answer { value, cost: self.cost(self.train.rows(), 1.0) })
    }
}

impl CompleteEquations for Mixture {
    fn complete_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<BlockSystem>> {
        let (selection, _) = self.selection(rows);
        let shape = self.shape();
        let (sums, blocks) = mixture::complete_information(&self.train, shape, &self.packed(at), selection, self.high);
        let (value, gradient) = self.system_of(at, rows, &sums);
        let layers = self.parts.all.iter().map(|part| part.layer);
        let blocks = layers.zip(&blocks).map(|(layer, sums)| self.block(layer, sums, rows)).collect();
        let pairs = |count: usize| count * (count + 1) / 2;
        let grams = pairs(shape.experts) + shape.experts * pairs(shape.outputs);
        let cost = self.gram_cost(selection.len(), grams, self.parts.columns());
        Ok(Answer { value: BlockSystem { value, gradient, blocks }, cost })
    }
}
