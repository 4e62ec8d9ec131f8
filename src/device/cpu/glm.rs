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
use super::design::{Design, Selection, Tile, fold_selection, map_selection};
use super::gram::GramSum;
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
    fn absorb(&mut self, part: Self) {
        fn add(into: &mut Vec<f64>, from: Vec<f64>) {
            if into.is_empty() {
                *into = from;
            } else {
                into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
            }
        }
        self.loss += part.loss;
        add(&mut self.gradient, part.gradient);
        add(&mut self.squares, part.squares);
        add(&mut self.gram, part.gram);
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
pub(super) fn predictors<T: Real, S: Simd>(theta: &[T], z: &[T], columns: usize, eta: &mut [T]) {
    let outputs = eta.len() / PANEL_ROWS;
    if outputs > 1 {
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
                z.as_ptr(),
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
    eta.fill(T::default());
    let mut j = 0;
    while j + 4 <= columns {
        let t = [theta[j], theta[j + 1], theta[j + 2], theta[j + 3]];
        let (a, rest) = z[j * PANEL_ROWS..(j + 4) * PANEL_ROWS].split_at(PANEL_ROWS);
        let (b, rest) = rest.split_at(PANEL_ROWS);
        let (c, d) = rest.split_at(PANEL_ROWS);
        for i in 0..PANEL_ROWS {
            eta[i] = T::fma::<S>(
                t[3],
                d[i],
                T::fma::<S>(t[2], c[i], T::fma::<S>(t[1], b[i], T::fma::<S>(t[0], a[i], eta[i]))),
            );
        }
        j += 4;
    }
    for j in j..columns {
        let column = &z[j * PANEL_ROWS..][..PANEL_ROWS];
        for i in 0..PANEL_ROWS {
            eta[i] = T::fma::<S>(theta[j], column[i], eta[i]);
        }
    }
}

/// `sums += r z'`: `C x D` from `C x PANEL_ROWS` and `D x PANEL_ROWS`.
#[inline(always)]
pub(super) fn add_products<T: Real, S: Simd>(
    simd: S,
    r: &[T],
    z: &[T],
    columns: usize,
    product: &mut [T],
    sums: &mut [f64],
) {
    let outputs = r.len() / PANEL_ROWS;
    if outputs > 1 {
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
                z.as_ptr(),
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
    } else {
        let r = T::lanes::<S>(r);
        for (j, out) in product.iter_mut().enumerate() {
            let column = T::lanes::<S>(&z[j * PANEL_ROWS..][..PANEL_ROWS]);
            // Two running sums hide the latency of the multiply-add.
            let mut sum = [T::zero_lanes(simd); 2];
            for (r, column) in r.chunks_exact(2).zip(column.chunks_exact(2)) {
                sum[0] = T::fma_lanes(simd, r[0], column[0], sum[0]);
                sum[1] = T::fma_lanes(simd, r[1], column[1], sum[1]);
            }
            *out = T::sum_lanes(simd, sum[0]) + T::sum_lanes(simd, sum[1]);
        }
    }
    for (sum, &p) in sums.iter_mut().zip(product.iter()) {
        *sum += p.to_f64();
    }
}

/// The largest absolute value.
#[inline(always)]
fn largest<T: Real>(eta: &[T]) -> f64 {
    let mut lanes = [T::default(); 16];
    for eta in eta.chunks_exact(16) {
        for i in 0..16 {
            lanes[i] = lanes[i].larger(eta[i].abs());
        }
    }
    lanes.iter().fold(0.0, |m, l| m.max(l.to_f64()))
}

/// How many rows are classified rightly, and the smallest margin `(2y - 1) eta`. A predictor of zero says class 0.
#[inline(always)]
fn margins<T: Real>(eta: &[T], y: &[T]) -> (u64, f64) {
    let mut smallest = T::from_f64(f64::from(f32::MAX));
    let mut correct = 0_u32;
    for (&eta, &y) in eta.iter().zip(y) {
        let margin = if y == T::ONE { eta } else { -eta };
        let right = (eta > T::default()) == (y == T::ONE);
        correct += u32::from(right);
        smallest = if margin < smallest { margin } else { smallest };
    }
    (u64::from(correct), smallest.to_f64())
}

/// From `eta` and `y` to loss, residual and weight, row by row; rows beyond the tile's get zeros.
#[inline(always)]
pub(super) fn binary_rows<T: Real, S: Simd>(work: &mut Work<T>, tile: &Tile<T>) {
    let rows = tile.rows;
    let (eta, y) = (&work.eta[..PANEL_ROWS], &tile.y[..PANEL_ROWS]);
    let (residual, weight) = (&mut work.residual[..PANEL_ROWS], &mut work.weight[..PANEL_ROWS]);
    let loss = &mut work.loss[..PANEL_ROWS];
    for i in 0..PANEL_ROWS {
        let e = T::exp::<S>(-eta[i].abs());
        let high = T::ONE / (T::ONE + e);
        let low = e * high;
        let positive = eta[i] > T::default();
        let (p, q) = if positive { (high, low) } else { (low, high) };
        // y and 1 - y are 0 or 1: no cancellation where the probability is near its target.
        residual[i] = p * (T::ONE - y[i]) - q * y[i];
        weight[i] = high * low;
        let hinge = if positive { eta[i] } else { T::default() };
        loss[i] = (hinge - y[i] * eta[i]) + T::ln_1p_unit::<S>(e);
    }
    residual[rows..].fill(T::default());
    weight[rows..].fill(T::default());
    loss[rows..].fill(T::default());
}

/// From `eta` and a real `y` to loss, residual and weight; rows beyond the tile's get zeros.
#[inline(always)]
pub(super) fn gaussian_rows<T: Real>(work: &mut Work<T>, tile: &Tile<T>) {
    let rows = tile.rows;
    let half = T::from_f64(0.5);
    for i in 0..PANEL_ROWS {
        let residual = work.eta[i] - tile.y[i];
        work.residual[i] = residual;
        work.weight[i] = T::ONE;
        work.loss[i] = half * residual * residual;
    }
    work.residual[rows..].fill(T::default());
    work.weight[rows..].fill(T::default());
    work.loss[rows..].fill(T::default());
}

/// Turns linear predictors into probabilities in place; residuals and losses beside them. Answers how many rows are
/// classified rightly (of equally probable classes the first counts) and the smallest margin: the target's predictor less
/// the largest of the others.
#[inline(always)]
pub(super) fn multinomial_rows<T: Real, S: Simd>(work: &mut Work<T>, tile: &Tile<T>, reference: bool) -> (u64, f64) {
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
    for i in 0..rows {
        work.loss[i] = T::from_f64(sum[i].to_f64().ln() + (largest[i] - of_target[i]).to_f64());
    }
    work.loss[rows..].fill(T::default());
    let (mut correct, mut smallest) = (0, f64::INFINITY);
    for i in 0..rows {
        correct += u64::from(class_of_largest[i] == tile.y[i]);
        smallest = smallest.min((of_target[i] - of_others[i]).to_f64());
    }
    (correct, smallest)
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
        let mut gram = (self.request.gram != GramWeights::None).then(|| GramSum::<T>::new(columns));
        let mut work = Work::<T>::new(self.design, outputs, self.theta);
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            let (z, rows) = (&tile.z[..], tile.rows);
            predictors::<T, S>(&work.theta, z, columns, &mut work.eta);
            sums.largest_predictor = sums.largest_predictor.max(largest(&work.eta));
            match self.likelihood {
                Likelihood::Binary => {
                    let (correct, margin) = margins(&work.eta[..rows], &tile.y[..rows]);
                    sums.correct += correct;
                    sums.smallest_margin = sums.smallest_margin.min(margin);
                    binary_rows::<T, S>(&mut work, tile);
                }
                Likelihood::Multinomial { reference, .. } => {
                    let (correct, margin) = multinomial_rows::<T, S>(&mut work, tile, reference);
                    sums.correct += correct;
                    sums.smallest_margin = sums.smallest_margin.min(margin);
                }
                Likelihood::Gaussian => gaussian_rows(&mut work, tile),
            }
            sums.loss += work.loss[..rows].iter().map(|l| l.to_f64()).sum::<f64>();
            if self.request.gradient {
                add_products(simd, &work.residual, z, columns, &mut work.product, &mut sums.gradient);
            }
            if self.request.squares {
                for (c, squares) in sums.squares.chunks_exact_mut(columns).enumerate() {
                    let r = &work.residual[c * PANEL_ROWS..][..PANEL_ROWS];
                    for (sum, column) in squares.iter_mut().zip(z.chunks_exact(PANEL_ROWS)) {
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
                        work.weight[..rows].fill(T::ONE);
                        work.weight[rows..].fill(T::default());
                    }
                    _ => {}
                }
                gram.add(simd, z, &work.weight);
            }
        }
        if let Some(gram) = gram {
            sums.gram = gram.finish();
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
    let one = |_: usize, selection: Selection<'_>| {
        if high {
            let kind = std::marker::PhantomData::<f64>;
            Arch::new().dispatch(Pass { design, likelihood, theta, selection, request, kind })
        } else {
            let kind = std::marker::PhantomData::<f32>;
            Arch::new().dispatch(Pass { design, likelihood, theta, selection, request, kind })
        }
    };
    let mut total = Sums { smallest_margin: f64::INFINITY, ..Sums::default() };
    // Wide Gram matrices are added up as they come, so that no more of them exist than threads work on.
    let bytes = if request.gram == GramWeights::None { 0 } else { 8 * design.columns().pow(2) };
    fold_selection(selection, bytes, one, |part| total.absorb(part));
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
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        let columns = self.design.columns();
        let mut eta = Buffer::<f64>::new(self.outputs * PANEL_ROWS);
        let mut all = Vec::with_capacity(self.outputs * self.selection.len());
        let mut tile = self.design.tile();
        for span in self.design.spans(self.selection) {
            self.design.fill(span, &mut tile);
            let tile = &tile;
            predictors::<f64, S>(self.theta, &tile.z, columns, &mut eta);
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
