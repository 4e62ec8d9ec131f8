//! The alternating direction method of multipliers, in consensus form over blocks of rows.
//!
//! Boyd et al. 2011, section 8, in scaled form, for `min sum_i f_i(x_i) + R(z)` with `x_i = z`:
//! `x_i = argmin f_i(x) + rho/2 |x - z + u_i|^2`, `z = prox of R at mean(x_i + u_i)`, `u_i += x_i - z`, where `x_i` is
//! replaced by `alpha x_i + (1 - alpha) z` in the last two (over-relaxation, section 3.4.3). The penalty follows
//! the balance of primal and dual residuals (section 3.4.1); when `rho` changes, `u` is rescaled by old/new.

use crate::error::Result;
use crate::optim::{Optimizer, Promises, Size, StateVisitor, Step};
use crate::oracle::{Oracle, Settings, Vector};

/// Local gradients need not be smaller than this, unless the residuals asked for are.
const LOCAL_FLOOR: f64 = 1e-10;

/// The penalty stays within this factor of where it started: further off, local problems are all penalty or none.
const PENALTY_RANGE: f64 = 1e12;

pub(super) struct Admm {
    parts: usize,
    rho: f64,
    /// The penalty at the start.
    first_rho: f64,
    relaxation: f64,
    balance: Option<(f64, f64)>,
    absolute: f64,
    relative: f64,
    local_accuracy: f64,
    /// `x_i`, one a part.
    local: Vec<Vector>,
    /// Scaled multipliers `u_i`, one a part.
    multipliers: Vec<Vector>,
    primal: f64,
    dual: f64,
}

impl Admm {
    pub fn new(s: &Settings) -> Self {
        let parts = s.whole("parts");
        Self {
            parts,
            rho: s.real("rho") / parts as f64,
            first_rho: s.real("rho") / parts as f64,
            relaxation: s.real("relaxation"),
            balance: s.switch("balance").then(|| (s.real("balance_ratio"), s.real("balance_factor"))),
            absolute: s.real("absolute_tolerance"),
            relative: s.real("relative_tolerance"),
            local_accuracy: s.real("local_accuracy"),
            local: Vec::new(),
            multipliers: Vec::new(),
            primal: f64::INFINITY,
            dual: f64::INFINITY,
        }
    }
}

impl Optimizer for Admm {
    fn start(&mut self, oracle: &mut Oracle<'_>, parameters: &Vector) -> Result<()> {
        let parts = self.parts.min(oracle.rows());
        self.rho *= self.parts as f64 / parts as f64;
        self.first_rho = self.rho;
        self.parts = parts;
        self.local = vec![parameters.clone(); parts];
        self.multipliers = vec![parameters.zeros_like(); parts];
        Ok(())
    }

    fn step(&mut self, oracle: &mut Oracle<'_>, parameters: &mut Vector) -> Result<Step> {
        let parts = self.parts as f64;
        // The first local problems are far from their solution; later ones follow the residuals down.
        let residual = self.primal.min(self.dual).min(1.0) / parts.sqrt();
        let tolerance =
            (self.local_accuracy * self.rho * residual).max(LOCAL_FLOOR.min(self.absolute * self.rho) / parts);
        let old = parameters.clone();
        let mut mean = parameters.zeros_like();
        for (part, (x, u)) in self.local.iter_mut().zip(&self.multipliers).enumerate() {
            let mut anchor = old.clone();
            anchor.axpy(-1.0, u);
            oracle.proximal_step(part, self.parts, &anchor, self.rho, tolerance, x)?;
            mean.axpy(self.relaxation / parts, x);
            mean.axpy(1.0 / parts, u);
        }
        mean.axpy(1.0 - self.relaxation, &old);
        oracle.proximal_regularizer(parts * self.rho, &mut mean)?;
        parameters.copy_from(&mean);

        let (mut primal, mut local_norm, mut multiplier_norm) = (0.0, 0.0, 0.0);
        for (x, u) in self.local.iter().zip(&mut self.multipliers) {
            let mut gap = x.clone();
            gap.axpy(-1.0, parameters);
            primal += gap.dot(&gap);
            local_norm += x.dot(x);
            u.axpy(self.relaxation, x);
            u.axpy(1.0 - self.relaxation, &old);
            u.axpy(-1.0, parameters);
            multiplier_norm += u.dot(u);
        }
        let mut change = parameters.clone();
        change.axpy(-1.0, &old);
        self.primal = oracle.finite("the primal residual", primal.sqrt())?;
        self.dual = oracle.finite("the dual residual", self.rho * parts.sqrt() * change.norm())?;
        for (name, value) in [("primal_residual", self.primal), ("dual_residual", self.dual), ("rho", self.rho)] {
            oracle.note(name, value);
        }
        let elements = (parts * parameters.len() as f64).sqrt();
        let primal_scale = local_norm.sqrt().max(parts.sqrt() * parameters.norm());
        let primal_limit = elements * self.absolute + self.relative * primal_scale;
        let dual_limit = elements * self.absolute + self.relative * self.rho * multiplier_norm.sqrt();
        if self.primal <= primal_limit && self.dual <= dual_limit {
            let reason = format!("primal residual {:.1e}, dual residual {:.1e}", self.primal, self.dual);
            return Ok(Step::Converged(reason));
        }
        if let Some((ratio, factor)) = self.balance {
            // Residuals are compared relative to what they are measured against (Wohlberg 2017).
            let primal = self.primal / primal_scale.max(f64::MIN_POSITIVE);
            let dual = self.dual / (self.rho * multiplier_norm.sqrt()).max(f64::MIN_POSITIVE);
            // Multipliers at zero (a single block, no regularizer) make no measure for the dual residual.
            let balanced = self.rho * multiplier_norm.sqrt() <= f64::EPSILON * primal_scale;
            let change = if balanced {
                1.0
            } else if primal > ratio * dual {
                factor
            } else if dual > ratio * primal {
                1.0 / factor
            } else {
                1.0
            };
            let old = self.rho;
            self.rho = (old * change).clamp(self.first_rho / PENALTY_RANGE, self.first_rho * PENALTY_RANGE);
            for u in &mut self.multipliers {
                u.scale(old / self.rho);
            }
        }
        Ok(Step::Continue)
    }

    fn promises(&self, _: &Size<'_>) -> Promises {
        // Local problems are solved to a tolerance: nothing bounds their work beforehand.
        Promises { convex_gap: 1e-8, step_gradients: None }
    }

    fn visit_state(&mut self, visitor: &mut dyn StateVisitor) {
        visitor.vectors("local", &mut self.local);
        visitor.vectors("multipliers", &mut self.multipliers);
        visitor.number("rho", &mut self.rho);
        visitor.number("primal", &mut self.primal);
        visitor.number("dual", &mut self.dual);
    }
}
