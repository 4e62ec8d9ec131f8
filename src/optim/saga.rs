//! SAGA for generalized linear models: stochastic gradients whose variance a table of the rows' last gradients takes away.
//!
//! Defazio, Bach and Lacoste-Julien 2014, equations 1 and 2, in the form of minibatches. The table holds for every row the
//! residual `r_i` at which its gradient `r_i z_i'` was last formed (`C` numbers a row, not `C x D`), and beside it the mean `m`
//! of all these gradients. A step draws `b` rows `B`, without replacement, in a new random order each pass, and takes
//!
//! `c = sum_{i in B} (r_i(theta) - r_i) z_i'`, `theta = prox(theta - a (c/b + m))`, then `m = m + c/n`, `r_i = r_i(theta)`,
//!
//! `prox` the regularizer's proximal map at the step size `a`. A step costs `O(b D)` and one number a row and predictor. The first
//! one fills the table in a pass over all rows.
//!
//! The step size is `1/(3 L)`, as in the paper for `b = 1`, with the constant that takes the place of `L` for batches (Gazagnadou,
//! Gower and Salmon 2019, equation 12): `L_B = n (b-1) / (b (n-1)) L_mean + (n-b) / (b (n-1)) L_row`, `L_row` the largest Lipschitz
//! constant of a row's gradient, `L_mean` that of the mean gradient; two passes find them.
//!
//! Once a pass `|theta - prox(theta - a m)| / a` is looked at; where it is below the tolerance, a pass over all rows makes `m`
//! the gradient itself, which then decides.

use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Batch, Capability, Oracle, Rows, Setting, Settings, Vector};
use std::collections::BTreeSet;

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "saga",
    summary: "variance-reduced stochastic gradients for generalized linear models, with a table of residuals",
    paper: "Defazio, Bach and Lacoste-Julien 2014; step size of batches: Gazagnadou, Gower and Salmon 2019",
    needs: &[Capability::RowResiduals, Capability::Consensus],
    stochastic: true,
    settings: &[
        Setting::real("learning_rate", "0", 0.0, f64::INFINITY, "step size; 0: 1/(3 L) from the data").log(),
        Setting::whole("batch_size", "256", 1, 1 << 40, "rows per step").log(),
        Setting::real("tolerance", "1e-6", 0.0, 1.0, "converged when the gradient's largest element is below this")
            .log(),
    ],
    build: |s| Ok(Box::new(Saga::new(s))),
};

struct Saga {
    learning_rate: f64,
    batch_size: usize,
    tolerance: f64,
    taken: u64,
    /// `r_i`, row by row; empty before the first step.
    table: Vec<f64>,
    /// `m`.
    mean: Vec<Vector>,
}

impl Saga {
    fn new(s: &Settings) -> Self {
        Self {
            learning_rate: s.real("learning_rate"),
            batch_size: s.whole("batch_size"),
            tolerance: s.real("tolerance"),
            taken: 0,
            table: Vec::new(),
            mean: Vec::new(),
        }
    }

    /// Fills the table at the start, and finds the step size where none was given.
    fn fill(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector, batch_size: usize) -> Result<()> {
        if self.learning_rate == 0.0 {
            let (n, b) = (oracle.rows() as f64, batch_size as f64);
            let smoothness = oracle.smoothness()?;
            let others = (n - 1.0).max(1.0);
            let constant = n * (b - 1.0) / (b * others) * smoothness.mean + (n - b) / (b * others) * smoothness.row;
            self.learning_rate = 1.0 / (3.0 * constant);
        }
        self.table = vec![0.0; oracle.rows() * oracle.residual_size()?];
        self.mean = vec![parameters.zeros_like()];
        self.refresh(oracle, parameters)
    }

    /// Brings every row's residual to the parameters: the mean becomes the gradient there, whatever was in the table.
    fn refresh(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.table.fill(0.0);
        let mean = &mut self.mean[0];
        let loss = oracle.exchange_residuals(parameters, Rows::All, &mut self.table, mean)?;
        oracle.finite("the objective", loss)?;
        mean.scale(1.0 / oracle.rows() as f64);
        Ok(())
    }

    /// The largest element of the gradient mapping `(theta - prox(theta - a m)) / a`: the gradient itself where all is smooth.
    fn mapping(&self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<f64> {
        let mut moved = parameters.clone();
        moved.axpy(-self.learning_rate, &self.mean[0]);
        oracle.proximal_regularizer(1.0 / self.learning_rate, &mut moved)?;
        moved.axpby(-1.0, 1.0, parameters);
        let largest = moved.norm_max() / self.learning_rate;
        oracle.note("gradient_norm", largest);
        Ok(largest)
    }
}

impl Optimizer for Saga {
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let size = self.batch_size.min(oracle.rows());
        if self.table.is_empty() {
            self.fill(oracle, parameters, size)?;
            oracle.note("step_size", self.learning_rate);
        }
        let batch = distinct(&oracle.next_batch(size));
        let mut change = parameters.zeros_like();
        let loss = oracle.exchange_residuals(parameters, Rows::Batch(&batch), &mut self.table, &mut change)?;
        oracle.finite("the minibatch's loss", loss)?;
        parameters.axpy(-self.learning_rate / batch.len() as f64, &change);
        parameters.axpy(-self.learning_rate, &self.mean[0]);
        oracle.proximal_regularizer(1.0 / self.learning_rate, parameters)?;
        self.mean[0].axpy(1.0 / oracle.rows() as f64, &change);
        self.taken += 1;

        let steps_of_pass = oracle.rows().div_ceil(size) as u64;
        if self.taken.is_multiple_of(steps_of_pass) && self.mapping(oracle, parameters)? <= self.tolerance {
            self.refresh(oracle, parameters)?;
            let largest = self.mapping(oracle, parameters)?;
            if largest <= self.tolerance {
                return Ok(Step::Converged(format!("gradient {largest:.1e}")));
            }
        }
        Ok(Step::Continue)
    }

    fn promises(&self, size: &Size<'_>) -> Promises {
        // The first step fills the table and looks for the step size; one at the end of a pass may fill it anew.
        let batch = self.batch_size.min(size.rows) as f64 / size.rows as f64;
        Promises { convex_gap: 1e-6, step_gradients: Some(batch + 4.0) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("learning_rate", &mut self.learning_rate);
        visitor.count("taken", &mut self.taken);
        visitor.numbers("table", &mut self.table);
        visitor.vectors("mean", &mut self.mean);
    }
}

/// A batch that reaches into the next pass may meet a row again, whose place in the table can be exchanged but once.
fn distinct(batch: &Batch) -> Batch {
    let mut seen = BTreeSet::new();
    Batch::new(batch.rows().iter().copied().filter(|row| seen.insert(*row)).collect())
}
