//! Nonlinear conjugate gradients: Polak and Ribière's directions, restarted, with a line search under the strong Wolfe
//! conditions.
//!
//! `d = -g + beta d` with `beta = max(0, g'(g - g_last) / g_last'g_last)` (PR+: Nocedal and Wright 2006, equations 5.44 and 5.45;
//! Gilbert and Nocedal 1992). The method begins anew with `d = -g` when successive gradients are far from orthogonal,
//! `|g'g_last| >= nu g'g` (their equation 5.52), or when `d` does not point downhill. The search begins with the step that would
//! repeat the last first-order change, `t_last s_last / s` (their section 3.5), `s` the slope; the first one with
//! `min(1, 1/|g|_1)`. Value and gradient are those of all rows.

use super::descent::{Descent, TOLERANCE, no_lower_point};
use super::l_bfgs::first_step;
use super::line_search::{Line, MOST_EVALUATIONS};
use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Capability, Oracle, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "nonlinear-cg",
    summary: "conjugate gradients without a matrix: Polak-Ribière+ with restarts, strong Wolfe line search",
    paper: "Polak and Ribière 1969; Gilbert and Nocedal 1992; Nocedal and Wright 2006, section 5.2",
    needs: &[Capability::Gradient],
    stochastic: false,
    settings: &[
        Setting::real("restart", "0.1", 0.0, f64::INFINITY, "nu: begin anew when |g'g_last| >= nu g'g").log(),
        Setting::real(
            "curvature",
            "0.1",
            1e-3,
            0.499,
            "c2: the slope at a step's end, as a share of that at its start",
        ),
        TOLERANCE,
    ],
    build: |s| Ok(Box::new(NonlinearCg::new(s))),
};

struct NonlinearCg {
    restart: f64,
    curvature: f64,
    descent: Descent,
    /// The next direction, and the first step to try along it; none before the first step and after a failed search.
    direction: Vec<Vector>,
    first: f64,
}

impl NonlinearCg {
    fn new(s: &Settings) -> Self {
        Self {
            restart: s.real("restart"),
            curvature: s.real("curvature"),
            descent: Descent::new(s),
            direction: Vec::new(),
            first: 0.0,
        }
    }

    /// Turns the direction at a new point, of which `left` is the gradient at the one before.
    fn turn(&mut self, left: &Vector, direction: Vector, change: f64) {
        let gradient = self.descent.gradient();
        let (own, across) = (gradient.dot(gradient), gradient.dot(left));
        let beta = if across.abs() >= self.restart * own { 0.0 } else { ((own - across) / left.dot(left)).max(0.0) };
        let mut next = direction;
        next.axpby(beta, -1.0, gradient);
        let mut slope = next.dot(gradient);
        if slope.is_nan() || slope >= 0.0 {
            next.axpby(0.0, -1.0, gradient);
            slope = -own;
        }
        self.first = change / slope;
        self.direction = vec![next];
    }
}

impl Optimizer for NonlinearCg {
    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let begun = self.descent.begin(oracle, parameters)?;
        if begun != Step::Continue {
            return Ok(begun);
        }
        let gradient = self.descent.gradient();
        let is_steepest = self.direction.is_empty();
        let direction = self.direction.pop().unwrap_or_else(|| {
            self.first = first_step(gradient);
            let mut steepest = gradient.clone();
            steepest.scale(-1.0);
            steepest
        });
        let slope = direction.dot(gradient);
        let line = Line { origin: parameters, direction: &direction, value: self.descent.value(), slope };
        let Some(found) = line.strong_wolfe(oracle, self.first, self.curvature)? else {
            return Ok(if is_steepest { no_lower_point() } else { Step::Continue });
        };
        let change = found.step * slope;
        let (left, outcome) = self.descent.advance(oracle, parameters, &direction, found)?;
        self.turn(&left, direction, change);
        Ok(outcome)
    }

    fn promises(&self, _: &Size<'_>) -> Promises {
        // The first step begins with the gradient at the start.
        Promises { convex_gap: 1e-8, step_gradients: Some(1.0 + MOST_EVALUATIONS as f64) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        self.descent.visit_state(visitor);
        visitor.vectors("direction", &mut self.direction);
        visitor.number("first", &mut self.first);
    }
}
