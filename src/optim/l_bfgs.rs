//! L-BFGS: quasi-Newton directions from the last few steps, with a line search under the strong Wolfe conditions.
//!
//! With steps `s_i = theta_{i+1} - theta_i` and changes of the gradient `y_i = g_{i+1} - g_i` of the last `history` iterations the
//! direction is `-H g`, `H` the BFGS approximation of the inverse Hessian that starts from `(s'y / y'y) I` of the last pair,
//! multiplied out by the two-loop recursion (Nocedal and Wright 2006, algorithms 7.4 and 7.5, equation 7.20). The search begins
//! with the step 1; in the first iteration, where nothing is known yet, with `min(1, 1/|g|_1)` along `-g`. A pair without
//! positive curvature is left out. Value and gradient are those of all rows.

use super::descent::{Descent, TOLERANCE, no_lower_point};
use super::line_search::{Line, MOST_EVALUATIONS};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, Oracle, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "l-bfgs",
    summary: "limited-memory quasi-Newton steps on all rows, strong Wolfe line search",
    paper: "Liu and Nocedal 1989; Nocedal and Wright 2006, algorithms 7.4, 7.5, 3.5 and 3.6",
    needs: &[Capability::Gradient],
    stochastic: false,
    settings: &[
        Setting::whole("history", "10", 1, 1000, "pairs of steps and gradient changes that are kept").log(),
        Setting::real(
            "curvature",
            "0.9",
            1e-3,
            0.999,
            "c2: the slope at a step's end, as a share of that at its start",
        ),
        TOLERANCE,
    ],
    build: |s| Ok(Box::new(Lbfgs::new(s))),
};

/// A pair enters the history when `s'y` is beyond this share of `y'y`.
const LEAST_CURVATURE: f64 = 1e-10;

struct Lbfgs {
    history: usize,
    curvature: f64,
    descent: Descent,
    /// `s_i` and `y_i`, the oldest first, and `s_i'y_i`.
    steps: Vec<Vector>,
    changes: Vec<Vector>,
    products: Vec<f64>,
}

impl Lbfgs {
    fn new(s: &Settings) -> Self {
        Self {
            history: s.whole("history"),
            curvature: s.real("curvature"),
            descent: Descent::new(s),
            steps: Vec::new(),
            changes: Vec::new(),
            products: Vec::new(),
        }
    }

    /// `-H g` by the two-loop recursion.
    fn direction(&self) -> Vector {
        let mut q = self.descent.gradient().clone();
        q.scale(-1.0);
        let mut shares = vec![0.0; self.steps.len()];
        for i in (0..self.steps.len()).rev() {
            shares[i] = self.steps[i].dot(&q) / self.products[i];
            q.axpy(-shares[i], &self.changes[i]);
        }
        if let (Some(change), Some(product)) = (self.changes.last(), self.products.last()) {
            q.scale(product / change.dot(change));
        }
        for (i, share) in shares.iter().enumerate() {
            let taken = self.changes[i].dot(&q) / self.products[i];
            q.axpy(share - taken, &self.steps[i]);
        }
        q
    }

    /// Takes a pair in, dropping the oldest where there is no room.
    fn remember(&mut self, step: Vector, change: Vector) {
        let product = step.dot(&change);
        if product.is_nan() || product <= LEAST_CURVATURE * change.dot(&change) {
            return;
        }
        if self.steps.len() == self.history {
            self.steps.remove(0);
            self.changes.remove(0);
            self.products.remove(0);
        }
        self.steps.push(step);
        self.changes.push(change);
        self.products.push(product);
    }

    fn forget(&mut self) {
        self.steps.clear();
        self.changes.clear();
        self.products.clear();
    }
}

impl Optimizer for Lbfgs {
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let begun = self.descent.begin(oracle, parameters)?;
        if begun != Step::Continue {
            return Ok(begun);
        }
        let mut direction = self.direction();
        let mut slope = direction.dot(self.descent.gradient());
        if slope.is_nan() || slope >= 0.0 {
            self.forget();
            direction = self.direction();
            slope = direction.dot(self.descent.gradient());
        }
        let first = if self.steps.is_empty() { first_step(self.descent.gradient()) } else { 1.0 };
        let line = Line { origin: parameters, direction: &direction, value: self.descent.value(), slope };
        let Some(found) = line.strong_wolfe(oracle, first, self.curvature)? else {
            if self.steps.is_empty() {
                return Ok(no_lower_point());
            }
            // What is remembered misleads: begin anew from the gradient.
            self.forget();
            return Ok(Step::Continue);
        };
        let step = found.step;
        let (left, outcome) = self.descent.advance(oracle, parameters, &direction, found)?;
        direction.scale(step);
        let mut change = left;
        change.axpby(-1.0, 1.0, self.descent.gradient());
        self.remember(direction, change);
        Ok(outcome)
    }

    fn promises(&self, _: &Size<'_>) -> Promises {
        // The first step begins with the gradient at the start.
        Promises { convex_gap: 1e-8, step_gradients: Some(1.0 + MOST_EVALUATIONS as f64) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.descent.visit_state(visitor);
        visitor.vectors("steps", &mut self.steps);
        visitor.vectors("changes", &mut self.changes);
        visitor.numbers("products", &mut self.products);
    }
}

/// The first trial step along `-g`: `min(1, 1/|g|_1)`, a change of the parameters by at most 1 in all.
pub(super) fn first_step(gradient: &Vector) -> f64 {
    let sum: f64 = gradient.to_host().iter().map(|g| g.abs()).sum();
    (1.0 / sum).min(1.0)
}
