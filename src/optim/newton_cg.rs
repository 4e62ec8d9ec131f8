//! Newton-CG: conjugate gradients on Newton's equations, with the curvature of some of the rows.
//!
//! Byrd, Chin, Neveitt and Nocedal 2011: the gradient `g` is that of all rows, the Gauss-Newton matrix `G` that of a batch drawn
//! anew each step, since a direction needs less accuracy than the point it leads to. Conjugate gradients on
//! `(G + damping I) d = -g` start from zero and end when `|G d + g| <= min(forcing, sqrt|g|) |g|` (Dembo and Steihaug 1983;
//! Nocedal and Wright 2006, algorithm 7.1), after `cg_iterations`, or at a direction without positive curvature. The step
//! begins with 1 and is halved until the value is low enough. With the curvature of all rows convergence is superlinear, with
//! that of a batch linear, at a rate that the batch's size decides.

use super::descent::{Descent, TOLERANCE, no_lower_point};
use super::line_search::{Line, SHORTEST_STEP};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, CurvatureMatrix, Oracle, Rows, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "newton-cg",
    summary: "Newton's equations by truncated conjugate gradients, with the curvature of a batch",
    paper: "Byrd, Chin, Neveitt and Nocedal 2011; forcing term: Nocedal and Wright 2006, algorithm 7.1",
    needs: &[Capability::Gradient, Capability::CurvatureProduct],
    stochastic: true,
    settings: &[
        Setting::whole("curvature_rows", "0", 0, 1 << 40, "rows of the curvature batch, drawn each step; 0: all"),
        Setting::whole("cg_iterations", "50", 1, 100_000, "at most this many conjugate-gradient iterations a step")
            .log(),
        Setting::real("forcing", "0.5", 1e-12, 1.0, "largest share of the gradient that CG may leave over").log(),
        Setting::real("damping", "0", 0.0, f64::INFINITY, "added to the curvature's diagonal").log(),
        TOLERANCE,
    ],
    build: |s| Ok(Box::new(NewtonCg::new(s))),
};

struct NewtonCg {
    curvature_rows: usize,
    cg_iterations: usize,
    forcing: f64,
    damping: f64,
    descent: Descent,
}

impl NewtonCg {
    fn new(s: &Settings) -> Self {
        Self {
            curvature_rows: s.whole("curvature_rows"),
            cg_iterations: s.whole("cg_iterations"),
            forcing: s.real("forcing"),
            damping: s.real("damping"),
            descent: Descent::new(s),
        }
    }

    /// An approximate solution of `(G + damping I) d = -g`.
    fn conjugate_gradients(&self, oracle: &mut Oracle<'_>, matrix: &dyn CurvatureMatrix) -> Result<Vector> {
        let mut r = self.descent.gradient().clone();
        let mut p = r.clone();
        p.scale(-1.0);
        let mut d = r.zeros_like();
        let mut product = r.zeros_like();
        let mut rr = r.dot(&r);
        let norm = rr.sqrt();
        let goal = self.forcing.min(norm.sqrt()) * norm;
        let mut iterations = 0;
        while iterations < self.cg_iterations && rr.sqrt() > goal {
            oracle.multiply(matrix, &p, &mut product)?;
            product.axpy(self.damping, &p);
            let curvature = p.dot(&product);
            if curvature.is_nan() || curvature <= 0.0 {
                break;
            }
            iterations += 1;
            let step = rr / curvature;
            d.axpy(step, &p);
            r.axpy(step, &product);
            let next = r.dot(&r);
            p.axpby(next / rr, -1.0, &r);
            rr = next;
        }
        oracle.note("cg_iterations", iterations as f64);
        if iterations == 0 {
            d.axpby(0.0, -1.0, self.descent.gradient());
        }
        Ok(d)
    }
}

impl Optimizer for NewtonCg {
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let begun = self.descent.begin(oracle, parameters)?;
        if begun != Step::Continue {
            return Ok(begun);
        }
        let batch = (self.curvature_rows > 0 && self.curvature_rows < oracle.rows())
            .then(|| oracle.draw_rows(self.curvature_rows));
        let matrix = oracle.curvature(parameters, batch.as_ref().map_or(Rows::All, Rows::Batch))?;
        let direction = self.conjugate_gradients(oracle, &*matrix)?;
        let slope = direction.dot(self.descent.gradient());
        let line = Line { origin: parameters, direction: &direction, value: self.descent.value(), slope };
        let Some(found) = line.backtrack(oracle)? else { return Ok(no_lower_point()) };
        let (_, outcome) = self.descent.advance(oracle, parameters, &direction, found)?;
        Ok(outcome)
    }

    fn promises(&self, _: &Size<'_>) -> Promises {
        // The gradient at the start, a product an iteration (a gradient's forward and backward pass, and the tangent's), and
        // halvings of the step.
        let evaluations = 2.0 - SHORTEST_STEP.log2();
        Promises { convex_gap: 1e-8, step_gradients: Some(1.0 + 2.0 * (self.cg_iterations as f64 + 1.0) + evaluations) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.descent.visit_state(visitor);
    }
}
