//! Kronecker factors of the layers' blocks of the Fisher matrix (Martens and Grosse 2015, section 3).
//!
//! A row's gradient in a layer's `[W b]` is `d x'`, with `x` the layer's inputs and a one, and `d` the derivative of the row's
//! loss in the layer's linear outputs. The block of the Fisher matrix `E[(x (x) d)(x (x) d)']` is taken for
//! `E[x x'] (x) E[d d']`. For the Fisher matrix itself `d` belongs to targets that the model draws: a class by its
//! probabilities (softmax), zeros and ones by theirs (logistic, each pixel of an autoencoder), or `o + N(0, 1)` (squared).
//! Every row of a selection draws from a random stream of its own, so that blocks of rows and threads change nothing.

use super::Network;
use super::stack::Work;
use crate::device::{Backend, Loss, Matrix};
use crate::error::Result;
use crate::oracle::{Answer, FactoredLayer, FisherTargets, KroneckerFactors, KroneckerPair, Offer, Rows, Vector};
use rand::{RngExt as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::ops::Range;

/// Above this many inputs or outputs of a layer its factors are not formed: 268 MB in `f32`.
const MOST_UNITS: usize = 8192;

impl Network {
    /// Why there are no factors, if there are none.
    pub(super) fn factored(&self) -> Offer<&dyn KroneckerFactors> {
        if matches!(self.stack.loss, Loss::Hinge | Loss::UnitHinge) {
            return Err("a hinge is no likelihood: it has no Fisher matrix".into());
        }
        let widest = self.stack.layers.iter().map(|layer| layer.inputs.max(layer.outputs)).max().unwrap_or_default();
        if widest > MOST_UNITS {
            return Err(format!("a layer has {widest} inputs or outputs; factors are formed up to {MOST_UNITS}"));
        }
        Ok(self)
    }

    /// The numbers by which a block of a selection draws its targets, `units x rows of the block`.
    fn noise(&self, seed: u64, block: &Range<usize>) -> (usize, Vec<f32>) {
        let units = if self.stack.loss == Loss::Softmax { 1 } else { self.stack.outputs() };
        let mut noise = vec![0.0; units * block.len()];
        let start = ChaCha8Rng::seed_from_u64(seed);
        for (column, row) in block.clone().enumerate() {
            let mut rng = start.clone();
            rng.set_stream(row as u64);
            for number in noise[column..].iter_mut().step_by(block.len()) {
                *number = if self.stack.loss == Loss::Squared { rng.sample(StandardNormal) } else { rng.random() };
            }
        }
        (units, noise)
    }

    /// Leaves the derivative at the wanted targets in the flow of a block that has passed forward.
    fn derive(&self, device: &dyn Backend, work: &mut Work, block: &Range<usize>, targets: FisherTargets) {
        let (stack, columns) = (&self.stack, block.len());
        match targets {
            FisherTargets::Data => {
                stack.loss(device, &work.pass, Some((&mut work.flow, 1.0)), columns);
            }
            FisherTargets::Drawn(seed) => {
                let (units, noise) = self.noise(seed, block);
                stack.drawn_derivative(device, &work.pass, &mut work.flow, columns, (units, &noise));
            }
        }
    }
}

impl KroneckerFactors for Network {
    fn factored_layers(&self) -> Vec<FactoredLayer> {
        let pairs = self.stack.layout.blocks().chunks_exact(2);
        pairs.map(|pair| FactoredLayer { weight: pair[0].clone(), bias: pair[1].clone() }).collect()
    }

    fn ridge(&self) -> f64 {
        self.ridge
    }

    fn factors(&self, at: &Vector, rows: Rows<'_>, targets: FisherTargets) -> Result<Answer<Vec<KroneckerPair>>> {
        let (selection, _) = self.selection(rows);
        let stack = &self.stack;
        let squares = |layer: &super::layer::Dense| (layer.inputs + 1).pow(2) + layer.outputs.pow(2);
        let size: usize = stack.layers.iter().map(squares).sum();
        let mut job = stack.job(selection.len(), size);
        // The sums decide whether several threads may each have some of their own.
        job.parameters = job.parameters.max(size);
        let block_rows = stack.device.block_rows(job);
        let mut sums = stack.device.zeros(size);
        stack.device.for_blocks(job, &mut sums, &|device, block, sum, keep| {
            stack.with_work(block_rows, |work| {
                let columns = block.len();
                self.train.load(device, selection.part(block.clone()), &mut work.pass);
                stack.forward(device, at.array(), &mut work.pass, columns);
                self.derive(device, work, &block, targets);
                stack.second_moments(device, at.array(), work, columns, sum, keep);
            });
            Ok(0.0)
        })?;
        let device = &stack.device;
        device.scale(&mut sums, 1.0 / selection.len().max(1) as f32);
        let mut pairs = Vec::new();
        for (layer, [of_x, of_d]) in stack.layers.iter().zip(stack.moments()) {
            let (inputs, size) = (layer.inputs, layer.inputs + 1);
            // The last column follows from the last row; the mean of ones is one.
            let row = Matrix::from_view(device, sums.view(of_x + inputs * size, 1, inputs));
            device.copy(sums.strided_mut(of_x + inputs, inputs, 1, size), row.reshaped(inputs, 1).view(false));
            device.upload(sums.view_mut(of_d - 1, 1, 1), &[1.0]);
            pairs.push(KroneckerPair {
                inputs: Matrix::from_view(device, sums.view(of_x, size, size)),
                outputs: Matrix::from_view(device, sums.view(of_d, layer.outputs, layer.outputs)),
            });
        }
        let mut cost = self.cost(selection.len(), 1.0, 1.0);
        cost.flops += selection.len() as f64 * 2.0 * size as f64;
        Ok(Answer { value: pairs, cost })
    }
}
