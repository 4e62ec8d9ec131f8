//! What a device must be able to do for generalized linear models, beside what [`Backend`](super::Backend) asks of it.
//!
//! Rows of data stay where the passes run; coefficients (29 to some thousands), sums and matrices of that size come and go in
//! `f64`: what is solved with them is solved on the host. Products are in `f32`, or in `f64` if `high`; sums over rows in `f64`
//! either way, in an order that does not depend on the number of threads.

use super::cpu::design::{Design, Selection};
use super::cpu::glm::{Likelihood, Request, Sums};
use crate::error::Result;

/// Passes over the rows of a design.
pub trait Regression {
    /// Brings the rows to where the passes need them.
    fn keep_rows(&self, _design: &Design) {}

    /// All sums asked for over `selection` with coefficients `theta` (`C x D`, row by row).
    ///
    /// # Errors
    /// If the device failed or its memory is full.
    fn pass(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        request: Request,
        high: bool,
    ) -> Result<Sums>;

    /// Linear predictors in `f64`, `rows x C` row by row.
    ///
    /// # Errors
    /// As [`Regression::pass`].
    fn linear_predictors(
        &self,
        design: &Design,
        outputs: usize,
        theta: &[f64],
        selection: Selection<'_>,
    ) -> Result<Vec<f64>>;

    /// The Gauss-Newton matrix at `theta` over `selection`, for many products.
    ///
    /// # Errors
    /// As [`Regression::pass`].
    fn curvature<'a>(
        &'a self,
        design: &'a Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'a>,
        high: bool,
    ) -> Result<Box<dyn RowCurvature + 'a>>;

    /// Puts the residuals at `theta` of the rows of `selection` (no row twice) into `table` (`n x C`) and answers the sum of
    /// their losses and `sum_i (r_i - r_i^old) z_i'` (`C x D`).
    ///
    /// # Errors
    /// As [`Regression::pass`].
    fn exchange_residuals(
        &self,
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        selection: Selection<'_>,
        table: &mut [f64],
        high: bool,
    ) -> Result<(f64, Vec<f64>)>;
}

/// The matrix `sum_i J_i' H_i J_i` over rows at a point.
pub trait RowCurvature {
    /// Its product with `v`, both `C x D`.
    ///
    /// # Errors
    /// As [`Regression::pass`].
    fn multiply(&self, v: &[f64]) -> Result<Vec<f64>>;
}
