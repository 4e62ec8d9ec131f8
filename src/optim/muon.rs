//! Muon: momentum whose matrices are made nearly orthogonal before they are a step.
//!
//! For a hidden matrix with minibatch gradient `G` at step size `a_t` (Jordan et al. 2024):
//!
//! `M = mu M + (1 - mu) G`, `U = mu M + (1 - mu) G` (Nesterov) or `U = M`,
//! `W = (1 - a_t decay) W - a_t scale O(U)`,
//!
//! where `O(U)` is near the orthogonal factor of `U`: with `X = U / |U|_F`, five times `X = a X + (b A + c A^2) X`,
//! `A = X X'`, `(a, b, c) = (3.4445, -4.7750, 2.0315)`, an odd polynomial of the singular values that drives them into the
//! band around 1 without settling there. Where there are more rows than columns the same is done from the other side,
//! `A = X' X`, so that `A` is as small as can be. With `m` rows (units) and `n` columns (inputs), `scale` is
//! `sqrt(max(1, m/n))` (the author's) or `0.2 sqrt(max(m, n))` (Liu et al. 2025), which gives a step the size of AdamW's.
//!
//! Everything else (biases, embeddings, the last layer) is moved by AdamW at a step size of its own.
//!
//! A step costs, beside the gradient, `5 (4 s^2 l + 2 s^3)` operations for a matrix with sides `s <= l`.

use super::adamw::{EPSILON, Moments, WEIGHT_DECAY};
use super::stochastic::{
    AVERAGE, AVERAGE_FROM, BATCH_SIZE, HORIZON, Minibatches, Pace, SCHEDULE, Schedule, TailAverage, WARM_UP,
};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::device::Matrix;
use crate::error::Result;
use crate::oracle::{Block, Capability, Oracle, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "muon",
    summary: "momentum made orthogonal, for hidden matrices; AdamW for everything else",
    paper: "Jordan et al. 2024; scale of the step: Liu et al. 2025, section 2.2",
    needs: &[Capability::Gradient],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "0.02", 1e-12, f64::INFINITY, "step size of the matrices at the start")
            .log()
            .search(1e-4, 1e-1),
        BATCH_SIZE,
        Setting::real("momentum", "0.95", 0.0, 0.999_999, "mu: share of the mean gradient that is kept"),
        Setting::switch("nesterov", "true", "look ahead along the momentum"),
        Setting::whole("iterations", "5", 1, 50, "Newton-Schulz iterations of a step"),
        Setting::choice(
            "scale",
            "original",
            &["original", "match-adam"],
            "of a step on m rows and n columns: sqrt(max(1, m/n)), or 0.2 sqrt(max(m, n))",
        ),
        Setting::choice(
            "matrices",
            "hidden",
            &["hidden", "all"],
            "which are made orthogonal: those between hidden units, inputs that are numbers included, or every one",
        ),
        Setting::real("adam_learning_rate", "3e-4", 0.0, f64::INFINITY, "step size of AdamW for everything else")
            .log()
            .search(1e-5, 1e-1),
        Setting::real("beta1", "0.9", 0.0, 0.999_999, "of AdamW: share of the mean gradient that is kept"),
        Setting::real("beta2", "0.95", 0.0, 0.999_999_9, "of AdamW: share of the mean squared gradient that is kept"),
        Setting { default: "1e-10", ..EPSILON },
        WEIGHT_DECAY,
        SCHEDULE,
        HORIZON,
        WARM_UP,
        AVERAGE,
        AVERAGE_FROM,
    ],
    build: |s| Ok(Box::new(Muon::new(s))),
};

/// Of the polynomial (Jordan et al. 2024): the slope at zero as steep as the band around 1 allows.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// The least norm that is divided by.
const LEAST_NORM: f64 = 1e-7;

struct Muon {
    batches: Minibatches,
    momentum: f64,
    nesterov: bool,
    iterations: usize,
    matches_adam: bool,
    only_hidden: bool,
    /// Step size of AdamW as a share of the matrices'.
    adam_share: f64,
    decay: f64,
    moments: Moments,
    matrices: Vec<Block>,
    /// The momentum of the matrices, one after another.
    mean: Option<Vector>,
    tail: TailAverage,
}

impl Muon {
    fn new(s: &Settings) -> Self {
        Self {
            batches: Minibatches::new(s, Schedule::new(s, s.real("warm_up"))),
            momentum: s.real("momentum"),
            nesterov: s.switch("nesterov"),
            iterations: s.whole("iterations"),
            matches_adam: s.word("scale") == "match-adam",
            only_hidden: s.word("matrices") == "hidden",
            adam_share: s.real("adam_learning_rate") / s.real("learning_rate"),
            decay: s.real("weight_decay"),
            moments: Moments::new(s),
            matrices: Vec::new(),
            mean: None,
            tail: TailAverage::new(s),
        }
    }
}

/// What the step on a matrix is multiplied with.
fn scale(block: &Block, matches_adam: bool) -> f64 {
    let (rows, columns) = (block.rows as f64, block.columns as f64);
    if matches_adam { 0.2 * rows.max(columns).sqrt() } else { (rows / columns).max(1.0).sqrt() }
}

/// A matrix with the singular vectors of another and singular values near 1, by Newton-Schulz iterations.
fn orthogonalized(matrix: &Matrix, iterations: usize) -> Matrix {
    let [a, b, c] = COEFFICIENTS;
    let is_tall = matrix.rows() > matrix.columns();
    let mut x = matrix.clone();
    x.scale(1.0 / matrix.norm().max(LEAST_NORM));
    for _ in 0..iterations {
        let gram = x.times(is_tall, &x, !is_tall);
        let mut polynomial = gram.times(false, &gram, false);
        polynomial.axpby(c, b, &gram);
        let moved = if is_tall { x.times(false, &polynomial, false) } else { polynomial.times(false, &x, false) };
        x.axpby(a, 1.0, &moved);
    }
    x
}

/// Operations of [`orthogonalized`].
fn flops(block: &Block, iterations: usize) -> f64 {
    let (short, long) = (block.rows.min(block.columns) as f64, block.rows.max(block.columns) as f64);
    iterations as f64 * (4.0 * short * short * long + 2.0 * short.powi(3))
}

impl Optimizer for Muon {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        let is_matrix = |block: &Block| block.rows > 1 && block.columns > 1;
        let hidden = oracle.hidden_matrices();
        let chosen = |block: &Block| is_matrix(block) && (!self.only_hidden || hidden.contains(&block.name));
        let layout = parameters.layout();
        self.matrices = layout.blocks().iter().filter(|block| chosen(block)).cloned().collect();
        self.mean = Some(Vector::zeros(&layout.part(chosen)));
        self.moments.start(parameters, |block| !chosen(block));
        self.tail.start(parameters);
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let (Pace { passes, step_size }, gradient) = self.batches.next(oracle, parameters)?;
        let mean = self.mean.as_mut().expect("allocated at the start");
        let own: Vec<Block> = mean.layout().blocks().to_vec();
        for (block, own) in self.matrices.iter().zip(&own) {
            let gradient = gradient.matrix(block);
            mean.mix_matrix(own, self.momentum, 1.0 - self.momentum, &gradient);
            let mut update = mean.matrix(own);
            if self.nesterov {
                update.axpby(self.momentum, 1.0 - self.momentum, &gradient);
            }
            let direction = orthogonalized(&update, self.iterations);
            oracle.count_flops(flops(block, self.iterations));
            let scale = scale(block, self.matches_adam);
            parameters.mix_matrix(block, 1.0 - step_size * self.decay, -step_size * scale, &direction);
        }
        self.moments.step(parameters, gradient, step_size * self.adam_share, self.decay);
        self.tail.take(passes, parameters);
        Ok(Step::Continue)
    }

    fn reported<'a>(&'a self, parameters: &'a Vector) -> &'a Vector {
        self.tail.reported(parameters)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // A minibatch's gradient and the iterations on the matrices, which no rows enter. With a constant step size it ends in
        // the noise of its minibatches.
        let matrices: f64 = size.layout.blocks().iter().map(|block| flops(block, self.iterations)).sum();
        let step = self.batches.share_of(size.rows) + matrices / size.gradient_flops;
        Promises { convex_gap: 1e-2, step_gradients: Some(step) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.batches.visit_state(visitor);
        self.moments.visit_state(visitor);
        if let Some(mean) = &mut self.mean {
            visitor.vector("momentum", mean);
        }
        self.tail.visit_state(visitor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::Cpu;

    /// The band in which the polynomial leaves singular values that were not tiny.
    #[test]
    fn singular_values_come_into_the_band_around_one_for_wide_and_tall_matrices() {
        let device = Device::new(Cpu::default());
        for (rows, columns) in [(40, 25), (25, 40), (30, 30)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| ((i * i * 37 % 1009) as f32 / 500.0) - 1.0).collect();
            let matrix = Matrix::from_values(&device, rows, columns, &values);
            let tall = rows > columns;
            let values = |m: &Matrix| m.times(tall, m, !tall).symmetric_eigen().unwrap().0;
            let before: Vec<f32> = values(&matrix).iter().map(|v| v.max(0.0).sqrt() / matrix.norm() as f32).collect();
            let orthogonal = orthogonalized(&matrix, 5);
            let after: Vec<f32> = values(&orthogonal).iter().map(|v| v.max(0.0).sqrt()).collect();
            assert!(after.iter().all(|v| *v < 1.21), "{rows} x {columns}: {after:?}");
            // What was below a hundredth of the norm needs more steps.
            let small = before.iter().filter(|v| **v < 0.01).count();
            assert!(after[small..].iter().all(|v| *v > 0.67), "{rows} x {columns}: {before:?} {after:?}");
            // The other side gives the same, transposed.
            let mut flipped = vec![0.0; rows * columns];
            for (i, v) in matrix.to_host().into_iter().enumerate() {
                flipped[i % columns * rows + i / columns] = v;
            }
            let other = orthogonalized(&Matrix::from_values(&device, columns, rows, &flipped), 5).to_host();
            for (i, v) in orthogonal.to_host().into_iter().enumerate() {
                assert!((v - other[i % columns * rows + i / columns]).abs() < 1e-4, "{rows} x {columns}, {i}");
            }
        }
    }
}
