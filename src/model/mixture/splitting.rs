//! Mixtures of small networks split layer by layer, as [`LayerSplitting`] has it, with the rows of each expert weighted by its
//! responsibilities: hidden layers of all experts first, which share the inputs' Gram matrix, then the experts' outputs and
//! the gate.
//!
//! With `h_k` held, the rows' part of the observed objective has the upper bound `-sum_k h_k (ln g_k + ln P_k(y))` and a
//! constant (EM), which falls apart into the gate and the experts: expert `k` is a network whose rows count `h_k`. The
//! gate's step is one of multinomial regression on `h` with the bound `1/2 I (x) [x; 1][x; 1]'` of its information: of Böhning's
//! `1/2 (I - 11'/K)` the part that moves all outputs alike does not matter, because `h - g` adds up to zero.

use super::Mixture;
use crate::device::cpu::mixture::{self, JointHead, JointRequest, Routing};
use crate::error::{Error, Result};
use crate::oracle::{Answer, Head, JointStep, Layer, LayerSplitting, LocalVariables, Offer, Rows, Vector};
use ndarray::Array2;

impl Mixture {
    /// Whether the mixture is split.
    pub(super) fn has_splitting(&self) -> Offer<()> {
        let shape = self.shape();
        if shape.hidden == 0 {
            return Err("its experts have no hidden layers; irls fits them with likelihood = \"complete\"".into());
        }
        if shape.routing == Routing::TopOne {
            return Err("local steps are weighted by responsibilities, which top-1 routing has none of".into());
        }
        if shape.outputs > 1 {
            return Err(format!("it has {} classes; joint steps of a mixture are taken for two", shape.outputs + 1));
        }
        Ok(())
    }
}

/// A symmetric matrix of means from the lower triangle of sums; with `first`, the first coordinate becomes the last.
fn means(lower: &[f64], divisor: f64, first: bool) -> Array2<f64> {
    let size = lower.len().isqrt();
    let from = |i: usize| if first { (i + 1) % size } else { i };
    Array2::from_shape_fn((size, size), |(i, j)| {
        let (i, j) = (from(i), from(j));
        lower[i.max(j) * size + i.min(j)] / divisor
    })
}

impl LayerSplitting for Mixture {
    fn layers(&self) -> Vec<Layer> {
        let experts = 0..self.shape().experts;
        let hidden = experts.clone().map(|k| self.parts.expert(k));
        hidden.chain(experts.map(|k| self.parts.output(k))).chain([self.parts.gate()]).collect()
    }

    fn on_inputs(&self) -> usize {
        self.shape().experts
    }

    fn heads(&self) -> usize {
        self.shape().experts + 1
    }

    fn keeps_variables(&self) -> Offer<()> {
        Err("a mixture's rows keep no variables of their own: their experts change from step to step".into())
    }

    fn ridge(&self) -> f64 {
        self.ridge
    }

    fn input_gram(&self) -> Result<Answer<Array2<f64>>> {
        let (gram, cost) = self.design_gram();
        Ok(Answer { value: means(&gram, self.train.rows() as f64, true), cost })
    }

    fn joint_step(
        &self,
        at: &Vector,
        rows: Rows<'_>,
        penalty: f64,
        head: Head,
        with_grams: bool,
    ) -> Result<Answer<JointStep>> {
        let (selection, divisor) = self.selection(rows);
        let shape = self.shape();
        let (experts, hidden, columns) = (shape.experts, shape.hidden, self.parts.columns());
        let head = match head {
            Head::Reweighted => JointHead::Reweighted,
            Head::LeastSquares { penalty } => JointHead::LeastSquares(0.5 / penalty),
        };
        let request = JointRequest { penalty, head, grams: with_grams };
        let sums = mixture::joint_step(&self.train, shape, &self.packed(at), selection, request, self.high);
        let mut rights = Vector::zeros(&self.parts.layout);
        // The gate's rows, then those of rectifiers, whose steps are divided by the penalty.
        let values = rights.host_mut();
        for (i, (&place, sum)) in self.parts.places.iter().zip(&sums.first).enumerate() {
            let scale = if i < experts * columns { divisor } else { divisor * penalty };
            values[place] = sum / scale;
        }
        for (k, right) in sums.second.chunks_exact(hidden + 1).enumerate() {
            let layer = self.parts.output(k);
            values[layer.start..layer.start + hidden + 1].iter_mut().zip(right).for_each(|(to, r)| *to = r / divisor);
        }
        let grams = sums.grams.iter().enumerate();
        let grams: Vec<_> = grams
            .map(
                |(layer, gram)| {
                    if layer < experts { means(gram, divisor, false) } else { means(gram, divisor, true) * 0.5 }
                },
            )
            .collect();
        let mut cost = self.cost(selection.len(), 2.0);
        let squares: usize = grams.iter().map(Array2::len).sum();
        cost.flops += selection.len() as f64 * (squares + 4 * experts * hidden) as f64;
        let value = JointStep {
            rights,
            grams,
            loss: sums.loss / divisor,
            augmented: (sums.after + 0.5 * sums.quadratic) / divisor,
            gap: sums.quadratic / (penalty * divisor),
            active: sums.active / (divisor * (experts * hidden) as f64),
        };
        Ok(Answer { value, cost })
    }

    fn local_variables(&self) -> Result<Box<dyn LocalVariables>> {
        let reason = self.keeps_variables().err().unwrap_or_default();
        Err(Error::Unsupported { name: "admm".into(), problem: "this problem".into(), reason })
    }
}
