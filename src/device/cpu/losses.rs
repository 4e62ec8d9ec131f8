//! Losses of outputs, an example a column: their sum in `f64`, residuals `d loss/d o` and products with their Hessians.
//!
//! The logistic loss is `max(o, 0) - y o + ln(1 + exp(-|o|))`, its Hessian `p (1 - p)`; softmax subtracts the largest output
//! first, its Hessian is `diag(p) - p p'`; the squared loss has the identity, hinges none.

use super::products::{Rect, RectMut};
use super::real::Real;
use crate::device::Loss;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Columns that a task takes.
const TILE: usize = 64;

/// A loss that is a sum over single outputs.
pub(super) trait Single: Send + Sync {
    /// Loss and residual at output `o` with target `y`.
    fn at<S: Simd>(o: f32, y: f32) -> (f32, f32);
    /// The second derivative.
    fn curvature<S: Simd>(o: f32) -> f32;
}

pub(super) struct Logistic;
pub(super) struct Squared;
pub(super) struct Hinge;
pub(super) struct UnitHinge;

impl Single for Logistic {
    #[inline(always)]
    fn at<S: Simd>(o: f32, y: f32) -> (f32, f32) {
        let e = <f32 as Real>::exp::<S>(-o.abs());
        let high = 1.0 / (1.0 + e);
        let low = e * high;
        let (p, q) = if o > 0.0 { (high, low) } else { (low, high) };
        let hinge = if o < 0.0 { 0.0 } else { o };
        // 1 - y is exact where the target is a class: no cancellation near it.
        ((hinge - y * o) + f32::ln_by_series::<S>(e / (2.0 + e)), p * (1.0 - y) - q * y)
    }

    #[inline(always)]
    fn curvature<S: Simd>(o: f32) -> f32 {
        let e = <f32 as Real>::exp::<S>(-o.abs());
        let high = 1.0 / (1.0 + e);
        e * high * high
    }
}

impl Single for Squared {
    #[inline(always)]
    fn at<S: Simd>(o: f32, y: f32) -> (f32, f32) {
        (0.5 * (o - y) * (o - y), o - y)
    }

    #[inline(always)]
    fn curvature<S: Simd>(_: f32) -> f32 {
        1.0
    }
}

impl Single for Hinge {
    #[inline(always)]
    fn at<S: Simd>(o: f32, y: f32) -> (f32, f32) {
        let sign = 2.0 * y - 1.0;
        let short = 1.0 - sign * o;
        if short < 0.0 { (0.0, 0.0) } else { (short, -sign) }
    }

    #[inline(always)]
    fn curvature<S: Simd>(_: f32) -> f32 {
        0.0
    }
}

impl Single for UnitHinge {
    #[inline(always)]
    fn at<S: Simd>(o: f32, y: f32) -> (f32, f32) {
        let is_signal = y > 0.5;
        let short = if is_signal { 1.0 - o } else { o };
        if short < 0.0 { (0.0, 0.0) } else { (short, if is_signal { -1.0 } else { 1.0 }) }
    }

    #[inline(always)]
    fn curvature<S: Simd>(_: f32) -> f32 {
        0.0
    }
}

struct SingleRows<'a, L> {
    outputs: Rect<'a>,
    targets: Rect<'a>,
    /// Residuals of the same rows, and their stride.
    residual: Option<(&'a mut [f32], usize)>,
    factor: f32,
    first: usize,
    rows: usize,
    loss: std::marker::PhantomData<L>,
}

impl<L: Single> WithSimd for SingleRows<'_, L> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> f64 {
        let mut total = 0.0;
        let mut buffer = [0.0_f32; TILE];
        for i in 0..self.rows {
            let (o, y) = (self.outputs.row(self.first + i), self.targets.row(self.first + i));
            let mut residual = self.residual.as_mut().map(|(r, stride)| &mut r[i * *stride..][..o.len()]);
            let mut lanes = [0.0_f64; TILE];
            for start in (0..o.len()).step_by(TILE) {
                let width = TILE.min(o.len() - start);
                let (o, y) = (&o[start..start + width], &y[start..start + width]);
                if let Some(residual) = &mut residual {
                    let residual = &mut residual[start..start + width];
                    for j in 0..width {
                        let (loss, slope) = L::at::<S>(o[j], y[j]);
                        (buffer[j], residual[j]) = (loss, self.factor * slope);
                    }
                } else {
                    for j in 0..width {
                        buffer[j] = L::at::<S>(o[j], y[j]).0;
                    }
                }
                for j in 0..width {
                    lanes[j] += f64::from(buffer[j]);
                }
            }
            total += lanes.iter().sum::<f64>();
        }
        total
    }
}

fn single<L: Single>(o: Rect<'_>, y: Rect<'_>, residual: Option<(RectMut<'_>, f32)>, parallel: bool) -> f64 {
    let factor = residual.as_ref().map_or(1.0, |(_, factor)| *factor);
    let residual = residual.map(|(residual, _)| residual);
    let rows_at_once = if parallel { ((1 << 14) / o.columns.max(1)).max(1) } else { o.rows.max(1) };
    let loss = std::marker::PhantomData::<L>;
    let run = |first: usize, residual: Option<(&mut [f32], usize)>| {
        let rows = rows_at_once.min(o.rows - first);
        Arch::new().dispatch(SingleRows { outputs: o, targets: y, residual, factor, first, rows, loss })
    };
    if rows_at_once >= o.rows {
        return run(0, residual.map(|r| (r.values, r.stride)));
    }
    let parts: Vec<f64> = match residual {
        Some(r) => r
            .values
            .par_chunks_mut(rows_at_once * r.stride)
            .enumerate()
            .map(|(i, values)| run(i * rows_at_once, Some((values, r.stride))))
            .collect(),
        None => (0..o.rows.div_ceil(rows_at_once)).into_par_iter().map(|i| run(i * rows_at_once, None)).collect(),
    };
    parts.into_iter().sum()
}

/// The softmax of up to `TILE` columns: probabilities into `p`; answers largest output and sum of exponentials.
#[inline(always)]
fn probabilities<S: Simd>(o: Rect<'_>, start: usize, width: usize, p: &mut [f32]) -> ([f32; TILE], [f32; TILE]) {
    let mut largest = [f32::MIN; TILE];
    for k in 0..o.rows {
        let row = &o.row(k)[start..start + width];
        for j in 0..width {
            // Written so that a NaN output is not passed over.
            largest[j] = if row[j] < largest[j] { largest[j] } else { row[j] };
        }
    }
    let mut sum = [0.0; TILE];
    for (k, p) in p.chunks_exact_mut(TILE).enumerate() {
        let row = &o.row(k)[start..start + width];
        for j in 0..width {
            p[j] = <f32 as Real>::exp::<S>(row[j] - largest[j]);
            sum[j] += p[j];
        }
    }
    for p in p.chunks_exact_mut(TILE) {
        for j in 0..width {
            p[j] /= sum[j];
        }
    }
    (largest, sum)
}

struct Softmax<'a> {
    outputs: Rect<'a>,
    classes: &'a [f32],
    residual: Option<(RectMut<'a>, f32)>,
}

impl WithSimd for Softmax<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> f64 {
        let o = self.outputs;
        let mut p = vec![0.0; o.rows * TILE];
        let mut total = 0.0;
        for start in (0..o.columns).step_by(TILE) {
            let width = TILE.min(o.columns - start);
            let (largest, sum) = probabilities::<S>(o, start, width, &mut p);
            for j in 0..width {
                let class = self.classes[start + j] as usize;
                let of_class = o.values[class * o.stride + start + j];
                total += f64::from(sum[j]).ln() + f64::from(largest[j] - of_class);
            }
            if let Some((residual, factor)) = &mut self.residual {
                for (k, p) in p.chunks_exact(TILE).enumerate() {
                    let to = &mut residual.values[k * residual.stride + start..][..width];
                    for (j, to) in to.iter_mut().enumerate() {
                        let is_class = self.classes[start + j] == k as f32;
                        *to = *factor * (p[j] - if is_class { 1.0 } else { 0.0 });
                    }
                }
            }
        }
        total
    }
}

struct SampledSoftmax<'a> {
    outputs: Rect<'a>,
    uniform: &'a [f32],
    residual: RectMut<'a>,
}

impl WithSimd for SampledSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { outputs: o, uniform, residual } = self;
        let mut p = vec![0.0; o.rows * TILE];
        for start in (0..o.columns).step_by(TILE) {
            let width = TILE.min(o.columns - start);
            probabilities::<S>(o, start, width, &mut p);
            // The class at which the sum of probabilities passes the uniform number; by rounding the last one.
            let mut rest = [0.0; TILE];
            rest[..width].copy_from_slice(&uniform[start..start + width]);
            let mut is_open = [true; TILE];
            for (k, p) in p.chunks_exact(TILE).enumerate() {
                let to = &mut residual.values[k * residual.stride + start..][..width];
                for j in 0..width {
                    rest[j] -= p[j];
                    let is_class = is_open[j] && (rest[j] < 0.0 || k + 1 == o.rows);
                    is_open[j] &= !is_class;
                    to[j] = p[j] - if is_class { 1.0 } else { 0.0 };
                }
            }
        }
    }
}

/// Residuals at targets drawn from the model's own distribution, see
/// [`Backend::sampled_residual`](crate::device::Backend::sampled_residual); the hinge has no distribution and none.
pub(super) fn sampled_residual(loss: Loss, outputs: Rect<'_>, noise: Rect<'_>, residual: RectMut<'_>) {
    let rows = |residual: RectMut<'_>, f: fn(f32, f32) -> f32| {
        let (columns, stride) = (residual.columns, residual.stride);
        for (i, row) in residual.values.chunks_mut(stride).enumerate() {
            let numbers = outputs.row(i).iter().zip(noise.row(i));
            row[..columns].iter_mut().zip(numbers).for_each(|(to, (&o, &u))| *to = f(o, u));
        }
    };
    match loss {
        Loss::Logistic => rows(residual, |o, u| {
            let p = 1.0 / (1.0 + (-o).exp());
            if u < p { p - 1.0 } else { p }
        }),
        // y = o + u.
        Loss::Squared => rows(residual, |_, u| -u),
        Loss::Softmax => Arch::new().dispatch(SampledSoftmax { outputs, uniform: noise.row(0), residual }),
        Loss::Hinge | Loss::UnitHinge => rows(residual, |_, _| 0.0),
    }
}

/// The sum of losses; residuals times a factor where asked.
pub(super) fn loss(
    loss: Loss,
    outputs: Rect<'_>,
    targets: Rect<'_>,
    residual: Option<(RectMut<'_>, f32)>,
    parallel: bool,
) -> f64 {
    assert_eq!(outputs.columns, targets.columns, "examples of outputs and targets");
    match loss {
        Loss::Logistic => single::<Logistic>(outputs, targets, residual, parallel),
        Loss::Squared => single::<Squared>(outputs, targets, residual, parallel),
        Loss::Hinge => single::<Hinge>(outputs, targets, residual, parallel),
        Loss::UnitHinge => single::<UnitHinge>(outputs, targets, residual, parallel),
        Loss::Softmax => Arch::new().dispatch(Softmax { outputs, classes: targets.row(0), residual }),
    }
}

struct SingleCurvature<'a, L> {
    outputs: Rect<'a>,
    values: &'a mut [f32],
    stride: usize,
    first: usize,
    factor: f32,
    loss: std::marker::PhantomData<L>,
}

impl<L: Single> WithSimd for SingleCurvature<'_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (i, row) in self.values.chunks_mut(self.stride).enumerate() {
            for (t, &o) in row.iter_mut().zip(self.outputs.row(self.first + i)) {
                *t *= self.factor * L::curvature::<S>(o);
            }
        }
    }
}

struct SoftmaxCurvature<'a> {
    outputs: Rect<'a>,
    t: RectMut<'a>,
    factor: f32,
}

impl WithSimd for SoftmaxCurvature<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { outputs: o, t, factor } = self;
        let mut p = vec![0.0; o.rows * TILE];
        for start in (0..o.columns).step_by(TILE) {
            let width = TILE.min(o.columns - start);
            probabilities::<S>(o, start, width, &mut p);
            let mut mean = [0.0; TILE];
            for (k, p) in p.chunks_exact(TILE).enumerate() {
                let t = &t.values[k * t.stride + start..][..width];
                for j in 0..width {
                    mean[j] = f32::fma::<S>(p[j], t[j], mean[j]);
                }
            }
            for (k, p) in p.chunks_exact(TILE).enumerate() {
                let t = &mut t.values[k * t.stride + start..][..width];
                for j in 0..width {
                    t[j] = factor * p[j] * (t[j] - mean[j]);
                }
            }
        }
    }
}

/// `t = factor H t`, example by example.
pub(super) fn curvature(loss: Loss, outputs: Rect<'_>, t: RectMut<'_>, factor: f32, parallel: bool) {
    fn single<L: Single>(outputs: Rect<'_>, t: RectMut<'_>, factor: f32, parallel: bool) {
        let stride = t.stride;
        super::elementwise::for_row_groups(t, parallel, |first, values| {
            let loss = std::marker::PhantomData::<L>;
            Arch::new().dispatch(SingleCurvature { outputs, values, stride, first, factor, loss });
        });
    }
    match loss {
        Loss::Logistic => single::<Logistic>(outputs, t, factor, parallel),
        Loss::Squared => single::<Squared>(outputs, t, factor, parallel),
        Loss::Hinge => single::<Hinge>(outputs, t, factor, parallel),
        Loss::UnitHinge => single::<UnitHinge>(outputs, t, factor, parallel),
        Loss::Softmax => Arch::new().dispatch(SoftmaxCurvature { outputs, t, factor }),
    }
}
