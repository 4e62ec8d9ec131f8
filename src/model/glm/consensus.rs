//! Consensus splitting of generalized linear models: local proximal steps on blocks of consecutive rows, and the
//! proximal map of the regularizer (Boyd et al. 2011, section 8).
//!
//! `argmin_x f_part(x) + rho/2 |x - anchor|^2` by Newton's method: with the dense Hessian where it is small, else with
//! conjugate gradients on its products.

use super::{Glm, Regularizer};
use crate::device::cpu::linalg::ScaledCholesky;
use crate::error::Result;
use crate::oracle::{Consensus, Cost, Curvature, Gradient, Rows, Vector};
use ndarray::Array1;

/// Up to this many coefficients a local proximal step uses Newton's method with the dense Hessian, beyond it conjugate
/// gradients.
const DENSE_PROXIMAL_LIMIT: usize = 512;

/// Newton steps, halvings included, of one local proximal step.
const PROXIMAL_STEPS: usize = 12;

/// Conjugate-gradient steps of one inexact Newton direction.
const PROXIMAL_CG_STEPS: usize = 30;

/// A change of the objective by this share of it may be the rounding of its sums in `f32`.
const ROUNDING: f64 = 1e-7;

impl Consensus for Glm {
    fn proximal_step(
        &self,
        part: usize,
        of: usize,
        anchor: &Vector,
        rho: f64,
        tolerance: f64,
        x: &mut Vector,
    ) -> Result<Cost> {
        let rows = Rows::Part { index: part, of };
        let mut cost = Cost::default();
        let p = self.layout.len();
        let coordinates: Vec<usize> = (0..p).collect();
        let mut accepted = f64::INFINITY;
        let mut last_norm = f64::INFINITY;
        let mut previous = x.clone();
        let mut direction = x.zeros_like();
        // Newton's method; each pass gives value, gradient and Hessian, so a step is judged by the next pass.
        for steps_left in (0..=PROXIMAL_STEPS).rev() {
            let (value, mut gradient, hessian) = if p <= DENSE_PROXIMAL_LIMIT {
                let (sums, information, pass_cost) = self.information(x, rows, self.high)?;
                cost += pass_cost;
                let gradient: Vec<f64> = sums.gradient.iter().map(|g| g / self.train.rows() as f64).collect();
                (sums.loss / self.train.rows() as f64, Vector::from_values(&self.layout, gradient)?, Some(information))
            } else {
                let mut gradient = x.zeros_like();
                let answer = self.value_and_gradient(x, rows, &mut gradient)?;
                cost += answer.cost;
                (answer.value, gradient, None)
            };
            let mut offset = x.clone();
            offset.axpy(-1.0, anchor);
            let value = value + 0.5 * rho * offset.dot(&offset);
            gradient.axpy(rho, &offset);
            if !value.is_finite() || value > accepted + ROUNDING * accepted.abs() {
                // The objective rose: halve the way back towards the last accepted point.
                direction.scale(0.5);
                x.copy_from(&previous);
                if steps_left > 0 {
                    x.axpy(1.0, &direction);
                }
                continue;
            }
            // Where steps no longer lower the objective visibly and the gradient has stopped falling, both are rounding.
            let norm = gradient.norm();
            let stalled = accepted - value <= ROUNDING * value.abs() && norm > 0.5 * last_norm;
            if norm <= tolerance || stalled || steps_left == 0 {
                break;
            }
            accepted = value;
            last_norm = norm;
            direction = match hessian {
                Some(mut hessian) => {
                    hessian.diag_mut().mapv_inplace(|v| v + rho);
                    cost.flops += (p as f64).powi(3) / 3.0;
                    let factor = ScaledCholesky::new(&hessian, &coordinates)?;
                    let step = factor.solve(Array1::from(gradient.host().to_vec()).view())?;
                    Vector::from_values(&self.layout, step.iter().map(|s| -s).collect())?
                }
                None => self.proximal_newton_cg(x, rows, rho, &gradient, &mut cost)?,
            };
            previous.copy_from(x);
            x.axpy(1.0, &direction);
        }
        Ok(cost)
    }

    fn proximal_regularizer(&self, weight: f64, v: &mut Vector) {
        let regularizer = self.regularizer;
        for (i, v) in v.host_mut().iter_mut().enumerate() {
            if self.is_penalized(i) {
                *v = match regularizer {
                    Regularizer::None => *v,
                    Regularizer::Ridge(strength) => *v * weight / (weight + strength),
                    Regularizer::L1(strength) => v.signum() * (v.abs() - strength / weight).max(0.0),
                };
            }
        }
    }
}

impl Glm {
    /// Solves `(H + rho I) d = -gradient` by conjugate gradients to a tenth of the gradient's norm.
    fn proximal_newton_cg(
        &self,
        x: &Vector,
        rows: Rows<'_>,
        rho: f64,
        gradient: &Vector,
        cost: &mut Cost,
    ) -> Result<Vector> {
        let matrix = self.curvature_at(x, rows)?;
        *cost += matrix.cost;
        let mut d = gradient.zeros_like();
        let mut r = gradient.clone();
        r.scale(-1.0);
        let mut p = r.clone();
        let mut product = r.zeros_like();
        let mut rr = r.dot(&r);
        let goal = 0.01 * rr;
        for _ in 0..PROXIMAL_CG_STEPS {
            *cost += matrix.value.multiply(&p, &mut product)?;
            product.axpy(rho, &p);
            let curvature = p.dot(&product);
            if curvature <= 0.0 {
                break;
            }
            let step = rr / curvature;
            d.axpy(step, &p);
            r.axpy(-step, &product);
            let next = r.dot(&r);
            if next <= goal {
                break;
            }
            p.axpby(next / rr, 1.0, &r);
            rr = next;
        }
        Ok(d)
    }
}
