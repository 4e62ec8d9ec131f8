//! Products with the Gauss-Newton matrix `sum_i J_i' H_i J_i` of a generalized linear model over a design.
//!
//! `J_i v` are linear predictors, `H_i` the Hessian of a row's loss in them: `p (1-p)` (binary), `diag(p) - p p'` or 1 (Gaussian). What
//! `H_i` needs is formed once at a point ([`CurvatureWeights::at`]) and kept for many products.

use super::design::{Design, Selection, map_selection};
use super::glm::{Likelihood, Work, add_products, as_stored, binary_rows, gaussian_rows, multinomial_rows, predictors};
use super::real::Real;
use crate::device::PANEL_ROWS;
use pulp::{Arch, Simd, WithSimd};

/// Per-row weights of the Gauss-Newton matrix at a point, kept for many products.
#[derive(Debug, Clone)]
pub struct CurvatureWeights {
    likelihood: Likelihood,
    high: bool,
    /// Chunk by chunk in the order of [`map_selection`], tile by tile: `C x PANEL_ROWS` weights (one predictor) or
    /// probabilities (several classes).
    chunks: Vec<Weights>,
}

#[derive(Debug, Clone)]
enum Weights {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

struct FormWeights<'a, T> {
    design: &'a Design,
    likelihood: Likelihood,
    theta: &'a [f64],
    selection: Selection<'a>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for FormWeights<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<T> {
        let outputs = self.likelihood.outputs();
        let mut work = Work::<T>::new(self.design, outputs, self.theta);
        let mut weights = Vec::with_capacity(outputs * self.selection.len().next_multiple_of(PANEL_ROWS));
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            predictors::<T, S>(simd, &work.theta, self.design.view(tile), &mut work.eta);
            match self.likelihood {
                Likelihood::Binary => {
                    binary_rows::<T, S>(&mut work, tile);
                    weights.extend_from_slice(&work.weight);
                }
                Likelihood::Gaussian => {
                    gaussian_rows(&mut work, tile);
                    weights.extend_from_slice(&work.weight);
                }
                Likelihood::Multinomial { reference, .. } => {
                    multinomial_rows::<T, S>(&mut work, tile, reference);
                    weights.extend_from_slice(&work.eta);
                }
            }
        }
        weights
    }
}

struct Product<'a, T> {
    design: &'a Design,
    likelihood: Likelihood,
    weights: &'a [T],
    v: &'a [f64],
    selection: Selection<'a>,
}

impl<T: Real> WithSimd for Product<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let outputs = self.likelihood.outputs();
        let columns = self.design.columns();
        let mut work = Work::<T>::new(self.design, outputs, self.v);
        let mut sums = vec![0.0; outputs * columns];
        let mut weights = self.weights.chunks_exact(outputs * PANEL_ROWS);
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            let Some(p) = weights.next() else { break };
            let z = self.design.view(tile);
            predictors::<T, S>(simd, &work.theta, z, &mut work.eta);
            if !matches!(self.likelihood, Likelihood::Multinomial { .. }) {
                for ((out, &p), &t) in work.residual.iter_mut().zip(p).zip(work.eta.iter()) {
                    *out = p * t;
                }
            } else {
                // J' (diag(p) - p p') J v: what is multiplied is p_c (t_c - sum_k p_k t_k).
                let mut mean = [T::default(); PANEL_ROWS];
                for (p, t) in p.chunks_exact(PANEL_ROWS).zip(work.eta.chunks_exact(PANEL_ROWS)) {
                    for i in 0..PANEL_ROWS {
                        mean[i] = T::fma::<S>(p[i], t[i], mean[i]);
                    }
                }
                for c in 0..outputs {
                    let (p, t) = (&p[c * PANEL_ROWS..][..PANEL_ROWS], &work.eta[c * PANEL_ROWS..][..PANEL_ROWS]);
                    let out = &mut work.residual[c * PANEL_ROWS..][..PANEL_ROWS];
                    for i in 0..PANEL_ROWS {
                        out[i] = p[i] * (t[i] - mean[i]);
                    }
                }
            }
            add_products(simd, &work.residual, z, &mut work.product, &mut sums);
        }
        sums
    }
}

/// The weights of every chunk.
fn form<T: Real>(design: &Design, likelihood: Likelihood, theta: &[f64], selection: Selection<'_>) -> Vec<Vec<T>> {
    map_selection(selection, |_, selection| {
        let kind = std::marker::PhantomData;
        Arch::new().dispatch(FormWeights { design, likelihood, theta, selection, kind })
    })
}

impl CurvatureWeights {
    /// The weights at `theta` of the rows of `selection`.
    #[must_use]
    pub fn at(design: &Design, likelihood: Likelihood, theta: &[f64], selection: Selection<'_>, high: bool) -> Self {
        let chunks = if high {
            form(design, likelihood, theta, selection).into_iter().map(Weights::Double).collect()
        } else {
            let weights = match as_stored(design, likelihood, high) {
                Some((stored, substitution)) => form(&stored, likelihood, &substitution.coefficients(theta), selection),
                None => form(design, likelihood, theta, selection),
            };
            weights.into_iter().map(Weights::Single).collect()
        };
        Self { likelihood, high, chunks }
    }

    /// `sum_i J_i' H_i J_i v` over the same rows, `C x D`.
    #[must_use]
    pub fn multiply(&self, design: &Design, v: &[f64], selection: Selection<'_>) -> Vec<f64> {
        match as_stored(design, self.likelihood, self.high) {
            Some((stored, substitution)) => {
                substitution.products(&self.sum(&stored, &substitution.coefficients(v), selection))
            }
            None => self.sum(design, v, selection),
        }
    }

    fn sum(&self, design: &Design, v: &[f64], selection: Selection<'_>) -> Vec<f64> {
        let likelihood = self.likelihood;
        let parts = map_selection(selection, |index, selection| match &self.chunks[index] {
            Weights::Single(weights) => Arch::new().dispatch(Product { design, likelihood, weights, v, selection }),
            Weights::Double(weights) => Arch::new().dispatch(Product { design, likelihood, weights, v, selection }),
        });
        let mut total = vec![0.0; likelihood.outputs() * design.columns()];
        for part in parts {
            total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::glm::tests::{LIKELIHOODS, close, derivative, design, theta};

    #[test]
    fn products_are_derivatives_of_the_gradient() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(700, classes);
            let theta = theta(likelihood.outputs() * design.columns());
            let v: Vec<f64> = theta.iter().rev().map(|t| t + 0.1).collect();
            let rows: Vec<u32> = (0..design.rows() as u32).step_by(3).collect();
            for selection in [Selection::Range(0, design.rows()), Selection::List(&rows)] {
                let weights = CurvatureWeights::at(&design, likelihood, &theta, selection, true);
                let product = weights.multiply(&design, &v, selection);
                close(&product, &derivative(&design, likelihood, &theta, &v, selection), 1e-8);
            }
        }
    }

    #[test]
    fn products_are_symmetric_and_not_negative() {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(700, classes);
            let all = Selection::Range(0, design.rows());
            let u = theta(likelihood.outputs() * design.columns());
            let v: Vec<f64> = u.iter().map(|u| (13.0 * u).sin()).collect();
            let weights = CurvatureWeights::at(&design, likelihood, &u, all, true);
            let (of_u, of_v) = (weights.multiply(&design, &u, all), weights.multiply(&design, &v, all));
            assert!((dot(&u, &of_v) - dot(&v, &of_u)).abs() < 1e-11 * dot(&u, &of_u));
            assert!(dot(&v, &of_v) >= 0.0);
        }
    }
}
