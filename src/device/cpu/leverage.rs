//! How much each row pulls at its own prediction: leverages and leave-one-out predictors of generalized linear models.
//!
//! Row `i` has the predictors `eta_i = J_i theta`, `J_i = I_C (x) z_i'`, and its loss the gradient `r_i` and the Hessian
//! `W_i` in them. With the information `M` of all rows, penalty included, and `V_i = J_i M^-1 J_i'`:
//! - leverage `h_i = tr(W_i V_i)`; over all rows they add up to the effective degrees of freedom `tr(M^-1 sum J'WJ)`;
//! - leave-one-out predictors `eta_i + (I - V_i W_i)^-1 V_i r_i`: where one Newton step on all other rows leads from the
//!   optimum (Rad and Maleki, arXiv 1801.10243). For a quadratic loss that is exact.
//!
//! `M^-1 = A'A` with `A` lower triangular, so `V_i` is the Gram matrix of the `C` columns of `A J_i'`. They are made a tile
//! of rows and a stripe of `A` at a time, in `f64`.

use super::buffer::Buffer;
use super::design::{Design, Selection};
use super::glm::Likelihood;
use super::parallel::map_chunks;
use crate::device::PANEL_ROWS;
use gemm::Parallelism;
use ndarray::{ArrayView2, s};
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// Rows of `A` multiplied at once: products of a tile stay in cache.
const STRIPE: usize = 64;

/// A pivot of `I - V W` below this is rounding: without the row, the optimum is not determined.
const SINGULAR: f64 = 1e-10;

/// Row by row, what [`influence`] finds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Influence {
    /// Leverages, `n`.
    pub leverages: Vec<f64>,
    /// Leave-one-out predictors, `n x C`; NaN where all other rows together do not determine them.
    pub left_out: Vec<f64>,
}

/// Leverages and leave-one-out predictors of all rows.
///
/// `eta` are the linear predictors, `n x C`; `factor` is `A`, with a row for each of the coordinates `free` (increasing)
/// and a column for each of the `C D` coordinates, zero where one is held.
#[must_use]
pub fn influence(
    design: &Design,
    likelihood: Likelihood,
    eta: &[f64],
    factor: ArrayView2<'_, f64>,
    free: &[usize],
) -> Influence {
    let outputs = likelihood.outputs();
    let starts: Vec<usize> =
        (0..outputs).map(|class| free.partition_point(|&i| i < class * design.columns())).collect();
    let factor = factor.as_standard_layout();
    let parts = map_chunks(0..design.rows(), |_, rows| {
        let eta = &eta[rows.start * outputs..rows.end * outputs];
        Arch::new().dispatch(Chunk { design, likelihood, eta, factor: factor.view(), starts: &starts, rows })
    });
    let mut all = Influence::default();
    for part in parts {
        all.leverages.extend(part.leverages);
        all.left_out.extend(part.left_out);
    }
    all
}

struct Chunk<'a> {
    design: &'a Design,
    likelihood: Likelihood,
    eta: &'a [f64],
    factor: ArrayView2<'a, f64>,
    /// The first row of `A` that belongs to a class: it and those below it meet the class's columns.
    starts: &'a [usize],
    rows: Range<usize>,
}

impl WithSimd for Chunk<'_> {
    type Output = Influence;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Influence {
        let outputs = self.starts.len();
        let mut influence = Influence::default();
        let mut tile = self.design.tile::<f64>();
        let mut products = Buffer::<f64>::new(outputs * STRIPE * PANEL_ROWS);
        let mut variances = Buffer::<f64>::new(outputs * outputs * PANEL_ROWS);
        let mut row = Row::new(self.likelihood);
        let mut eta = self.eta.chunks_exact(outputs);
        for span in self.design.spans(Selection::Range(self.rows.start, self.rows.end)) {
            self.design.fill(span, &mut tile);
            variances.fill(0.0);
            for first in (0..self.factor.nrows()).step_by(STRIPE) {
                let stripe = first..(first + STRIPE).min(self.factor.nrows());
                self.add_stripe(&tile.z, stripe, &mut products, &mut variances);
            }
            for (i, eta) in (0..tile.rows).zip(&mut eta) {
                for a in 0..outputs {
                    for b in 0..=a {
                        let v = variances[(a * outputs + b) * PANEL_ROWS + i];
                        (row.variances[a * outputs + b], row.variances[b * outputs + a]) = (v, v);
                    }
                }
                row.differentiate(eta, tile.y[i]);
                influence.leverages.push(row.leverage());
                influence.left_out.extend(row.leave_out(eta));
            }
        }
        influence
    }
}

impl Chunk<'_> {
    /// Adds what some rows of `A` contribute to the `V_i` of a tile: lower triangle, `C x C x PANEL_ROWS`.
    #[inline(always)]
    fn add_stripe(&self, z: &[f64], stripe: Range<usize>, products: &mut [f64], variances: &mut [f64]) {
        let (outputs, columns) = (self.starts.len(), self.design.columns());
        for (class, &start) in self.starts.iter().enumerate() {
            let first = start.max(stripe.start);
            if first >= stripe.end {
                break;
            }
            let block = self.factor.slice(s![first..stripe.end, class * columns..(class + 1) * columns]);
            let product = &mut products[(class * STRIPE + first - stripe.start) * PANEL_ROWS..];
            // SAFETY: the block lies in `factor`, `z` holds `columns` columns of PANEL_ROWS rows, and the product has
            // room for the stripe's rows.
            unsafe {
                gemm::gemm(
                    stripe.end - first,
                    PANEL_ROWS,
                    columns,
                    product.as_mut_ptr(),
                    1,
                    PANEL_ROWS as isize,
                    false,
                    block.as_ptr(),
                    1,
                    block.strides()[0],
                    z.as_ptr(),
                    1,
                    PANEL_ROWS as isize,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        }
        for (a, &start) in self.starts.iter().enumerate() {
            let rows = start.max(stripe.start)..stripe.end;
            for b in 0..=a {
                let sums = &mut variances[(a * outputs + b) * PANEL_ROWS..][..PANEL_ROWS];
                for row in rows.clone() {
                    let of_a = &products[(a * STRIPE + row - stripe.start) * PANEL_ROWS..][..PANEL_ROWS];
                    let of_b = &products[(b * STRIPE + row - stripe.start) * PANEL_ROWS..][..PANEL_ROWS];
                    for i in 0..PANEL_ROWS {
                        sums[i] += of_a[i] * of_b[i];
                    }
                }
            }
        }
    }
}

/// One row's matrices, `C x C`.
struct Row {
    likelihood: Likelihood,
    /// `V`.
    variances: Vec<f64>,
    /// `W`.
    weights: Vec<f64>,
    /// `r`.
    residuals: Vec<f64>,
    /// `I - V W`, one row after another, each with its element of `V r` behind it.
    system: Vec<f64>,
}

impl Row {
    fn new(likelihood: Likelihood) -> Self {
        let c = likelihood.outputs();
        let (square, row) = (vec![0.0; c * c], vec![0.0; c]);
        Self { likelihood, variances: square.clone(), weights: square, residuals: row, system: vec![0.0; c * (c + 1)] }
    }

    /// Gradient and Hessian of the loss in the predictors.
    fn differentiate(&mut self, eta: &[f64], y: f64) {
        match self.likelihood {
            Likelihood::Gaussian => (self.residuals[0], self.weights[0]) = (eta[0] - y, 1.0),
            Likelihood::Binary => {
                let e = (-eta[0].abs()).exp();
                let (low, high) = (e / (1.0 + e), 1.0 / (1.0 + e));
                let (p, q) = if eta[0] > 0.0 { (high, low) } else { (low, high) };
                self.residuals[0] = p * (1.0 - y) - q * y;
                self.weights[0] = p * q;
            }
            Likelihood::Multinomial { reference, .. } => {
                let c = eta.len();
                let largest = eta.iter().fold(if reference { 0.0 } else { f64::NEG_INFINITY }, |m: f64, v| m.max(*v));
                let of_reference = if reference { (-largest).exp() } else { 0.0 };
                let total = of_reference + eta.iter().map(|v| (v - largest).exp()).sum::<f64>();
                let p = &mut self.residuals;
                p.iter_mut().zip(eta).for_each(|(p, eta)| *p = (eta - largest).exp() / total);
                for a in 0..c {
                    for b in 0..c {
                        self.weights[a * c + b] = if a == b { p[a] * (1.0 - p[a]) } else { -p[a] * p[b] };
                    }
                }
                for (a, residual) in p.iter_mut().enumerate() {
                    if y == (a + usize::from(reference)) as f64 {
                        *residual -= 1.0;
                    }
                }
            }
        }
    }

    fn leverage(&self) -> f64 {
        self.weights.iter().zip(&self.variances).map(|(w, v)| w * v).sum()
    }

    /// `eta + (I - V W)^-1 V r`.
    fn leave_out<'a>(&'a mut self, eta: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let c = eta.len();
        let width = c + 1;
        for a in 0..c {
            let v = &self.variances[a * c..(a + 1) * c];
            for b in 0..c {
                let product = (0..c).map(|k| v[k] * self.weights[k * c + b]).sum::<f64>();
                self.system[a * width + b] = f64::from(u8::from(a == b)) - product;
            }
            self.system[a * width + c] = v.iter().zip(&self.residuals).map(|(v, r)| v * r).sum();
        }
        eliminate(&mut self.system, c);
        eta.iter().zip(self.system.iter().skip(c).step_by(width)).map(|(eta, change)| eta + change)
    }
}

/// Gauss-Jordan elimination with pivoting of `c` equations, each followed by its right-hand side: the solution stands in
/// the last column, NaN where the system is singular.
fn eliminate(system: &mut [f64], c: usize) {
    let width = c + 1;
    for k in 0..c {
        let pivot = (k..c).fold(
            k,
            |best, i| {
                if system[i * width + k].abs() > system[best * width + k].abs() { i } else { best }
            },
        );
        for j in 0..width {
            system.swap(k * width + j, pivot * width + j);
        }
        let scale = system[k * width + k];
        if scale.abs() <= SINGULAR {
            system.iter_mut().skip(c).step_by(width).for_each(|solution| *solution = f64::NAN);
            return;
        }
        for j in k..width {
            system[k * width + j] /= scale;
        }
        for i in (0..c).filter(|&i| i != k) {
            let factor = system[i * width + k];
            for j in k..width {
                system[i * width + j] -= factor * system[k * width + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::glm::tests::{LIKELIHOODS, close, design, theta};
    use crate::device::cpu::glm::{GramWeights, Request, linear_predictors, pass};
    use crate::device::cpu::linalg::ScaledCholesky;
    use ndarray::Array2;

    /// The information of the Gram blocks, and `A` over the free coordinates.
    fn factor(design: &Design, likelihood: Likelihood, theta: &[f64], free: &[usize]) -> (Array2<f64>, Array2<f64>) {
        let (c, d) = (likelihood.outputs(), design.columns());
        let mut information = Array2::zeros((c * d, c * d));
        for a in 0..c {
            for b in 0..=a {
                let request = Request { gradient: false, squares: false, gram: GramWeights::Information(a, b) };
                let sums = pass(design, likelihood, theta, Selection::Range(0, design.rows()), request, true);
                for j in 0..d {
                    for k in 0..=j {
                        for (row, column) in [(j, k), (k, j)] {
                            information[[a * d + row, b * d + column]] = sums.gram[j * d + k];
                            information[[b * d + row, a * d + column]] = sums.gram[j * d + k];
                        }
                    }
                }
            }
        }
        information.diag_mut().mapv_inplace(|v| v + 0.3);
        let inverse = ScaledCholesky::new(&information, free).unwrap().inverse_factor().unwrap();
        let mut wide = Array2::zeros((free.len(), c * d));
        for (column, &place) in free.iter().enumerate() {
            wide.column_mut(place).assign(&inverse.column(column));
        }
        (information, wide)
    }

    #[test]
    fn leverages_add_up_to_the_trace_and_leaving_a_row_out_is_a_newton_step_on_the_others() {
        for (likelihood, classes) in LIKELIHOODS.into_iter().chain([(Likelihood::Gaussian, 30)]) {
            let design = design(700, classes);
            let (c, d) = (likelihood.outputs(), design.columns());
            let theta = theta(c * d);
            let free: Vec<usize> = (0..c * d).filter(|i| i % 7 != 3).collect();
            let (information, wide) = factor(&design, likelihood, &theta, &free);
            let all = Selection::Range(0, design.rows());
            let eta = linear_predictors(&design, c, &theta, all);
            let found = influence(&design, likelihood, &eta, wide.view(), &free);
            // tr(M^-1 (M - 0.3)) = k - 0.3 |A|^2.
            let trace = free.len() as f64 - 0.3 * wide.iter().map(|v| v * v).sum::<f64>();
            close(&[found.leverages.iter().sum()], &[trace], 1e-11);

            for row in [0, 255, 256, design.rows() - 1] {
                let one = Selection::Range(row, row + 1);
                let request = Request { gradient: true, squares: false, gram: GramWeights::None };
                let gradient = pass(&design, likelihood, &theta, one, request, true).gradient;
                let mut rest = information.clone();
                let eta = &eta[row * c..(row + 1) * c];
                let mut matrices = Row::new(likelihood);
                matrices.differentiate(eta, f64::from(design.target(row)));
                let identity: Vec<f64> = Array2::<f64>::eye(d).into_iter().collect();
                let z = linear_predictors(&design, d, &identity, one);
                for (i, value) in rest.indexed_iter_mut() {
                    *value -= matrices.weights[i.0 / d * c + i.1 / d] * z[i.0 % d] * z[i.1 % d];
                }
                let right = free.iter().map(|&i| gradient[i]).collect::<ndarray::Array1<f64>>();
                let step = ScaledCholesky::new(&rest, &free).unwrap().solve(right.view()).unwrap();
                let mut moved = theta.clone();
                free.iter().zip(step).for_each(|(&i, s)| moved[i] += s);
                let expected = linear_predictors(&design, c, &moved, one);
                close(&found.left_out[row * c..(row + 1) * c], &expected, 1e-10);
            }
        }
    }

    #[test]
    fn a_row_that_alone_determines_a_coefficient_cannot_be_left_out() {
        let mut system = vec![1.0, 2.0, 3.0, 2.0, 4.0, 5.0];
        eliminate(&mut system, 2);
        assert!(system[2].is_nan() && system[5].is_nan());
        let mut system = vec![0.0, 2.0, 4.0, 4.0, 1.0, 6.0];
        eliminate(&mut system, 2);
        assert_eq!((system[2], system[5]), (1.0, 2.0));
    }

    #[test]
    fn rows_do_not_depend_on_the_number_of_threads() {
        let (design, likelihood) = (design(20_000, 4), Likelihood::Multinomial { classes: 4, reference: true });
        let theta = theta(3 * design.columns());
        let free: Vec<usize> = (0..theta.len()).collect();
        let (_, wide) = factor(&design, likelihood, &theta, &free);
        let eta = linear_predictors(&design, 3, &theta, Selection::Range(0, design.rows()));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| influence(&design, likelihood, &eta, wide.view(), &free))
        };
        assert_eq!(run(1), run(4));
    }
}
