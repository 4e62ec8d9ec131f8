//! A Transformer as optimizers meet it.

use super::layout;
use super::stack::{Pass, Work};
use super::{Selected, Transformer};
use crate::error::Result;
use crate::oracle::{
    Answer, Cost, Curvature, CurvatureMatrix, Gradient, Layout, Offer, Problem, Rows, SquaredGradients, Value, Vector,
};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// Forward passes of a curvature batch are kept up to this size.
const KEPT_BYTES: usize = 4 << 30;

impl Transformer {
    /// What passes over sequences cost that do so many times the work of a forward pass.
    fn cost(&self, sequences: usize, forwards: f64) -> Cost {
        let rows = sequences as f64;
        let bytes = (2 * self.context * size_of::<u32>()) as f64;
        Cost { rows: sequences as u64, flops: rows * forwards * self.forward_flops(), bytes: rows * bytes }
    }
}

impl Problem for Transformer {
    fn layout(&self) -> &Arc<Layout> {
        &self.core.layout
    }

    fn rows(&self) -> usize {
        self.parts.train.count()
    }

    fn gradient_flops(&self) -> f64 {
        self.cost(self.parts.train.count(), 3.0).flops
    }

    fn hidden_matrices(&self) -> Vec<String> {
        let is_hidden = |name: &str| {
            let last = name.strip_suffix(".weight").unwrap_or(name).rsplit('.').next().unwrap_or_default();
            matches!(last, "q" | "k" | "v" | "o" | "wi" | "wi_0" | "wi_1" | "wo")
        };
        self.core.layout.blocks().iter().map(|block| block.name.clone()).filter(|name| is_hidden(name)).collect()
    }

    fn initial(&self, rng: &mut ChaCha8Rng) -> Vector {
        let values = layout::draw(&self.core.layout, &self.core.starts, rng);
        let mut vector = Vector::zeros(&self.core.layout);
        vector.set_host(&values);
        vector
    }

    fn value(&self) -> Offer<&dyn Value> {
        Ok(self)
    }

    fn gradient(&self) -> Offer<&dyn Gradient> {
        Ok(self)
    }

    fn curvature(&self) -> Offer<&dyn Curvature> {
        Ok(self)
    }

    fn squared_gradients(&self) -> Offer<&dyn SquaredGradients> {
        Ok(self)
    }
}

impl Value for Transformer {
    fn value(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<f64>> {
        let selected = self.select(rows);
        let value = self.objective_over(at.array(), &selected, None);
        Ok(Answer { value, cost: self.cost(selected.rows.len(), 1.0) })
    }
}

impl Gradient for Transformer {
    fn value_and_gradient(&self, at: &Vector, rows: Rows<'_>, gradient: &mut Vector) -> Result<Answer<f64>> {
        let selected = self.select(rows);
        let value = self.objective_over(at.array(), &selected, Some(gradient.array_mut()));
        Ok(Answer { value, cost: self.cost(selected.rows.len(), 3.0) })
    }
}

/// Squares of every sequence's gradient, formed sequence by sequence: of the cross-entropy, without noise, and with experts
/// that take all tokens of the sequence.
impl SquaredGradients for Transformer {
    fn mean_squared_gradient(&self, at: &Vector, rows: Rows<'_>, squares: &mut Vector) -> Result<Cost> {
        let (core, selected) = (&self.core, self.select(rows));
        let weights = core.weights(at.array());
        let (n, count) = (core.layout.len(), selected.rows.len().max(1) as f64);
        let mut gradient = core.device.zeros(n);
        let mut own = core.device.zeros(n);
        let squares = squares.array_mut();
        core.device.fill(squares, 0.0);
        // The mean over rows of these losses is the mean over predicted tokens.
        let factor = (selected.sequences / selected.predicted) as f32;
        for &row in &selected.rows {
            let batch = self.read(&*self.parts.train, std::iter::once(row));
            core.with_work(1, |Work { pass, flow, .. }| {
                core.load(pass, &batch, None, true);
                core.forward(weights.array(), pass);
                core.device.fill(&mut gradient, 0.0);
                core.loss(weights.array(), pass, flow, Some((factor, &mut gradient)));
                core.backward(weights.array(), pass, flow, None, &mut gradient);
            });
            core.device.squares(own.view_mut(0, 1, n), gradient.view(0, 1, n));
            core.device.axpby(1.0, squares, 1.0, &own);
        }
        core.device.scale(squares, (1.0 / count) as f32);
        Ok(self.cost(selected.rows.len(), 3.0))
    }
}

struct TransformerCurvature<'a> {
    model: &'a Transformer,
    at: Vector,
    selected: Selected,
    /// A pass for each group; empty where they would not fit.
    passes: Vec<Pass>,
}

impl Curvature for Transformer {
    fn curvature_at<'a>(&'a self, at: &Vector, rows: Rows<'a>) -> Result<Answer<Box<dyn CurvatureMatrix + 'a>>> {
        let (core, selected) = (&self.core, self.select(rows));
        let mut passes = Vec::new();
        let fits = core.pass_bytes(selected.rows.len()) <= KEPT_BYTES;
        if fits {
            let weights = core.weights(at.array());
            for (number, rows) in selected.rows.chunks(self.group).enumerate() {
                let mut pass = core.own_pass(rows.len());
                let seed = selected.seed.map(|seed| super::hash(seed, number as u64));
                core.load(&mut pass, &self.read(&*self.parts.train, rows.iter().copied()), seed, false);
                core.forward(weights.array(), &mut pass);
                passes.push(pass);
            }
        }
        let cost = self.cost(if fits { selected.rows.len() } else { 0 }, 1.0);
        Ok(Answer { value: Box::new(TransformerCurvature { model: self, at: at.clone(), selected, passes }), cost })
    }
}

impl CurvatureMatrix for TransformerCurvature<'_> {
    fn multiply(&self, v: &Vector, product: &mut Vector) -> Result<Cost> {
        let (model, core) = (self.model, &self.model.core);
        let weights = core.weights(self.at.array());
        let (w, along) = (weights.array(), v.array());
        let sum = product.array_mut();
        core.device.fill(sum, 0.0);
        let factor = (1.0 / self.selected.predicted) as f32;
        let mut multiply = |pass: &Pass, flow: &mut super::stack::Flow| {
            core.tangent(w, along, pass, flow);
            core.curvature((w, along), pass, flow, factor, sum);
            core.backward(w, pass, flow, None, sum);
        };
        if self.passes.is_empty() {
            model.for_groups(&self.selected, |_, _, Work { pass, flow, .. }| {
                core.forward(w, pass);
                multiply(pass, flow);
            });
        } else {
            for pass in &self.passes {
                core.with_work(pass.sequences, |Work { flow, .. }| multiply(pass, flow));
            }
        }
        let forward = if self.passes.is_empty() { 1.0 } else { 0.0 };
        Ok(model.cost(self.selected.rows.len(), 4.0 + forward))
    }
}
