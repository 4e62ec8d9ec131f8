//! The last layer as a generalized linear model of the layer below: its information for Fisher scoring.
//!
//! With `z` the layer below and a constant one, outputs `o = [W b] z`: one logistic output has the information
//! `mean p(1-p) z z'`; several independent ones the bound `1/4 I (x) mean z z'`; a softmax of `K` the bound
//! `1/2 (I - 11'/K) (x) mean z z'` (Böhning 1992); squared losses have `I (x) mean z z'`, exactly.

use super::Network;
use crate::device::{Activation, Loss};
use crate::error::Result;
use crate::oracle::{Answer, HeadEquations, HeadSystem, Offer, Rows, Vector};
use ndarray::Array2;

/// Above this many inputs of the last layer its Gram matrix is not formed: 134 MB in `f64`.
const MOST_INPUTS: usize = 4096;

impl Network {
    /// Why the last layer has no normal equations, if it has none.
    pub(super) fn head(&self) -> Offer<&dyn HeadEquations> {
        let last = self.stack.layers[self.stack.layers.len() - 1];
        if self.stack.loss.is_hinge() {
            return Err("a hinge has no information matrix".into());
        }
        if last.activation != Activation::Identity {
            return Err(
                "its sigmoid outputs under a squared loss are no generalized linear model with that link".into()
            );
        }
        if last.inputs > MOST_INPUTS {
            let inputs = last.inputs;
            return Err(format!("its last layer has {inputs} inputs; normal equations are formed up to {MOST_INPUTS}"));
        }
        Ok(self)
    }
}

impl HeadEquations for Network {
    fn head_system(&self, at: &Vector, rows: Rows<'_>) -> Result<Answer<HeadSystem>> {
        let (selection, divisor) = self.selection(rows);
        let stack = &self.stack;
        let (parameters, outputs) = (stack.layout.len(), stack.outputs());
        let last = stack.layers[stack.layers.len() - 1];
        let size = last.inputs + 1;
        let is_weighted = stack.loss == Loss::Logistic && outputs == 1;
        // The gradient, then the Gram matrix.
        let job = stack.job(selection.len(), parameters + size * size);
        let block_rows = stack.device.block_rows(job);
        let mut sums = stack.device.zeros(job.sum);
        let loss = stack.device.for_blocks(job, &mut sums, &|device, block, sum, keep| {
            Ok(stack.with_work(block_rows, |work| {
                let columns = block.len();
                self.train.load(device, selection.part(block.clone()), &mut work.pass);
                stack.forward(device, at.array(), &mut work.pass, columns);
                let loss = stack.loss(device, &work.pass, Some((&mut work.flow, divisor.recip() as f32)), columns);
                stack.backward(device, at.array(), &work.pass, &mut work.flow, columns, false, sum, keep);
                stack.gram(device, work, stack.layers.len() - 1, columns, is_weighted, (sum, parameters), keep);
                loss
            }))
        })?;
        let mut gradient = Vector::zeros(&stack.layout);
        stack.device.copy(gradient.array_mut().view_mut(0, 1, parameters), sums.view(0, 1, parameters));
        self.add_ridge(at.array(), rows, gradient.array_mut());
        let gram = stack.device.download(sums.view(parameters, size, size));
        // The upper triangle is left to symmetry.
        let right = Array2::from_shape_fn((size, size), |(i, j)| f64::from(gram[i.max(j) * size + i.min(j)]) / divisor);
        let left = Array2::from_shape_fn((outputs, outputs), |(a, b)| {
            let one = f64::from(u8::from(a == b));
            match stack.loss {
                Loss::Softmax => 0.5 * (one - 1.0 / outputs as f64),
                Loss::Logistic if !is_weighted => 0.25 * one,
                _ => one,
            }
        });
        let value = loss / divisor + self.penalty(at.array(), rows);
        let mut cost = self.cost(selection.len(), 2.0, 1.0);
        cost.flops += selection.len() as f64 * 2.0 * (size * size) as f64;
        let system = HeadSystem { value, gradient, head: last.range(), left, right, ridge: self.ridge };
        Ok(Answer { value: system, cost })
    }
}
