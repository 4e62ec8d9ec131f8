//! What a device must be able to do for networks and for the optimizers that move them.
//!
//! Models are written against this interface alone. A matrix holds a unit a row and an example a column (see
//! [`array`](super::array)); a model visits its rows of data in blocks whose size the device chooses: on the CPU so small
//! that what follows from a block stays in cache, on a GPU all rows at once. Numbers are `f32`, sums over vectors and
//! losses `f64`, and no result depends on the number of threads.

use super::array::{Array, View, ViewMut};
use super::cpu::design::Selection;
use super::panels::Panels;
use super::regression::Regression;
use super::tokens::Tokens;
use crate::error::Result;
use std::fmt::Debug;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The function `h` that a layer applies to every unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `h(z) = z`.
    Identity,
    /// `h(z) = max(z, 0)`, slope 0 at 0.
    Relu,
    /// `h(z) = tanh z`.
    Tanh,
    /// `h(z) = 1/(1 + exp(-z))`.
    Sigmoid,
    /// `h(z) = z Phi(z)`, the form with the error function (Hendrycks and Gimpel 2016).
    Gelu,
}

impl Activation {
    /// Whether `h'` follows from `h(z)`; else slopes are kept beside the values.
    #[must_use]
    pub fn slope_follows_from_value(self) -> bool {
        self != Self::Gelu
    }
}

/// The loss of one example, given its outputs `o` and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `sum_k ln(1 + exp o_k) - y_k o_k`, targets in `[0, 1]`.
    Logistic,
    /// `ln(sum_k exp o_k) - o_y`, one target: the class.
    Softmax,
    /// `1/2 sum_k (o_k - y_k)^2`.
    Squared,
    /// `max(0, 1 - (2y - 1) o)`, targets 0 and 1, one output.
    Hinge,
    /// `max(0, 1 - o)` for target 1, `max(0, o)` for target 0, one output, the class at 1/2 (Taylor et al. 2016, section 6).
    UnitHinge,
}

impl Loss {
    /// Whether it is piecewise linear: it has no curvature.
    #[must_use]
    pub fn is_hinge(self) -> bool {
        matches!(self, Self::Hinge | Self::UnitHinge)
    }

    /// The output of a single unit above which the second class is the likelier one.
    #[must_use]
    pub fn threshold(self) -> f32 {
        if matches!(self, Self::Squared | Self::UnitHinge) { 0.5 } else { 0.0 }
    }
}

/// Rows of data as a device keeps them: features or targets with the shift and factor applied to each column.
#[derive(Debug, Clone)]
pub struct Table {
    pub(super) panels: Panels,
    pub(super) rows: Range<usize>,
    pub(super) shift: Arc<[f32]>,
    pub(super) factor: Arc<[f32]>,
}

impl Table {
    /// The rows `rows` of `panels`, column `j` served as `(x - shift_j) * factor_j`.
    ///
    /// # Panics
    /// If the rows are not there or a shift or factor is missing.
    #[must_use]
    pub fn new(panels: Panels, rows: Range<usize>, shift: &[f64], factor: &[f64]) -> Self {
        assert!(rows.end <= panels.rows() && shift.len() == panels.columns() && factor.len() == panels.columns());
        let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        Self { panels, rows, shift: single(shift), factor: single(factor) }
    }

    /// The rows as they are.
    #[must_use]
    pub fn plain(panels: Panels, rows: Range<usize>) -> Self {
        let columns = panels.columns();
        Self::new(panels, rows, &vec![0.0; columns], &vec![1.0; columns])
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.panels.columns()
    }
}

/// The size of a job over rows, from which a device decides how to cut it.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Rows in all.
    pub rows: usize,
    /// Numbers kept per row while a block is worked on.
    pub width: usize,
    /// Length of the sum that the rows add up to.
    pub sum: usize,
    /// Parameters that every row meets.
    pub parameters: usize,
}

/// The constants of one step of Adam's update ([`Backend::adam`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Share of the first moment that is kept.
    pub beta1: f64,
    /// Share of the second moment that is kept.
    pub beta2: f64,
    /// What `sqrt(v)` is multiplied with: `(1 - beta2^t)^(-1/2)`.
    pub root_factor: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Step size, the first moment's correction included: `a / (1 - beta1^t)`.
    pub step_size: f64,
    /// Share of the parameters that is kept: 1 less the decay.
    pub keep: f64,
}

/// What is done to one block of rows: with the device to use, adding to a sum where `true` stands beside it, else
/// overwriting it; answers another sum.
pub type BlockBody<'a> = &'a (dyn Fn(&dyn Backend, Range<usize>, &mut Array, bool) -> Result<f64> + Sync);

/// A device.
pub trait Backend: Debug + Send + Sync {
    /// The device in words.
    fn name(&self) -> String;

    /// `len` zeros.
    fn zeros(&self, len: usize) -> Array;
    /// Overwrites a matrix from the host, row by row.
    fn upload(&self, to: ViewMut<'_>, values: &[f32]);
    /// Copies a matrix to the host, row by row.
    fn download(&self, from: View<'_>) -> Vec<f32>;
    /// `to = from`.
    fn copy(&self, to: ViewMut<'_>, from: View<'_>);
    /// Waits until all that was asked is done.
    fn synchronize(&self) {}
    /// The first thing that went wrong of what was asked, if anything did; waits for it.
    ///
    /// # Errors
    /// That, in words: a GPU's memory is full, its driver failed.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// The largest number of bytes of its own memory that were in use at once, if it has any.
    fn peak_bytes(&self) -> Option<u64> {
        None
    }
    /// Brings the rows of a table to where [`Backend::load`] needs them.
    fn keep(&self, _table: &Table) {}
    /// What it does for Transformers; `None` where it has not learned that.
    fn tokens(&self) -> Option<&dyn Tokens> {
        None
    }

    /// What it does for generalized linear models.
    fn regression(&self) -> &dyn Regression;

    /// Sets every element.
    fn fill(&self, a: &mut Array, value: f32);
    /// `a = factor a`.
    fn scale(&self, a: &mut Array, factor: f32);
    /// `a = own a + factor b`; with `own` zero, what was in `a` does not count, were it NaN.
    fn axpby(&self, own: f32, a: &mut Array, factor: f32, b: &Array);
    /// `<a, b>` over a range of elements, products and sum in `f64`.
    fn dot(&self, a: &Array, b: &Array, range: Range<usize>) -> f64;
    /// The largest absolute value; NaN if any element is NaN.
    fn largest(&self, a: &Array) -> f64;
    /// Number of elements that are not zero.
    fn nonzero(&self, a: &Array) -> usize;
    /// `a = a / b`.
    fn divide(&self, a: &mut Array, b: &Array);
    /// `a = max(a + shift, 1e-30)^exponent`.
    fn shifted_power(&self, a: &mut Array, shift: f32, exponent: f32);
    /// Adam's update of the elements `range` of `a` with the gradient `g`, their moments beginning at `place` of `m` and `v`:
    /// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`, then
    /// `a = keep a - step_size m / (root_factor sqrt(v) + epsilon)`. Without `m` the gradient itself takes its place.
    #[allow(clippy::too_many_arguments, reason = "one visit of four arrays")]
    fn adam(
        &self,
        a: &mut Array,
        g: &Array,
        range: Range<usize>,
        m: Option<&mut Array>,
        v: &mut Array,
        place: usize,
        step: AdamStep,
    );
    /// `a += factor b` over a range of elements.
    fn add_range(&self, a: &mut Array, range: Range<usize>, factor: f32, b: &Array);

    /// `out = a b`, or with `keep` `out += a b`.
    fn product(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>);
    /// The sum of the columns of `a` for `out` of one row, a number for each row of `a`; added with `keep`.
    fn row_sums(&self, out: ViewMut<'_>, keep: bool, a: View<'_>);
    /// `out = a o a`.
    fn squares(&self, out: ViewMut<'_>, a: View<'_>);
    /// `out = a diag(w)` for `w` of one row, a number for each column of `a`.
    fn scale_columns(&self, out: ViewMut<'_>, a: View<'_>, w: View<'_>);
    /// `a = own a + factor b`.
    fn blend(&self, own: f32, a: ViewMut<'_>, factor: f32, b: View<'_>);
    /// `out = sum_i a_i o b_i` over rows `i`, for `out` of one row; added with `keep`.
    fn column_dots(&self, out: ViewMut<'_>, keep: bool, a: View<'_>, b: View<'_>);
    /// `sum_ij a_ij b_ij` in `f64`.
    fn inner(&self, a: View<'_>, b: View<'_>) -> f64;
    /// Number of elements above zero.
    fn count_positive(&self, a: View<'_>) -> usize;
    /// `a = h(a + bias)` for a bias of one row, a number for each row of `a`; `h'` into `slope` where it must be kept.
    fn activate(&self, h: Activation, a: ViewMut<'_>, bias: View<'_>, slope: Option<ViewMut<'_>>);
    /// `t = (t + bias) o h'`: the tangent of [`Backend::activate`]; `kept` holds values, or slopes where they are kept.
    fn tangent(&self, h: Activation, t: ViewMut<'_>, bias: View<'_>, kept: View<'_>);
    /// `below = (w' d) o h'`: the adjoint of a layer `w` over one with values (or kept slopes) `kept`.
    fn backpropagate(&self, h: Activation, below: ViewMut<'_>, w: View<'_>, d: View<'_>, kept: View<'_>);

    /// The sum of losses over examples; `factor d loss/d o` into the residual.
    fn loss(&self, loss: Loss, outputs: View<'_>, targets: View<'_>, residual: Option<(ViewMut<'_>, f32)>) -> f64;
    /// The proximal step of every example's loss in the metric of a symmetric `Q >= 0`, whose lower triangle lies packed row
    /// by row, an element a row of `metric`: `t = argmin l(c + Q t) + t'Q t/2 = -grad l(c + Q t)`. Answers the sums of
    /// `l(c + Q t)` and `t'Q t`. Several outputs: softmax and squared losses.
    fn loss_proximal(
        &self,
        loss: Loss,
        center: View<'_>,
        metric: View<'_>,
        targets: View<'_>,
        t: ViewMut<'_>,
    ) -> [f64; 2];
    /// `z = argmin gamma (a - max(z, 0))^2 + beta (z - m)^2`, element by element; answers the sums of `(a - max(z, 0))^2`,
    /// `(z - m)^2` and of the squared change of `z`.
    fn rectifier_proximal(&self, z: ViewMut<'_>, a: View<'_>, m: View<'_>, gamma: f32, beta: f32) -> [f64; 3];
    /// `t = factor H t` with the Hessian `H` of every example's loss in its outputs.
    fn loss_curvature(&self, loss: Loss, outputs: View<'_>, t: ViewMut<'_>, factor: f32);

    /// `d loss/d o` at targets drawn from the distribution of which the loss is the negative log-likelihood, by the numbers in
    /// `noise`: uniform ones, a row for each output (logistic) or one (softmax), or normal ones, a row for each output
    /// (squared).
    fn sampled_residual(&self, loss: Loss, outputs: View<'_>, noise: View<'_>, residual: ViewMut<'_>);

    /// Rows of a table as the columns of a matrix.
    fn load(&self, table: &Table, rows: Selection<'_>, out: ViewMut<'_>);
    /// Rows of a block of a job, a divisor of the rows that one thread sums up.
    fn block_rows(&self, job: Job) -> usize;
    /// Calls `body` for every block of a job, several at a time, and overwrites `sum` with their sum; answers the sum
    /// of their answers. Rows are cut by the job alone and sums added in order.
    ///
    /// # Errors
    /// The first error of a block.
    fn for_blocks(&self, job: Job, sum: &mut Array, body: BlockBody<'_>) -> Result<f64>;

    /// The lower Cholesky factor of a symmetric matrix, factorized in `f64`.
    ///
    /// # Errors
    /// If the matrix is not positive definite.
    fn cholesky(&self, a: View<'_>) -> Result<Array>;
    /// Eigenvalues in increasing order and eigenvectors (columns) of a symmetric matrix, found in `f64`.
    ///
    /// # Errors
    /// If the iteration does not converge.
    fn symmetric_eigen(&self, a: View<'_>) -> Result<(Array, Array)>;
    /// The inverses of symmetric matrices, each with the ridge beside it added to its diagonal, found in `f64`, several at a
    /// time.
    ///
    /// # Errors
    /// If one of the sums is not positive definite: the first of them.
    fn inverses(&self, of: &[(View<'_>, f64)]) -> Result<Vec<Array>>;
    /// The orthogonal factor `Q` of a square matrix `Q R`.
    ///
    /// # Errors
    /// If LAPACK refuses.
    fn orthogonal_factor(&self, a: View<'_>) -> Result<Array>;
}

/// A device that is shared by everything that lives on it.
#[derive(Debug, Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// Shares a device.
    #[must_use]
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self(Arc::new(backend))
    }
}

impl Deref for Device {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Device {}
