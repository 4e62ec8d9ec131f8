//! Hessian-free optimization: truncated Newton by conjugate gradients on Gauss-Newton products.
//!
//! Martens 2010, with the recipe of its demonstration code. Each step takes the gradient `g` on all rows and a
//! Gauss-Newton matrix `G` on a curvature batch, and minimizes `phi(d) = d'(G + lambda I)d/2 + g'd` by preconditioned
//! conjugate gradients:
//! - start from a share (0.95) of the last solution (section 4.8);
//! - stop after `i` iterations when `phi < 0` and the last `k = max(10, ceil(i/10))` of them lowered `phi` by less than
//!   `5e-4 k |phi|` (section 4.4), or when a direction has no positive curvature;
//! - precondition with `(mean squared gradient + weight decay + lambda)^0.75` (section 4.7);
//! - keep iterates at growing intervals and walk back while the objective improves (section 4.6);
//! - adapt `lambda` by the ratio of actual to predicted fall, predicted without damping (section 4.1);
//! - line search with Armijo's condition, or reject the step (section 4.6).

use super::{Optimizer, OptimizerEntry, Promises, Size, StateVisitor, Step};
use crate::error::Result;
use crate::oracle::{Batch, Capability, CurvatureMatrix, Oracle, Rows, Setting, Settings, Vector};

/// The registered optimizer.
pub const ENTRY: OptimizerEntry = OptimizerEntry {
    name: "hessian-free",
    summary: "truncated Newton: conjugate gradients on Gauss-Newton products, with adaptive damping",
    paper: "Martens 2010; Martens and Sutskever 2012",
    needs: &[Capability::Value, Capability::Gradient, Capability::CurvatureProduct, Capability::SquaredGradients],
    stochastic: true,
    settings: &[
        Setting::real("damping", "1", 0.0, f64::INFINITY, "lambda at the start").log().search(1e-3, 100.0),
        Setting::choice(
            "damping_rule",
            "levenberg-marquardt",
            &["levenberg-marquardt", "constant"],
            "adapt lambda by the reduction ratio, or keep it",
        ),
        Setting::whole("cg_iterations", "250", 1, 100_000, "at most this many conjugate-gradient iterations a step")
            .log()
            .search(10.0, 250.0),
        Setting::real("cg_start", "0.95", 0.0, 1.0, "share of the last solution that CG starts from"),
        Setting::real("cg_tolerance", "5e-4", 0.0, 1.0, "relative progress of phi per iteration that ends CG").log(),
        Setting::switch("preconditioner", "true", "precondition by the mean squared gradient"),
        Setting::real("preconditioner_exponent", "0.75", 0.0, 1.0, "power of the preconditioner"),
        Setting::whole("curvature_rows", "0", 0, 1 << 40, "rows of the curvature batch, drawn each step; 0: all"),
        Setting::switch("backtracking", "true", "walk back through CG iterates while the objective improves"),
        Setting::whole("backtracking_rows", "0", 0, 1 << 40, "rows on which steps are compared, drawn once; 0: all"),
        Setting::switch("line_search", "true", "shorten the step until Armijo's condition holds"),
        Setting::real("tolerance", "1e-9", 0.0, 1.0, "converged when the gradient's largest element is below this")
            .log(),
    ],
    build: |s| Ok(Box::new(HessianFree::new(s))),
};

/// Iterates are kept at about `5 * 1.3^j`.
const FIRST_KEPT: f64 = 5.0;
const KEPT_RATIO: f64 = 1.3;
/// Armijo's constant, the factor of a reduction and the number of them.
const ARMIJO: f64 = 1e-2;
const REDUCTION: f64 = 0.8;
const REDUCTIONS: usize = 60;
/// So many rejected steps in a row end the fit.
const MOST_REJECTED: u64 = 20;
/// A predicted fall below this share of the objective is rounding.
const ROUNDING: f64 = 1e-13;

struct HessianFree {
    damping: f64,
    adaptive: bool,
    cg_iterations: usize,
    cg_start: f64,
    cg_tolerance: f64,
    preconditioner: Option<f64>,
    curvature_rows: usize,
    backtracking: bool,
    backtracking_rows: usize,
    line_search: bool,
    tolerance: f64,
    /// The last step's final CG iterate.
    last: Vec<Vector>,
    /// Row numbers of the batch on which steps are compared; empty: all rows.
    comparison: Vec<f64>,
    rejected: u64,
}

/// A CG iterate with `phi` at it.
struct Kept {
    d: Vector,
    phi: f64,
}

impl HessianFree {
    fn new(s: &Settings) -> Self {
        Self {
            damping: s.real("damping"),
            adaptive: s.word("damping_rule") == "levenberg-marquardt",
            cg_iterations: s.whole("cg_iterations"),
            cg_start: s.real("cg_start"),
            cg_tolerance: s.real("cg_tolerance"),
            preconditioner: s.switch("preconditioner").then(|| s.real("preconditioner_exponent")),
            curvature_rows: s.whole("curvature_rows"),
            backtracking: s.switch("backtracking"),
            backtracking_rows: s.whole("backtracking_rows"),
            line_search: s.switch("line_search"),
            tolerance: s.real("tolerance"),
            last: Vec::new(),
            comparison: Vec::new(),
            rejected: 0,
        }
    }

    /// Minimizes `phi` by preconditioned conjugate gradients; the kept iterates, the final one last.
    fn conjugate_gradients(
        &self,
        oracle: &mut Oracle<'_>,
        matrix: &dyn CurvatureMatrix,
        gradient: &Vector,
        preconditioner: Option<&Vector>,
        start: Vector,
    ) -> Result<(Vec<Kept>, usize)> {
        // r = A d - b with b = -g, so that phi = d'(r - b)/2.
        let mut d = start;
        let mut product = d.zeros_like();
        let mut r = gradient.clone();
        if d.norm() > 0.0 {
            self.damped_product(oracle, matrix, &d, &mut product)?;
            r.axpy(1.0, &product);
        }
        let precondition = |r: &Vector| {
            let mut y = r.clone();
            if let Some(m) = preconditioner {
                y.divide(m);
            }
            y
        };
        let phi = |d: &Vector, r: &Vector| 0.5 * (d.dot(r) + d.dot(gradient));
        let mut y = precondition(&r);
        let mut p = y.clone();
        p.scale(-1.0);
        let mut ry = r.dot(&y);
        let mut history = vec![phi(&d, &r)];
        let mut kept: Vec<Kept> = Vec::new();
        let mut next_kept = FIRST_KEPT;
        let mut iterations = 0;
        for i in 1..=self.cg_iterations {
            if ry <= 0.0 || !ry.is_finite() {
                break;
            }
            self.damped_product(oracle, matrix, &p, &mut product)?;
            let curvature = p.dot(&product);
            if curvature.is_nan() || curvature <= 0.0 {
                break;
            }
            let step = ry / curvature;
            d.axpy(step, &p);
            r.axpy(step, &product);
            y = precondition(&r);
            let next = r.dot(&y);
            p.axpby(next / ry, -1.0, &y);
            ry = next;
            iterations = i;
            let now = phi(&d, &r);
            history.push(now);
            let k = (i.div_ceil(10)).max(10);
            let stalled = i > k && now < 0.0 && (now - history[i - k]) / now < self.cg_tolerance * k as f64;
            if stalled {
                break;
            }
            if i as f64 >= next_kept.ceil() {
                kept.push(Kept { d: d.clone(), phi: now });
                next_kept *= KEPT_RATIO;
            }
        }
        let now = phi(&d, &r);
        if kept.last().is_none_or(|k| k.d != d) {
            kept.push(Kept { d, phi: now });
        }
        Ok((kept, iterations))
    }

    /// Counts a rejected step.
    fn reject(&mut self) -> Result<Step> {
        self.rejected += 1;
        Ok(match self.rejected {
            MOST_REJECTED.. => Step::Stopped(format!("{MOST_REJECTED} steps in a row were rejected")),
            _ => Step::Continue,
        })
    }

    fn damped_product(
        &self,
        oracle: &mut Oracle<'_>,
        matrix: &dyn CurvatureMatrix,
        v: &Vector,
        product: &mut Vector,
    ) -> Result<()> {
        oracle.multiply(matrix, v, product)?;
        product.axpy(self.damping, v);
        Ok(())
    }
}

fn moved(parameters: &Vector, step: f64, d: &Vector) -> Vector {
    let mut at = parameters.clone();
    at.axpy(step, d);
    at
}

impl Optimizer for HessianFree {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        self.last = vec![parameters.zeros_like()];
        if self.backtracking_rows > 0 && self.backtracking_rows < oracle.rows() {
            let batch = oracle.draw_rows(self.backtracking_rows);
            self.comparison = batch.rows().iter().map(|&r| f64::from(r)).collect();
        }
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let mut gradient = parameters.zeros_like();
        let value = oracle.value_and_gradient(parameters, Rows::All, &mut gradient)?;
        oracle.finite("the objective", value)?;
        let largest = oracle.finite("the gradient", gradient.norm_max())?;
        oracle.note("gradient_norm", largest);
        if largest <= self.tolerance {
            return Ok(Step::Converged(format!("gradient {largest:.1e}")));
        }
        let comparison = Batch::new(self.comparison.iter().map(|&r| r as u32).collect());
        let compared = if comparison.is_empty() { Rows::All } else { Rows::Batch(&comparison) };
        let here = if comparison.is_empty() { value } else { oracle.value(parameters, compared)? };

        let batch = (self.curvature_rows > 0 && self.curvature_rows < oracle.rows())
            .then(|| oracle.draw_rows(self.curvature_rows));
        let rows = batch.as_ref().map_or(Rows::All, Rows::Batch);
        let preconditioner = match self.preconditioner {
            None => None,
            Some(exponent) => {
                let mut squares = parameters.zeros_like();
                oracle.mean_squared_gradient(parameters, rows, &mut squares)?;
                squares.shifted_power(self.damping, exponent);
                Some(squares)
            }
        };
        let matrix = oracle.curvature(parameters, rows)?;
        let mut start = self.last.first().cloned().unwrap_or_else(|| parameters.zeros_like());
        start.scale(self.cg_start);
        let (kept, iterations) =
            self.conjugate_gradients(oracle, &*matrix, &gradient, preconditioner.as_ref(), start)?;
        oracle.note("cg_iterations", iterations as f64);

        // Walk back through the kept iterates while the objective improves.
        let mut chosen = kept.len() - 1;
        let mut best = oracle.value(&moved(parameters, 1.0, &kept[chosen].d), compared)?;
        while self.backtracking && chosen > 0 {
            let earlier = oracle.value(&moved(parameters, 1.0, &kept[chosen - 1].d), compared)?;
            if earlier.is_nan() || (best.is_finite() && earlier >= best) {
                break;
            }
            best = earlier;
            chosen -= 1;
        }
        let d = &kept[chosen].d;
        let predicted = kept[chosen].phi - 0.5 * self.damping * d.dot(d);
        if predicted.abs() <= ROUNDING * value.abs() {
            return Ok(Step::Stopped(format!(
                "the predicted change {predicted:.1e} is below the rounding of the sums"
            )));
        }
        if predicted > 0.0 {
            // CG was stopped before it had undone what its start brings along: more damping, and a start from zero.
            self.damping *= 1.5;
            self.last = vec![parameters.zeros_like()];
            oracle.note("step_size", 0.0);
            return self.reject();
        }
        let ratio = (best - here) / predicted;
        if self.adaptive {
            // A NaN or an increase is the clearest sign of too little damping.
            if ratio.is_nan() || ratio < 0.25 {
                self.damping = (self.damping * 1.5).max(1e-12);
            } else if ratio > 0.75 {
                self.damping *= 2.0 / 3.0;
            }
        }
        let slope = gradient.dot(d);
        let mut step = 1.0;
        let mut reached = best;
        if self.line_search {
            for _ in 0..REDUCTIONS {
                if reached <= here + ARMIJO * step * slope {
                    break;
                }
                step *= REDUCTION;
                reached = oracle.value(&moved(parameters, step, d), compared)?;
            }
        }
        let accepted = reached < here;
        for (name, value) in [
            ("damping", self.damping),
            ("reduction_ratio", ratio),
            ("step_size", if accepted { step } else { 0.0 }),
            ("products", oracle.counters().products as f64),
        ] {
            oracle.note(name, value);
        }
        if accepted {
            parameters.axpy(step, d);
            self.rejected = 0;
        } else if let stopped @ Step::Stopped(_) = self.reject()? {
            return Ok(stopped);
        }
        self.last = vec![kept.into_iter().next_back().expect("CG keeps its final iterate").d];
        Ok(Step::Continue)
    }

    fn promises(&self, _: &Size<'_>) -> Promises {
        // The gradient and its squares, a product an iteration (a forward and a backward pass more than a gradient's), and
        // values: of the kept iterates and along the line.
        let products = 2.0 * (self.cg_iterations as f64 + 1.0);
        let kept = (self.cg_iterations as f64).ln() / KEPT_RATIO.ln() + 2.0;
        Promises { convex_gap: 1e-8, step_gradients: Some(2.0 + products + kept + REDUCTIONS as f64 + 2.0) }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.number("damping", &mut self.damping);
        visitor.vectors("last", &mut self.last);
        visitor.numbers("comparison", &mut self.comparison);
        visitor.count("rejected", &mut self.rejected);
    }
}
