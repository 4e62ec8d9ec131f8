//! Fused passes of generalized linear models over a design: all sums that one visit of the rows can give.
//!
//! With `eta_c = sum_j theta_cj z_j`, `c < C`:
//! - binary (`C = 1`): `p = 1/(1+exp(-eta))`, loss `ln(1+exp(eta)) - y eta`, residual `p - y`, weight `p (1-p)`;
//! - multinomial: `p_c = exp(eta_c) / sum_k exp(eta_k)`, where the reference parameterization has `C = K-1` and
//!   `eta = 0` for the first class; loss `-ln p_y`, residual `p_c - [y = c]`, weights `p_a ([a = b] - p_b)`;
//! - Gaussian (`C = 1`, `y` real): loss `(eta - y)^2 / 2`, residual `eta - y`, weight 1.
//!
//! While a tile of 256 rows is in cache, predictors, probabilities, weights, loss, gradient `sum r z'` and Gram matrix
//! `sum w z z'` are formed. Linear predictors and products are in `f32` or, for high accuracy, `f64`; sums over tiles
//! are in `f64` and do not depend on the number of threads.

use super::buffer::Buffer;
use super::design::{Design, Selection, Substitution, Tile, fold_selection, map_selection};
use super::gram::{Ahead, Columns, GramSum, GramSums};
use super::real::Real;
use crate::device::PANEL_ROWS;
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};

/// The distribution of the target given the linear predictors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likelihood {
    /// Two classes, one linear predictor.
    Binary,
    /// Several classes.
    Multinomial {
        /// Number of classes `K`.
        classes: usize,
        /// Whether the first class's linear predictor is fixed at zero.
        reference: bool,
    },
    /// A real number of constant variance, one linear predictor.
    Gaussian,
}

impl Likelihood {
    /// Number of linear predictors `C`.
    #[must_use]
    pub fn outputs(self) -> usize {
        match self {
            Self::Binary | Self::Gaussian => 1,
            Self::Multinomial { classes, reference } => classes - usize::from(reference),
        }
    }

    /// Number of classes; none where the target is a real number.
    #[must_use]
    pub fn classes(self) -> usize {
        match self {
            Self::Binary => 2,
            Self::Multinomial { classes, .. } => classes,
            Self::Gaussian => 0,
        }
    }
}

/// Which Gram matrix a pass forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GramWeights {
    /// None.
    None,
    /// `w = 1`.
    Unit,
    /// The weights of one block of the information: `p_a ([a = b] - p_b)`; `(0, 0)` in the binary case.
    Information(usize, usize),
}

/// What a pass is asked for, beside the loss.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The gradient.
    pub gradient: bool,
    /// The sum of squared per-row gradients.
    pub squares: bool,
    /// A Gram matrix.
    pub gram: GramWeights,
}

/// Sums over rows.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// The loss.
    pub loss: f64,
    /// The gradient of the loss, `C x D` row by row.
    pub gradient: Vec<f64>,
    /// Squared per-row gradients, `C x D`.
    pub squares: Vec<f64>,
    /// The Gram matrix's lower triangle, `D x D`.
    pub gram: Vec<f64>,
    /// Rows whose most probable class is right; 0 where there are no classes.
    pub correct: u64,
    /// The largest absolute linear predictor.
    pub largest_predictor: f64,
    /// The smallest margin over rows: `(2y - 1) eta`, or the target's predictor less the largest of the others; infinite
    /// where there are no classes.
    pub smallest_margin: f64,
}

impl Sums {
    /// The sums over no rows, for `outputs` predictors of `columns` columns.
    pub(in crate::device) fn zeros(outputs: usize, columns: usize, request: Request) -> Self {
        let zeros = |wanted: bool, len: usize| vec![0.0; if wanted { len } else { 0 }];
        Self {
            gradient: zeros(request.gradient, outputs * columns),
            squares: zeros(request.squares, outputs * columns),
            gram: zeros(request.gram != GramWeights::None, columns * columns),
            smallest_margin: f64::INFINITY,
            ..Self::default()
        }
    }

    /// Adds the sums over other rows.
    pub(in crate::device) fn absorb(&mut self, part: &Self) {
        let add = |into: &mut [f64], from: &[f64]| into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        self.loss += part.loss;
        add(&mut self.gradient, &part.gradient);
        add(&mut self.squares, &part.squares);
        add(&mut self.gram, &part.gram);
        self.correct += part.correct;
        self.largest_predictor = self.largest_predictor.max(part.largest_predictor);
        self.smallest_margin = self.smallest_margin.min(part.smallest_margin);
    }
}

/// Scratch of one thread: what follows from a tile.
pub(super) struct Work<T> {
    pub theta: Vec<T>,
    /// Linear predictors, then probabilities: `C x PANEL_ROWS`.
    pub eta: Buffer<T>,
    /// Residuals, `C x PANEL_ROWS`.
    pub residual: Buffer<T>,
    pub weight: Buffer<T>,
    loss: Buffer<T>,
    /// One tile's contribution to a `C x D` sum.
    pub product: Vec<T>,
}

impl<T: Real> Work<T> {
    pub fn new(design: &Design, outputs: usize, theta: &[f64]) -> Self {
        Self {
            theta: theta.iter().map(|&t| T::from_f64(t)).collect(),
            eta: Buffer::new(outputs * PANEL_ROWS),
            residual: Buffer::new(outputs * PANEL_ROWS),
            weight: Buffer::new(PANEL_ROWS),
            loss: Buffer::new(PANEL_ROWS),
            product: vec![T::default(); outputs * design.columns()],
        }
    }
}

/// `eta = theta z`: `C x PANEL_ROWS` from `C x D` and `D x PANEL_ROWS`.
#[inline(always)]
pub(super) fn predictors<T: Real, S: Simd>(simd: S, theta: &[T], z: Columns<'_, T>, eta: &mut [T]) {
    let outputs = eta.len() / PANEL_ROWS;
    let columns = theta.len() / outputs;
    if outputs > 1 {
        assert!(z.main.len() >= columns * PANEL_ROWS, "columns of a design with several outputs follow one another");
        // SAFETY: the three matrices have the stated shapes.
        unsafe {
            gemm::gemm(
                outputs,
                PANEL_ROWS,
                columns,
                eta.as_mut_ptr(),
                1,
                PANEL_ROWS as isize,
                false,
                theta.as_ptr(),
                1,
                columns as isize,
                z.main.as_ptr(),
                1,
                PANEL_ROWS as isize,
                T::default(),
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        return;
    }
    // Eight registers of rows at once, so that their running sums stay in registers.
    const TOGETHER: usize = 8;
    for (group, eta) in T::lanes_mut::<S>(eta).chunks_exact_mut(TOGETHER).enumerate() {
        let mut sums = [T::zero_lanes(simd); TOGETHER];
        for (j, &t) in theta.iter().enumerate() {
            let t = T::splat_lanes(simd, t);
            let column = &T::lanes::<S>(z.get(j))[group * TOGETHER..][..TOGETHER];
            for (sum, &column) in sums.iter_mut().zip(column) {
                *sum = T::fma_lanes(simd, t, column, *sum);
            }
        }
        eta.copy_from_slice(&sums);
    }
}

/// `sums += r z'`: `C x D` from `C x PANEL_ROWS` and `D x PANEL_ROWS`.
#[inline(always)]
pub(super) fn add_products<T: Real, S: Simd>(simd: S, r: &[T], z: Columns<'_, T>, product: &mut [T], sums: &mut [f64]) {
    let outputs = r.len() / PANEL_ROWS;
    let columns = sums.len() / outputs;
    if outputs > 1 {
        assert!(z.main.len() >= columns * PANEL_ROWS, "columns of a design with several outputs follow one another");
        // SAFETY: the three matrices have the stated shapes.
        unsafe {
            gemm::gemm(
                outputs,
                columns,
                PANEL_ROWS,
                product.as_mut_ptr(),
                1,
                columns as isize,
                false,
                r.as_ptr(),
                1,
                PANEL_ROWS as isize,
                z.main.as_ptr(),
                PANEL_ROWS as isize,
                1,
                T::default(),
                T::ONE,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        for (sum, &p) in sums.iter_mut().zip(product.iter()) {
            *sum += p.to_f64();
        }
        return;
    }
    // Four columns at once share the loads of `r` and hide the latency of the multiply-add.
    const TOGETHER: usize = 4;
    let r = T::lanes::<S>(r);
    for first in (0..columns).step_by(TOGETHER) {
        let z: [_; TOGETHER] = std::array::from_fn(|c| T::lanes::<S>(z.get(first + c)));
        let mut of_columns = [T::zero_lanes(simd); TOGETHER];
        for (step, &r) in r.iter().enumerate() {
            for (sum, z) in of_columns.iter_mut().zip(&z) {
                *sum = T::fma_lanes(simd, r, z[step], *sum);
            }
        }
        for (sum, of_column) in sums[first..].iter_mut().zip(of_columns) {
            *sum += T::sum_lanes(simd, of_column).to_f64();
        }
    }
}

/// What the rows of a tile add up to.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowSums {
    pub loss: f64,
    pub correct: u64,
    pub largest_predictor: f64,
    pub smallest_margin: f64,
}

/// Lanes of a running sum over rows: a multiple of every register's.
const LANES: usize = 16;

#[inline(always)]
fn sum_rows<T: Real>(values: &[T]) -> f64 {
    let mut lanes = [T::default(); LANES];
    for values in values.chunks_exact(LANES) {
        for i in 0..LANES {
            lanes[i] += values[i];
        }
    }
    lanes.iter().map(|l| l.to_f64()).sum()
}

/// The largest absolute value.
#[inline(always)]
fn largest<T: Real>(eta: &[T]) -> f64 {
    let mut lanes = [T::default(); LANES];
    for eta in eta.chunks_exact(LANES) {
        for i in 0..LANES {
            lanes[i] = lanes[i].larger(eta[i].abs());
        }
    }
    lanes.iter().fold(0.0, |m, l| m.max(l.to_f64()))
}

/// From `eta` and `y` to loss, residual and weight, row by row; rows beyond the tile's get zeros. A predictor of zero says
/// class 0; the margin is `(2y - 1) eta`.
#[inline(always)]
pub(super) fn binary_rows<T: Real, S: Simd>(work: &mut Work<T>, tile: &Tile<T>) -> RowSums {
    let rows = tile.rows;
    work.eta[rows..].fill(T::default());
    let largest_predictor = largest(&work.eta);
    // Rows that are not there are as if predicted rightly beyond doubt.
    work.eta[rows..].fill(T::from_f64(-f64::from(f32::MAX)));
    let (eta, y) = (&work.eta[..PANEL_ROWS], &tile.y[..PANEL_ROWS]);
    let (residual, weight) = (&mut work.residual[..PANEL_ROWS], &mut work.weight[..PANEL_ROWS]);
    let loss = &mut work.loss[..PANEL_ROWS];
    for i in 0..PANEL_ROWS {
        let e = T::exp::<S>(-eta[i].abs());
        // One division gives 1/(1+e) and e/(2+e), which the logarithm is a series in.
        let (a, b) = (T::ONE + e, T::ONE + T::ONE + e);
        let both = T::ONE / (a * b);
        let high = both * b;
        let low = e * high;
        let positive = eta[i] > T::default();
        let (p, q) = if positive { (high, low) } else { (low, high) };
        // y and 1 - y are 0 or 1: no cancellation where the probability is near its target.
        residual[i] = p * (T::ONE - y[i]) - q * y[i];
        weight[i] = high * low;
        let hinge = if positive { eta[i] } else { T::default() };
        loss[i] = (hinge - y[i] * eta[i]) + T::ln_by_series::<S>(e * (both * a));
    }
    let mut margins = [T::from_f64(f64::from(f32::MAX)); LANES];
    let mut right = [T::default(); LANES];
    for (eta, y) in eta.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
        for i in 0..LANES {
            let margin = if y[i] == T::ONE { eta[i] } else { -eta[i] };
            let is_right = (eta[i] > T::default()) == (y[i] == T::ONE);
            right[i] += if is_right { T::ONE } else { T::default() };
            margins[i] = if margin < margins[i] { margin } else { margins[i] };
        }
    }
    residual[rows..].fill(T::default());
    weight[rows..].fill(T::default());
    loss[rows..].fill(T::default());
    RowSums {
        loss: sum_rows(loss),
        correct: right.iter().map(|r| r.to_f64() as u64).sum::<u64>() - (PANEL_ROWS - rows) as u64,
        largest_predictor,
        smallest_margin: margins.iter().fold(f64::INFINITY, |least, m| least.min(m.to_f64())),
    }
}

/// From `eta` and a real `y` to loss, residual and weight; rows beyond the tile's get zeros.
#[inline(always)]
pub(super) fn gaussian_rows<T: Real>(work: &mut Work<T>, tile: &Tile<T>) -> RowSums {
    let rows = tile.rows;
    let half = T::from_f64(0.5);
    work.eta[rows..].fill(T::default());
    for i in 0..PANEL_ROWS {
        let residual = work.eta[i] - tile.y[i];
        work.residual[i] = residual;
        work.weight[i] = T::ONE;
        work.loss[i] = half * residual * residual;
    }
    work.residual[rows..].fill(T::default());
    work.weight[rows..].fill(T::default());
    work.loss[rows..].fill(T::default());
    RowSums {
        loss: sum_rows(&work.loss),
        correct: 0,
        largest_predictor: largest(&work.eta),
        smallest_margin: f64::INFINITY,
    }
}

/// Turns linear predictors into probabilities in place; residuals and losses beside them. Of equally probable classes
/// the first is predicted; the margin is the target's predictor less the largest of the others.
#[inline(always)]
pub(super) fn multinomial_rows<T: Real, S: Simd>(work: &mut Work<T>, tile: &Tile<T>, reference: bool) -> RowSums {
    let largest_predictor = self::largest(&work.eta);
    let rows = tile.rows;
    let outputs = work.eta.len() / PANEL_ROWS;
    let nothing = T::from_f64(f64::from(f32::MIN));
    // The largest predictor, the first class that has it, the target's, and the largest among the others.
    let mut largest = [nothing; PANEL_ROWS];
    let mut class_of_largest = [T::default(); PANEL_ROWS];
    let mut of_target = [T::default(); PANEL_ROWS];
    let mut of_others = [nothing; PANEL_ROWS];
    if reference {
        for i in 0..PANEL_ROWS {
            largest[i] = T::default();
            of_others[i] = if tile.y[i] == T::default() { nothing } else { T::default() };
        }
    }
    for (c, eta) in work.eta.chunks_exact(PANEL_ROWS).enumerate() {
        let class = T::from_f64((c + usize::from(reference)) as f64);
        for i in 0..PANEL_ROWS {
            let is_target = tile.y[i] == class;
            let is_largest = eta[i] > largest[i];
            largest[i] = if is_largest { eta[i] } else { largest[i] };
            class_of_largest[i] = if is_largest { class } else { class_of_largest[i] };
            of_target[i] = if is_target { eta[i] } else { of_target[i] };
            of_others[i] = if is_target { of_others[i] } else { of_others[i].larger(eta[i]) };
        }
    }
    let mut sum = [T::default(); PANEL_ROWS];
    if reference {
        for i in 0..PANEL_ROWS {
            sum[i] = T::exp::<S>(-largest[i]);
        }
    }
    for eta in work.eta.chunks_exact_mut(PANEL_ROWS) {
        for i in 0..PANEL_ROWS {
            eta[i] = T::exp::<S>(eta[i] - largest[i]);
            sum[i] += eta[i];
        }
    }
    for c in 0..outputs {
        let class = T::from_f64((c + usize::from(reference)) as f64);
        let p = &mut work.eta[c * PANEL_ROWS..][..PANEL_ROWS];
        let residual = &mut work.residual[c * PANEL_ROWS..][..PANEL_ROWS];
        for i in 0..PANEL_ROWS {
            p[i] = p[i] / sum[i];
            residual[i] = p[i] - if tile.y[i] == class { T::ONE } else { T::default() };
        }
        residual[rows..].fill(T::default());
        p[rows..].fill(T::default());
    }
    for i in 0..PANEL_ROWS {
        work.loss[i] = T::ln::<S>(sum[i]) + (largest[i] - of_target[i]);
    }
    work.loss[rows..].fill(T::default());
    let (mut correct, mut smallest) = (0, f64::INFINITY);
    for i in 0..rows {
        correct += u64::from(class_of_largest[i] == tile.y[i]);
        smallest = smallest.min((of_target[i] - of_others[i]).to_f64());
    }
    RowSums { loss: sum_rows(&work.loss), correct, largest_predictor, smallest_margin: smallest }
}

/// From linear predictors to loss, residuals and weights or probabilities.
#[inline(always)]
pub(super) fn visit_rows<T: Real, S: Simd>(likelihood: Likelihood, work: &mut Work<T>, tile: &Tile<T>) -> RowSums {
    match likelihood {
        Likelihood::Binary => binary_rows::<T, S>(work, tile),
        Likelihood::Gaussian => gaussian_rows(work, tile),
        Likelihood::Multinomial { reference, .. } => multinomial_rows::<T, S>(work, tile, reference),
    }
}

/// One pass over a selection in `T`.
struct Pass<'a, T> {
    design: &'a Design,
    likelihood: Likelihood,
    theta: &'a [f64],
    selection: Selection<'a>,
    request: Request,
    kind: std::marker::PhantomData<T>,
}

impl<T: Real> WithSimd for Pass<'_, T> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let outputs = self.likelihood.outputs();
        let columns = self.design.columns();
        let zeros = |wanted: bool| vec![0.0; if wanted { outputs * columns } else { 0 }];
        let mut sums = Sums {
            gradient: zeros(self.request.gradient),
            squares: zeros(self.request.squares),
            smallest_margin: f64::INFINITY,
            ..Sums::default()
        };
        let mut gram = (self.request.gram != GramWeights::None).then(|| GramSum::<T>::new::<S>(columns));
        // With one output the gradient is a row of the Gram matrix.
        let beside_gram = gram.is_some() && outputs == 1;
        let mut work = Work::<T>::new(self.design, outputs, self.theta);
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            let z = self.design.view(tile);
            predictors::<T, S>(simd, &work.theta, z, &mut work.eta);
            let of_rows = visit_rows::<T, S>(self.likelihood, &mut work, tile);
            sums.loss += of_rows.loss;
            sums.correct += of_rows.correct;
            sums.largest_predictor = sums.largest_predictor.max(of_rows.largest_predictor);
            sums.smallest_margin = sums.smallest_margin.min(of_rows.smallest_margin);
            if self.request.gradient && !beside_gram {
                add_products(simd, &work.residual, z, &mut work.product, &mut sums.gradient);
            }
            if self.request.squares {
                for (c, squares) in sums.squares.chunks_exact_mut(columns).enumerate() {
                    let r = &work.residual[c * PANEL_ROWS..][..PANEL_ROWS];
                    for (sum, column) in squares.iter_mut().zip(z.main.chunks_exact(PANEL_ROWS)) {
                        let mut lanes = [T::default(); 16];
                        for (r, z) in r.chunks_exact(16).zip(column.chunks_exact(16)) {
                            for i in 0..16 {
                                lanes[i] += r[i] * z[i] * (r[i] * z[i]);
                            }
                        }
                        *sum += lanes.iter().map(|l| l.to_f64()).sum::<f64>();
                    }
                }
            }
            if let Some(gram) = &mut gram {
                match (self.request.gram, self.likelihood) {
                    (GramWeights::Information(a, b), Likelihood::Multinomial { .. }) => {
                        let (pa, pb) = (&work.eta[a * PANEL_ROWS..], &work.eta[b * PANEL_ROWS..]);
                        let same = if a == b { T::ONE } else { T::default() };
                        for i in 0..PANEL_ROWS {
                            work.weight[i] = pa[i] * (same - pb[i]);
                        }
                    }
                    (GramWeights::Unit, _) => {
                        work.weight[..tile.rows].fill(T::ONE);
                        work.weight[tile.rows..].fill(T::default());
                    }
                    _ => {}
                }
                let (features, targets) = self.design.after(span);
                Ahead(targets).fetch();
                gram.add(simd, z, &work.weight, &work.residual[..PANEL_ROWS], features);
            }
        }
        if let Some(gram) = gram {
            let GramSums { gram, products } = gram.finish(simd);
            sums.gram = gram;
            if self.request.gradient && beside_gram {
                sums.gradient = products;
            }
        }
        sums
    }
}

/// One pass over `selection` with coefficients `theta` (`C x D`, row by row), in `f64` if `high`.
#[must_use]
pub fn pass(
    design: &Design,
    likelihood: Likelihood,
    theta: &[f64],
    selection: Selection<'_>,
    request: Request,
    high: bool,
) -> Sums {
    if high {
        return sum::<f64>(design, likelihood, theta, selection, request);
    }
    let as_stored = if request.squares { None } else { as_stored(design, likelihood, high) };
    let Some((stored, substitution)) = as_stored else {
        return sum::<f32>(design, likelihood, theta, selection, request);
    };
    let mut sums = sum::<f32>(&stored, likelihood, &substitution.coefficients(theta), selection, request);
    if request.gradient {
        sums.gradient = substitution.products(&sums.gradient);
    }
    if request.gram != GramWeights::None {
        sums.gram = substitution.gram(&sums.gram);
    }
    sums
}

/// The design by way of its columns as they are stored, where sums with one output in `f32` may be formed so.
pub(super) fn as_stored(design: &Design, likelihood: Likelihood, high: bool) -> Option<(Design, Substitution)> {
    if high || likelihood.outputs() > 1 { None } else { design.as_stored() }
}

/// A pass whose products are of type `T`.
fn sum<T: Real>(
    design: &Design,
    likelihood: Likelihood,
    theta: &[f64],
    selection: Selection<'_>,
    request: Request,
) -> Sums {
    let mut total = Sums::zeros(likelihood.outputs(), design.columns(), request);
    let one = |_: usize, selection: Selection<'_>| {
        let kind = std::marker::PhantomData::<T>;
        Arch::new().dispatch(Pass { design, likelihood, theta, selection, request, kind })
    };
    // Wide Gram matrices are added up as they come, so that no more of them exist than threads work on.
    fold_selection(selection, 8 * total.gram.len(), one, |part| total.absorb(&part));
    total
}

struct Predict<'a> {
    design: &'a Design,
    outputs: usize,
    theta: &'a [f64],
    selection: Selection<'a>,
}

impl WithSimd for Predict<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let mut eta = Buffer::<f64>::new(self.outputs * PANEL_ROWS);
        let mut all = Vec::with_capacity(self.outputs * self.selection.len());
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            predictors::<f64, S>(simd, self.theta, self.design.view(tile), &mut eta);
            for i in 0..tile.rows {
                all.extend((0..self.outputs).map(|c| eta[c * PANEL_ROWS + i]));
            }
        }
        all
    }
}

/// Linear predictors in `f64`, `rows x C` row by row.
#[must_use]
pub fn linear_predictors(design: &Design, outputs: usize, theta: &[f64], selection: Selection<'_>) -> Vec<f64> {
    map_selection(selection, |_, selection| Arch::new().dispatch(Predict { design, outputs, theta, selection }))
        .concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::device::Panels;
    use crate::device::cpu::design::{Expansion, Transform};
    use std::sync::Arc;

    pub fn design(rows: usize, classes: usize) -> Design {
        let features = Panels::from_fn(rows, 3, |r, c| (((r * 7919 + c * 104_729) % 1000) as f32 / 500.0 - 1.0) * 1.7);
        let targets = Panels::from_fn(rows, 1, |r, _| ((r * 31 + r / 7) % classes) as f32);
        Design::new(features, targets, 3..rows - 2, Arc::new(Transform::raw(3, Expansion::Products, true)))
    }

    const ALL: Request = Request { gradient: true, squares: true, gram: GramWeights::Information(0, 0) };

    pub fn theta(len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 37 % 19) as f64 / 9.0 - 1.0) * 0.4).collect()
    }

    /// Loss, gradient and first information block written out row by row.
    fn by_definition(design: &Design, likelihood: Likelihood, theta: &[f64]) -> (f64, Vec<f64>, Vec<f64>, u64) {
        let (c_count, d) = (likelihood.outputs(), design.columns());
        let eta = linear_predictors(design, c_count, theta, Selection::Range(0, design.rows()));
        let identity: Vec<f64> = (0..d).flat_map(|j| (0..d).map(move |k| f64::from(u8::from(j == k)))).collect();
        let z = linear_predictors(design, d, &identity, Selection::Range(0, design.rows()));
        let (mut loss, mut gradient, mut gram, mut correct) = (0.0, vec![0.0; c_count * d], vec![0.0; d * d], 0);
        let skip = likelihood.classes() - c_count;
        for i in 0..design.rows() {
            let mut logits = vec![0.0; skip];
            logits.extend_from_slice(&eta[i * c_count..(i + 1) * c_count]);
            let total: f64 = logits.iter().map(|l| l.exp()).sum();
            let p: Vec<f64> = logits.iter().map(|l| l.exp() / total).collect();
            let y = design.target(i) as usize;
            loss -= p[y].ln();
            correct += u64::from((0..p.len()).all(|c| if c < y { p[c] < p[y] } else { p[c] <= p[y] }));
            for c in 0..c_count {
                let r = p[c + skip] - f64::from(u8::from(y == c + skip));
                for j in 0..d {
                    gradient[c * d + j] += r * z[i * d + j];
                }
            }
            let w = p[skip] * (1.0 - p[skip]);
            for j in 0..d {
                for k in 0..=j {
                    gram[j * d + k] += w * z[i * d + j] * z[i * d + k];
                }
            }
        }
        (loss, gradient, gram, correct)
    }

    pub fn close(a: &[f64], b: &[f64], tolerance: f64) {
        let scale = b.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= tolerance * scale, "element {i}: {a} instead of {b} (scale {scale})");
        }
    }

    pub const LIKELIHOODS: [(Likelihood, usize); 4] = [
        (Likelihood::Binary, 2),
        (Likelihood::Multinomial { classes: 2, reference: true }, 2),
        (Likelihood::Multinomial { classes: 4, reference: true }, 4),
        (Likelihood::Multinomial { classes: 4, reference: false }, 4),
    ];

    /// The derivative of the gradient's sum along `v`, by central differences.
    pub fn derivative(
        design: &Design,
        likelihood: Likelihood,
        theta: &[f64],
        v: &[f64],
        selection: Selection<'_>,
    ) -> Vec<f64> {
        let h = 1e-5;
        let gradient = |sign: f64| {
            let moved: Vec<f64> = theta.iter().zip(v).map(|(t, v)| t + sign * h * v).collect();
            pass(design, likelihood, &moved, selection, ALL, true).gradient
        };
        gradient(1.0).iter().zip(gradient(-1.0)).map(|(a, b)| (a - b) / (2.0 * h)).collect()
    }

    #[test]
    fn a_pass_agrees_with_the_definition() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(5000, classes);
            let theta = theta(likelihood.outputs() * design.columns());
            let (loss, gradient, gram, correct) = by_definition(&design, likelihood, &theta);
            for (high, tolerance) in [(true, 1e-13), (false, 2e-6)] {
                let sums = pass(&design, likelihood, &theta, Selection::Range(0, design.rows()), ALL, high);
                close(&[sums.loss], &[loss], tolerance);
                close(&sums.gradient, &gradient, tolerance);
                let d = design.columns();
                for j in 0..d {
                    close(&sums.gram[j * d..j * d + j + 1], &gram[j * d..j * d + j + 1], tolerance);
                }
                assert_eq!(sums.correct, correct);
            }
        }
    }

    #[test]
    fn sums_over_columns_as_they_are_stored_are_those_of_the_design() {
        let features = Panels::from_fn(3000, 7, |r, c| {
            let wave = ((r * (31 + 2 * c) % 997) as f32 / 997.0 - 0.5) * 3.0;
            wave + c as f32
        });
        let targets = Panels::from_fn(3000, 1, |r, _| ((r * 31 + r / 7) % 2) as f32);
        let (mean, sd): (Vec<f64>, Vec<f64>) = (0..7).map(|c| (f64::from(c), 0.86 + 0.01 * f64::from(c))).unzip();
        let transform = Transform::standardized(Expansion::Linear, true, 7, &mean, &sd);
        // Rows from the middle of a panel to the middle of another.
        let design = Design::new(features, targets, 100..2900, Arc::new(transform));
        assert!(design.as_stored().is_some());
        let theta = theta(8);
        let rows: Vec<u32> = (0..2800).step_by(3).collect();
        let request = Request { squares: false, ..ALL };
        // A mean of 6.5 deviations makes squares as they are stored 43 times as large as those about the mean, and with them the
        // rounding of their sums: a few units of the last place, more of them where a register holds eight numbers than sixteen.
        let of_squares = 43.0 * 5.0 * f64::from(f32::EPSILON);
        for selection in [Selection::Range(0, 2800), Selection::Range(156, 2716), Selection::List(&rows)] {
            let fast = pass(&design, Likelihood::Binary, &theta, selection, request, false);
            let high = pass(&design, Likelihood::Binary, &theta, selection, request, true);
            close(&[fast.loss], &[high.loss], 1e-6);
            close(&fast.gradient, &high.gradient, 1e-5);
            close(&fast.gram, &high.gram, of_squares);
            assert_eq!(fast.correct, high.correct);
            close(
                &[fast.smallest_margin, fast.largest_predictor],
                &[high.smallest_margin, high.largest_predictor],
                1e-5,
            );
            let v: Vec<f64> = theta.iter().rev().copied().collect();
            let product = |high| {
                super::super::curvature::CurvatureWeights::at(&design, Likelihood::Binary, &theta, selection, high)
                    .multiply(&design, &v, selection)
            };
            close(&product(false), &product(true), 1e-5);
        }
    }

    #[test]
    fn the_gradient_is_the_derivative_of_the_loss() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(700, classes);
            let all = Selection::Range(0, design.rows());
            let theta = theta(likelihood.outputs() * design.columns());
            let loss = |theta: &[f64]| pass(&design, likelihood, theta, all, ALL, true).loss;
            let gradient = pass(&design, likelihood, &theta, all, ALL, true).gradient;
            let (mut moved, h) = (theta.clone(), 1e-5);
            for (i, &g) in gradient.iter().enumerate() {
                moved[i] = theta[i] + h;
                let above = loss(&moved);
                moved[i] = theta[i] - h;
                let below = loss(&moved);
                moved[i] = theta[i];
                close(&[(above - below) / (2.0 * h)], &[g], 1e-6);
            }
        }
    }

    #[test]
    fn a_gaussian_pass_agrees_with_the_definition() {
        let design = design(5000, 40);
        let (d, all) = (design.columns(), Selection::Range(0, design.rows()));
        let theta = theta(d);
        let eta = linear_predictors(&design, 1, &theta, all);
        let residuals: Vec<f64> = eta.iter().enumerate().map(|(i, eta)| eta - f64::from(design.target(i))).collect();
        let loss = residuals.iter().map(|r| 0.5 * r * r).sum::<f64>();
        // The information does not depend on the point, and is what the gradient gains along each coordinate.
        let unit = pass(&design, Likelihood::Gaussian, &theta, all, Request { gram: GramWeights::Unit, ..ALL }, true);
        for (high, tolerance) in [(true, 1e-13), (false, 2e-6)] {
            let sums = pass(&design, Likelihood::Gaussian, &theta, all, ALL, high);
            close(&[sums.loss], &[loss], tolerance);
            close(&sums.gram, &unit.gram, tolerance);
            assert_eq!((sums.correct, sums.smallest_margin), (0, f64::INFINITY));
        }
        let slopes = derivative(&design, Likelihood::Gaussian, &theta, &[&[1.0][..], &vec![0.0; d - 1]].concat(), all);
        for (j, slope) in slopes.iter().enumerate() {
            close(&[*slope], &[unit.gram[j * d]], 1e-8);
        }
        let sums = pass(&design, Likelihood::Gaussian, &theta, all, ALL, true);
        let (h, mut moved) = (1e-5, theta.clone());
        moved[2] += h;
        let above = pass(&design, Likelihood::Gaussian, &moved, all, ALL, true).loss;
        moved[2] -= 2.0 * h;
        let below = pass(&design, Likelihood::Gaussian, &moved, all, ALL, true).loss;
        close(&[(above - below) / (2.0 * h)], &sums.gradient[2..3], 1e-6);
    }

    #[test]
    fn squared_gradients_are_those_of_single_rows() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(300, classes);
            let theta = theta(likelihood.outputs() * design.columns());
            let mut expected = vec![0.0; theta.len()];
            for row in 0..design.rows() {
                let one = pass(&design, likelihood, &theta, Selection::Range(row, row + 1), ALL, true);
                expected.iter_mut().zip(one.gradient).for_each(|(sum, g)| *sum += g * g);
            }
            for (high, tolerance) in [(true, 1e-13), (false, 2e-6)] {
                let all = pass(&design, likelihood, &theta, Selection::Range(0, design.rows()), ALL, high);
                close(&all.squares, &expected, tolerance);
            }
        }
    }

    #[test]
    fn of_equally_probable_classes_the_first_is_predicted_and_margins_tell_separation() {
        for (likelihood, classes) in LIKELIHOODS {
            let design = design(500, classes);
            let zero = vec![0.0; likelihood.outputs() * design.columns()];
            let all = Selection::Range(0, design.rows());
            let sums = pass(&design, likelihood, &zero, all, ALL, false);
            let of_first = (0..design.rows()).filter(|&row| design.target(row) == 0.0).count();
            assert_eq!(sums.correct, of_first as u64, "{likelihood:?}");
            assert_eq!(sums.smallest_margin, 0.0);
        }
        // Three classes along one column: the predictor -(c - x)^2/2, less x^2/2, separates them by at least 1/2.
        let features = Panels::from_fn(300, 1, |r, _| (r % 3) as f32);
        let targets = Panels::from_fn(300, 1, |r, _| (r % 3) as f32);
        let design = Design::new(features, targets, 0..300, Arc::new(Transform::raw(1, Expansion::Linear, true)));
        let all = Selection::Range(0, 300);
        let by = |likelihood, theta: &[f64]| pass(&design, likelihood, theta, all, ALL, true).smallest_margin;
        assert_eq!(by(Likelihood::Multinomial { classes: 3, reference: true }, &[-0.5, 1.0, -2.0, 2.0]), 0.5);
        let symmetric = Likelihood::Multinomial { classes: 3, reference: false };
        assert_eq!(by(symmetric, &[0.0, 0.0, -0.5, 1.0, -2.0, 2.0]), 0.5);
        assert!(by(symmetric, &[0.0, 0.0, 0.5, 1.0, -2.0, 2.0]) < 0.0);
    }

    #[test]
    fn a_list_of_all_rows_is_a_pass_over_the_range() {
        let design = design(2999, 2);
        let theta = theta(design.columns());
        let rows: Vec<u32> = (0..design.rows() as u32).collect();
        let a = pass(&design, Likelihood::Binary, &theta, Selection::List(&rows), ALL, true);
        let b = pass(&design, Likelihood::Binary, &theta, Selection::Range(0, design.rows()), ALL, true);
        close(&a.gradient, &b.gradient, 1e-13);
        close(&a.squares, &b.squares, 1e-13);
        assert_eq!(a.correct, b.correct);
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let design = design(20_000, 2);
        let theta = theta(design.columns());
        let run =
            |threads: usize| {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                    pass(&design, Likelihood::Binary, &theta, Selection::Range(0, design.rows()), ALL, false)
                })
            };
        let (a, b) = (run(1), run(4));
        assert_eq!((a.loss, a.gradient, a.gram), (b.loss, b.gradient, b.gram));
    }

    #[test]
    fn sums_do_not_depend_on_how_much_of_a_mapped_file_may_stay() {
        use crate::device::panels::tests::mapped;
        let features = Panels::from_fn(20_000, 3, |r, c| ((r * 7919 + c * 104_729) % 1000) as f32 / 500.0 - 1.0);
        let targets = Panels::from_fn(20_000, 1, |r, _| (r % 3 / 2) as f32);
        let transform = Arc::new(Transform::raw(3, Expansion::Linear, true));
        let sums = |features, targets, high| {
            let design = Design::new(features, targets, 7..19_990, Arc::clone(&transform));
            let all = Selection::Range(0, design.rows());
            let request = Request { squares: false, ..ALL };
            let sums = pass(&design, Likelihood::Binary, &theta(4), all, request, high);
            (sums.loss, sums.gradient, sums.gram)
        };
        for high in [false, true] {
            let whole = sums(features.clone(), targets.clone(), high);
            for kept in [0, 50_000] {
                assert_eq!(whole, sums(mapped(&features, kept), mapped(&targets, kept), high));
            }
        }
    }

    #[test]
    fn confident_predictions_stay_finite_and_exact() {
        let features = Panels::from_fn(2, 1, |r, _| if r == 0 { 1.0 } else { -1.0 });
        let targets = Panels::from_fn(2, 1, |r, _| if r == 0 { 1.0 } else { 0.0 });
        let design = Design::new(features, targets, 0..2, Arc::new(Transform::raw(1, Expansion::Linear, false)));
        for high in [false, true] {
            let right = pass(&design, Likelihood::Binary, &[60.0], Selection::Range(0, 2), ALL, high);
            let expected = 2.0 * (-60.0_f64).exp();
            assert!((right.loss / expected - 1.0).abs() < 1e-5, "{} {expected}", right.loss);
            assert!((right.gradient[0] / -expected - 1.0).abs() < 1e-5);
            let wrong = pass(&design, Likelihood::Binary, &[-60.0], Selection::Range(0, 2), ALL, high);
            assert_eq!((wrong.loss, wrong.correct), (120.0, 0));
        }
    }
}
